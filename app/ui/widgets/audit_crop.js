// The part of a picture around a suspect, with the predicted and the labeled box and their names.

import { projectSlug } from "./api.js";
import { colorOf, textColorOn } from "./palette.js";

const AROUND = 0.55; // of the suspect's longer side, left free on each side of it
const LEAST_PX = 48; // image pixels: single pixels blown up tell nothing
const LOADING_AT_ONCE = 4;
const FONT = "600 11px system-ui, sans-serif";
const TAG_HEIGHT = 16;

const waiting = [];
let numLoading = 0;

/** The rectangle [x, y, width, height] of the image to show, of the shape of `size`; it may reach beyond small images. */
export function cropOf({ image, box, label_box: label }, size) {
  const boxes = label ? [box, label] : [box];
  const [x1, y1] = [0, 1].map((side) => Math.min(...boxes.map((one) => one[side])));
  const [x2, y2] = [2, 3].map((side) => Math.max(...boxes.map((one) => one[side])));
  const margin = 2 * AROUND * Math.max(x2 - x1, y2 - y1);
  const ratio = size.width / size.height;
  const wanted = Math.max(x2 - x1 + margin, (y2 - y1 + margin) * ratio, LEAST_PX);
  const width = Math.min(wanted, Math.max(image.width, image.height * ratio));
  const height = width / ratio;
  const start = (low, high, length, total) => (length >= total ? (total - length) / 2 : Math.min(Math.max((low + high - length) / 2, 0), total - length));
  return [start(x1, x2, width, image.width), start(y1, y2, height, image.height), width, height];
}

/**
 * Draw a suspect: its boxes at once, the picture below them when it has come, unless the canvas has left the page by then.
 * @param {Map<number, {name: string, position: number}>} categories
 */
export async function drawCrop(canvas, suspect, size, categories) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(size.width * ratio);
  canvas.height = Math.round(size.height * ratio);
  const crop = cropOf(suspect, size);
  const context = canvas.getContext("2d");
  const draw = (picture) => {
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, size.width, size.height);
    if (picture) drawPicture(context, picture, suspect.image, crop, size);
    drawBoxes(context, suspect, crop, size, categories);
  };
  draw(null);
  const picture = await loadPicture(suspect.image, () => canvas.isConnected);
  if (picture && canvas.isConnected) draw(picture);
}

function drawPicture(context, picture, image, [x, y, width, height], size) {
  const [fileX, fileY] = [picture.naturalWidth / image.width, picture.naturalHeight / image.height];
  const scale = size.width / width;
  const [left, top] = [Math.max(x, 0), Math.max(y, 0)];
  const [right, bottom] = [Math.min(x + width, image.width), Math.min(y + height, image.height)];
  context.imageSmoothingEnabled = scale < 6;
  context.imageSmoothingQuality = "medium";
  const source = [left * fileX, top * fileY, (right - left) * fileX, (bottom - top) * fileY];
  context.drawImage(picture, ...source, (left - x) * scale, (top - y) * scale, (right - left) * scale, (bottom - top) * scale);
}

function drawBoxes(context, suspect, [x, y, width], size, categories) {
  const scale = size.width / width;
  const place = (box) => [(box[0] - x) * scale, (box[1] - y) * scale, (box[2] - box[0]) * scale, (box[3] - box[1]) * scale];
  const color = (id) => colorOf(categories.get(id)?.position ?? 0);
  for (const [x1, y1, x2, y2, id] of suspect.nearby) stroke(context, place([x1, y1, x2, y2]), color(id), { alpha: 0.65, dash: [3, 3], width: 1 });
  if (suspect.label_box) stroke(context, place(suspect.label_box), color(suspect.labeled_id), { dash: [6, 4], width: 2 });
  stroke(context, place(suspect.box), color(suspect.predicted_id), { width: 2.25 });
  const [left, top, , tall] = place(suspect.box);
  tag(context, `${suspect.predicted} ${suspect.score.toFixed(2)}`, color(suspect.predicted_id), left, top - TAG_HEIGHT, size);
  if (!suspect.label_box) return;
  const [labelLeft, labelTop, , labelTall] = place(suspect.label_box);
  const below = Math.max(labelTop + labelTall, top + tall);
  tag(context, `labeled ${suspect.labeled}`, color(suspect.labeled_id), labelLeft, below, size);
}

function stroke(context, rectangle, color, { alpha = 1, dash = [], width }) {
  context.globalAlpha = alpha;
  context.setLineDash(dash);
  for (const [style, extra] of [["rgb(0 0 0 / 60%)", 1.75], [color, 0]]) {
    context.strokeStyle = style;
    context.lineWidth = width + extra;
    context.strokeRect(...rectangle);
  }
  context.setLineDash([]);
  context.globalAlpha = 1;
}

/** A name on its color, held inside the canvas and cut where it would be too long. */
function tag(context, text, color, x, y, size) {
  context.font = FONT;
  let shown = text;
  while (shown.length > 4 && context.measureText(shown).width + 8 > size.width) shown = `${shown.slice(0, -2).trimEnd()}…`;
  const width = context.measureText(shown).width + 8;
  const left = Math.min(Math.max(x - 1, 0), size.width - width);
  const top = Math.min(Math.max(y, 0), size.height - TAG_HEIGHT);
  context.fillStyle = color;
  context.fillRect(left, top, width, TAG_HEIGHT);
  context.fillStyle = textColorOn(color);
  context.textBaseline = "middle";
  context.fillText(shown, left + 4, top + TAG_HEIGHT / 2 + 0.5);
}

/** The whole picture of an image, a few at a time; null when nobody waits for it any more or it cannot be shown. */
function loadPicture(image, isWanted) {
  return new Promise((resolve) => {
    waiting.push({ image, isWanted, resolve });
    loadNext();
  });
}

async function loadNext() {
  if (numLoading >= LOADING_AT_ONCE || !waiting.length) return;
  const { image, isWanted, resolve } = waiting.shift();
  numLoading += 1;
  resolve(isWanted() ? await decoded(image) : null);
  numLoading -= 1;
  loadNext();
}

async function decoded(image) {
  const picture = new Image();
  picture.src = `/img/${encodeURIComponent(projectSlug())}/${image.id}?v=${image.sha256.slice(0, 16)}-${image.rotation}`;
  try {
    await picture.decode();
    return picture;
  } catch (error) {
    console.warn(`The picture of ${image.file_name} could not be shown.`, error);
    return null;
  }
}

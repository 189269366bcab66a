// What DetectionCanvas shows: the picture on one canvas, boxes with labels and handles on the other.
//
// Everything here is in CSS pixels of the canvas, except bboxes, which are in image pixels and go through the view.

import { HANDLES, handleAt, handlePoint } from "./box_geometry.js";
import { addMark } from "./box_marks.js";
import { textColorOn } from "./palette.js";

const CRISP_SCALE = 3; // from here on the single pixels are shown instead of being smoothed
const HANDLE_REACH_PX = 7;
const LABEL_FONT = "600 11px system-ui, sans-serif";
const LABEL_HEIGHT = 15;
const MIN_LABEL_PX = 56; // narrower than this a shortened label says nothing
const FORCED_LABEL_PX = 360; // of the hovered and the selected box

export class CanvasPainter {
  /** Put the two canvases into `root`. */
  constructor(root) {
    this.pictureCanvas = root.appendChild(document.createElement("canvas"));
    this.boxCanvas = root.appendChild(document.createElement("canvas"));
    this.width = 0;
    this.height = 0;
    this._ratio = 1;
    this._labelWidths = new Map();
  }

  /** Make the canvases fit a size in CSS pixels at the sharpness of the screen; this blanks them. */
  resize(width, height) {
    this._ratio = window.devicePixelRatio || 1;
    Object.assign(this, { width, height });
    for (const canvas of [this.pictureCanvas, this.boxCanvas]) {
      canvas.width = Math.max(1, Math.round(width * this._ratio));
      canvas.height = Math.max(1, Math.round(height * this._ratio));
    }
  }

  _blank(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(this._ratio, 0, 0, this._ratio, 0, 0);
    return context;
  }

  /** The part of the picture that is in sight; `size` is that of the image, in which the view counts. */
  drawPicture(picture, size, view) {
    const context = this._blank(this.pictureCanvas);
    if (!picture || !size.width) return;
    const { scale, x, y } = view;
    // Only what is in sight is handed to drawImage: far zooms into large pictures stay cheap.
    const [left, top] = [Math.max(0, Math.floor(-x / scale)), Math.max(0, Math.floor(-y / scale))];
    const right = Math.min(size.width, Math.ceil((this.width - x) / scale));
    const bottom = Math.min(size.height, Math.ceil((this.height - y) / scale));
    if (right <= left || bottom <= top) return;
    const fileX = (picture.naturalWidth ?? picture.width) / size.width;
    const fileY = (picture.naturalHeight ?? picture.height) / size.height;
    context.imageSmoothingEnabled = scale * this._ratio < CRISP_SCALE;
    context.imageSmoothingQuality = "medium";
    const source = [left * fileX, top * fileY, (right - left) * fileX, (bottom - top) * fileY];
    const target = [left * scale + x, top * scale + y, (right - left) * scale, (bottom - top) * scale];
    context.drawImage(picture, ...source, ...target);
  }

  /**
   * @param {Object} scene
   * @param {ShownBox[]} scene.boxes
   * @param {{scale: number, x: number, y: number}} scene.view
   * @param {number} scene.selected index of the box with handles, or -1
   * @param {number} scene.hovered index of the highlighted box, or -1
   * @param {boolean} scene.hasHandles whether the selected box shows handles
   * @param {{index: number, bbox: number[]}|null} scene.moving a box that is not yet where it is stored
   * @param {{bbox: number[], color: string}|null} scene.drawn a new box
   * @param {{x: number, y: number, frame: number[]}|null} scene.crosshair a point and the rectangle its lines cross
   */
  drawBoxes(scene) {
    const context = this._blank(this.boxCanvas);
    context.lineJoin = "round";
    const shown = this._inSight(scene);
    this._strokeAll(context, shown);
    for (const item of shown) this._drawLabel(context, item, false);
    for (const item of shown) {
      const isSelected = item.index === scene.selected;
      if (isSelected || item.index === scene.hovered) this._drawFocus(context, item, isSelected);
      if (isSelected && scene.hasHandles) this._drawHandles(context, item);
    }
    if (scene.drawn) this._drawNew(context, scene.drawn, scene.view);
    if (scene.crosshair) this._drawCrosshair(context, scene.crosshair);
  }

  /** The boxes in sight with their rectangles. */
  _inSight({ boxes, view: { scale, x, y }, moving }) {
    const shown = [];
    boxes.forEach((box, index) => {
      const bbox = moving?.index === index ? moving.bbox : box.bbox;
      const left = bbox[0] * scale + x;
      const top = bbox[1] * scale + y;
      const width = (bbox[2] - bbox[0]) * scale;
      const height = (bbox[3] - bbox[1]) * scale;
      const isInSight = left < this.width && top < this.height && left + width > 0 && top + height > 0;
      if (isInSight) shown.push({ index, box, left, top, width, height });
    });
    return shown;
  }

  /** One path per kind of line: a dark line under each coloured one, so that boxes show on any picture. */
  _strokeAll(context, shown) {
    const groups = new Map();
    for (const item of shown) {
      const { color, dashed = false, faint = false, mark } = item.box;
      const key = `${color} ${dashed} ${faint}`;
      if (!groups.has(key)) groups.set(key, { color, dashed, faint, path: new Path2D(), marks: new Path2D() });
      const { path, marks } = groups.get(key);
      path.rect(item.left, item.top, item.width, item.height);
      if (mark) addMark(marks, mark, item.left + item.width, item.top, Math.min(item.width, item.height));
    }
    for (const group of groups.values()) this._stroke(context, group, "rgba(0, 0, 0, 0.6)", 3.5);
    for (const group of groups.values()) this._stroke(context, group, group.color, 1.75);
    context.globalAlpha = 1;
  }

  _stroke(context, { dashed, faint, path, marks }, color, width) {
    context.globalAlpha = faint ? 0.4 : 1;
    context.strokeStyle = color;
    context.lineWidth = width;
    context.setLineDash(Array.isArray(dashed) ? dashed : dashed ? [6, 4] : []);
    context.stroke(path);
    context.setLineDash([]);
    context.stroke(marks);
  }

  _drawLabel(context, item, isForced) {
    const label = (isForced && item.box.fullLabel) || item.box.label;
    if (!label || (!isForced && item.height < LABEL_HEIGHT)) return;
    const room = isForced ? Math.max(item.width, FORCED_LABEL_PX) : item.width;
    const text = this._shortened(context, label, room - 8);
    if (!text) return;
    const textWidth = this._labelWidth(context, text) + 8;
    const left = Math.max(item.left - 1, 0);
    const top = item.box.isLabelBelow ? this._topBelow(item) : this._topAbove(item);
    context.globalAlpha = item.box.faint && !isForced ? 0.4 : 1;
    context.fillStyle = item.box.color;
    context.fillRect(left, top, textWidth, LABEL_HEIGHT);
    context.fillStyle = inkOn(item.box.color);
    context.font = LABEL_FONT;
    context.textBaseline = "middle";
    context.fillText(text, left + 4, top + LABEL_HEIGHT / 2 + 0.5);
    context.globalAlpha = 1;
  }

  /** Where a label over a box begins; inside of it where the box reaches the upper end of the canvas. */
  _topAbove({ top }) {
    return top >= LABEL_HEIGHT ? top - LABEL_HEIGHT : Math.max(top, 0);
  }

  /** Where a label under a box begins; inside of it where the box reaches the lower end of the canvas. */
  _topBelow({ top, height }) {
    const bottom = top + height;
    return bottom + LABEL_HEIGHT <= this.height ? bottom : Math.min(bottom, this.height) - LABEL_HEIGHT;
  }

  /** The text, or its beginning, as wide as there is room; "" where little of it would be left. */
  _shortened(context, text, room) {
    const width = this._labelWidth(context, text);
    if (width <= room) return text;
    if (room < MIN_LABEL_PX) return "";
    const letters = [...text];
    let count = Math.floor((letters.length * room) / width);
    let short;
    do short = `${letters.slice(0, count--).join("").trimEnd()}…`;
    while (count > 0 && this._labelWidth(context, short) > room);
    return short;
  }

  _labelWidth(context, text) {
    if (!this._labelWidths.has(text)) {
      if (this._labelWidths.size > 5000) this._labelWidths.clear();
      context.font = LABEL_FONT;
      this._labelWidths.set(text, context.measureText(text).width);
    }
    return this._labelWidths.get(text);
  }

  _drawFocus(context, item, isSelected) {
    context.globalAlpha = isSelected ? 0.18 : 0.12;
    context.fillStyle = item.box.color;
    context.fillRect(item.left, item.top, item.width, item.height);
    context.globalAlpha = 1;
    context.strokeStyle = "rgba(0, 0, 0, 0.75)";
    context.lineWidth = 5;
    context.strokeRect(item.left, item.top, item.width, item.height);
    context.strokeStyle = item.box.color;
    context.lineWidth = isSelected ? 2.75 : 2.25;
    context.strokeRect(item.left, item.top, item.width, item.height);
    this._drawLabel(context, item, true);
  }

  _drawHandles(context, item) {
    const rectangle = [item.left, item.top, item.left + item.width, item.top + item.height];
    context.fillStyle = "#ffffff";
    context.strokeStyle = "rgba(0, 0, 0, 0.8)";
    context.lineWidth = 1;
    for (const handle of HANDLES) {
      const at = handlePoint(rectangle, handle);
      if (handleAt(rectangle, at, HANDLE_REACH_PX) !== handle) continue;
      context.fillRect(at.x - 3.5, at.y - 3.5, 7, 7);
      context.strokeRect(at.x - 3.5, at.y - 3.5, 7, 7);
    }
  }

  _drawNew(context, { bbox, color }, { scale, x, y }) {
    const rectangle = [bbox[0] * scale + x, bbox[1] * scale + y, (bbox[2] - bbox[0]) * scale, (bbox[3] - bbox[1]) * scale];
    context.strokeStyle = "rgba(0, 0, 0, 0.75)";
    context.lineWidth = 4;
    context.strokeRect(...rectangle);
    context.strokeStyle = color;
    context.lineWidth = 2;
    context.strokeRect(...rectangle);
  }

  /** Lines through the pointer across the picture: they show where the edges of a new box will fall. */
  _drawCrosshair(context, { x, y, frame: [left, top, right, bottom] }) {
    const path = new Path2D();
    path.moveTo(left, y);
    path.lineTo(right, y);
    path.moveTo(x, top);
    path.lineTo(x, bottom);
    context.lineWidth = 1;
    context.strokeStyle = "rgba(0, 0, 0, 0.55)";
    context.stroke(path);
    context.setLineDash([4, 4]);
    context.strokeStyle = "rgba(255, 255, 255, 0.9)";
    context.stroke(path);
    context.setLineDash([]);
  }
}

const inks = new Map();

/** textColorOn, remembered: a frame may ask for a thousand labels. */
function inkOn(color) {
  if (!inks.has(color)) inks.set(color, textColorOn(color));
  return inks.get(color);
}

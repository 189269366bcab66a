// A thumbnail with its boxes: the picture as the server renders it, the boxes on a canvas over it.

import { projectSlug } from "./api.js";
import { colorOf } from "./palette.js";

const SIZES = [128, 256, 512];

/** The address of a thumbnail at least `width` CSS pixels wide; it changes with the picture, so it is cached for good. */
export function thumbnailURL(image, width) {
  const wanted = width * (window.devicePixelRatio || 1);
  const size = SIZES.find((one) => one >= wanted) ?? SIZES.at(-1);
  const version = `${image.sha256.slice(0, 16)}-${image.rotation}`;
  return `/thumb/${encodeURIComponent(projectSlug())}/${image.id}?size=${size}&v=${version}`;
}

/**
 * Draw boxes [x1, y1, x2, y2, category id] of a picture of `width` x `height` that is fitted into the canvas.
 * `positions` maps category ids to palette positions; with `emphasis` (a category id) the others stay faint.
 */
export function drawBoxes(canvas, boxes, width, height, positions, emphasis = null) {
  const ratio = window.devicePixelRatio || 1;
  const area = { width: canvas.clientWidth || canvas.width, height: canvas.clientHeight || canvas.height };
  canvas.width = Math.round(area.width * ratio);
  canvas.height = Math.round(area.height * ratio);
  const context = canvas.getContext("2d");
  const scale = Math.min(canvas.width / width, canvas.height / height);
  const left = (canvas.width - width * scale) / 2;
  const top = (canvas.height - height * scale) / 2;
  for (const isOutline of [true, false]) {
    context.lineWidth = (isOutline ? 3 : 1.5) * ratio;
    for (const [x1, y1, x2, y2, category] of boxes) {
      context.globalAlpha = emphasis !== null && category !== emphasis ? 0.3 : 1;
      context.strokeStyle = isOutline ? "rgb(0 0 0 / 45%)" : colorOf(positions.get(category) ?? 0);
      context.strokeRect(left + x1 * scale, top + y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale);
    }
  }
}

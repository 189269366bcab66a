// Drawing predictions over ground truth: the outcome is told by color, by the kind of line and by a mark in the corner.

import { addMark } from "./box_marks.js";
import { OUTCOMES } from "./outcomes.js";

const FAINT = 0.3;
const SOUGHT_GAP_PX = 2; // around its box, so that a speck is still seen inside
/** The outline of what a list of images was opened for. */
export const SOUGHT = { color: "#ffffff", dash: [3, 3] };

/** Draw boxes into a canvas context whose unit is a CSS pixel; `scale` is CSS pixels per image pixel. */
export function drawBoxes(context, boxes, scale, colors) {
  for (const isFaint of [true, false]) {
    const chosen = boxes.filter((box) => box.isFaint === isFaint);
    if (!chosen.length) continue;
    context.globalAlpha = isFaint ? FAINT : 1;
    strokeBoxes(context, chosen, scale, colors);
  }
  context.globalAlpha = 1;
  context.setLineDash([]);
}

/** Draw the boxes [x1, y1, x2, y2] that an image is listed for, over all others. */
export function drawSought(context, bboxes, scale) {
  const path = new Path2D();
  const extent = (low, high) => (high - low) * scale + 2 * SOUGHT_GAP_PX;
  for (const [x1, y1, x2, y2] of bboxes) path.rect(x1 * scale - SOUGHT_GAP_PX, y1 * scale - SOUGHT_GAP_PX, extent(x1, x2), extent(y1, y2));
  for (const [color, width, dash] of [["rgba(0, 0, 0, 0.8)", 3.5, []], [SOUGHT.color, 1.75, SOUGHT.dash]]) {
    context.setLineDash(dash);
    context.strokeStyle = color;
    context.lineWidth = width;
    context.stroke(path);
  }
  context.setLineDash([]);
}

function strokeBoxes(context, boxes, scale, colors) {
  const paths = Object.fromEntries(Object.keys(OUTCOMES).map((name) => [name, { lines: new Path2D(), marks: new Path2D() }]));
  for (const { bbox: [x1, y1, x2, y2], outcome } of boxes) {
    const [width, height] = [(x2 - x1) * scale, (y2 - y1) * scale];
    const { mark } = OUTCOMES[outcome];
    paths[outcome].lines.rect(x1 * scale, y1 * scale, width, height);
    if (mark) addMark(paths[outcome].marks, mark, x2 * scale, y1 * scale, Math.min(width, height));
  }
  for (const [color, width] of [["rgba(0, 0, 0, 0.6)", 3.5], [null, 1.75]]) {
    for (const name of ["fn", "fp", "tp"]) {
      context.strokeStyle = color ?? colors[name];
      context.lineWidth = width;
      context.setLineDash(OUTCOMES[name].dash);
      context.stroke(paths[name].lines);
      context.setLineDash([]);
      context.stroke(paths[name].marks);
    }
  }
}

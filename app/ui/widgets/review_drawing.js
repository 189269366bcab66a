// Drawing predictions over ground truth: the outcome is told by color, by the kind of line and by a mark in the corner.

import { addMark } from "./box_marks.js";
import { OUTCOMES } from "./review_data.js";

const FAINT = 0.3;
const NS = "http://www.w3.org/2000/svg";

/** The colors of the outcomes as the theme has them now. */
export function outcomeColors(node) {
  const style = getComputedStyle(node);
  return Object.fromEntries(Object.keys(OUTCOMES).map((name) => [name, style.getPropertyValue(`--a-${name}`).trim()]));
}

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

/** A short line in the color and kind of an outcome with its mark, as the legend shows it. */
export function outcomeMark(name) {
  const { dash, mark } = OUTCOMES[name];
  const svg = shape("svg", { width: 34, height: 12, "aria-hidden": "true" });
  const line = shape("line", { x1: 1, x2: 23, y1: 6, y2: 6, "stroke-width": 3, "stroke-dasharray": dash.join(" ") });
  svg.append(line);
  if (mark === "cross") svg.append(shape("path", { d: "M26 2.5l7 7m0-7l-7 7", "stroke-width": 2, fill: "none" }));
  if (mark === "ring") svg.append(shape("circle", { cx: 29.5, cy: 6, r: 3.4, "stroke-width": 2, fill: "none" }));
  svg.style.stroke = `var(--a-${name})`;
  return svg;
}

function shape(tag, attributes) {
  const node = document.createElementNS(NS, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

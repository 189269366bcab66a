// Drawing predictions over ground truth: the outcome is told by color and by the kind of line.

import { OUTCOMES } from "./review_data.js";

/** The colors of the outcomes as the theme has them now. */
export function outcomeColors(node) {
  const style = getComputedStyle(node);
  return Object.fromEntries(Object.keys(OUTCOMES).map((name) => [name, style.getPropertyValue(`--a-${name}`).trim()]));
}

/** Draw boxes into a canvas context whose unit is a CSS pixel; `scale` is CSS pixels per image pixel. */
export function drawBoxes(context, boxes, scale, colors) {
  const paths = Object.fromEntries(Object.keys(OUTCOMES).map((name) => [name, new Path2D()]));
  for (const { bbox: [x1, y1, x2, y2], outcome } of boxes) {
    paths[outcome].rect(x1 * scale, y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale);
  }
  for (const [color, width] of [["rgba(0, 0, 0, 0.6)", 3.5], [null, 1.75]]) {
    for (const name of ["fn", "fp", "tp"]) {
      context.strokeStyle = color ?? colors[name];
      context.lineWidth = width;
      context.setLineDash(OUTCOMES[name].dash);
      context.stroke(paths[name]);
    }
  }
  context.setLineDash([]);
}

/** A short line in the color and kind of an outcome, as the legend shows it. */
export function outcomeMark(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", "26");
  svg.setAttribute("height", "10");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [key, value] of Object.entries({ x1: 1, x2: 25, y1: 5, y2: 5, "stroke-width": 3 })) line.setAttribute(key, value);
  line.style.stroke = `var(--a-${name})`;
  line.setAttribute("stroke-dasharray", OUTCOMES[name].dash.join(" "));
  svg.append(line);
  return svg;
}

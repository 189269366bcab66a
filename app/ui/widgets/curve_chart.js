// A small line chart in SVG, 0..1 on both axes, drawn from the theme's variables, with a point that can be moved.

const NS = "http://www.w3.org/2000/svg";
const BOX = { width: 320, height: 196, left: 38, right: 10, top: 10, bottom: 30 };
const KEY_STEPS = { ArrowLeft: -0.01, ArrowDown: -0.01, ArrowRight: 0.01, ArrowUp: 0.01, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1 };

const toX = (value) => BOX.left + value * (BOX.width - BOX.left - BOX.right);
const toY = (value) => BOX.height - BOX.bottom - value * (BOX.height - BOX.top - BOX.bottom);

function svg(tag, attributes, text) {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/**
 * @param {Object} options
 * @param {string} options.label what the chart shows, for screen readers
 * @param {string} options.x @param {string} options.y names of the axes
 * @param {boolean} [options.hasRule] a vertical line through the point
 * @param {string} options.pointLabel what the point stands for, for screen readers
 * @param {(at: {x: number, y: number}) => void} options.onMove the point was dragged to here (0..1), or the chart pressed
 * @param {(step: number) => void} options.onStep a key asks for a step of the point's value
 * @returns {SVGElement} with setLines({name, x, y, color, width?, dash?}[]) and setPoint({x, y, value, text} | null)
 */
export function curveChart({ label, x, y, hasRule = false, pointLabel, onMove, onStep }) {
  const root = svg("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, class: "curve-chart", role: "group", "aria-label": label });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    root.append(svg("line", { class: "grid", x1: toX(0), x2: toX(1), y1: toY(value), y2: toY(value) }));
    if (value % 0.5 === 0) root.append(svg("text", { class: "tick", x: BOX.left - 6, y: toY(value) + 4, "text-anchor": "end" }, String(value)));
    root.append(svg("text", { class: "tick", x: toX(value), y: BOX.height - BOX.bottom + 14, "text-anchor": "middle" }, String(value)));
  }
  root.append(svg("text", { class: "axis", x: toX(0.5), y: BOX.height - 3, "text-anchor": "middle" }, x));
  if (y) root.append(svg("text", { class: "axis", "text-anchor": "middle", transform: `translate(9 ${toY(0.5)}) rotate(-90)` }, y));
  const curves = svg("g", {});
  const rule = svg("line", { class: "marker", y1: toY(0), y2: toY(1), visibility: "hidden" });
  const range = { "aria-valuemin": 0, "aria-valuemax": 1 };
  const point = svg("circle", { class: "point", r: 6, role: "slider", tabindex: 0, "aria-label": pointLabel, ...range, visibility: "hidden" });
  root.append(curves, rule, point);
  root.setLines = (lines) => curves.replaceChildren(...lines.map(curve));
  root.setPoint = (at) => {
    point.setAttribute("visibility", at ? "visible" : "hidden");
    rule.setAttribute("visibility", at && hasRule ? "visible" : "hidden");
    if (!at) return;
    for (const [name, value] of [["x1", toX(at.x)], ["x2", toX(at.x)]]) rule.setAttribute(name, value);
    for (const [name, value] of [["cx", toX(at.x)], ["cy", toY(at.y)]]) point.setAttribute(name, value);
    point.setAttribute("aria-valuenow", at.value);
    point.setAttribute("aria-valuetext", at.text);
  };
  listen(root, point, onMove, onStep);
  return root;
}

function listen(root, point, onMove, onStep) {
  const move = (event) => {
    const frame = root.getBoundingClientRect();
    const [left, top] = [((event.clientX - frame.left) / frame.width) * BOX.width, ((event.clientY - frame.top) / frame.height) * BOX.height];
    const within = (value) => Math.min(Math.max(value, 0), 1);
    onMove({ x: within((left - toX(0)) / (toX(1) - toX(0))), y: within((top - toY(0)) / (toY(1) - toY(0))) });
  };
  root.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || point.getAttribute("visibility") === "hidden") return;
    root.setPointerCapture(event.pointerId);
    point.focus({ preventScroll: true });
    move(event);
    event.preventDefault();
  });
  root.addEventListener("pointermove", (event) => root.hasPointerCapture(event.pointerId) && move(event));
  point.addEventListener("keydown", (event) => {
    if (!KEY_STEPS[event.key]) return;
    onStep(KEY_STEPS[event.key]);
    event.preventDefault();
    event.stopPropagation();
  });
}

function curve({ name, x, y, color, width = 1.75, dash = "" }) {
  const points = y.map((value, index) => `${toX(x[index]).toFixed(1)},${toY(Math.max(value, 0)).toFixed(1)}`);
  const distinct = points.filter((text, index) => text !== points[index - 1]); // thousands of points, few places
  const node = svg("polyline", { "data-line": name, points: distinct.join(" "), fill: "none", "stroke-width": width, "stroke-dasharray": dash, "stroke-linejoin": "round" });
  node.style.stroke = color;
  return node;
}

// A small line chart in SVG, 0..1 on both axes, drawn from the theme's variables.

const NS = "http://www.w3.org/2000/svg";
const BOX = { width: 320, height: 176, left: 30, right: 8, top: 8, bottom: 30 };

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
 * @param {string} options.x name of the horizontal axis
 * @param {{x: number[], y: number[], color: string, width?: number, dash?: string}[]} options.lines
 * @returns {SVGElement} with setMarker(value | null), a vertical line at a value of x
 */
export function curveChart({ label, x, lines }) {
  const root = svg("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, class: "curve-chart", role: "img", "aria-label": label });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    root.append(svg("line", { class: "grid", x1: toX(0), x2: toX(1), y1: toY(value), y2: toY(value) }));
    if (value % 0.5 === 0) root.append(svg("text", { class: "tick", x: BOX.left - 6, y: toY(value) + 4, "text-anchor": "end" }, String(value)));
    root.append(svg("text", { class: "tick", x: toX(value), y: BOX.height - BOX.bottom + 14, "text-anchor": "middle" }, String(value)));
  }
  root.append(svg("text", { class: "axis", x: toX(0.5), y: BOX.height - 3, "text-anchor": "middle" }, x));
  for (const line of lines) root.append(curve(line));
  const marker = svg("line", { class: "marker", y1: toY(0), y2: toY(1), visibility: "hidden" });
  root.append(marker);
  root.setMarker = (value) => {
    marker.setAttribute("visibility", value === null ? "hidden" : "visible");
    if (value === null) return;
    marker.setAttribute("x1", toX(value));
    marker.setAttribute("x2", toX(value));
  };
  return root;
}

function curve({ x, y, color, width = 1.75, dash = "" }) {
  const points = y.map((value, index) => `${toX(x[index]).toFixed(1)},${toY(Math.max(value, 0)).toFixed(1)}`).join(" ");
  const node = svg("polyline", { points, fill: "none", "stroke-width": width, "stroke-dasharray": dash, "stroke-linejoin": "round" });
  node.style.stroke = color;
  return node;
}

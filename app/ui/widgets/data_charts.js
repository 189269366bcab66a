// Small SVG charts of a dataset: histograms and stacked shares. Colors come from the theme, so both modes fit.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 360;
const HEIGHT = 176;
const LEFT = 34;
const BOTTOM = 18;
const TOP = 8;

/**
 * A histogram. `edges` has one number more than `counts` (its last may be null: no upper end); `labelOf(edge)` writes
 * an edge. Bars have equal width whatever their edges; hovering one tells its range and count.
 */
export function histogram({ edges, counts, labelOf = String, unit = "" }) {
  const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img" });
  const top = niceCeiling(Math.max(1, ...counts));
  const plotWidth = WIDTH - LEFT - 4;
  const plotHeight = HEIGHT - TOP - BOTTOM;
  for (const share of [0, 0.5, 1]) {
    const y = TOP + plotHeight * (1 - share);
    chart.append(svg("line", { x1: LEFT, x2: WIDTH - 4, y1: y, y2: y, class: share ? "rule" : "axis" }));
    if (share !== 0.5 || top % 2 === 0) chart.append(text(LEFT - 5, y + 3.5, shortNumber(top * share), "end"));
  }
  const step = plotWidth / counts.length;
  counts.forEach((count, index) => {
    const height = (plotHeight * count) / top;
    const bar = svg("rect", {
      x: LEFT + index * step + Math.min(1, step * 0.1), y: TOP + plotHeight - height,
      width: Math.max(1, step - Math.min(2, step * 0.2)), height, class: "bar",
    });
    const [low, high] = [edges[index], edges[index + 1]];
    const range = high === null ? `${labelOf(low)} or more` : `${labelOf(low)} to ${labelOf(high)}`;
    const hit = svg("rect", { x: LEFT + index * step, y: TOP, width: step, height: plotHeight, class: "hit" });
    hit.append(titled(`${range}${unit && ` ${unit}`}: ${count.toLocaleString("en")}`));
    chart.append(bar, hit);
  });
  const everyNth = Math.ceil(edges.length / 9);
  edges.forEach((edge, index) => {
    if (edge === null || index % everyNth) return;
    const anchor = index === 0 ? "start" : index === edges.length - 1 ? "end" : "middle";
    chart.append(text(LEFT + index * step, HEIGHT - 4, labelOf(edge), anchor));
  });
  return chart;
}

/** A histogram of whole numbers that fall into bars [from, to): with bars of one, the number stands under its bar. */
export function countHistogram({ edges, counts }) {
  const width = edges[1] - edges[0];
  if (width === 1) return histogram({ edges: [...edges.slice(0, -1), null], counts, labelOf: String, unit: "objects" });
  return histogram({ edges, counts, unit: "objects" });
}

/**
 * Rows of one full-width bar each, divided by share. `rows`: [{label, parts: [{name, value, color}]}]; a part tells
 * its name, number and share when hovered. Rows without anything are left out.
 */
export function shares(rows) {
  const filled = rows.filter((row) => row.parts.some((part) => part.value > 0));
  const rowHeight = 48;
  const height = Math.max(1, filled.length) * rowHeight;
  const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "chart shares", role: "img" });
  filled.forEach((row, index) => {
    const total = row.parts.reduce((sum, part) => sum + part.value, 0);
    const y = index * rowHeight;
    chart.append(text(0, y + 12, row.label, "start"), text(WIDTH, y + 12, total.toLocaleString("en"), "end"));
    let x = 0;
    for (const part of row.parts) {
      const width = (WIDTH * part.value) / total;
      if (!width) continue;
      const piece = svg("rect", { x, y: y + 17, width: Math.max(0.6, width - 1), height: 20, fill: part.color });
      piece.append(titled(`${part.name}: ${part.value.toLocaleString("en")} (${percent(part.value, total)})`));
      chart.append(piece);
      x += width;
    }
  });
  return chart;
}

/** "12 %", "<1 %" or "0 %". */
export function percent(part, whole) {
  if (!part || !whole) return "0 %";
  const value = (100 * part) / whole;
  return value < 1 ? "<1 %" : `${Math.round(value)} %`;
}

function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((factor) => factor * power >= value) * power;
}

function shortNumber(value) {
  return value >= 10000 ? `${+(value / 1000).toFixed(1)}k` : String(+value.toFixed(1));
}

function svg(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function text(x, y, content, anchor) {
  const node = svg("text", { x, y, "text-anchor": anchor });
  node.textContent = content;
  return node;
}

function titled(content) {
  const node = svg("title", {});
  node.textContent = content;
  return node;
}

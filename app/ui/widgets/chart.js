// A live line chart on uPlot: new points redraw without losing the zoom, colors follow the theme, lines are named
// above the plot and can be hidden. Drag to zoom, double-click to see everything again.

import uPlot from "./uplot.js";
import { element } from "./element.js";
import { duration } from "./number_words.js";

const LINE_PX = 1.6;
const STEPS = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((factor) => Number(`${factor}e${power - 3}`))).flat();
const CLOCK_STEPS = [1, 2, 5, 10, 15, 30];
const HOUR_STEPS = [1, 2, 5, 10, 20, 50, 100];

/** A theme variable's value on an element, read at each draw so that light and dark need nothing else. */
function themed(node, name) {
  return getComputedStyle(node).getPropertyValue(name).trim();
}

/** A number for people: three significant digits, small ones as 1.2e-5; with ``keepsZeros`` 0.91 is 0.910. */
export function shortNumber(value, { keepsZeros = false } = {}) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1).replace("e+", "e");
  if (size >= 1000) return value.toFixed(0);
  return keepsZeros ? value.toPrecision(3) : String(Number(value.toPrecision(3)));
}

/** Exponential mean of a noisy series, corrected for its beginning as in Adam (arXiv:1412.6980, section 3). */
export function smoothed(values, keep = 0.9) {
  let mean = 0;
  return values.map((value, index) => {
    mean = keep * mean + (1 - keep) * value;
    return mean / (1 - keep ** (index + 1));
  });
}

const isNamed = (line) => !line.isFaint && !line.isMark;

/** A range with some room at its ends, so that points there are whole. */
function widened(low, high) {
  const room = (high - low) * 0.04 || 1;
  return [low - room, high + room];
}

/** Steps between the ticks below: epochs and training steps are whole, unless little more than one is seen. */
function wholeSteps(_plot, _axis, low, high) {
  return high - low > 2 ? STEPS.filter((step) => step >= 1) : STEPS;
}

/** Horizontal axes: how their values read, and the steps between the ticks. */
export const NUMBERS = { formatX: shortNumber, stepsX: wholeSteps };
/** Of seconds, at whole minutes and hours: "30 s", "1 min", "1 min 30 s". */
export const TIME = {
  formatX: (seconds) => duration(seconds).replace(/ 0 (min|s)$/, ""),
  stepsX: [...CLOCK_STEPS, ...CLOCK_STEPS.map((step) => 60 * step), ...HOUR_STEPS.map((step) => 3600 * step)],
};

export class LineChart {
  /**
   * @param {HTMLElement} host filled and watched for its size
   * @param {{title?: string, range?: [number, number], formatX?: (x: number) => string, stepsX?: number[],
   *   hasLegend?: boolean, ticksX?: () => number[], rangeX?: () => [number, number], hidden?: string[]}} options
   *   formatX and stepsX: NUMBERS or TIME; ticksX: the only values to name on the horizontal axis; rangeX: what of it is
   *   seen unless zoomed, else where there is data; hidden: labels of lines that are shown once they are pressed
   */
  constructor(host, options = {}) {
    this.host = host;
    this.options = { hasLegend: true, ...NUMBERS, ...options };
    this.lines = [];
    this.entries = [];
    this.hidden = new Set(options.hidden);
    this.isZoomed = false;
    this.legend = element("div", { class: "chart-legend" });
    this.heading = element("span", { class: "title" }, options.title ?? "");
    this.plotHost = element("div", { class: "chart-plot" });
    this.empty = element("div", { class: "chart-empty a-muted" }, "Nothing to show yet");
    host.classList.add("a-chart");
    this.legend.append(this.heading);
    host.append(...(this.options.hasLegend ? [this.legend] : []), this.plotHost, this.empty);
    new ResizeObserver(() => this.resize()).observe(this.plotHost);
    const onTheme = new MutationObserver(() => (host.isConnected ? this.plot?.redraw() : onTheme.disconnect()));
    onTheme.observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }

  /**
   * Show these lines: {key, label, color, x, y, isFaint?, isMark?, dash?}[], x rising. Lines of the same keys keep the
   * zoom. Faint lines and marks (rings, for points beside a line) come and go with the line of their label.
   */
  setLines(lines) {
    const shown = lines.filter((line) => line.x.length);
    const signature = JSON.stringify(shown.map((line) => [line.key, line.color, line.isFaint, line.dash]));
    this.lines = shown;
    this.host.dataset.points = String(shown.reduce((sum, line) => sum + line.x.length, 0));
    this.empty.hidden = shown.length > 0;
    this.plotHost.classList.toggle("blank", shown.length === 0);
    if (signature !== this.signature) this.rebuild(signature);
    else if (this.plot) this.plot.setData(this.table(), !this.isZoomed);
    this.writeLegend();
  }

  /** What stands before the names of the lines. */
  setTitle(title) {
    this.heading.textContent = title;
  }

  /** Another horizontal axis, NUMBERS or TIME: forget the zoom. */
  resetX({ formatX, stepsX }) {
    Object.assign(this.options, { formatX, stepsX });
    this.isZoomed = false;
    this.signature = null;
  }

  table() {
    if (!this.lines.length) return [[], []];
    const [first] = this.lines;
    const isShared = this.lines.every(
      ({ x }) => x.length === first.x.length && x[0] === first.x[0] && x.at(-1) === first.x.at(-1),
    );
    if (isShared) return [first.x, ...this.lines.map((line) => line.y)];
    return uPlot.join(this.lines.map((line) => [line.x, line.y]));
  }

  rebuild(signature) {
    this.signature = signature;
    const zoom = this.isZoomed && this.plot ? { min: this.plot.scales.x.min, max: this.plot.scales.x.max } : null;
    this.plot?.destroy();
    this.plot = null;
    if (!this.lines.length) return;
    this.plot = new uPlot(this.settings(), this.table(), this.plotHost);
    if (zoom) this.plot.setScale("x", zoom);
    this.plot.over.addEventListener("dblclick", () => {
      this.isZoomed = false;
      this.plot.setData(this.table(), true);
    });
  }

  settings() {
    const axis = {
      stroke: () => themed(this.host, "--a-muted"),
      grid: { stroke: () => themed(this.host, "--a-border"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    return {
      ...this.size(),
      legend: { show: false },
      cursor: { points: { size: 6 }, drag: { x: true, y: false } },
      scales: { x: { time: false, range: (plot, low, high) => this.seenX(plot, low, high) }, y: this.options.range ? { range: this.options.range } : {} },
      axes: [
        { ...axis, size: 30, gap: 8, space: 60, incrs: this.options.stepsX, values: (_, ticks) => ticks.map((tick) => this.options.formatX(tick)), ...(this.options.ticksX && { splits: this.options.ticksX }) },
        { ...axis, size: 46, gap: 4, space: 32, values: (_, ticks) => ticks.map((tick) => shortNumber(tick)) },
      ],
      series: [{}, ...this.lines.map((line) => this.seriesOf(line))],
      hooks: {
        setSelect: [(plot) => (this.isZoomed ||= plot.select.width > 0)],
        setCursor: [() => this.writeValues()],
      },
    };
  }

  /** What of the horizontal axis is seen when `low` to `high` is asked for: by a zoom a part of the data, else all of it. */
  seenX({ data: [x] }, low, high) {
    const { ticksX, rangeX } = this.options;
    if (ticksX) return widened(low, high);
    return rangeX && low <= x[0] && high >= x.at(-1) ? rangeX() : [low, high];
  }

  seriesOf(line) {
    const ring = { show: true, size: 9, width: 2, stroke: line.color, fill: () => themed(this.host, "--a-surface") };
    const points = { show: line.x.length < 40 && !line.isFaint, size: 4, stroke: line.color, fill: line.color };
    return {
      stroke: line.isFaint ? `${line.color}80` : line.color,
      width: line.isFaint ? 1 : LINE_PX,
      dash: line.dash,
      spanGaps: true,
      show: !this.hidden.has(line.label),
      points: line.isMark ? ring : points,
    };
  }

  size() {
    const { width, height } = this.plotHost.getBoundingClientRect();
    return { width: Math.max(120, Math.floor(width)), height: Math.max(60, Math.floor(height)) };
  }

  resize() {
    if (this.plot && this.plotHost.clientWidth) this.plot.setSize(this.size());
  }

  writeLegend() {
    const named = this.lines.filter(isNamed);
    const names = JSON.stringify(named.map((line) => [line.label, line.color]));
    if (names !== this.legendNames) {
      this.legendNames = names;
      this.entries = named.map((line) => this.legendEntry(line));
      this.legend.replaceChildren(this.heading, ...this.entries);
    }
    this.writeValues();
  }

  legendEntry(line) {
    const swatch = element("span", { class: "a-swatch" });
    swatch.style.background = line.color;
    const toggle = () => {
      if (!this.hidden.delete(line.label)) this.hidden.add(line.label);
      entry.classList.toggle("off", this.hidden.has(line.label));
      entry.setAttribute("aria-pressed", String(!this.hidden.has(line.label)));
      this.lines.forEach((one, index) => {
        if (one.label === line.label) this.plot.setSeries(index + 1, { show: !this.hidden.has(line.label) });
      });
    };
    const entry = element(
      "button",
      { type: "button", title: "Show or hide this line", "aria-pressed": !this.hidden.has(line.label) ? "true" : "false", onclick: toggle },
      swatch,
      element("span", { class: "label", title: line.label }, line.label),
      element("span", { class: "value" }),
    );
    entry.classList.toggle("off", this.hidden.has(line.label));
    return entry;
  }

  /** Values under the cursor, else the newest ones. */
  writeValues() {
    if (!this.options.hasLegend || !this.plot) return;
    const index = this.plot.cursor.idx;
    const { entries } = this;
    let entry = 0;
    this.lines.forEach((line, position) => {
      if (!isNamed(line)) return;
      const hovered = index === null || index === undefined ? undefined : this.plot.data[position + 1]?.[index];
      const text = shortNumber(hovered ?? line.y.at(-1), { keepsZeros: true });
      if (entries[entry]) entries[entry].lastChild.textContent = text;
      entry += 1;
    });
  }
}

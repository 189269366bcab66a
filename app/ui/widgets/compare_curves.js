// The curves of the runs that are compared, one color a run, over epochs or over the time of training.

import { getJSON, getParam, notify, poll, projectURL, setParam } from "./api.js";
import { LineChart, NUMBERS, smoothed, TIME } from "./chart.js";
import { colorOfSide, letterOf } from "./compare_sides.js";
import { element } from "./element.js";
import { isLive } from "./job_states.js";
import { duration } from "./number_words.js";

const AXES = {
  epoch: { title: "Epochs", ...NUMBERS },
  time: { title: "Time", ...TIME },
};
const CHARTS = [
  { name: "map50", key: "valid/map50", title: "mAP50", range: [0, 1] },
  { name: "map", key: "valid/map", title: "mAP", range: [0, 1] },
  { name: "f1", key: "valid/f1", title: "F1", range: [0, 1] },
  { name: "loss", key: "train/loss", title: "Loss, smoothed" },
];
const NAMES = "map50,map,f1,loss";
const LIVE_MS = 3000;

export class CurveCharts {
  constructor({ answer, figures }) {
    this.answer = answer;
    this.axis = getParam("axis") in AXES ? getParam("axis") : "epoch";
    this.series = new Map(); // run id -> "split/name" -> columns
    // Several sides may be of one run: it has one curve, in the color of the first.
    this.runs = answer.sides.map((side, place) => ({ ...side, place })).filter((side, at, all) => all.findIndex((one) => one.run === side.run) === at);
    const toggles = Object.entries(AXES).map(([name, { title }]) => element("button", { type: "button", class: "a-button small", "data-axis": name, "aria-pressed": String(name === this.axis), onclick: () => this._setAxis(name) }, title));
    this.toggles = toggles;
    this.reached = element("p", { class: "note", role: "status" });
    const isRelabeled = this.runs.length > 1 && figures?.truth.relabeled.length > 0;
    this.charts = CHARTS.map((chart) => ({ ...chart, host: element("div", { class: "chart-host", "data-chart": chart.name }) }));
    this.root = element(
      "div",
      { class: "curves", "data-loaded": "false" },
      element("div", { class: "a-toolbar" }, element("span", { class: "switch", role: "group", "aria-label": "Horizontal axis" }, ...toggles), this.reached),
      isRelabeled ? element("p", { class: "note" }, "Each curve was judged while its run trained, on the labels of that time.") : null,
      element("div", { class: "charts" }, ...this.charts.map((chart) => element("div", { class: "a-card chart" }, chart.host))),
    );
    const { formatX, stepsX } = AXES[this.axis];
    const shared = { formatX, stepsX, rangeX: () => [0, this.endX] };
    for (const chart of this.charts) chart.plot = new LineChart(chart.host, { title: chart.title, range: chart.range, ...shared });
  }

  onShown() {
    this._load();
    if (this.runs.some(isLive)) this.stop = poll(() => this._load(), LIVE_MS, this.root);
  }

  destroy() {
    this.stop?.();
  }

  async _load() {
    try {
      await Promise.all(this.runs.map(async ({ run }) => this.series.set(run, await loadSeries(run))));
    } catch (error) {
      return notify(error, "error");
    }
    this._draw();
    this.root.dataset.loaded = "true";
  }

  _setAxis(axis) {
    this.axis = axis;
    setParam("axis", axis === "epoch" ? null : axis);
    for (const toggle of this.toggles) toggle.setAttribute("aria-pressed", String(toggle.dataset.axis === axis));
    for (const chart of this.charts) chart.plot.resetX(AXES[axis]);
    this._draw();
  }

  retheme() {
    this._draw();
  }

  /** All charts from 0 to where the longest run ends, so that they can be read below each other. */
  _draw() {
    const drawn = this.charts.map((chart) => this.runs.flatMap((run) => this._line(chart, run)));
    this.endX = Math.max(...drawn.flat().map(({ x }) => x.at(-1) ?? 0), 0) || 1;
    this.charts.forEach(({ plot }, at) => plot.setLines(drawn[at]));
    this.reached.textContent = this._sayReached();
    this.root.dataset.axis = this.axis;
  }

  _line({ key, name }, run) {
    const series = this.series.get(run.run);
    const columns = series?.get(key);
    if (!columns) return [];
    const y = name === "loss" ? smoothed(columns.value) : columns.value;
    return [{ key: `${run.run}`, label: `${letterOf(run.place)} ${run.run_name}`, color: colorOfSide(run.place), x: this._x(columns, series), y }];
  }

  /** Epochs as fractions, so that losses and figures of runs with other numbers of steps lie over each other. */
  _x(columns, series) {
    if (this.axis === "time") return columns.elapsed_s;
    const judged = series.get("valid/map50");
    const perEpoch = judged?.step.length ? judged.step.at(-1) / judged.epoch.at(-1) : null;
    return perEpoch ? columns.step.map((step) => step / perEpoch) : columns.epoch;
  }

  /** When each run was first as good as the weakest of them ever got. */
  _sayReached() {
    const judged = this.runs.map((run) => ({ ...run, columns: this.series.get(run.run)?.get("valid/map50") })).filter((run) => run.columns?.value.length);
    if (judged.length < 2) return "";
    const level = Math.min(...judged.map(({ columns }) => Math.max(...columns.value)));
    const each = judged.map(({ columns, place }) => {
      const at = columns.value.findIndex((value) => value >= level);
      return `${letterOf(place)} in epoch ${columns.epoch[at]} after ${duration(columns.elapsed_s[at])}`;
    });
    return `mAP50 ${level.toFixed(3)} was first reached by ${each.join(", by ")}.`;
  }
}

async function loadSeries(run) {
  const series = new Map();
  let after = 0;
  let answer;
  do {
    answer = await getJSON(projectURL(`/runs/${run}/metrics?names=${NAMES}&after=${after}`));
    for (const [key, columns] of Object.entries(answer.series)) {
      const known = series.get(key) ?? { step: [], epoch: [], elapsed_s: [], value: [] };
      for (const [name, values] of Object.entries(columns)) for (const value of values) known[name].push(value);
      series.set(key, known);
    }
    after = answer.last;
  } while (answer.has_more);
  return series;
}

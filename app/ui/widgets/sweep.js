// <anchorage-sweep>: every kept checkpoint of a run judged in one table, with two soups of their weights. The property `runId`
// says which run, `splits` (set before it, {name: number of images}) what it can be judged on; the split stands in the
// address (sweep=).
//
// State for tests and styles lies in data-* attributes: state (idle, loading, partial, sweeping, ready, failed), rows, split, noise (measuring,
// ready; empty while rows are missing).

import { getJSON, getParam, notify, pageURL, projectURL, sendJSON, setParam } from "./api.js";
import { LineChart } from "./chart.js";
import { element } from "./element.js";
import { MeasuringNoise } from "./ensemble_noise.js";
import { JobProgress } from "./job_progress.js";
import { formatFigure, signed } from "./number_words.js";
import { colorOf, MOST_LINES } from "./palette.js";

const SPLITS = ["valid", "test"];
const FIGURES = [
  ["map", "mAP", "COCO's AP over IoU .50 to .95"],
  ["map50", "mAP50", "AP at IoU .50"],
  ["map75", "mAP75", "AP at IoU .75"],
  ["f1", "F1", "Best F1 at IoU .50"],
  ["score", "Score", "By the run's selection metric"],
];

class AnchorageSweep extends HTMLElement {
  connectedCallback() {
    if (this._isStarted) return;
    this._isStarted = true;
    // A run given before this element was defined lies on it as a plain property, in front of the setter.
    const given = this.hasOwnProperty("runId") ? this.runId : this._runId;
    delete this.runId;
    this._build();
    this._onMode = () => this._drawChart();
    window.addEventListener("anchorage:mode", this._onMode);
    this.runId = given ?? null;
  }

  disconnectedCallback() {
    this._isStarted = false;
    this.progress?.end();
    window.removeEventListener("anchorage:mode", this._onMode);
    this.replaceChildren();
  }

  get runId() {
    return this._runId;
  }

  set runId(id) {
    this._runId = id;
    if (!this._isStarted) return;
    this.dataset.state = "idle";
    this.hidden = !id;
    if (!id) return;
    this._offerSplits();
    this._load();
  }

  _offerSplits() {
    const offered = SPLITS.filter((split) => !this.splits || this.splits[split]);
    if (offered.length && !offered.includes(this.split)) this.split = offered[0];
    this.picker.replaceChildren(...offered.map((split) => element("option", { value: split, selected: split === this.split }, split)));
  }

  _build() {
    const chosen = getParam("sweep");
    this.split = SPLITS.includes(chosen) ? chosen : "valid";
    this.picker = element("select", { class: "a-input", "aria-label": "Images to judge on", onchange: () => this._choose(this.picker.value) });
    this.go = element("button", { type: "button", class: "a-button primary", onclick: () => this._sweep() }, "Judge every checkpoint");
    this.content = element("div", { class: "content" });
    this.replaceChildren(
      element(
        "section",
        { class: "a-card sweep", "aria-label": "Checkpoint sweep" },
        element("div", { class: "a-toolbar" }, element("h3", {}, "Every kept checkpoint"), element("span", { class: "spacer" }), element("label", { class: "pick" }, "Judged on", this.picker), this.go),
        element("p", { class: "note" }, "All that a run kept in one table, and two soups: the average of all weights, and that of those which do not lower the score on valid. Columns of classes are AP50."),
        this.content,
      ),
    );
  }

  _choose(split) {
    this.split = split;
    setParam("sweep", split);
    this._load();
  }

  async _load() {
    const asked = `${this.runId} ${this.split}`;
    this.asked = asked;
    this.dataset.state = "loading";
    try {
      const table = await getJSON(projectURL(`/runs/${this.runId}/sweep?split=${this.split}`));
      if (this.asked === asked) this._show(table);
    } catch (error) {
      if (this.asked === asked) this._fail(error);
    }
  }

  async _sweep() {
    this.go.disabled = true;
    try {
      const { job } = await sendJSON("POST", projectURL(`/runs/${this.runId}/sweep`), { split: this.split });
      this._follow(job);
    } catch (error) {
      this.go.disabled = false;
      notify(error, "error");
    }
  }

  _show(table) {
    this.table = table;
    this.dataset.rows = table.rows.length;
    this.dataset.split = table.split;
    if (table.job) return this._follow(table.job);
    const { length: left } = table.missing;
    this.go.disabled = false;
    this.go.hidden = left === 0;
    this.go.textContent = table.rows.length ? "Judge the rest" : "Judge every checkpoint";
    this.dataset.state = left ? "partial" : "ready";
    const steps = left === 1 ? "1 step is missing" : `${left} steps are missing`;
    const verdict = table.verdict || (table.rows.length ? `Not the whole table yet: ${steps}.` : `Nothing is judged on ${table.split} yet.`);
    const noise = table.is_measured ? [] : [this._measureNoise(table)];
    this.dataset.noise = left ? "" : noise.length ? "measuring" : "ready";
    this.content.replaceChildren(element("p", { class: "verdict" }, verdict.replace(/-(?=\d)/g, "−")), ...noise, ...(table.rows.length ? this._figures() : []));
    this._drawChart();
    return null;
  }

  /** Whether a lead is more than chance is measured once, when somebody first looks at the whole table. */
  _measureNoise({ run, split }) {
    const asked = this.asked;
    const address = projectURL(`/runs/${run}/sweep/noise?split=${split}`);
    return new MeasuringNoise(address, this, (table) => this.asked === asked && this._show(table)).root;
  }

  _follow(job) {
    this.dataset.state = "sweeping";
    this.go.disabled = true;
    this.progress?.end();
    this.progress = new JobProgress([job], { title: `Judging on ${job.payload.split}`, onEnd: () => this._load() });
    this.content.replaceChildren(this.progress.root, ...(this.table?.rows.length ? this._figures() : []));
    this._drawChart();
  }

  // ---- what came of it --------------------------------------------------------------------------------------------

  _figures() {
    this.chartHost = element("div", { class: "curves" });
    const more = this.table.rows[0].per_class.slice(MOST_LINES).map(({ name }) => name);
    this.chart = new LineChart(this.chartHost, { title: "AP50 by epoch", formatX: (x) => this.nameOfX(x), ticksX: () => this.ticks, hidden: more });
    const note = more.length ? element("p", { class: "note" }, `The first ${MOST_LINES} classes are drawn: press the name of another to add its line.`) : "";
    return [element("div", { class: "table-scroll" }, this._table()), ...this._notes(), this.chartHost, note];
  }

  _table() {
    const { rows } = this.table;
    const classes = rows[0].per_class;
    const behind = `Score less that of ${rows[0].name}, with its 95 % interval`;
    const head = [["", "Checkpoint", ""], ...FIGURES, ["", "Less the best", behind], ["", "In words", "Gray is what drawing the images anew explains"], ...classes.map(({ name }) => ["", name, `AP50 of ${name}`])];
    const best = Object.fromEntries(FIGURES.map(([key]) => [key, formatFigure(Math.max(...rows.map((row) => row[key])))]));
    const cells = (row) => [
      ...FIGURES.map(([key]) => element("td", { class: `a-number${formatFigure(row[key]) === best[key] ? " best" : ""}`, "data-figure": key }, formatFigure(row[key]))),
      ...noiseCells(row.noise),
      ...row.per_class.map((entry) => element("td", { class: "a-number" }, formatFigure(entry.ap50))),
    ];
    return element(
      "table",
      { class: "a-table judged" },
      element("thead", {}, element("tr", {}, ...head.map(([, name, help], index) => element("th", { class: index && name !== "In words" ? "a-number" : null, title: help }, name)))),
      element("tbody", {}, ...rows.map((row) => element("tr", { "data-checkpoint": row.checkpoint_id }, element("td", {}, this._name(row)), ...cells(row)))),
    );
  }

  _notes() {
    const { rows, split } = this.table;
    return rows.some((row) => row.is_chosen_here) ? [element("p", { class: "note" }, `The greedy soup was chosen on ${split}: its figures flatter it here.`)] : [];
  }

  _name(row) {
    const link = element("a", { href: pageURL("/review", { set: row.set }), title: "Look through its predictions" }, row.name);
    if (!row.soup) return link;
    const count = row.members.length;
    return element("span", {}, link, element("span", { class: "a-muted members", title: row.members.join("\n") }, count === 1 ? " of 1" : ` of ${count}`));
  }

  /** A line for each class and one for all, over the epochs; the soups stand behind the last epoch as single points. */
  _drawChart() {
    if (!this.chart || !this.chartHost.isConnected) return;
    const trained = this.table.rows.filter((row) => !row.soup).sort((a, b) => a.epoch - b.epoch);
    const soups = ["uniform", "greedy"].map((recipe) => this.table.rows.find((row) => row.soup === recipe)).filter(Boolean);
    const epochs = trained.map((row) => row.epoch);
    const last = epochs.at(-1);
    const step = Math.max(1, (last - epochs[0]) / 6);
    this.ticks = [...epochs, ...soups.map((_, index) => last + (index + 1) * step)];
    this.nameOfX = (x) => soups[this.ticks.indexOf(x) - epochs.length]?.soup ?? (epochs.includes(x) ? String(x) : "");
    const names = this.table.rows[0].per_class.map((entry) => entry.name);
    const color = getComputedStyle(this).getPropertyValue("--a-text").trim();
    const series = [
      { label: "All classes", color, of: (row) => row.map50 },
      ...names.map((label, index) => ({ label, color: colorOf(index), of: (row) => row.per_class[index].ap50 })),
    ];
    const measured = (rows, of) => rows.map((row) => (of(row) < 0 ? null : of(row)));
    this.chart.setLines([
      ...series.map(({ label, color: own, of }) => ({ key: label, label, color: own, x: epochs, y: measured(trained, of) })),
      ...series.flatMap(({ label, color: own, of }) =>
        soups.map((row, index) => ({ key: `${label} ${row.soup}`, label, color: own, x: [this.ticks[epochs.length + index]], y: measured([row], of), isMark: true })),
      ),
    ]);
  }

  _fail(error) {
    this.dataset.state = "failed";
    const retry = element("button", { type: "button", class: "a-button small", onclick: () => this._load() }, "Try again");
    this.go.disabled = true;
    this.content.replaceChildren(element("p", { class: "verdict" }, `${error.message} ${error.hint ?? ""}`), retry);
  }
}

/** A row's score less the best one's, in gray where chance explains it; dashes for the best row, and while it is not known. */
function noiseCells(noise) {
  if (!noise || noise.outcome === null) return [element("td", { class: "a-number a-muted" }, "–"), element("td", { class: "a-muted" }, "–")];
  const kind = noise.is_clear ? "" : " a-muted";
  const interval = element("span", { class: "interval" }, `${signed(noise.low)} to ${signed(noise.high)}`);
  return [
    element("td", { class: `a-number behind${kind}` }, signed(noise.difference), interval),
    element("td", { class: `words${kind}`, "data-outcome": noise.outcome }, noise.words),
  ];
}

if (!customElements.get("anchorage-sweep")) customElements.define("anchorage-sweep", AnchorageSweep);

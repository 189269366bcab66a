// <anchorage-train>: start runs and watch them live. Everything shown comes from the store by REST, so a reload, another
// tab or a restarted app shows the same. ?run= is the run that is looked at, ?runs= the others drawn beside it,
// ?axis= and ?smooth=0 how.

import { getJSON, getParam, notify, pageURL, poll, projectSlug, projectURL, setParam } from "./api.js";
import { LineChart, NUMBERS, shortNumber, smoothed, TIME } from "./chart.js";
import { element } from "./element.js";
import { isLive } from "./job_states.js";
import { openRunCard } from "./model_card.js";
import { duration, formatFigure } from "./number_words.js";
import { lineColor } from "./palette.js";
import { RunForm } from "./train_form.js";
import { RunTable, comparedRuns, nextSteps } from "./train_runs.js";
import { TimeBar } from "./train_time.js";

const POLL_MS = 1000;
const PLACE = /(https?:\/\/[^\s,]+|(?:[A-Z]:)?[\\/][^\s,\\/]+[\\/][^\s,]+)/; // an address or a path, in a message
const AXES = {
  step: { title: "Steps", ...NUMBERS },
  epoch: { title: "Epochs", ...NUMBERS },
  elapsed_s: { title: "Time", ...TIME },
};
const USUAL_AXIS = "step";
const CHARTS = [
  { name: "loss", title: "Losses", comparedTitle: "Total loss", split: "train", main: "loss", match: /^loss/, isNoisy: true },
  { name: "score", title: "Validation", comparedTitle: "mAP50", split: "valid", main: "map50", match: /^(map|map50|map75|f1)$/, range: [0, 1] },
  { name: "rate", title: "Learning rate", comparedTitle: "Learning rate", split: "train", main: "learning_rate", match: /^learning_rate$/ },
];
const TITLES = { loss: "total", loss_classifier: "class", loss_box_reg: "box", loss_objectness: "objectness", loss_rpn_box_reg: "RPN box", map: "mAP", map50: "mAP50", map75: "mAP75", f1: "F1", learning_rate: "now" };
const ORDER = Object.keys(TITLES);

/** A run's numbers as they arrive: "split/name" -> columns. */
class History {
  constructor() {
    this.series = new Map();
    this.last = 0;
    this.attempt = null; // whose numbers these are: another one has taken back the end of them and tells it anew
    this.isComplete = false;
  }

  async load(run) {
    const isOver = !isLive(run); // asked before the numbers: none can come after this answer
    let answer;
    do {
      answer = await getJSON(projectURL(`/runs/${run.id}/metrics?after=${this.last}`));
      if (this.attempt !== null && answer.attempt !== this.attempt) {
        Object.assign(this, { series: new Map(), last: 0, attempt: null });
        return this.load(run);
      }
      this.attempt = answer.attempt;
      for (const [key, columns] of Object.entries(answer.series)) this.add(key, columns);
      this.last = answer.last;
    } while (answer.has_more);
    this.isComplete = isOver;
  }

  add(key, columns) {
    const known = this.series.get(key) ?? { step: [], epoch: [], elapsed_s: [], value: [] };
    for (const [name, values] of Object.entries(columns)) for (const value of values) known[name].push(value);
    this.series.set(key, known);
  }

  names(split, match) {
    const names = [...this.series.keys()].filter((key) => key.startsWith(`${split}/`)).map((key) => key.slice(split.length + 1));
    return names.filter((name) => match.test(name)).sort((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b));
  }

  newest(key) {
    return this.series.get(key)?.value.at(-1);
  }

  /** x of a series; epochs as fractions, so that steps of several runs can be laid over each other. */
  x(columns, axis, stepsPerEpoch) {
    return axis === "epoch" ? columns.step.map((step) => step / stepsPerEpoch) : columns[axis];
  }
}

/** Two figures of the best checkpoint: the one that it was chosen by, and another. */
function bestFigures(run) {
  const { map50, f1, score } = run.best;
  const metric = run.config.selection_metric ?? "map50_f1";
  const pairs = {
    map50_f1: [["Best mAP50", map50], ["Best F1", f1]],
    map50: [["Best mAP50", map50], ["its F1", f1]],
    f1: [["Best F1", f1], ["its mAP50", map50]],
    map: [["Best mAP", score], ["its mAP50", map50]],
    map75: [["Best mAP75", score], ["its mAP50", map50]],
  };
  return (pairs[metric] ?? pairs.map50_f1).map(([title, value]) => [title, formatFigure(value)]);
}

class AnchorageTrain extends HTMLElement {
  async connectedCallback() {
    if (this.childElementCount) return;
    this.runs = [];
    this.histories = new Map();
    this.models = []; // those of GET /config
    this.focusId = Number(getParam("run")) || null;
    this.shown = new Set((getParam("runs") ?? "").split(",").map(Number).filter(Boolean));
    this.axis = Object.hasOwn(AXES, getParam("axis")) ? getParam("axis") : USUAL_AXIS;
    this.isSmooth = getParam("smooth") !== "0";
    this.logText = null;
    this.dataset.ready = "false";
    if (!projectSlug()) return this.append(element("div", { class: "a-empty" }, element("h2", {}, "No project is open"), element("a", { class: "a-button primary", href: "/" }, "Choose a project")));
    this.build();
    await this.loadForm();
    poll(() => this.refresh(), POLL_MS, this);
  }

  build() {
    this.formHost = element("div", { class: "train-side" });
    this.table = new RunTable({
      onFocus: (id) => this.focus(id),
      onShow: (id, isShown) => this.show(id, isShown),
      onChange: () => this.refresh(),
    });
    this.figures = element("div", { class: "train-figures" });
    this.notice = element("div", { class: "train-notice" });
    this.time = new TimeBar();
    this.watch = element("div", { class: "train-watch", hidden: true }, this.table.root, this.toolbar(), this.notice, this.figures, this.time.root, this.chartGrid());
    this.empty = element("div", { class: "a-empty train-empty", hidden: true },
      element("h2", {}, "Nothing trained yet"),
      element("p", {}, "The options on the left are chosen for this dataset and this machine. Start with them; curves appear here within seconds."));
    this.main = element("div", { class: "train-main" }, this.empty, this.watch);
    this.append(element("div", { class: "train-layout" }, this.formHost, this.main));
  }

  toolbar() {
    this.heading = element("h2", { class: "a-subtitle" });
    this.links = element("span", { class: "a-toolbar" });
    const axis = element("select", { class: "a-input", "aria-label": "Horizontal axis" });
    for (const [name, { title }] of Object.entries(AXES)) axis.append(element("option", { value: name }, title));
    axis.value = this.axis;
    axis.addEventListener("change", () => this.setAxis(axis.value));
    const smooth = element("input", { type: "checkbox" });
    smooth.checked = this.isSmooth;
    smooth.addEventListener("change", () => this.setSmooth(smooth.checked));
    const card = element("button", { type: "button", class: "a-button quiet small", "data-action": "model-card", title: "What the detector of this run is made of" }, "Model");
    card.addEventListener("click", () => openRunCard(this.focusRun()));
    return element("div", { class: "a-toolbar train-toolbar" }, this.heading, this.links, card, element("span", { class: "spacer" }),
      element("label", { class: "a-small a-muted" }, smooth, " Smooth losses"), axis);
  }

  chartGrid() {
    this.charts = CHARTS.map((chart) => {
      const host = element("div", { class: "train-chart-host", "data-chart": chart.name });
      const card = element("div", { class: "a-card train-chart" }, host);
      const plot = new LineChart(host, { title: chart.title, range: chart.range, ...AXES[this.axis] });
      return { ...chart, card, plot };
    });
    this.log = element("pre", { class: "train-log a-mono", tabindex: 0, "aria-label": "Log" });
    const log = element("div", { class: "a-card train-chart" }, element("h3", {}, "Log"), this.log);
    return element("div", { class: "train-charts" }, ...this.charts.map((chart) => chart.card), log);
  }

  async loadForm() {
    try {
      const description = await getJSON(projectURL("/config"));
      this.models = description.models;
      // As the start of a run judges it: of the images that take part, one of "train" must have a box.
      const labeled = await getJSON(projectURL("/images?split=train&problem=false&min_boxes=1&limit=1"));
      this.canTrain = labeled.total > 0;
      if (!this.canTrain) this.formHost.append(this.noLabels(description.num_images));
      else this.showForm(description);
    } catch (error) {
      this.formHost.append(element("div", { class: "a-card a-error" }, error.message, " ", error.hint ?? ""));
    }
  }

  showForm(description) {
    const form = new RunForm(description, (run) => this.started(run));
    this.formHost.append(form.root);
    this.main.prepend(form.preflight.root);
  }

  noLabels(numImages) {
    const hasImages = Object.values(numImages).some((count) => count > 0);
    const [path, action] = hasImages ? ["/annotate", "Annotate"] : ["/data", "Import images"];
    return element("div", { class: "a-empty" },
      element("h2", {}, "No labeled images yet"),
      element("p", {}, "Training needs images with boxes in the split “train”."),
      element("a", { class: "a-button primary", href: pageURL(path) }, action));
  }

  started(run) {
    if (!this.focusRun() || !isLive(this.focusRun())) this.focus(run.id);
    this.refresh();
  }

  focusRun() {
    return this.runs.find((run) => run.id === this.focusId);
  }

  focus(id) {
    this.focusId = id;
    setParam("run", id);
    this.logText = null;
    this.log.textContent = "";
    this.update();
    this.refresh();
  }

  show(id, isShown) {
    if (isShown) this.shown.add(id);
    else this.shown.delete(id);
    if (!isShown && id === this.focusId) {
      const next = [...this.shown][0];
      if (next) return this.focus(next);
    }
    setParam("runs", [...this.shown].join(","));
    this.update();
    this.refresh();
  }

  setSmooth(isSmooth) {
    this.isSmooth = isSmooth;
    setParam("smooth", isSmooth ? null : 0);
    this.draw();
  }

  setAxis(axis) {
    this.axis = axis;
    setParam("axis", axis === USUAL_AXIS ? null : axis);
    for (const chart of this.charts) chart.plot.resetX(AXES[axis]);
    this.draw();
  }

  drawn() {
    const ids = new Set(this.shown);
    if (this.focusId) ids.add(this.focusId);
    return this.runs.filter((run) => ids.has(run.id));
  }

  async refresh() {
    if (this.isBusy) return;
    this.isBusy = true;
    try {
      const { runs } = await getJSON(projectURL("/runs"));
      this.runs = runs;
      if (!this.focusRun()) this.focusId = (runs.find(isLive) ?? runs[0])?.id ?? null;
      for (const id of this.shown) if (!runs.some((run) => run.id === id)) this.shown.delete(id);
      await Promise.all([...this.drawn().map((run) => this.loadHistory(run)), this.loadLog()]);
      this.dataset.lost = "false";
    } catch (error) {
      if (this.dataset.lost !== "true") notify(error, "error");
      this.dataset.lost = "true";
    } finally {
      this.isBusy = false;
    }
    this.update();
    this.dataset.ready = "true";
  }

  async loadHistory(run) {
    if (!this.histories.has(run.id)) this.histories.set(run.id, new History());
    const history = this.histories.get(run.id);
    if (isLive(run)) history.isComplete = false; // one that was resumed, too
    if (!history.isComplete) await history.load(run);
  }

  async loadLog() {
    const run = this.focusRun();
    if (!run || (this.logText !== null && run.state === this.logState && !isLive({ state: this.logState }))) return;
    const state = run.state;
    const { text } = await getJSON(projectURL(`/runs/${run.id}/log`));
    if (run.id !== this.focusId) return;
    const isAtEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
    if (text !== this.logText) this.log.textContent = text;
    this.logText = text;
    this.logState = state;
    if (isAtEnd) requestAnimationFrame(() => (this.log.scrollTop = this.log.scrollHeight)); // once it is shown
  }

  update() {
    const run = this.focusRun();
    this.dataset.runs = String(this.runs.length);
    this.dataset.state = run?.state ?? "";
    this.empty.hidden = this.runs.length > 0;
    this.watch.hidden = this.runs.length === 0;
    this.main.hidden = this.canTrain === false && this.runs.length === 0;
    if (!run) return;
    this.table.update(this.runs, new Set(this.drawn().map((one) => one.id)), this.focusId);
    this.heading.textContent = run.name;
    const compared = comparedRuns(run, this.runs, this.drawn());
    const links = JSON.stringify([run.id, run.best.score, compared.map(({ id, name }) => [id, name])]);
    if (links !== this.linksKey) this.links.replaceChildren(...nextSteps(run, compared));
    this.linksKey = links;
    this.writeNotice(run);
    this.writeFigures(run);
    this.time.update(this.histories.get(run.id)?.series ?? new Map(), run.config, this.models);
    this.draw();
  }

  writeNotice(run) {
    const isStarting = run.state === "running" && !this.histories.get(run.id)?.series.size;
    const key = `${run.id} ${run.state} ${run.hung} ${isStarting} ${run.error}`;
    if (key === this.noticeKey) return;
    this.noticeKey = key;
    const [first, ...rest] = run.error.split("\n");
    const parts = [];
    if (run.hung) parts.push(element("strong", {}, run.hung));
    const [, headline, advice] = /^(.*?[.!?])\s+(?=[A-Z“"'])(.*)$/.exec(first) ?? [null, first, ""];
    if (first) parts.push(element("strong", {}, headline));
    if (advice) parts.push(element("div", {}, ...advice.split(PLACE).map((text, index) => (index % 2 ? element("code", { title: "A click marks it for copying" }, text) : text))));
    if (rest.length) parts.push(element("details", {}, element("summary", {}, "Last lines of the log"), element("pre", { class: "a-mono" }, rest.join("\n"))));
    if (isStarting && !run.hung) parts.push("Starting: loading the detector and the images.");
    if (run.state === "queued") parts.push(" Waiting for its turn: trainings run one after the other, one on each GPU.");
    if (run.state === "paused") parts.push("Paused. Resume lets it go on from where it was saved, to the same result.");
    this.notice.className = `train-notice ${run.state === "failed" ? "bad" : run.hung || ["interrupted", "paused"].includes(run.state) ? "warn" : ""}`;
    this.notice.replaceChildren(...parts);
    this.notice.hidden = parts.length === 0;
  }

  writeFigures(run) {
    const history = this.histories.get(run.id);
    const isLive = run.state === "running";
    const memory = history?.newest("system/memory_mb");
    const took = history?.series.get("train/loss")?.elapsed_s.at(-1) ?? (run.started_at && (run.ended_at ?? Date.now() / 1000) - run.started_at);
    const figures = [
      ["Epoch", `${run.epoch} / ${run.epochs}`],
      isLive ? ["Time left", duration(run.progress.eta_s)] : ["Took", took ? duration(took) : "–"],
      ["Images/s", shortNumber(history?.series.get("system/images_per_s")?.value.findLast((rate) => rate > 0))],
      ["Memory", memory ? `${(memory / 1000).toFixed(1)} GB` : "–"],
      ...bestFigures(run),
    ];
    const text = JSON.stringify(figures);
    if (text === this.figuresText) return;
    this.figuresText = text;
    this.figures.replaceChildren(...figures.map(([title, value]) => element("div", {}, element("span", {}, title), element("strong", {}, value))));
  }

  draw() {
    const runs = this.drawn();
    const isCompared = runs.length > 1;
    const isBare = runs.every((run) => {
      const history = this.histories.get(run.id);
      return history?.isComplete && !history.series.size;
    });
    for (const chart of this.charts) {
      chart.card.hidden = isBare; // a run that failed at its start leaves the room to its log
      chart.plot.setTitle(isCompared ? chart.comparedTitle : chart.title);
      chart.plot.setLines(runs.flatMap((run) => this.linesOf(chart, run, isCompared)));
    }
  }

  /** Of one run every number, each in its color; of several the main number, in the color of its run. */
  linesOf(chart, run, isCompared) {
    const history = this.histories.get(run.id);
    if (!history) return [];
    const names = isCompared ? [chart.main] : history.names(chart.split, chart.match);
    return names.flatMap((name, index) => {
      const columns = history.series.get(`${chart.split}/${name}`);
      if (!columns) return [];
      const color = lineColor(isCompared ? run.id - 1 : index);
      const label = isCompared ? run.name : (TITLES[name] ?? name);
      const x = history.x(columns, this.axis, this.stepsPerEpoch(run, history));
      const line = { key: `${run.id} ${name}`, label, color, x, y: columns.value };
      if (!chart.isNoisy || !this.isSmooth) return [line];
      const calm = { ...line, y: smoothed(columns.value) };
      return isCompared || name !== chart.main ? [calm] : [{ ...line, key: `${line.key} raw`, isFaint: true }, calm];
    });
  }

  stepsPerEpoch(run, history) {
    const scores = history.series.get("valid/map50");
    if (scores?.step.length) return scores.step.at(-1) / scores.epoch.at(-1);
    return run.progress.total ? run.progress.total / run.epochs : 1;
  }
}

customElements.define("anchorage-train", AnchorageTrain);

// <anchorage-ensemble>: fuse the best checkpoints of a run, or chosen ones, and compare the ensemble with its members;
// below it the lab, and the sweep of the run's checkpoints. The run, the ensemble (or the split that has none) and the lab
// shown stand in the address (run=, set=, split=, lab=), and Back returns to the ones before.
//
// State for tests and styles lies in data-* attributes: state (loading, empty, ready, fusing, failed), set, chosen,
// outcome (of the ensemble shown: gain, noise, worse, or empty while it is not measured).

import { getJSON, getParam, notify, projectURL, sendJSON, setParam } from "./api.js";
import { element } from "./element.js";
import { emptyState } from "./empty_state.js";
import { comparisonCard, hasIoU, METHODS } from "./ensemble_comparison.js";
import { EnsembleLab } from "./ensemble_lab.js";
import { MeasuringNoise } from "./ensemble_noise.js";
import { JobProgress } from "./job_progress.js";
import { isLive } from "./job_states.js";
import { formatFigure } from "./number_words.js";
import { enterPlace, onReturn, setParams } from "./places.js";
import { setTitle, splitsOf } from "./run_words.js";
import { openWithWeights } from "./weights_page.js";

const BEST = 3;

class AnchorageEnsemble extends HTMLElement {
  connectedCallback() {
    if (this._isStarted) return;
    this._isStarted = true;
    this._listening = new AbortController();
    onReturn(() => this._return(), this._listening.signal);
    this._start();
  }

  disconnectedCallback() {
    this._isStarted = false;
    this._listening.abort();
    this.progress?.end();
    this.lab?.close();
    this.replaceChildren();
  }

  _start() {
    return openWithWeights(this, {
      nothing: "Nothing to fuse yet",
      first: "Train a detector first: the best three checkpoints of a run make an ensemble.",
      open: (runs) => this._begin(runs),
    });
  }

  async _begin(runs) {
    this.runs = runs;
    const run = this._runOfAddress();
    this.lab = new EnsembleLab(this.runs, bestOf(run), (job) => this._follow(job));
    this.sweep = document.createElement("anchorage-sweep");
    this._openRun(run);
    await Promise.all([this._resume(), this.lab.start()]);
  }

  _runOfAddress() {
    const wanted = Number(getParam("set"));
    const owner = this.runs.find((run) => run.sets.some((set) => set.id === wanted && set.kind === "ensemble"));
    return owner ?? this.runs.find((item) => item.id === Number(getParam("run"))) ?? this.runs[0];
  }

  /** Back or Forward: the run, the ensemble and the lab follow the address. */
  _return() {
    if (!this.lab) return;
    const run = this._runOfAddress();
    if (run !== this.run) this._openRun(run);
    else if (this.dataset.state !== "fusing" && Number(getParam("set")) !== this.asked) this._showOfAddress();
    this.lab.comeBack();
  }

  async _load() {
    this.runs = (await getJSON(projectURL("/review"))).runs;
  }

  _openRun(run) {
    this.run = run;
    this.progress?.end();
    this.split = splitsOf(run)[0] ?? "valid";
    this.best = bestOf(run);
    this.chosen = new Set(this.best);
    setParam("run", run.id);
    this.lab.openRun(run.id);
    this._build();
    this._showOfAddress();
  }

  /** The ensemble that the address names, else the newest on its split, else the newest. */
  _showOfAddress() {
    const ensembles = this._ensembles();
    const split = splitsOf(this.run).find((name) => name === getParam("split"));
    const newest = split ? ensembles.find((set) => set.split === split) : ensembles[0];
    const shown = ensembles.find((set) => set.id === Number(getParam("set"))) ?? newest;
    if (shown) return this._show(shown);
    if (split) this._chooseSplit(split);
    return this._showNone();
  }

  /** Another split: its newest ensemble, so that what is chosen is what is shown. */
  _changeSplit(split) {
    this.split = split;
    if (this.dataset.state === "fusing") return;
    enterPlace("set", {});
    this._showSplit();
  }

  _showSplit() {
    const newest = this._ensembles().find((set) => set.split === this.split);
    if (newest) this._show(newest);
    else this._showNone();
  }

  _chooseSplit(split) {
    this.split = split;
    this.splitPick.value = split;
  }

  _ensembles() {
    return this.run.sets.filter((set) => set.kind === "ensemble");
  }

  // ---- the left side: what to fuse, and how -------------------------------------------------------------------------

  _build() {
    this.dataset.state = "ready";
    this.outcome = element("div", { class: "outcome" });
    this.go = element("button", { type: "button", class: "a-button primary go", onclick: () => this._fuse() });
    this.why = element("p", { class: "note" });
    const runPick = element("select", { class: "a-input", "data-pick": "run", onchange: () => this._changeRun(Number(runPick.value)) });
    runPick.append(...this.runs.map((run) => element("option", { value: run.id, selected: run === this.run }, run.name)));
    this.splitPick = element("select", { class: "a-input", "data-pick": "split", onchange: () => this._changeSplit(this.splitPick.value) });
    const splits = splitsOf(this.run);
    this.splitPick.append(...splits.map((split) => element("option", { value: split, selected: split === this.split }, `${split} (${this.run.splits[split]} images)`)));
    const choice = element(
      "section",
      { class: "choice a-card", "aria-label": "Fuse the best checkpoints" },
      element("label", { class: "a-field" }, "Run", runPick),
      element("label", { class: "a-field" }, "Judged on", this.splitPick),
      this.go,
      this.why,
      element("details", { class: "options" }, element("summary", {}, "Other members, method and thresholds"), element("div", { class: "a-field" }, "Members", this._checkpointTable()), ...this._optionFields()),
    );
    this.sweep.splits = this.run.splits;
    this.sweep.runId = this.run.id;
    this.replaceChildren(element("div", { class: "ensemble" }, choice, this.outcome), this.lab.root, this.sweep);
    this._onMethod();
  }

  _checkpointTable() {
    const rows = this.run.checkpoints.map((checkpoint) => {
      const box = element("input", { type: "checkbox", "data-checkpoint": checkpoint.id, "aria-label": checkpoint.name });
      box.checked = this.chosen.has(checkpoint.id);
      box.addEventListener("change", () => {
        if (box.checked) this.chosen.add(checkpoint.id);
        else this.chosen.delete(checkpoint.id);
        this._onChosen();
      });
      const figures = [checkpoint.map50, checkpoint.f1].map(formatFigure);
      return element(
        "tr",
        {},
        element("td", {}, element("label", { class: "member" }, box, checkpoint.name)),
        ...figures.map((text) => element("td", { class: "a-number" }, text)),
      );
    });
    const head = ["Checkpoint", "mAP50", "F1"].map((text, index) => element("th", { class: index ? "a-number" : null }, text));
    return element("table", { class: "a-table members" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  }

  _optionFields() {
    const help = element("span", { class: "note" });
    this.method = element("select", { class: "a-input", "data-pick": "method", onchange: () => this._onMethod() });
    this.method.append(...METHODS.map(([value, name]) => element("option", { value }, name)));
    this.methodHelp = help;
    this.iou = slider("Boxes overlapping more are one object (IoU)", 0.05, 0.95, 0.05, 0.55);
    this.skip = slider("Leave out members' boxes scored below", 0, 0.5, 0.005, 0);
    return [element("label", { class: "a-field" }, "Method", this.method, help), this.iou.field, this.skip.field];
  }

  _onMethod() {
    this.methodHelp.textContent = METHODS.find(([value]) => value === this.method.value)[2];
    this.iou.field.hidden = !hasIoU(this.method.value);
    this._onChosen();
  }

  /** How the ensemble shown was fused, so that it is what a change begins with. */
  _takeOptions({ method, iou_threshold: iou, skip_threshold: skip }) {
    this.method.value = method;
    this.iou.set(iou);
    this.skip.set(skip);
    this._onMethod();
  }

  _onChosen() {
    const count = this.chosen.size;
    const isBest = count === this.best.length && this.best.every((id) => this.chosen.has(id));
    const words = { 2: "two", 3: "three" };
    this.go.textContent = count < 2 ? "Fuse checkpoints" : isBest ? `Fuse the best ${words[count] ?? count}` : `Fuse ${count} checkpoints`;
    this.go.disabled = count < 2 || this.dataset.state === "fusing";
    const missing = this.run.checkpoints.length < 2 ? "This run has kept one checkpoint: train it longer, or fuse it in the lab below with one of another run." : "An ensemble needs two members or more.";
    const [, method] = METHODS.find(([value]) => value === this.method.value);
    const which = isBest ? "The checkpoints with the best scores" : "The chosen checkpoints";
    this.why.textContent = count < 2 ? missing : `${which}, by ${method[0].toLowerCase()}${method.slice(1)}.`;
    this.dataset.chosen = count;
  }

  _changeRun(id) {
    enterPlace("run", { set: null, split: null });
    this._openRun(this.runs.find((run) => run.id === id));
  }

  // ---- fusing -----------------------------------------------------------------------------------------------------

  async _fuse() {
    const options = { method: this.method.value, iou_threshold: this.iou.value(), skip_threshold: this.skip.value() };
    const ids = this.run.checkpoints.map((checkpoint) => checkpoint.id).filter((id) => this.chosen.has(id));
    try {
      const { job } = await sendJSON("POST", projectURL("/ensembles"), { checkpoint_ids: ids, split: this.split, options });
      this._follow(job);
    } catch (error) {
      notify(error, "error");
    }
  }

  /** Go on showing a fusing that was begun before this page was opened. */
  async _resume() {
    const { jobs } = await getJSON(projectURL("/jobs"));
    const job = jobs.find((item) => item.kind === "ensemble" && isLive(item));
    if (!job) return;
    this._follow(job);
  }

  _follow(job) {
    const owner = this.runs.find((run) => run.id === job.payload.run_id);
    if (owner && owner !== this.run) this._openRun(owner);
    this._setFusing(true);
    this.asked = null; // an answer on its way would take the place of the progress
    delete this.dataset.outcome;
    this._chooseSplit(job.payload.split);
    this.progress?.end();
    this.progress = new JobProgress([job], { title: "Fusing", onEnd: (ended) => this._ended(ended) });
    this.outcome.replaceChildren(this.progress.root);
    this.outcome.scrollIntoView({ block: "nearest" });
  }

  async _ended(job) {
    await this._load();
    this.lab.setRuns(this.runs);
    this.run = this.runs.find((run) => run.id === this.run.id) ?? this.runs[0];
    this._setFusing(false);
    if (job.state !== "done") this._showSplit();
    else this._show(this._ensembles().find((set) => set.id === job.result.set));
  }

  _setFusing(isFusing) {
    this.dataset.state = isFusing ? "fusing" : "ready";
    this._onChosen();
  }

  // ---- the right side: what came of it ------------------------------------------------------------------------------

  _showNone() {
    delete this.dataset.set;
    delete this.dataset.outcome;
    this.asked = null;
    setParams({ set: null, split: this.split });
    const earlier = this._earlier(null);
    this.outcome.replaceChildren(
      emptyState(
        earlier ? `No ensemble judged on ${this.split} yet` : "No ensemble yet",
        "Several checkpoints looking at the same image often find more than the best one alone. Fuse them, and the table here shows whether they do.",
      ),
      ...(earlier ? [earlier] : []),
    );
  }

  async _show(set) {
    setParams({ set: set.id, split: null });
    this._chooseSplit(set.split);
    this.asked = set.id;
    try {
      const table = await getJSON(projectURL(`/ensembles/${set.id}`));
      if (this.asked !== set.id) return; // another was chosen meanwhile
      this._takeOptions(table.options);
      const earlier = this._earlier(set.id);
      const measuring = table.best === null || table.noise ? null : this._measureNoise(set.id);
      this.card = comparisonCard(table, measuring?.root);
      this.outcome.replaceChildren(this.card, ...(earlier ? [earlier] : []));
      this.dataset.set = set.id;
      this.dataset.outcome = table.outcome ?? "";
    } catch (error) {
      notify(error, "error");
    }
  }

  /** Another ensemble is a place to come back from. */
  _openSet(set) {
    enterPlace("set", {});
    this._show(set);
  }

  /** Whether the difference is more than chance is measured once, when somebody first looks at an ensemble. */
  _measureNoise(id) {
    return new MeasuringNoise(projectURL(`/ensembles/${id}/noise`), this, (table) => {
      if (this.asked !== id || Number(this.dataset.set) !== id) return;
      const card = comparisonCard(table);
      this.card.replaceWith(card);
      this.card = card;
      this.dataset.outcome = table.outcome ?? "";
    });
  }

  _earlier(shownId) {
    const others = this._ensembles().filter((set) => set.id !== shownId);
    if (!others.length) return null;
    const links = others.map((set) =>
      element("button", { type: "button", class: "a-button small", onclick: () => this._openSet(set) }, `${setTitle(set, this.run)}, ${set.split}`),
    );
    return element("div", { class: "earlier" }, element("span", { class: "note" }, "Other ensembles of this run"), ...links);
  }
}

/** Ids of the best three checkpoints; the last one only fills up, and not when it is one of them again. */
function bestOf(run) {
  const kept = run.checkpoints.filter((item) => !item.is_last).slice(0, BEST);
  const epochs = new Set(kept.map((item) => item.epoch));
  const last = run.checkpoints.filter((item) => item.is_last && !epochs.has(item.epoch));
  return [...kept, ...last].slice(0, BEST).map((item) => item.id);
}

function slider(label, min, max, step, value) {
  const digits = String(step).split(".")[1].length;
  const output = element("output", {}, value.toFixed(digits));
  const range = element("input", { type: "range", class: "a-input", min, max, step, value, "aria-label": label }); // the output is what the field would name
  const tell = () => (output.textContent = Number(range.value).toFixed(digits));
  range.addEventListener("input", tell);
  const field = element("label", { class: "a-field" }, element("span", { class: "with-value" }, label, output), range);
  const set = (to) => {
    range.value = to;
    tell();
  };
  return { field, value: () => Number(range.value), set };
}

if (!customElements.get("anchorage-ensemble")) customElements.define("anchorage-ensemble", AnchorageEnsemble);

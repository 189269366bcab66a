// <anchorage-ensemble>: fuse the best checkpoints of a run, or chosen ones, and compare the ensemble with its members.
// The run and the ensemble shown stand in the address (run=, set=).
//
// State for tests and styles lies in data-* attributes: state (loading, empty, ready, fusing, failed), set, chosen, gain.

import { getJSON, getParam, notify, pageURL, poll, projectSlug, projectURL, sendJSON, setParam } from "./api.js";
import { element } from "./element.js";
import { explainNoWeights } from "./no_weights.js";
import { formatFigure } from "./review_panel.js";

const SPLITS = ["valid", "test", "train"];
const FINAL_STATES = ["done", "failed", "cancelled", "interrupted"];
const LIVE_STATES = ["queued", "running", "stopping"];
const JOB_MS = 600;
const BEST = 3;
const METHODS = [
  ["wbf", "Weighted boxes fusion", "Averages overlapping boxes, weighted by their scores; a box that few members found gets a low score."],
  ["nms", "Non-maximum suppression", "Keeps the surest of overlapping boxes as it is."],
  ["soft_nms", "Soft-NMS", "Keeps all boxes and lowers the scores of those that overlap a surer one."],
  ["nmw", "Non-maximum weighted", "Averages overlapping boxes around the surest one and keeps its score."],
];
const FIGURES = [
  ["map", "mAP", "COCO's AP over IoU .50 to .95"],
  ["map50", "mAP50", "AP at IoU .50"],
  ["map75", "mAP75", "AP at IoU .75"],
  ["f1", "F1", "Best F1 at IoU .50"],
];

class AnchorageEnsemble extends HTMLElement {
  connectedCallback() {
    if (this._isStarted) return;
    this._isStarted = true;
    this._start().catch((error) => this._fail(error));
  }

  disconnectedCallback() {
    this._isStarted = false;
    this._stopPolling?.();
    this.replaceChildren();
  }

  async _start() {
    this.dataset.state = "loading";
    if (!projectSlug()) return this._empty("No project is open", "Choose a project, or import a dataset to make one.", pageURL("/"), "Projects");
    await this._load();
    if (!this.runs.length) {
      const { text, href, action } = await explainNoWeights("Train a detector first: the best three checkpoints of a run make an ensemble.");
      return this._empty("Nothing to fuse yet", text, href, action);
    }
    const wanted = Number(getParam("set"));
    const owner = this.runs.find((run) => run.sets.some((set) => set.id === wanted && set.kind === "ensemble"));
    this._openRun(owner ?? this.runs.find((run) => run.id === Number(getParam("run"))) ?? this.runs[0]);
    await this._resume();
  }

  async _load() {
    this.runs = (await getJSON(projectURL("/review"))).runs;
  }

  _openRun(run) {
    this.run = run;
    this.split = SPLITS.find((split) => run.splits[split] > 0) ?? "valid";
    this.best = bestOf(run);
    this.chosen = new Set(this.best);
    setParam("run", run.id);
    this._build();
    const ensembles = this._ensembles();
    const shown = ensembles.find((set) => set.id === Number(getParam("set"))) ?? ensembles[0];
    if (shown) this._show(shown);
    else this._showNone();
  }

  /** Another split: its newest ensemble, so that what is chosen is what is shown. */
  _changeSplit(split) {
    this.split = split;
    if (this.dataset.state === "fusing") return;
    const newest = this._ensembles().find((set) => set.split === split);
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
    const runPick = element("select", { class: "a-input", onchange: () => this._changeRun(Number(runPick.value)) });
    runPick.append(...this.runs.map((run) => element("option", { value: run.id, selected: run === this.run }, run.name)));
    this.splitPick = element("select", { class: "a-input", "data-pick": "split", onchange: () => this._changeSplit(this.splitPick.value) });
    const splits = SPLITS.filter((split) => this.run.splits[split]);
    this.splitPick.append(...splits.map((split) => element("option", { value: split, selected: split === this.split }, `${split} (${this.run.splits[split]} images)`)));
    const choice = element(
      "section",
      { class: "choice a-card" },
      element("label", { class: "a-field" }, "Run", runPick),
      element("div", { class: "a-field" }, "Members", this._checkpointTable()),
      element("label", { class: "a-field" }, "Judged on", this.splitPick),
      this._optionFields(),
      this.go,
      this.why,
    );
    this.replaceChildren(element("div", { class: "ensemble" }, choice, this.outcome));
    this.append(Object.assign(document.createElement("anchorage-sweep"), { runId: this.run.id }));
    this._onChosen();
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
      const figures = [checkpoint.map50, checkpoint.f1].map((value) => (value === null ? "–" : formatFigure(value)));
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
    this.method = element("select", { class: "a-input", onchange: () => explain() });
    this.method.append(...METHODS.map(([value, name]) => element("option", { value }, name)));
    const explain = () => (help.textContent = METHODS.find(([value]) => value === this.method.value)[2]);
    explain();
    this.iou = slider("Boxes overlapping more are one object (IoU)", 0.05, 0.95, 0.05, 0.55);
    this.skip = slider("Leave out members' boxes scored below", 0, 0.5, 0.01, 0);
    return element(
      "details",
      { class: "options" },
      element("summary", {}, "Method and thresholds"),
      element("label", { class: "a-field" }, "Method", this.method, help),
      this.iou.field,
      this.skip.field,
    );
  }

  _onChosen() {
    const count = this.chosen.size;
    const isBest = count === this.best.length && this.best.every((id) => this.chosen.has(id));
    const words = { 2: "two", 3: "three" };
    this.go.textContent = isBest && count >= 2 ? `Fuse the best ${words[count] ?? count}` : `Fuse ${count} checkpoints`;
    this.go.disabled = count < 2 || this.dataset.state === "fusing";
    this.why.textContent = count < 2 ? "An ensemble needs two members or more. Train longer to get more checkpoints." : "";
    this.dataset.chosen = count;
  }

  _changeRun(id) {
    setParam("set", null);
    this._stopPolling?.();
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
    const job = jobs.find((item) => item.kind === "ensemble" && LIVE_STATES.includes(item.state));
    if (!job) return;
    const owner = this.runs.find((run) => run.id === job.payload.run_id);
    if (owner && owner !== this.run) this._openRun(owner);
    this._follow(job);
  }

  _follow(job) {
    this._setFusing(true);
    this._chooseSplit(job.payload.split);
    const fillBar = element("div");
    const message = element("p", {}, "Waiting for its turn…");
    const cancel = element("button", { type: "button", class: "a-button", onclick: () => this._cancel(job) }, "Cancel");
    const bar = element("div", { class: "a-progress" }, fillBar);
    this.outcome.replaceChildren(element("div", { class: "a-card working" }, element("h3", {}, "Fusing"), message, bar, cancel));
    this._stopPolling?.();
    this._stopPolling = poll(async () => {
      const { job: now } = await getJSON(projectURL(`/jobs/${job.id}`));
      const { done = 0, total = 0, message: text = "" } = now.progress;
      if (total) message.textContent = `${text || "Fusing"}: ${done} of ${total}`;
      fillBar.style.width = `${total ? (100 * done) / total : 0}%`;
      if (FINAL_STATES.includes(now.state)) await this._ended(now);
    }, JOB_MS, bar);
  }

  async _ended(job) {
    this._stopPolling();
    await this._load();
    this.run = this.runs.find((run) => run.id === this.run.id) ?? this.runs[0];
    this._setFusing(false);
    if (job.state !== "done") {
      notify(job.error || `Fusing was ${job.state === "cancelled" ? "stopped" : job.state}.`, "error");
      return this._changeSplit(this.split);
    }
    this._show(this._ensembles().find((set) => set.id === job.result.set));
  }

  async _cancel(job) {
    await sendJSON("POST", projectURL(`/jobs/${job.id}/cancel`)).catch((error) => notify(error, "error"));
  }

  _setFusing(isFusing) {
    this.dataset.state = isFusing ? "fusing" : "ready";
    this._onChosen();
  }

  // ---- the right side: what came of it ------------------------------------------------------------------------------

  _showNone() {
    delete this.dataset.set;
    this.asked = null;
    setParam("set", null);
    const earlier = this._earlier(null);
    this.outcome.replaceChildren(
      element(
        "div",
        { class: "a-empty" },
        element("h3", {}, earlier ? `No ensemble judged on ${this.split} yet` : "No ensemble yet"),
        element("p", {}, "Several checkpoints looking at the same image often find more than the best one alone. Fuse them, and the table here shows whether they do."),
      ),
      ...(earlier ? [earlier] : []),
    );
  }

  async _show(set) {
    setParam("set", set.id);
    this._chooseSplit(set.split);
    this.asked = set.id;
    try {
      const table = await getJSON(projectURL(`/ensembles/${set.id}`));
      if (this.asked !== set.id) return; // another was chosen meanwhile
      this.outcome.replaceChildren(...this._result(table));
      this.dataset.set = set.id;
      this.dataset.gain = table.is_gain;
    } catch (error) {
      notify(error, "error");
    }
  }

  _result(table) {
    const verdict = element("p", { class: "verdict" }, element("span", { class: `a-chip ${table.is_gain ? "good" : "warn"}` }, table.is_gain ? "Gain" : "No gain"), table.verdict.replace(/^(No gain|Gain): /, ""));
    const thresholds = table.rows.map((row) => row.threshold.toFixed(2));
    const isOther = !thresholds.slice(0, -1).includes(thresholds.at(-1));
    const notes = isOther ? ["The best threshold differs from the members': fusing changes what a score means."] : [];
    if (table.num_missing_members) notes.push(`${table.num_missing_members} of its members were replaced since and are not listed.`);
    const { method, iou_threshold: iou, skip_threshold: skip } = table.options;
    const how = `${METHODS.find(([value]) => value === method)[1]}, IoU ${iou}${skip ? `, from score ${skip}` : ""}, on ${table.split}`;
    const card = element(
      "div",
      { class: "a-card" },
      element("div", { class: "a-toolbar" }, element("h3", { class: "a-subtitle" }, "Ensemble beside its members"), element("span", { class: "spacer" }), element("a", { class: "a-button small", href: pageURL("/review", { set: table.set }) }, "Review the ensemble")),
      element("p", { class: "note" }, how),
      verdict,
      this._table(table.rows),
      element("p", { class: "note" }, notes.join(" ")),
    );
    const earlier = this._earlier(table.set);
    return earlier ? [card, earlier] : [card];
  }

  _table(rows) {
    // The best of each column as it is shown; where all show the same, none is.
    const best = Object.fromEntries(
      FIGURES.map(([key]) => {
        const isSame = new Set(rows.map((row) => formatFigure(row[key]))).size === 1;
        return [key, isSame ? null : formatFigure(Math.max(...rows.map((row) => row[key])))];
      }),
    );
    const head = [["", "Detector"], ...FIGURES, ["threshold", "Best threshold", "Score threshold of the best F1"]];
    const cells = (row) => [
      ...FIGURES.map(([key]) => element("td", { class: `a-number${formatFigure(row[key]) === best[key] ? " best" : ""}`, "data-figure": key }, formatFigure(row[key]))),
      element("td", { class: "a-number" }, row.threshold.toFixed(2)),
    ];
    return element(
      "table",
      { class: "a-table judged" },
      element("thead", {}, element("tr", {}, ...head.map(([, name, help], index) => element("th", { class: index ? "a-number" : null, title: help }, name)))),
      element("tbody", {}, ...rows.map((row) => element("tr", { class: row.is_ensemble ? "ensemble-row" : null }, element("td", {}, row.is_ensemble ? `Ensemble: ${row.name}` : row.name), ...cells(row)))),
    );
  }

  _earlier(shownId) {
    const others = this._ensembles().filter((set) => set.id !== shownId);
    if (!others.length) return null;
    const links = others.map((set) =>
      element("button", { type: "button", class: "a-button small", onclick: () => this._show(set) }, `${set.name}, IoU ${set.options.iou_threshold}, ${set.split}`),
    );
    return element("div", { class: "earlier" }, element("span", { class: "note" }, "Other ensembles of this run"), ...links);
  }

  _empty(title, text, href, action) {
    this.dataset.state = "empty";
    this.replaceChildren(element("div", { class: "a-empty" }, element("h3", {}, title), element("p", {}, text), element("a", { class: "a-button primary", href }, action)));
  }

  _fail(error) {
    this.dataset.state = "failed";
    const retry = element("button", { type: "button", class: "a-button", onclick: () => this._start().catch((again) => this._fail(again)) }, "Try again");
    this.replaceChildren(element("div", { class: "a-empty" }, element("h3", {}, error.message), element("p", {}, error.hint ?? ""), retry));
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
  const output = element("output", {}, value.toFixed(2));
  const range = element("input", { type: "range", class: "a-input", min, max, step, value });
  range.addEventListener("input", () => (output.textContent = Number(range.value).toFixed(2)));
  const field = element("label", { class: "a-field" }, element("span", { class: "with-value" }, label, output), range);
  return { field, value: () => Number(range.value) };
}

if (!customElements.get("anchorage-ensemble")) customElements.define("anchorage-ensemble", AnchorageEnsemble);

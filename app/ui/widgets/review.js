// <anchorage-review>: predictions of a checkpoint or an ensemble over ground truth. Which ones stands in the address
// (run=, set=, or checkpoint= and split= while there is none); what is looked at in a set is SetReview's.
//
// State for tests and styles lies in data-* attributes: state (loading, empty, missing, predicting, ready, failed),
// set, tp, fp, fn, counted, images, frame-ms (the last slider step: matching, counting and drawing).

import { getJSON, getParam, projectURL } from "./api.js";
import { fill, select } from "./controls.js";
import { element } from "./element.js";
import { enterPlace, onReturn, setParams } from "./places.js";
import { Predicting } from "./predicting.js";
import { forgetSet, SetReview } from "./review_set.js";
import { checkpointTitle, setTitle, splitsOf } from "./run_words.js";
import { openWithWeights, showFailure } from "./weights_page.js";


class AnchorageReview extends HTMLElement {
  connectedCallback() {
    if (this._keys) return;
    this._keys = new AbortController();
    document.addEventListener("keydown", (event) => this._onKey(event), { signal: this._keys.signal });
    onReturn(() => this._return(), this._keys.signal);
    this._themeWatch = new MutationObserver(() => {
      this.review?.retheme();
    });
    this._themeWatch.observe(document.documentElement, { attributeFilter: ["class"] });
    this._start();
  }

  disconnectedCallback() {
    this._keys?.abort();
    this._keys = null;
    this._themeWatch?.disconnect();
    this._close();
    this.replaceChildren();
  }

  // ---- choosing ---------------------------------------------------------------------------------------------------

  _start() {
    return openWithWeights(this, {
      nothing: "Nothing to review yet",
      first: "Train a detector first: its predictions on the validation images appear here.",
      open: (runs) => this._begin(runs),
    });
  }

  async _begin(runs) {
    this.runs = runs;
    this._choose();
    this._build();
    await this._open();
  }

  /** Run, checkpoint or ensemble, and split: from the address, else the newest run's best checkpoint. */
  _choose() {
    const wanted = Number(getParam("set"));
    const owner = this.runs.find((run) => run.sets.some((set) => set.id === wanted));
    this.run = owner ?? this.runs.find((run) => run.id === Number(getParam("run"))) ?? this.runs[0];
    const set = owner?.sets.find((item) => item.id === wanted);
    const splits = splitsOf(this.run);
    this.split = set?.split ?? splits.find((split) => split === getParam("split")) ?? splits[0] ?? "valid";
    const checkpoint = this.run.checkpoints.find((item) => item.id === Number(getParam("checkpoint")));
    this.source = set ? sourceOf(set) : checkpoint ? `checkpoint-${checkpoint.id}` : this._defaultSource();
  }

  _defaultSource() {
    return `checkpoint-${this.run.checkpoints[0].id}`;
  }

  /** The stored set of the chosen source and split, or undefined. */
  get set() {
    return this.run.sets.find((set) => sourceOf(set) === this.source && set.split === this.split);
  }

  _build() {
    this.runSelect = select("Run", (value) => this._changeRun(Number(value)));
    this.sourceSelect = select("Predictions of", (value) => this._change({ source: value }));
    this.splitSelect = select("Images of", (value) => this._change({ split: value }));
    this.results = element("a", { class: "a-button small", download: "" }, "Download results");
    this.results.title = "All predictions as COCO results JSON";
    this.body = element("div", { class: "body" });
    this.replaceChildren(
      element(
        "div",
        { class: "review" },
        element("div", { class: "bar choice" }, this.runSelect.field, this.sourceSelect.field, this.splitSelect.field, element("span", { class: "spacer" }), this.results),
        this.body,
      ),
    );
  }

  _fillChoices() {
    const { run } = this;
    fill(this.runSelect.input, this.runs.map((item) => [item.id, item.name]), run.id);
    const ensembles = run.sets.filter((set) => set.kind === "ensemble" && set.split === this.split);
    const others = run.sets.filter((set) => set.kind === "checkpoint" && !set.is_main && set.split === this.split);
    const groups = [
      ["Checkpoints", run.checkpoints.map((item) => [`checkpoint-${item.id}`, checkpointTitle(item)])],
      ["Other views (test-time augmentation)", others.map((set) => [`set-${set.id}`, setTitle(set, run)])],
      ["Ensembles", ensembles.map((set) => [`set-${set.id}`, setTitle(set, run)])],
    ];
    this.sourceSelect.input.replaceChildren(
      ...groups.filter(([, items]) => items.length).map(([label, items]) => {
        const group = element("optgroup", { label });
        fill(group, items, this.source);
        return group;
      }),
    );
    fill(this.splitSelect.input, splitsOf(run).map((split) => [split, `${split} (${run.splits[split]})`]), this.split);
  }

  _changeRun(id) {
    this.run = this.runs.find((run) => run.id === id);
    this.source = this._defaultSource();
    if (!this.run.splits[this.split]) this.split = splitsOf(this.run)[0] ?? "valid";
    this._reopen();
  }

  _change(change) {
    Object.assign(this, change);
    const isThere = this.source.startsWith("checkpoint") || this.set;
    if (!isThere) this.source = this._defaultSource();
    this._reopen();
  }

  /** Other predictions are a place to come back from. */
  _reopen() {
    enterPlace("set", {});
    forgetSet();
    this._open().catch((error) => this._fail(error));
  }

  async _open() {
    this._close();
    this._fillChoices();
    const [checkpoint, split] = this.set ? [null, null] : [this.source.split("-")[1], this.split];
    this.opened = { run: this.run.id, set: this.set?.id ?? null, checkpoint, split };
    setParams(this.opened);
    this.results.hidden = !this.set;
    if (!this.set) return this._openPredicting();
    this.results.href = projectURL(`/prediction-sets/${this.set.id}/results`);
    await this._show(this.set);
  }

  /** Back or Forward: what is looked at follows the address, another set is opened as it stands there. */
  _return() {
    if (!this.opened) return;
    const isSame = Object.entries(this.opened).every(([name, value]) => getParam(name) === (value === null ? null : String(value)));
    if (isSame) return this.review?.follow();
    this._choose();
    this._open().catch((error) => this._fail(error));
  }

  /** There are none yet: which ones stands in the address, for a reload while they are made. */
  _openPredicting() {
    const count = this.run.splits[this.split];
    this.predicting = new Predicting(this, this.body, {
      checkpointId: Number(this.source.split("-")[1]),
      split: this.split,
      text: `The detector looks at ${count} image${count === 1 ? "" : "s"}; it goes on in the background if you leave the page.`,
      onEnd: () => this._refresh().catch((error) => this._fail(error)),
    });
    return this.predicting.open();
  }

  /** Read the list of sets anew, keeping the choice. */
  async _refresh() {
    const { runs } = await getJSON(projectURL("/review"));
    this.runs = runs;
    this.run = runs.find((run) => run.id === this.run.id) ?? runs[0];
    await this._open();
  }

  // ---- showing ----------------------------------------------------------------------------------------------------

  async _show(set) {
    this.dataset.state = "loading";
    this.body.replaceChildren(element("p", { class: "a-muted loading" }, "Computing the figures…"));
    const evaluation = await getJSON(projectURL(`/prediction-sets/${set.id}/evaluation`));
    if (this.set?.id !== set.id) return;
    const review = new SetReview(this, this.body, evaluation);
    this.review = review;
    await review.load();
    if (this.review !== review) return;
    this.dataset.set = set.id;
    this.dataset.state = "ready";
  }

  _onKey(event) {
    if (!this.review?.single.isOpen || event.target.closest?.("input, select, textarea, [role=tab], [role=slider]")) return;
    if (event.key === "Escape") this.review.closeImage();
    else if (event.key === "ArrowLeft") this.review.step(-1);
    else if (event.key === "ArrowRight") this.review.step(1);
    else return;
    event.preventDefault();
  }

  // ---- ends -------------------------------------------------------------------------------------------------------

  _close() {
    this.predicting?.end();
    this.review?.destroy();
    this.review = null;
  }

  _fail(error) {
    showFailure(this, error, () => this._start());
  }
}

// Of a checkpoint the predictions in the views that its run is judged in; others are a source of their own.
const sourceOf = (set) => (set.kind === "checkpoint" && set.is_main ? `checkpoint-${set.checkpoint_id}` : `set-${set.id}`);

if (!customElements.get("anchorage-review")) customElements.define("anchorage-review", AnchorageReview);

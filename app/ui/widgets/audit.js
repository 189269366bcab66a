// <anchorage-audit>: labels that a sure model disagrees with, the surest first, as cards. The run, the checkpoint, the split
// and the filters stand in the address (run=, checkpoint=, split=, kind=, category=, min_score=; set= opens its own).
//
// State for tests and styles lies in data-* attributes: state (loading, empty, missing, predicting, ready, failed), set,
// total, known, ignored.

import { getJSON, getParam, notify, pageURL, projectURL, sendJSON, setParam } from "./api.js";
import { suspectCard } from "./audit_card.js";
import { AuditSummary } from "./audit_summary.js";
import { fill, select } from "./controls.js";
import { element } from "./element.js";
import { emptyState } from "./empty_state.js";
import { ImageGrid } from "./image_grid.js";
import { Predicting } from "./predicting.js";
import { splitsOf } from "./run_words.js";
import { ignoreBody, LabelChanges } from "./suspects.js";
import { openWithWeights, showFailure } from "./weights_page.js";

const FILTERS = ["kind", "category", "min_score"];
const IGNORED = "ignored"; // the kind under which the address keeps the list of ignored ones
const CAPTION_PX = 112;
const CARD_PX = 250;
const SLIDE_MS = 250;

class AnchorageAudit extends HTMLElement {
  connectedCallback() {
    if (this._isStarted) return;
    this._isStarted = true;
    this._start();
  }

  disconnectedCallback() {
    this._isStarted = false;
    this.predicting?.end();
    this.grid?.clear();
    this.replaceChildren();
  }

  // ---- choosing ---------------------------------------------------------------------------------------------------

  _start() {
    return openWithWeights(this, {
      nothing: "Nothing to audit with yet",
      first: "Train a detector first: where it is sure and the labels say otherwise, they are worth a look.",
      open: (runs) => this._begin(runs),
    });
  }

  async _begin(runs) {
    this.runs = runs;
    this.changes = new LabelChanges();
    const { categories } = await getJSON(projectURL("/categories"));
    this.categories = new Map(categories.map((category) => [category.id, category]));
    this._choose();
    this._build();
    await this._open();
  }

  /** The run, its checkpoint and the split: of the set in the address, else as the address names them. */
  _choose() {
    const wanted = Number(getParam("set"));
    const owner = this.runs.find((run) => run.sets.some((set) => set.id === wanted && set.checkpoint_id));
    const set = owner?.sets.find((item) => item.id === wanted);
    this.run = owner ?? this.runs.find((run) => run.id === Number(getParam("run"))) ?? this.runs[0];
    this._chooseCheckpoint(set?.checkpoint_id ?? Number(getParam("checkpoint")));
    this._chooseSplit(set?.split ?? getParam("split"));
    setParam("set", null);
  }

  _chooseCheckpoint(id) {
    const { checkpoints } = this.run;
    this.checkpoint = checkpoints.find((item) => item.id === id) ?? checkpoints[0];
  }

  _chooseSplit(split) {
    const known = splitsOf(this.run);
    this.split = known.includes(split) ? split : (known[0] ?? "valid");
  }

  /** The stored predictions that are asked for, or undefined. */
  get set() {
    return this.run.sets.find((set) => set.kind === "checkpoint" && set.is_main && set.checkpoint_id === this.checkpoint.id && set.split === this.split);
  }

  _change(change) {
    if (change.run) this.run = this.runs.find((run) => run.id === change.run);
    if (change.run || change.checkpoint) this._chooseCheckpoint(change.checkpoint);
    this._chooseSplit(change.split ?? this.split);
    setParam("min_score", null); // another model is sure at another score
    this._open().catch((error) => this._fail(error));
  }

  _build() {
    this.pickRun = select("Run", (value) => this._change({ run: Number(value) }));
    this.pickCheckpoint = select("Judged by", (value) => this._change({ checkpoint: Number(value) }));
    this.pickSplit = select("Images of", (value) => this._change({ split: value }));
    this.body = element("div", { class: "body" });
    const bar = element("div", { class: "bar" }, this.pickRun.field, this.pickCheckpoint.field, this.pickSplit.field);
    this.replaceChildren(element("div", { class: "audit" }, bar, this.body));
  }

  _fillChoices() {
    const { run } = this;
    fill(this.pickRun.input, this.runs.map((item) => [item.id, item.name]), run.id);
    fill(this.pickCheckpoint.input, run.checkpoints.map((item) => [item.id, item.name]), this.checkpoint.id);
    fill(this.pickSplit.input, splitsOf(run).map((split) => [split, `${split} (${run.splits[split]})`]), this.split);
  }

  async _open() {
    this._fillChoices();
    setParam("run", this.run.id);
    setParam("checkpoint", this.checkpoint.id);
    setParam("split", this.split);
    this.predicting?.end();
    this.grid?.clear();
    return this.set ? this._show() : this._openPredicting();
  }

  _openPredicting() {
    const count = this.run.splits[this.split];
    const images = count === 1 ? "1 image" : `${count} images`;
    const learned = this.split === "train" ? " The model was trained on them, so it has learned many of their faults too." : "";
    this.predicting = new Predicting(this, this.body, {
      checkpointId: this.checkpoint.id,
      split: this.split,
      text: `The model has to look at ${images} first; it goes on in the background if you leave the page.${learned}`,
      onEnd: () => this._refresh().catch((error) => this._fail(error)),
    });
    return this.predicting.open();
  }

  /** Read the list of sets anew, keeping the choice. */
  async _refresh() {
    const { checkpoint } = this;
    this.runs = (await getJSON(projectURL("/review"))).runs;
    this.run = this.runs.find((run) => run.id === this.run.id) ?? this.runs[0];
    this._chooseCheckpoint(checkpoint.id);
    await this._open();
  }

  // ---- showing ----------------------------------------------------------------------------------------------------

  async _show() {
    this.dataset.state = "loading";
    this.dataset.set = this.set.id;
    this.setId = this.set.id;
    this.summary = new AuditSummary({
      categories: this.categories,
      onFilter: (change) => this._filter(change),
      onScore: (score) => this._slide(score),
      onJudge: () => getJSON(projectURL(`/audit/figures?set=${this.setId}`)),
    });
    const scroller = element("div", { class: "scroller", tabindex: 0, "aria-label": "Suspects" });
    this.nothing = element("div", { class: "nothing" }, element("p", { class: "a-muted waiting" }, "Comparing predictions and labels…"));
    this.body.replaceChildren(this.summary.root, element("div", { class: "main" }, scroller, this.nothing));
    this.grid = new ImageGrid(scroller, {
      captionPx: CAPTION_PX,
      load: (after, limit, signal) => this._load(after, limit, signal),
      makeCard: (suspect, size) => this._card(suspect, size),
      onChange: () => this._told(),
      onError: (error) => notify(error, "error"),
    });
    this.grid.minWidth = CARD_PX;
    await this.grid.reload();
    this.dataset.state = "ready";
  }

  get isIgnoredList() {
    return getParam("kind") === IGNORED;
  }

  /** The filters as the server takes them, with the set. */
  _query() {
    const query = new URLSearchParams({ set: this.setId });
    for (const name of FILTERS) {
      const value = getParam(name);
      if (value && value !== IGNORED) query.set(name, value);
    }
    return query;
  }

  /** A page of suspects. How many there are in all is told from here on: those before may have been mended meanwhile. */
  async _load(after, limit, signal) {
    const grid = this.grid;
    const query = this.isIgnoredList ? new URLSearchParams() : this._query();
    if (after) query.set("after", after);
    query.set("limit", limit);
    const page = await getJSON(projectURL(`/audit${this.isIgnoredList ? "/ignored" : ""}?${query}`), { signal });
    if (!after) this._head(page, signal);
    const suspects = page.suspects.map((suspect) => ({ ...suspect, id: suspect.key ?? suspect.id, ignoredId: suspect.key ? null : suspect.id, state: "" }));
    return { images: suspects, total: grid.images.length + suspects.length + page.left, next: page.next };
  }

  /** The numbers above the cards; the list of ignored ones does not bring them along. */
  async _head(page, signal) {
    this.dataset.total = page.total;
    this._sayNothing(page);
    try {
      const counted = this.isIgnoredList ? await getJSON(projectURL(`/audit?${this._query()}&limit=1`), { signal }) : page;
      this.summary.show(counted);
      this.dataset.ignored = counted.ignored_in_project;
    } catch (error) {
      if (error.name !== "AbortError") notify(error, "error");
    }
  }

  _sayNothing({ total, images }) {
    const isFiltered = ["kind", "category"].some((name) => getParam(name));
    this.nothing.hidden = total > 0;
    if (this.isIgnoredList) this.nothing.replaceChildren(emptyState("Nothing is ignored", "A suspect that you ignore is listed here, and can be taken back."));
    else if (isFiltered) this.nothing.replaceChildren(emptyState("No suspect passes the filter", "Take the filters off, or lower the score from which on the model counts as sure."));
    else this.nothing.replaceChildren(emptyState("The labels agree with the model", `On ${images ?? 0} images it is nowhere this sure of something else. A lower score shows what it is less sure of.`));
  }

  _told() {
    this.dataset.known = this.grid.images.length;
  }

  _filter(change) {
    for (const [name, value] of Object.entries(change)) setParam(name, value);
    this.summary.mark();
    this.grid.reload();
  }

  _slide(score) {
    setParam("min_score", score);
    clearTimeout(this._sliding);
    this._sliding = setTimeout(() => this.grid.reload(), SLIDE_MS);
  }

  // ---- deciding ---------------------------------------------------------------------------------------------------

  _card(suspect, size) {
    const href = suspect.key
      ? pageURL("/annotate", { image: suspect.image.id, suspect: suspect.key, audit: this._query() })
      : pageURL("/annotate", { image: suspect.image.id });
    const actions = suspect.key
      ? { onAccept: (one) => this._accept(one), onIgnore: (one) => this._ignore(one), onUndo: (one) => this._undo(one) }
      : { onUndo: (one) => this._undo(one) };
    return suspectCard(suspect, size, { categories: this.categories, href, ...actions });
  }

  _accept(suspect) {
    return this._decide(suspect, "accepted", async () => (suspect.boxKey = await this.changes.accept(suspect)));
  }

  _ignore(suspect) {
    return this._decide(suspect, "ignored", async () => {
      const { ignored } = await sendJSON("POST", projectURL("/audit/ignored"), ignoreBody(suspect));
      suspect.ignoredId = ignored.id;
      this._countIgnored(1);
    });
  }

  _undo(suspect) {
    if (suspect.state === "accepted") return this._decide(suspect, "", () => this.changes.takeBack(suspect, suspect.boxKey));
    return this._decide(suspect, suspect.key ? "" : "taken back", async () => {
      await sendJSON("DELETE", projectURL(`/audit/ignored/${suspect.ignoredId}`));
      this._countIgnored(-1);
    });
  }

  /** Carry a decision out; the card shows it once it is stored, and what it was before when it could not be. */
  async _decide(suspect, state, action) {
    const before = suspect.state;
    const mark = (value) => {
      const isHere = this.querySelector(`[data-key="${CSS.escape(suspect.id)}"]`)?.contains(document.activeElement);
      suspect.state = value;
      this.grid.update(suspect);
      if (isHere) this._focusSoon(suspect);
    };
    mark("busy");
    try {
      await action();
      mark(state);
      if (state !== "taken back") this.summary.step(suspect.kind, state === "" ? 1 : -1);
    } catch (error) {
      mark(before);
      notify(error, "error");
    }
  }

  /** The card is made anew: whoever works with the keyboard stays on it. */
  _focusSoon(suspect) {
    this.grid.draw();
    this.querySelector(`[data-key="${CSS.escape(suspect.id)}"] .actions :is(button:enabled, a)`)?.focus();
  }

  _countIgnored(step) {
    this.dataset.ignored = Number(this.dataset.ignored) + step;
    this.summary.stepIgnored(step);
  }

  _fail(error) {
    showFailure(this, error, () => this._start());
  }
}

if (!customElements.get("anchorage-audit")) customElements.define("anchorage-audit", AnchorageAudit);

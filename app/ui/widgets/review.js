// <anchorage-review>: predictions of a checkpoint or an ensemble over ground truth. Which ones stands in the address
// (run=, set=, image=). Thresholds are applied here: the sliders never ask the server.
//
// State for tests and styles lies in data-* attributes: state (loading, empty, missing, predicting, ready, failed),
// set, tp, fp, fn, counted, images, frame-ms (the last slider step: matching, counting and drawing).

import { getJSON, getParam, notify, pageURL, poll, projectSlug, projectURL, sendJSON, setParam } from "./api.js";
import { element } from "./element.js";
import { explainNoWeights } from "./no_weights.js";
import { OUTCOMES, ratesOf, ReviewData } from "./review_data.js";
import { outcomeMark } from "./review_drawing.js";
import { ReviewGrid } from "./review_grid.js";
import { ReviewPanel } from "./review_panel.js";
import { ReviewProposals } from "./review_proposals.js";
import { ReviewSingle } from "./review_single.js";
import { ReviewTabs } from "./review_tabs.js";
import { Showing } from "./review_showing.js";

const SPLITS = ["valid", "test", "train"];
// Tabs that other modules fill; hidden while their element is not defined.
const GUESTS = [
  { key: "errors", title: "Errors", tag: "anchorage-review-errors" },
  { key: "confusion", title: "Confusion", tag: "anchorage-review-confusion" },
];
const FINAL_STATES = ["done", "failed", "cancelled", "interrupted"];
const JOB_MS = 700;
const SORT_MS = 250; // the order follows when a slider has rested this long

class AnchorageReview extends HTMLElement {
  connectedCallback() {
    if (this._keys) return;
    this._keys = new AbortController();
    document.addEventListener("keydown", (event) => this._onKey(event), { signal: this._keys.signal });
    this._themeWatch = new MutationObserver(() => {
      this.grid?.retheme();
      this._redraw();
    });
    this._themeWatch.observe(document.documentElement, { attributeFilter: ["class"] });
    this._start().catch((error) => this._fail(error));
  }

  disconnectedCallback() {
    this._keys?.abort();
    this._keys = null;
    this._themeWatch?.disconnect();
    this._close();
    this.replaceChildren();
  }

  // ---- choosing ---------------------------------------------------------------------------------------------------

  async _start() {
    this.dataset.state = "loading";
    if (!projectSlug()) return this._empty("No project is open", "Choose a project, or import a dataset to make one.", pageURL("/"), "Projects");
    const { runs } = await getJSON(projectURL("/review"));
    this.runs = runs;
    if (!runs.length) {
      const { text, href, action } = await explainNoWeights("Train a detector first: its predictions on the validation images appear here.");
      return this._empty("Nothing to review yet", text, href, action);
    }
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
    this.split = set?.split ?? SPLITS.find((split) => this.run.splits[split] > 0) ?? "valid";
    this.source = set ? sourceOf(set) : this._defaultSource();
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
      ["Checkpoints", run.checkpoints.map((item) => [`checkpoint-${item.id}`, describe(item)])],
      ["Other views (test-time augmentation)", others.map((set) => [`set-${set.id}`, `${this._checkpointName(set)}, ${set.views}`])],
      ["Ensembles", ensembles.map((set) => [`set-${set.id}`, `${set.name}, IoU ${set.options.iou_threshold}`])],
    ];
    this.sourceSelect.input.replaceChildren(
      ...groups.filter(([, items]) => items.length).map(([label, items]) => {
        const group = element("optgroup", { label });
        fill(group, items, this.source);
        return group;
      }),
    );
    fill(this.splitSelect.input, SPLITS.filter((split) => run.splits[split]).map((split) => [split, `${split} (${run.splits[split]})`]), this.split);
  }

  _checkpointName(set) {
    return this.run.checkpoints.find((item) => item.id === set.checkpoint_id)?.name ?? set.name;
  }

  _changeRun(id) {
    this.run = this.runs.find((run) => run.id === id);
    this.source = this._defaultSource();
    if (!this.run.splits[this.split]) this.split = SPLITS.find((split) => this.run.splits[split] > 0) ?? "valid";
    this._reopen();
  }

  _change(change) {
    Object.assign(this, change);
    const isThere = this.source.startsWith("checkpoint") || this.set;
    if (!isThere) this.source = this._defaultSource();
    this._reopen();
  }

  _reopen() {
    this._open().catch((error) => this._fail(error));
  }

  async _open() {
    this._close();
    this._fillChoices();
    setParam("run", this.run.id);
    setParam("set", this.set?.id ?? null);
    this.results.hidden = !this.set;
    if (!this.set) return this._offerPredicting();
    this.results.href = projectURL(`/prediction-sets/${this.set.id}/results`);
    await this._show(this.set);
  }

  // ---- predicting -------------------------------------------------------------------------------------------------

  _offerPredicting() {
    this.dataset.state = "missing";
    const count = this.run.splits[this.split];
    this.body.replaceChildren(
      card(
        `No predictions on ${this.split} yet`,
        `The detector looks at ${count} image${count === 1 ? "" : "s"}; it goes on in the background if you leave the page.`,
        element("button", { type: "button", class: "a-button primary", onclick: () => this._predict() }, `Predict ${this.split} images`),
      ),
    );
  }

  async _predict() {
    const body = { checkpoint_id: Number(this.source.split("-")[1]), split: this.split };
    try {
      const { job } = await sendJSON("POST", projectURL("/prediction-sets"), body);
      if (job) this._follow(job);
      else await this._refresh();
    } catch (error) {
      notify(error, "error");
    }
  }

  _follow(job) {
    this.dataset.state = "predicting";
    const fillBar = element("div");
    const message = element("p", {}, "Waiting for its turn…");
    const cancel = element("button", { type: "button", class: "a-button", onclick: () => this._cancel(job) }, "Cancel");
    const bar = element("div", { class: "a-progress" }, fillBar);
    this.body.replaceChildren(card("Predicting", message, bar, cancel));
    this._stopPolling = poll(async () => {
      const { job: now } = await getJSON(projectURL(`/jobs/${job.id}`));
      const { done = 0, total = 0, message: text = "" } = now.progress;
      if (total) message.textContent = `${text || "Predicting"}: ${done} of ${total}`;
      fillBar.style.width = `${total ? (100 * done) / total : 0}%`;
      if (!FINAL_STATES.includes(now.state)) return;
      this._stopPolling();
      if (now.state !== "done") notify(now.error || `Predicting was ${now.state === "cancelled" ? "stopped" : now.state}.`, "error");
      await this._refresh();
    }, JOB_MS, bar);
  }

  async _cancel(job) {
    await sendJSON("POST", projectURL(`/jobs/${job.id}/cancel`)).catch((error) => notify(error, "error"));
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
    this.evaluation = evaluation;
    this.names = evaluation.per_class.map((row) => row.name);
    this.view = { score: evaluation.f1_threshold, iou: 0.5, label: 0, nms: 1 };
    this.shown = new Set(Object.keys(OUTCOMES));
    this.sort = "errors";
    this._buildView();
    this.panel.show(evaluation);
    this.data = new ReviewData(set.id, () => this._onCounted());
    this.data.view = { ...this.view };
    await this.data.load();
    this.dataset.set = set.id;
    this.dataset.state = "ready";
    const image = this.data.images.find((item) => item.id === Number(getParam("image")));
    if (image) this._openImage(image);
  }

  _buildView() {
    this.scoreInput = slider({ min: 0, max: 1, step: 0.01, value: this.view.score, onInput: (score) => this._setView({ score }) });
    this.iouInput = slider({ min: 0.05, max: 0.95, step: 0.05, value: this.view.iou, onInput: (iou) => this._setView({ iou }) });
    this.scoreInput.range.setAttribute("aria-label", "Score threshold");
    this.iouInput.range.setAttribute("aria-label", "IoU threshold");
    this.classSelect = select("", (value) => this._setClass(Number(value)));
    this.classSelect.input.setAttribute("aria-label", "Class");
    fill(this.classSelect.input, [[0, "All classes"], ...this.names.map((name, index) => [index + 1, name])], 0);
    this.sortSelect = select("", (value) => this._setSort(value));
    this.sortSelect.input.setAttribute("aria-label", "Order");
    fill(this.sortSelect.input, [["errors", "Most errors first"], ["name", "By file name"]], "errors");
    const best = element("button", { type: "button", class: "a-button small best", onclick: () => this._setView({ score: this.evaluation.f1_threshold }) }, "Best F1");
    best.title = "Set the score threshold where F1 is highest";
    this.loading = element("p", { class: "a-muted loading" }, "Loading predictions…");
    this.showing = new Showing(() => this._showOnly(null));
    const tiles = element("div", { class: "grid" });
    const single = element("div", { class: "single", hidden: true });
    const side = element("aside", { class: "side" });
    this.body.replaceChildren(
      element(
        "div",
        { class: "bar thresholds" },
        element("label", { class: "slide" }, "Score ≥", this.scoreInput.range, this.scoreInput.output),
        best,
        element("label", { class: "slide iou" }, "IoU ≥", this.iouInput.range, this.iouInput.output),
        this.classSelect.field,
        this.sortSelect.field,
        this.showing.chip,
        element("span", { class: "spacer" }),
        this._legend(),
      ),
      element("div", { class: "main" }, this.loading, tiles, single),
      side,
    );
    this.grid = new ReviewGrid(tiles, (image) => this._openImage(image));
    this.single = new ReviewSingle(single, {
      onStep: (step) => this._step(step),
      onClose: () => this._closeImage(),
      onOpened: () => this.proposals.follow(),
      nameOf: (label) => this.names[label - 1] ?? `class ${label}`,
    });
    this.proposals = new ReviewProposals(this.single, this.set);
    const figures = element("div");
    const curves = element("div");
    this.panel = new ReviewPanel(figures, (label) => this._setClass(label === this.view.label ? 0 : label));
    this.guests = GUESTS.map(({ key, title, tag }) => ({ key, title, tag, pane: element("div"), isHidden: true }));
    this.tabs = new ReviewTabs(
      side,
      [{ key: "figures", title: "Figures", pane: figures }, { key: "curves", title: "Curves", pane: curves }, ...this.guests],
      () => {},
    );
    for (const guest of this.guests) customElements.whenDefined(guest.tag).then(() => this._welcome(guest));
  }

  /** Fill a tab with an element of another module, which may be defined later than this one. */
  _welcome(guest) {
    if (!guest.pane.isConnected || guest.node) return;
    guest.node = document.createElement(guest.tag);
    Object.assign(guest.node, { setId: this.set.id, view: { ...this.view } });
    guest.node.addEventListener("review-open", ({ detail }) => this._showOnly(detail));
    guest.pane.append(guest.node);
    this.tabs.reveal(guest.key);
  }

  _tellGuests() {
    for (const { node } of this.guests ?? []) if (node) node.view = { ...this.view };
  }

  /** Show only these images (null: all again): {title, items: {imageId, box, kind}[]}. */
  _showOnly(detail) {
    this.showing.set(detail);
    if (this.single.isOpen) this._closeImage();
    this._arrange();
  }

  _legend() {
    this.counters = {};
    const toggles = Object.entries(OUTCOMES).map(([name, { name: title, long }]) => {
      this.counters[name] = element("strong", { class: name }, "–");
      const toggle = element("button", { type: "button", class: "a-button small outcome", "aria-pressed": "true", title: `${long}. Click to hide or show.` }, outcomeMark(name), title, this.counters[name]);
      toggle.addEventListener("click", () => {
        if (!this.shown.delete(name)) this.shown.add(name);
        toggle.setAttribute("aria-pressed", String(this.shown.has(name)));
        this._redraw();
      });
      return toggle;
    });
    return element("div", { class: "legend" }, ...toggles);
  }

  // ---- thresholds: everything below happens in the browser ----------------------------------------------------------

  _setView(change) {
    Object.assign(this.view, change);
    if (change.score !== undefined) this.scoreInput.show(this.view.score);
    if (this._frame) return;
    this._frame = requestAnimationFrame(() => {
      this._frame = 0;
      const start = performance.now();
      this.data.setView(this.view, this.single.isOpen ? [this.single.image] : this.grid.imagesInSight);
      this.dataset.frameMs = (performance.now() - start).toFixed(2);
      clearTimeout(this._sorting);
      this._sorting = setTimeout(() => this._arrange(), SORT_MS);
      this._tellGuests();
    });
  }

  _setClass(label) {
    this.classSelect.input.value = label;
    this.panel.markClass(label);
    this._setView({ label });
  }

  _setSort(sort) {
    this.sort = sort;
    this._arrange();
  }

  /** Counts have changed: show them, and draw what is in sight. */
  _onCounted() {
    if (!this.grid) return;
    this.loading.remove();
    if (!this.grid.images.length && this.data.images.length) this._arrange();
    const totals = this.data.totals();
    for (const [name, count] of Object.entries(totals)) {
      this.counters[name].textContent = String(count);
      this.dataset[name] = count;
    }
    this.dataset.counted = String(this.data.isCounted);
    this.panel.update(this.view.score, ratesOf(totals));
    this._redraw();
    if (this.data.isCounted && this.grid.images.length < this.data.images.length && !this.view.label) this._arrange();
  }

  _redraw() {
    if (!this.grid || !this.data) return;
    const options = { ...this.view, shown: this.shown };
    if (this.single.isOpen) {
      this.single.draw(options);
      this.proposals.explain();
    } else this.grid.draw(options);
  }

  _arrange() {
    if (!this.data) return;
    const images = this.data.ordered(this.sort).filter((image) => this.showing.has(image.id));
    this.grid.setImages(images);
    this.dataset.images = images.length;
    this._redraw();
  }

  // ---- one image --------------------------------------------------------------------------------------------------

  _openImage(image) {
    setParam("image", image.id);
    image.update(this.view);
    this.single.open(image, { ...this.view, shown: this.shown }, this.showing.itemOf(image.id));
  }

  _closeImage() {
    setParam("image", null);
    this.single.close();
    this._redraw();
  }

  _step(step) {
    const index = this.grid.images.indexOf(this.single.image) + step;
    if (this.grid.images[index]) this._openImage(this.grid.images[index]);
  }

  _onKey(event) {
    if (!this.single?.isOpen || event.target.closest?.("input, select, textarea, [role=tab], [role=slider]")) return;
    if (event.key === "Escape") this._closeImage();
    else if (event.key === "ArrowLeft") this._step(-1);
    else if (event.key === "ArrowRight") this._step(1);
    else return;
    event.preventDefault();
  }

  // ---- ends -------------------------------------------------------------------------------------------------------

  _close() {
    cancelAnimationFrame(this._frame);
    this._frame = 0;
    clearTimeout(this._sorting);
    this._stopPolling?.();
    this.data?.stop();
    this.grid?.destroy();
    this.single?.destroy();
    this.data = this.grid = this.single = null;
  }

  _empty(title, text, href, action) {
    this.dataset.state = "empty";
    this.replaceChildren(card(title, text, element("a", { class: "a-button primary", href }, action)));
  }

  _fail(error) {
    this.dataset.state = "failed";
    const retry = element("button", { type: "button", class: "a-button", onclick: () => this._start().catch((again) => this._fail(again)) }, "Try again");
    this.replaceChildren(card(error.message, error.hint ?? "", retry));
  }
}

// Of a checkpoint the predictions in the views that its run is judged in; others are a source of their own.
const sourceOf = (set) => (set.kind === "checkpoint" && set.is_main ? `checkpoint-${set.checkpoint_id}` : `set-${set.id}`);

const describe = ({ name, map50 }) => (map50 === null ? name : `${name}, mAP50 ${map50.toFixed(3)}`);

function card(title, ...content) {
  return element("div", { class: "a-empty" }, element("h3", {}, title), ...content.map((item) => (typeof item === "string" ? element("p", {}, item) : item)));
}

function select(label, onChange) {
  const input = element("select", { class: "a-input", onchange: () => onChange(input.value) });
  return { input, field: element("label", { class: "pick" }, label || null, input) };
}

function fill(input, items, value) {
  input.replaceChildren(
    ...items.map(([key, text]) => element("option", { value: key, selected: String(key) === String(value) }, text)),
  );
}

function slider({ min, max, step, value, onInput }) {
  const range = element("input", { type: "range", class: "a-input", min, max, step });
  const output = element("output", {});
  const show = (number) => {
    range.value = number;
    output.textContent = number.toFixed(2);
  };
  range.addEventListener("input", () => {
    output.textContent = Number(range.value).toFixed(2);
    onInput(Number(range.value));
  });
  show(value);
  return { range, output, show };
}

if (!customElements.get("anchorage-review")) customElements.define("anchorage-review", AnchorageReview);

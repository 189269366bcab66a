// Reviewing one prediction set: the bar, the images and the side panel around one View, which stands in the address.

import { getParam, setParam } from "./api.js";
import { ClassThresholds } from "./class_thresholds.js";
import { element } from "./element.js";
import { KINDS } from "./error_kinds.js";
import { enterPlace, leavePlace, setParams } from "./places.js";
import { OUTCOMES } from "./outcomes.js";
import { ReviewBar } from "./review_bar.js";
import { ReviewCurves } from "./review_curves.js";
import { AS_LISTED, ReviewData, SORTS, USUAL_SORT } from "./review_data.js";
import { ReviewGrid } from "./review_grid.js";
import { SIZES } from "./review_image.js";
import { ReviewPanel } from "./review_panel.js";
import { ReviewProposals } from "./review_proposals.js";
import { putList, Showing } from "./review_showing.js";
import { ReviewSingle } from "./review_single.js";
import { ReviewTabs } from "./review_tabs.js";
import { ratesOf } from "./threshold_curves.js";

const REST_MS = 250; // order, histogram and address follow when a slider has rested this long
// Tabs that other modules fill; hidden while their element is not defined.
const GUESTS = [
  { key: "errors", title: "Errors", tag: "anchorage-review-errors" },
  { key: "confusion", title: "Confusion", tag: "anchorage-review-confusion" },
];
const NO_CHANGE = { iou: 0.5, nms: 1, label: 0, size: -1, kind: -1 };

export class SetReview {
  /**
   * @param {HTMLElement} page the widget's element: data-* attributes for tests and styles
   * @param {HTMLElement} body filled
   * @param {Object} evaluation of the set, as the server gives it
   */
  constructor(page, body, evaluation) {
    this.page = page;
    this.evaluation = evaluation;
    this.names = evaluation.per_class.map((row) => row.name);
    // An ensemble of the lab begins at the threshold that was tuned for it.
    this.usualScore = evaluation.set.options.score_threshold ?? evaluation.f1_threshold;
    this.thresholds = new ClassThresholds(evaluation);
    this.view = { ...this._viewOfAddress(), thresholds: this.thresholds.inUse };
    this.sort = Object.hasOwn(SORTS, getParam("sort")) ? getParam("sort") : null; // chosen by the user
    this._build(body);
    this.data = new ReviewData(evaluation.set.id, this.names.length, () => this._onCounted());
  }

  /** Load the images; the first of them can be looked at before the last are there. */
  async load() {
    await this.data.load(this.view);
    if (!this.data || this.data.total !== this.data.images.length) return;
    const image = this.data.images.find((item) => item.id === Number(getParam("image")));
    if (image) this._openImage(image);
  }

  destroy() {
    cancelAnimationFrame(this._frame);
    clearTimeout(this._resting);
    this.data.stop();
    this.grid.destroy();
    this.single.destroy();
    this.proposals.stop();
    this.data = null;
  }

  /** Take the colors of the theme as it is now. */
  retheme() {
    this.grid.retheme();
    this._redraw();
  }

  _build(body) {
    this.bar = new ReviewBar(this.names, this._shownOfAddress(), {
      onView: (change) => this.setView(change),
      onScore: (score) => this._setScore(score),
      onBest: () => this._toBest(),
      onSort: (sort) => this._setSort(sort),
      onShown: () => this._showOutcomes(),
    });
    this.showing = new Showing(() => this._showOnly(null));
    this.bar.chips.append(this.showing.chip);
    this.loading = element("p", { class: "a-muted loading" }, "Loading predictions…");
    this.nothing = element("div", { class: "a-empty", hidden: true });
    const tiles = element("div", { class: "grid" });
    const single = element("div", { class: "single", hidden: true });
    const side = element("aside", { class: "side" });
    body.replaceChildren(...this.bar.rows, element("div", { class: "main" }, this.loading, tiles, this.nothing, single), side);
    this.grid = new ReviewGrid(tiles, { onOpen: (image) => this.openImage(image), itemsOf: (id) => this.showing.itemsOf(id) });
    this.single = new ReviewSingle(single, {
      onStep: (step) => this.step(step),
      onClose: () => this.closeImage(),
      onOpened: () => this.proposals.follow(),
      nameOf: (label) => this.names[label - 1] ?? `class ${label}`,
    });
    this.proposals = new ReviewProposals(this.single, this.evaluation.set, getParam("overlay"), () => this._writeAddress());
    this._buildSide(side);
    this.bar.show(this.view);
  }

  _buildSide(side) {
    const [figures, curves] = [element("div"), element("div")];
    const onClass = (label) => this.setView({ label });
    this.panel = new ReviewPanel(figures, this.evaluation, this.thresholds, {
      onClass,
      onThresholds: () => this.setView({ thresholds: this.thresholds.inUse }),
      onImages: (detail) => this._showOnly(detail),
    });
    this.curves = new ReviewCurves(curves, this.evaluation.per_class, {
      onScore: (score) => this._setScore(score),
      onClass: (label) => onClass(label === this.view.label ? 0 : label),
    });
    this.guests = GUESTS.map((guest) => ({ ...guest, pane: element("div"), isHidden: true }));
    const own = [{ key: "figures", title: "Figures", pane: figures }, { key: "curves", title: "Curves", pane: curves }];
    this.tabs = new ReviewTabs(side, [...own, ...this.guests], () => this._drawCurves());
    for (const guest of this.guests) customElements.whenDefined(guest.tag).then(() => this._welcome(guest));
    this.panel.markClass(this.view.label);
    this._describe();
  }

  // ---- tabs of other modules ----------------------------------------------------------------------------------------

  _welcome(guest) {
    if (!guest.pane.isConnected || guest.node) return;
    guest.node = document.createElement(guest.tag);
    Object.assign(guest.node, { setId: this.evaluation.set.id, view: this._guestView() });
    guest.node.addEventListener("review-open", ({ detail }) => this._showOnly(detail, guest.node));
    guest.pane.append(guest.node);
    this.tabs.reveal(guest.key);
  }

  _guestView() {
    const { score, iou, label, nms, thresholds } = this.view;
    return { score, iou, label, nms, isByClass: thresholds !== null };
  }

  /**
   * Show only these images (null: all again): {title, items: {imageId, box?, kind?}[]}; with `isNextPage` they are more
   * of the same list. `sender` is the tab that they come from.
   */
  _showOnly(detail, sender = null) {
    if (detail?.isNextPage) setParam("image", null);
    else enterPlace("list", { image: null });
    putList(detail);
    this._narrow(sender);
    this.single.close();
    this._arrange();
  }

  /** Take the list of images from the address; tabs that it does not come from have none open. */
  _narrow(sender = null) {
    this.showing.follow();
    for (const { node } of this.guests) if (node && node !== sender) node.pages?.close();
  }

  // ---- thresholds and filters: all of it happens in the browser -----------------------------------------------------

  /** @param {Object} change of the View */
  setView(change) {
    Object.assign(this.view, change);
    this.bar.show(this.view);
    if (change.label !== undefined) this.panel.markClass(change.label);
    if (Object.keys(change).some((name) => name !== "score")) this._describe();
    this._frame ||= requestAnimationFrame(() => this._apply());
  }

  _apply() {
    this._frame = 0;
    const start = performance.now();
    this.data.setView(this.view, this.single.isOpen ? [this.single.image] : this.grid.imagesInSight);
    this._redraw();
    this.page.dataset.frameMs = (performance.now() - start).toFixed(2);
    clearTimeout(this._resting);
    this._resting = setTimeout(() => this._rest(), REST_MS);
  }

  /** The slider moves the threshold of all classes, or that of the chosen one while each has its own. */
  _setScore(score) {
    if (!this.view.thresholds) return this.setView({ score });
    if (!this.view.label) return;
    this.thresholds.set(this.view.label, score);
    this.panel.showThresholds();
    this.setView({ thresholds: this.thresholds.inUse });
  }

  _toBest() {
    if (!this.view.thresholds) return this.setView({ score: this.thresholds.best[this.view.label] });
    this.thresholds.reset(this.view.label);
    this.panel.showThresholds();
    this.setView({ thresholds: this.thresholds.inUse });
  }

  _showOutcomes() {
    this._redraw();
    this._writeAddress();
  }

  _setSort(sort) {
    this.sort = sort === this._usualSort ? null : sort;
    this._rest();
  }

  /** Of a list that is shown its own order. */
  get _usualSort() {
    return this.showing.isOn ? AS_LISTED : USUAL_SORT;
  }

  _describe() {
    this.panel.describe(this.view, this.view.size < 0 ? null : `${SIZES[this.view.size].key} objects`);
  }

  /** Counts have changed. */
  _onCounted() {
    this.loading.remove();
    const totals = this.data.totals();
    this.bar.count(totals);
    for (const name of ["tp", "fp", "fn"]) this.page.dataset[name] = totals[name];
    this.page.dataset.counted = String(this.data.isCounted);
    this.panel.update(ratesOf(totals));
    this.curves.follow(this.view);
    if (!this.data.isCounted) return;
    this._drawCurves();
    if (this._numRested !== this.data.images.length) this._rest(); // pages have come in
  }

  _drawCurves() {
    if (!this.data?.isCounted || this.tabs?.chosen !== "curves") return;
    const { curves } = this.data;
    const { label, iou, nms, size } = this.view;
    const wanted = [label, iou, nms, size].join();
    if (this._drawn?.curves === curves && this._drawn.wanted === wanted) return;
    this._drawn = { curves, wanted };
    this.curves.show(curves, this.view);
  }

  /** What may come a little later: the order, the numbers of kinds, the histogram, the address. */
  _rest() {
    this._numRested = this.data.images.length;
    this._arrange();
    this.bar.countKinds(this.data.totals().kinds);
    this.panel.histogram.show(this.data.byDifference());
    for (const { node } of this.guests) if (node) node.view = this._guestView();
    this._writeAddress();
  }

  _arrange() {
    const sort = this.sort ?? this._usualSort;
    const isListed = sort === AS_LISTED;
    const images = this.showing.narrow(this.data.ordered(isListed ? USUAL_SORT : sort), isListed);
    this.bar.showSort(sort, this.showing.isOn);
    this.grid.setImages(images);
    this.page.dataset.images = images.length;
    this._explainNothing(images.length === 0 && this.data.isLoaded);
    this._redraw();
  }

  _explainNothing(isEmpty) {
    this.nothing.hidden = !isEmpty;
    if (!isEmpty) return;
    const reset = element("button", { type: "button", class: "a-button", onclick: () => this._showAll() }, "Show all images");
    this.nothing.replaceChildren(element("h3", {}, "No image has any of this"), element("p", {}, "Nothing is left by these filters at these thresholds."), reset);
  }

  _showAll() {
    setParam("showing", null);
    this._narrow();
    this.setView({ label: 0, size: -1, kind: -1 });
  }

  _redraw() {
    if (!this.data) return;
    const options = { ...this.view, shown: this.bar.shown };
    if (this.single.isOpen) {
      this.single.draw(options);
      this.proposals.explain();
    } else this.grid.draw(options);
  }

  // ---- the address --------------------------------------------------------------------------------------------------

  _viewOfAddress() {
    const number = (name, low, high, otherwise) => {
      const value = Number(getParam(name) ?? NaN);
      return value >= low && value <= high ? value : otherwise;
    };
    const placeOf = (list, name) => list.findIndex(({ key }) => key === getParam(name));
    return {
      score: number("score", 0, 1, this.usualScore),
      iou: number("iou", 0.05, 0.95, NO_CHANGE.iou),
      nms: number("nms", 0.05, 1, NO_CHANGE.nms),
      label: Math.trunc(number("class", 0, this.names.length, 0)),
      size: placeOf(SIZES, "size"),
      kind: placeOf(KINDS, "kind"),
    };
  }

  /** The outcomes that the legend shows: all but those that the address hides. */
  _shownOfAddress() {
    const hidden = (getParam("hidden") ?? "").split(",");
    return new Set(Object.keys(OUTCOMES).filter((name) => !hidden.includes(name)));
  }

  _writeAddress() {
    const { score, iou, nms, label, size, kind } = this.view;
    const unless = (value, usual) => (value === usual ? null : value);
    const values = {
      score: unless(score, this.usualScore),
      iou: unless(iou, NO_CHANGE.iou),
      nms: unless(nms, NO_CHANGE.nms),
      class: unless(label, 0),
      size: SIZES[size]?.key,
      kind: KINDS[kind]?.key,
      sort: this.sort,
      hidden: Object.keys(OUTCOMES).filter((name) => !this.bar.shown.has(name)).join() || null,
      overlay: this.proposals.overlay,
    };
    for (const [name, value] of Object.entries(values)) {
      if (getParam(name) !== (value === null || value === undefined ? null : String(value))) setParam(name, value);
    }
  }

  // ---- places: one image large, a list of images --------------------------------------------------------------------

  /** Back or Forward: the large image, the list and the tab follow the address; thresholds and filters stay, and go into it. */
  follow() {
    if (!this.data) return;
    this._narrow();
    this._writeAddress();
    this.tabs.follow();
    const image = this.data.images.find((item) => item.id === Number(getParam("image")));
    if (image) this._openImage(image);
    else this.single.close();
    this._arrange();
  }

  openImage(image) {
    if (this.single.isOpen) setParam("image", image.id);
    else enterPlace("image", { image: image.id });
    this._openImage(image);
  }

  _openImage(image) {
    image.update(this.view);
    this.single.open(image, { ...this.view, shown: this.bar.shown }, this.showing.itemsOf(image.id));
  }

  closeImage() {
    this.single.close();
    this._redraw();
    leavePlace("image", { image: null });
  }

  step(step) {
    const image = this.grid.images[this.grid.images.indexOf(this.single.image) + step];
    if (image) this.openImage(image);
  }
}

/** Forget in the address what belongs to one set only, before another is opened. */
export function forgetSet() {
  for (const name of ["score", "showing"]) setParam(name, null);
}

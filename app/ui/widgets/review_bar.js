// The bar over the images of Review: thresholds, filters, order, and the legend that counts and hides outcomes.

import { fill, select, slider } from "./controls.js";
import { element } from "./element.js";
import { KINDS } from "./error_kinds.js";
import { outcomeLegend } from "./outcomes.js";
import { AS_LISTED, SORTS, USUAL_SORT } from "./review_data.js";
import { SIZES } from "./review_image.js";

const SIZE_HELP = "By the area of a box in pixels of the original image: small is below 32 × 32, large above 96 × 96";

export class ReviewBar {
  /**
   * @param {string[]} names of the classes, label 1 first
   * @param {Set<string>} shown the outcomes to begin with; changed by the legend
   * @param {Object} callbacks onView(change of a View), onScore(score), onBest(), onSort(key), onShown() other outcomes are shown
   */
  constructor(names, shown, callbacks) {
    Object.assign(this, { callbacks, shown });
    this._buildThresholds();
    this._buildFilters(names);
    const spacer = () => element("span", { class: "spacer" });
    const legend = outcomeLegend(this.shown, () => callbacks.onShown(), { hasCounters: true });
    this.counters = legend.counters;
    this.chips = element("span", { class: "chips" });
    this.rows = [
      element("div", { class: "bar thresholds" }, this.score.field, this.best, this.iou.field, this.nms.field, spacer(), legend.root),
      element("div", { class: "bar filters" }, this.classes.field, this.sizes.field, this.kinds.field, this.chips, spacer(), this.sort.field),
    ];
  }

  _buildThresholds() {
    const { onView, onScore, onBest } = this.callbacks;
    this.score = slider({ label: "Score ≥", name: "Score threshold", min: 0, max: 1, step: 0.01, onInput: onScore });
    this.iou = slider({ label: "IoU ≥", name: "IoU threshold", min: 0.05, max: 0.95, step: 0.05, onInput: (iou) => onView({ iou }) });
    const nms = { min: 0.05, max: 1, step: 0.05, format: (value) => (value < 1 ? value.toFixed(2) : "off") };
    this.nms = slider({ label: "NMS", name: "NMS threshold", ...nms, onInput: (value) => onView({ nms: value }) });
    this.iou.field.title = "A prediction finds a labeled box of its class that it overlaps at least this much";
    this.nms.field.title = "Strike out a prediction that a surer one of its class overlaps by more than this";
    this.best = element("button", { type: "button", class: "a-button small best", onclick: onBest }, "Best F1");
    this.best.title = "Set the score threshold where F1 is highest at IoU .50: of the chosen class, or of all";
  }

  _buildFilters(names) {
    const { onView, onSort } = this.callbacks;
    this.classes = select("Class", (value) => onView({ label: Number(value) }));
    fill(this.classes.input, [[0, "All classes"], ...names.map((name, index) => [index + 1, name])], 0);
    this.sizes = select("Size", (value) => onView({ size: Number(value) }));
    fill(this.sizes.input, [[-1, "All sizes"], ...SIZES.map(({ name }, index) => [index, name])], -1);
    this.sizes.field.title = SIZE_HELP;
    this.kinds = select("Error kind", (value) => onView({ kind: Number(value) }));
    fill(this.kinds.input, [[-1, "All kinds"], ...KINDS.map(({ name }, index) => [index, name])], -1);
    this.sort = select("Order", onSort);
    fill(this.sort.input, Object.entries(SORTS).map(([key, { name }]) => [key, name]), USUAL_SORT);
    this.asListed = element("option", { value: AS_LISTED }, "As listed");
  }

  /** Show the order; while a list is shown its own is among them. */
  showSort(sort, isList) {
    if (!isList) this.asListed.remove();
    else if (!this.asListed.isConnected) this.sort.input.prepend(this.asListed);
    this.sort.input.value = sort;
  }

  /** Show a View. */
  show(view) {
    const own = view.thresholds && view.label ? view.thresholds[view.label] : view.score;
    const isByClass = view.thresholds !== null && !view.label;
    this.score.show(own, isByClass ? "by class" : null);
    this.score.field.title = isByClass ? "Each class has a threshold of its own: choose a class to move it" : "";
    this.iou.show(view.iou);
    this.nms.show(view.nms);
    this.classes.input.value = view.label;
    this.sizes.input.value = view.size;
    this.kinds.input.value = view.kind;
    this.kinds.field.title = view.kind < 0 ? "Kinds of errors, after TIDE" : KINDS[view.kind].long;
  }

  /** Show how many of each outcome there are. */
  count(totals) {
    for (const [name, node] of Object.entries(this.counters)) node.textContent = String(totals[name]);
  }

  /** Show how many errors of each kind there are. */
  countKinds(counts) {
    counts.forEach((count, kind) => (this.kinds.input.options[kind + 1].textContent = `${KINDS[kind].name} (${count})`));
  }
}

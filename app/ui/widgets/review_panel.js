// The Figures tab: precision and recall at the sliders, COCO's figures, overlaps and counts, classes and their thresholds.

import { notify } from "./api.js";
import { element } from "./element.js";
import { formatFigure } from "./number_words.js";
import { colorOf } from "./palette.js";
import { ReviewHistogram } from "./review_histogram.js";

// Key of the evaluation, key of a class's row, name, help. AR<cap> is put in for the cap that was used.
const FIGURES = [
  ["AP", "ap", "mAP .50:.95", "Mean average precision over IoU .50 to .95: COCO's main figure"],
  ["AP50", "ap50", "mAP50", "Mean average precision at IoU .50"],
  ["AP75", "ap75", "mAP75", "Mean average precision at IoU .75: boxes must sit tightly"],
  ["APs", "aps", "AP small", "Average precision on objects below 32 × 32 pixels"],
  ["APm", "apm", "AP medium", "Average precision on objects of 32 × 32 to 96 × 96 pixels"],
  ["APl", "apl", "AP large", "Average precision on objects above 96 × 96 pixels"],
  ["AR1", null, "AR 1", "Average recall with the best detection of a class in each image"],
  ["AR10", null, "AR 10", "Average recall with the best 10"],
  ["AR100", "ar", "AR 100", "Average recall with the best 100"],
  ["ARs", "ars", "AR small", "Average recall on small objects"],
  ["ARm", "arm", "AR medium", "Average recall on medium objects"],
  ["ARl", "arl", "AR large", "Average recall on large objects"],
];
const COCO_CAP = 100;

export class ReviewPanel {
  /**
   * @param {HTMLElement} root filled
   * @param {Object} evaluation of a set, as the server gives it
   * @param {ClassThresholds} thresholds
   * @param {Object} callbacks onClass(label), onThresholds() they have changed, onImages({title, items})
   */
  constructor(root, evaluation, thresholds, callbacks) {
    Object.assign(this, { evaluation, thresholds, callbacks });
    this.label = 0;
    this.rates = { precision: element("strong"), recall: element("strong"), f1: element("strong") };
    const titles = { precision: "Precision", recall: "Recall", f1: "F1" };
    const live = Object.entries(this.rates).map(([name, value]) => element("div", {}, value, element("span", {}, titles[name])));
    this.liveNote = element("p", { class: "note", hidden: true });
    this.cocoBox = element("div");
    this.nmsNote = element("p", { class: "note warn", hidden: true }, "AP, AR, best F1 and overlaps are of all predictions as stored, without the NMS set here.");
    this.histogram = new ReviewHistogram(callbacks.onImages);
    root.replaceChildren(
      this._section("At these thresholds", element("div", { class: "live" }, ...live), this.liveNote),
      this.cocoBox,
      this._section("More or fewer boxes than labeled, by image", this.histogram.node),
      this._section("Classes", this._classes(), this._thresholdTools()),
    );
    this.markClass(0);
    this.showThresholds();
  }

  /** Follow the thresholds: rates of what the filters of class and size leave. */
  update(rates) {
    for (const [name, value] of Object.entries(this.rates)) value.textContent = rates[name].toFixed(3);
  }

  /** Say what these figures are of. @param {View} view */
  describe(view, sizeName) {
    const parts = [view.label ? this.evaluation.per_class[view.label - 1].name : null, sizeName, `IoU ${view.iou.toFixed(2)}`];
    if (view.nms < 1) parts.push(`NMS ${view.nms.toFixed(2)}`);
    if (view.thresholds) parts.push("thresholds by class");
    this.liveNote.textContent = parts.filter(Boolean).join(", ");
    this.liveNote.hidden = false;
    this.nmsNote.hidden = view.nms === 1;
  }

  /** Bring a class to the front (0: all alike), with its figures. */
  markClass(label) {
    this.label = label;
    for (const [own, { node }] of this.rows) node.classList.toggle("selected", own === label);
    const name = label ? this.evaluation.per_class[label - 1].name : "all classes";
    const scope = this.evaluation.per_class.length > 1 ? `, ${name}` : "";
    this.cocoBox.replaceChildren(this._section(`COCO figures${scope}`, this._figures(label), element("p", { class: "note" }, this._capText()), this.nmsNote));
  }

  _section(title, ...children) {
    return element("section", {}, element("h3", {}, title), ...children);
  }

  _capText() {
    const { max_detections: cap } = this.evaluation;
    if (cap === COCO_CAP) return `At most ${cap} detections of a class count in an image, as in COCO.`;
    return `At most ${cap} detections of a class count in an image: raised from COCO's ${COCO_CAP}, as some images hold more boxes.`;
  }

  _figures(label) {
    const { coco, max_detections: cap, mean_best_iou: overlap, per_class: classes } = this.evaluation;
    const row = label ? classes[label - 1] : null;
    const rows = FIGURES.filter(([, own]) => !row || own).map(([key, own, name, help]) => {
      const isLargest = own === "ar" && row;
      return [key, row ? row[own] : coco[key], (row ? name.replace("mAP", "AP") : name).replace("100", isLargest ? cap : "100"), help];
    });
    if (!row && cap !== COCO_CAP) rows.splice(9, 0, [`AR${cap}`, coco[`AR${cap}`], `AR ${cap}`, `Average recall with up to ${cap}: the cap was raised`]);
    const best = row ?? { f1: this.evaluation.f1, threshold: this.evaluation.f1_threshold };
    rows.push(["F1", best.f1, "Best F1", "The highest F1 over all score thresholds at IoU .50, and the threshold it has", best.threshold]);
    if (!row) {
      rows.push(["IoU of predictions", overlap.per_prediction, "IoU of predictions", "Mean best IoU of a prediction with a labeled box of its class, at the score of the best F1"]);
      rows.push(["IoU of objects", overlap.per_truth, "IoU of objects", "Mean best IoU of a labeled box with a prediction of its class, at the score of the best F1"]);
    }
    return element(
      "dl",
      { class: "figures" },
      ...rows.map(([key, value, name, help, threshold]) => {
        const where = threshold !== undefined && value > 0 ? element("span", { class: "a-muted" }, ` at ${threshold.toFixed(2)}`) : null;
        return element("div", { title: help }, element("dt", {}, name), element("dd", { "data-figure": key }, formatFigure(value), where));
      }),
    );
  }

  // ---- classes and their thresholds ---------------------------------------------------------------------------------

  _classes() {
    this.rows = new Map();
    const help = { Score: "Score threshold: that of the class's best F1, unless you change it" };
    const head = ["Class", "Objects", "AP", "AP50", "F1", "Score"].map((name, index) =>
      element("th", { class: index ? "a-number" : null, title: help[name] ?? null }, name),
    );
    const rows = this.evaluation.per_class.map((row) => this._classRow(row));
    return element("table", { class: "a-table classes" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  }

  _classRow(row) {
    const swatch = element("span", { class: "a-swatch" });
    swatch.style.background = colorOf(row.label - 1);
    const values = [row.num_truth, formatFigure(row.ap), formatFigure(row.ap50), formatFigure(row.f1)];
    const onclick = () => this.callbacks.onClass(row.label === this.label ? 0 : row.label);
    const button = element("button", { type: "button", class: "name", title: row.name, onclick }, swatch, element("span", { class: "text" }, row.name));
    const threshold = element("td", { class: "a-number threshold" });
    const node = element("tr", {}, element("td", {}, button), ...values.map((value) => element("td", { class: "a-number" }, String(value))), threshold);
    const input = element("input", { type: "number", class: "a-input", min: 0, max: 1, step: 0.01, "aria-label": `Score threshold of ${row.name}` });
    input.addEventListener("change", () => this._change(row.label, input));
    this.rows.set(row.label, { node, threshold, input, row });
    return node;
  }

  _change(label, input) {
    const value = Number(input.value);
    const { name } = this.evaluation.per_class[label - 1];
    if (input.value !== "" && value >= 0 && value <= 1) this.thresholds.set(label, value);
    else notify(`A score threshold is a number from 0 to 1: that of ${name} stays ${this.thresholds.values[label].toFixed(2)}.`, "error");
    this.showThresholds();
    this.callbacks.onThresholds();
  }

  _thresholdTools() {
    this.useBox = element("input", { type: "checkbox", onchange: () => this._use(this.useBox.checked) });
    const button = (text, title, onclick) => element("button", { type: "button", class: "a-button small", title, onclick }, text);
    this.resetButton = button("Best F1", "Set every class to the threshold of its best F1", () => {
      this.thresholds.reset();
      this.showThresholds();
      this.callbacks.onThresholds();
    });
    return element(
      "div",
      { class: "threshold-tools" },
      element("label", {}, this.useBox, "Use per-class thresholds"),
      this.resetButton,
      button("Download", "The thresholds of all classes as JSON", () => this.thresholds.download()),
    );
  }

  _use(isOn) {
    this.thresholds.use(isOn);
    this.showThresholds();
    this.callbacks.onThresholds();
  }

  /** Show the thresholds by class as they are: to read, or to change while they are in use. */
  showThresholds() {
    const { isOn, values } = this.thresholds;
    this.useBox.checked = isOn;
    this.resetButton.hidden = !isOn;
    for (const [label, { threshold, input, row }] of this.rows) {
      input.value = values[label].toFixed(2);
      threshold.replaceChildren(isOn ? input : row.f1 > 0 ? row.threshold.toFixed(2) : "–");
    }
  }
}

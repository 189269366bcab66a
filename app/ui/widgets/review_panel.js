// The right side of the Review page: precision and recall at the sliders, COCO's figures, classes, curves.

import { curveChart } from "./curve_chart.js";
import { element } from "./element.js";
import { colorOf } from "./palette.js";

const FIGURES = [
  ["AP", "mAP .50:.95", "Mean average precision over IoU .50 to .95: COCO's main figure"],
  ["AP50", "mAP50", "Mean average precision at IoU .50"],
  ["AP75", "mAP75", "Mean average precision at IoU .75: boxes must sit tightly"],
  ["APs", "AP small", "Average precision on objects below 32 x 32 pixels"],
  ["APm", "AP medium", "Average precision on objects of 32 x 32 to 96 x 96 pixels"],
  ["APl", "AP large", "Average precision on objects above 96 x 96 pixels"],
  ["AR1", "AR 1", "Average recall with the best detection of a class in each image"],
  ["AR10", "AR 10", "Average recall with the best 10"],
  ["AR100", "AR 100", "Average recall with the best 100"],
  ["ARs", "AR small", "Average recall on small objects"],
  ["ARm", "AR medium", "Average recall on medium objects"],
  ["ARl", "AR large", "Average recall on large objects"],
];

/** A figure with three decimals; a dash when there was nothing to measure (COCO's -1). */
export function formatFigure(value) {
  return value < 0 ? "–" : value.toFixed(3);
}

export class ReviewPanel {
  /** @param {HTMLElement} root @param {(label: number) => void} onClass a class was clicked (0: all) */
  constructor(root, onClass) {
    this.root = root;
    this.onClass = onClass;
  }

  /** Show the figures of an evaluation. */
  show(evaluation) {
    this.evaluation = evaluation;
    this.rates = { precision: element("strong"), recall: element("strong"), f1: element("strong") };
    const titles = { precision: "Precision", recall: "Recall", f1: "F1" };
    const live = Object.entries(this.rates).map(([name, value]) => element("div", {}, value, element("span", {}, titles[name])));
    this.thresholdChart = this._thresholdChart();
    this.precisionBox = element("div");
    this.classRows = new Map();
    const scope = evaluation.per_class.length > 1 ? ", all classes" : ""; // whatever class the page is filtered by
    this.root.replaceChildren(
      this._section("At these sliders", element("div", { class: "live" }, ...live)),
      this._section(`F1 over the score threshold${scope}`, this.thresholdChart, this._thresholdLegend()),
      this._section(`COCO figures${scope}`, this._figures()),
      this._section("Classes", this._classes()),
      this._section("Precision and recall at IoU .50", this.precisionBox),
    );
    this.markClass(0);
  }

  /** Follow the sliders. */
  update(score, rates) {
    this.thresholdChart.setMarker(score);
    for (const [name, value] of Object.entries(this.rates)) value.textContent = rates[name].toFixed(3);
  }

  /** Bring a class to the front (0: all alike). */
  markClass(label) {
    for (const [own, row] of this.classRows) row.classList.toggle("selected", own === label);
    const { curves, per_class: classes } = this.evaluation;
    const lines = classes
      .filter((row) => row.ap50 >= 0 && (!label || row.label === label))
      .map((row) => ({ x: curves.recall, y: curves.precision[row.label], color: colorOf(row.label - 1) }));
    this.precisionBox.replaceChildren(curveChart({ label: "Precision over recall, one line per class", x: "Recall", lines }));
  }

  _section(title, ...children) {
    return element("section", {}, element("h3", {}, title), ...children);
  }

  _thresholdChart() {
    const { threshold, precision, recall, f1 } = this.evaluation.curves.threshold;
    // Above the last prediction precision is 1 by convention, and recall 0: nothing to draw.
    const end = 1 + recall.findLastIndex((value, index) => value > 0 || precision[index] < 1);
    return curveChart({
      label: "F1, precision and recall over the score threshold at IoU .50",
      x: "Score threshold",
      lines: [
        { x: threshold, y: precision.slice(0, end), color: "var(--a-muted)", dash: "5 3" },
        { x: threshold, y: recall, color: "var(--a-muted)", dash: "1.5 2.5" },
        { x: threshold, y: f1, color: "var(--a-accent)", width: 2.5 },
      ],
    });
  }

  _thresholdLegend() {
    const { f1, f1_threshold: best } = this.evaluation;
    const text = f1 < 0 ? "" : ` Best F1 ${f1.toFixed(3)} at ${best.toFixed(2)}.`;
    return element("p", { class: "note" }, `Solid: F1, dashed: precision, dotted: recall, at IoU .50.${text}`);
  }

  _figures() {
    const { coco, max_detections: cap } = this.evaluation;
    const rows = coco[`AR${cap}`] === undefined || cap === 100 ? FIGURES : [...FIGURES];
    if (rows !== FIGURES) rows.splice(9, 0, [`AR${cap}`, `AR ${cap}`, `Average recall with up to ${cap}: the cap was raised`]);
    return element(
      "dl",
      { class: "figures" },
      ...rows.map(([key, name, help]) =>
        element("div", { title: help }, element("dt", {}, name), element("dd", { "data-figure": key }, formatFigure(coco[key]))),
      ),
    );
  }

  _classes() {
    const head = ["Class", "Objects", "AP", "AP50", "F1", "at"].map((name, index) =>
      element("th", { class: index ? "a-number" : null, title: name === "at" ? "Score threshold of the class's best F1" : null }, name),
    );
    const rows = this.evaluation.per_class.map((row) => this._classRow(row));
    return element("table", { class: "a-table classes" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  }

  _classRow(row) {
    const swatch = element("span", { class: "a-swatch" });
    swatch.style.background = colorOf(row.label - 1);
    const values = [row.num_truth, formatFigure(row.ap), formatFigure(row.ap50), formatFigure(row.f1), row.f1 <= 0 ? "–" : row.threshold.toFixed(2)];
    const button = element("button", { type: "button", class: "name", title: row.name, onclick: () => this.onClass(row.label) }, swatch, element("span", {}, row.name));
    const node = element("tr", {}, element("td", {}, button), ...values.map((value) => element("td", { class: "a-number" }, String(value))));
    this.classRows.set(row.label, node);
    return node;
  }
}

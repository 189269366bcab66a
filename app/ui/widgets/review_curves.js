// The Curves tab: F1 over the score threshold, and precision over recall. The point on each is the score slider.

import { curveChart } from "./curve_chart.js";
import { element } from "./element.js";
import { colorOf, MOST_LINES } from "./palette.js";
import { NUM_STEPS, stepOf } from "./threshold_curves.js";

const SLIDER_STEPS = 100;

export class ReviewCurves {
  /**
   * @param {HTMLElement} root filled
   * @param {{label: number, name: string}[]} classes
   * @param {{onScore: (score: number) => void, onClass: (label: number) => void}} callbacks
   */
  constructor(root, classes, callbacks) {
    this.classes = classes;
    this.callbacks = callbacks;
    this.score = null;
    const onStep = (step) => this._step(step);
    this.overScore = curveChart({
      label: "F1, precision and recall over the score threshold",
      x: "Score threshold",
      hasRule: true,
      pointLabel: "Score threshold on the F1 curve",
      onMove: ({ x }) => this._move(x),
      onStep,
    });
    this.overRecall = curveChart({
      label: "Precision over recall",
      x: "Recall",
      y: "Precision",
      pointLabel: "Score threshold on the precision-recall curve",
      onMove: (at) => this._moveTo(at),
      onStep,
    });
    this.f1Note = element("p", { class: "note" });
    this.recallNote = element("p", { class: "note" });
    this.legend = element("div", { class: "class-legend" }, ...this._legend());
    root.replaceChildren(
      element("section", {}, (this.f1Title = element("h3")), this.overScore, this.f1Note),
      element("section", {}, (this.recallTitle = element("h3")), this.overRecall, this.recallNote, this.legend),
    );
  }

  _legend() {
    if (this.classes.length < 2) return [];
    return this.classes.map(({ label, name }) => {
      const swatch = element("span", { class: "a-swatch" });
      swatch.style.background = colorOf(label - 1);
      const text = element("span", { class: "text" }, name);
      return element("button", { type: "button", class: "name", title: name, "data-label": label, onclick: () => this.callbacks.onClass(label) }, swatch, text);
    });
  }

  /** Draw the curves of a View; needed again when its IoU, NMS, size or class has changed. */
  show(curves, view) {
    this.curves = curves;
    this.label = view.label;
    const where = `IoU ${view.iou.toFixed(2)}${view.nms < 1 ? `, NMS ${view.nms.toFixed(2)}` : ""}`;
    const whose = this._nameOf(view.label);
    this.f1Title.textContent = `F1 over the score threshold${whose}`;
    this.recallTitle.textContent = `Precision over recall${whose}`;
    this.overScore.setLines(this._linesOverScore());
    this.overRecall.setLines(this._linesOverRecall());
    this.f1Note.textContent = `Thick: F1, dashed: precision, dotted: recall, at ${where}. Drag the point, or use the arrow keys: it is the score slider.`;
    this.recallNote.textContent = `At ${where}.${this._isByClass() ? " Thick: all classes together, thin: each class." : ""}`;
    for (const button of this.legend.children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.label) === view.label));
    }
    this.follow(view);
  }

  /** Put the points where the score threshold is; with thresholds by class there is none for all of them. */
  follow(view) {
    this.score = !view.thresholds ? view.score : view.label ? view.thresholds[view.label] : null;
    if (!this.curves) return;
    if (this.score === null || !this.curves.numTruth(this.label)) {
      this.overScore.setPoint(null);
      this.overRecall.setPoint(null);
      return;
    }
    const { precision, recall, f1 } = this.curves.at(this.label, stepOf(this.score));
    const text = `${this.score.toFixed(2)}: F1 ${f1.toFixed(3)}, precision ${precision.toFixed(3)}, recall ${recall.toFixed(3)}`;
    const value = this.score.toFixed(2);
    this.overScore.setPoint({ x: this.score, y: f1, value, text });
    this.overRecall.setPoint({ x: recall, y: precision, value, text });
  }

  _nameOf(label) {
    if (this.classes.length < 2) return "";
    return label ? `, ${this.classes[label - 1].name}` : ", all classes";
  }

  _isByClass() {
    return !this.label && this.classes.length > 1 && this.classes.length <= MOST_LINES;
  }

  /** Lines of classes, thin, under the ones of what is chosen. */
  _classLines(draw) {
    return this._isByClass() ? this.classes.filter(({ label }) => this.curves.numTruth(label)).map(({ label }) => draw(label, 1)) : [];
  }

  _color(label) {
    return label ? colorOf(label - 1) : "var(--a-accent)";
  }

  _linesOverScore() {
    const line = (label, name, rest) => {
      const end = name === "precision" ? this.curves.endOf(label) : NUM_STEPS + 1;
      const steps = Array.from({ length: end }, (_, step) => step);
      return { name, x: steps.map((step) => step / NUM_STEPS), y: steps.map((step) => this.curves.at(label, step)[name]), ...rest };
    };
    return [
      ...this._classLines((label, width) => line(label, "f1", { name: `f1-${label}`, color: this._color(label), width })),
      line(this.label, "precision", { color: "var(--a-muted)", dash: "5 3" }),
      line(this.label, "recall", { color: "var(--a-muted)", dash: "1.5 2.5" }),
      line(this.label, "f1", { color: this._color(this.label), width: 2.5 }),
    ];
  }

  _linesOverRecall() {
    const line = (label, width, name) => {
      const rates = Array.from({ length: this.curves.endOf(label) }, (_, step) => this.curves.at(label, step));
      return { name, x: rates.map(({ recall }) => recall), y: rates.map(({ precision }) => precision), color: this._color(label), width };
    };
    return [...this._classLines((label, width) => line(label, width, `recall-${label}`)), line(this.label, 2.5, "recall")];
  }

  _move(score) {
    this.callbacks.onScore(Math.round(score * SLIDER_STEPS) / SLIDER_STEPS);
  }

  _step(step) {
    this._move(Math.min(Math.max(this.score + step, 0), 1));
  }

  /** To the slider's step whose point on the curve is nearest. */
  _moveTo({ x, y }) {
    let [best, least] = [0, Infinity];
    for (let step = 0; step <= SLIDER_STEPS; step++) {
      const { precision, recall } = this.curves.at(this.label, (step * NUM_STEPS) / SLIDER_STEPS);
      const distance = (recall - x) ** 2 + (precision - y) ** 2;
      if (distance < least) [best, least] = [step, distance];
    }
    this._move(best / SLIDER_STEPS);
  }
}

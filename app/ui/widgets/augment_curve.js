// How often the strong steps happen as a run goes on: a choice, a number, and the curve that follows from them.

import { notify, projectURL, sendJSON } from "./api.js";
import { element } from "./element.js";

const NS = "http://www.w3.org/2000/svg";
const CURVES = [["constant", "Constant"], ["linear", "Linear fall"], ["cosine", "Cosine fall"]];
const WIDTH = 84;
const HEIGHT = 56;
const MARGIN = 5;

export class CurvePanel {
  /**
   * @param {Object} described as GET …/augmentation/curve gives it: curve, off_epochs, epochs, shares
   * @param {Object} callbacks
   * @param {() => void} callbacks.onChange another preview is wanted
   */
  constructor(described, { onChange }) {
    this.onChange = onChange;
    const options = CURVES.map(([value, title]) => element("option", { value }, title));
    this.select = element("select", { class: "a-input", "aria-label": "Strong steps over the run", onchange: () => this._save() }, ...options);
    this.offBox = element("input", { class: "a-input", type: "number", min: 0, max: 10000, step: 1, onchange: () => this._save() });
    this.lateBox = element("input", { type: "checkbox", onchange: () => this.onChange() });
    this.line = document.createElementNS(NS, "polyline");
    this.chart = document.createElementNS(NS, "svg");
    this.chart.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.chart.setAttribute("role", "img");
    this.chart.append(this.line);
    const why = "MixUp, Mosaic, pasted objects, dropouts, crops, specks and bleaching make pictures unlike any real one.";
    this.root = element(
      "div",
      { class: "curve", title: why },
      element(
        "div",
        { class: "fields" },
        element("label", {}, "Strong steps", this.select),
        element("label", {}, "Off in the last", this.offBox, "epochs"),
      ),
      this.chart,
      element("label", { class: "when" }, this.lateBox, "Preview the last epochs instead of the first"),
    );
    this._show(described);
  }

  setShown(isShown) {
    this.root.hidden = !isShown;
  }

  /** The number of epochs of which the preview shows the last ones; 0 shows the first. */
  lateOf() {
    return this.lateBox.checked && !this.root.hidden ? this.epochs : 0;
  }

  async _save() {
    const body = { curve: this.select.value, off_epochs: Math.max(0, Math.round(Number(this.offBox.value)) || 0) };
    try {
      this._show(await sendJSON("PUT", projectURL("/augmentation/curve"), body));
      if (this.lateBox.checked) this.onChange();
    } catch (error) {
      notify(error, "error");
    }
  }

  _show({ curve, off_epochs: offEpochs, epochs, shares }) {
    this.epochs = epochs;
    this.select.value = curve;
    this.offBox.value = offEpochs;
    const across = (index) => MARGIN + (index / Math.max(1, shares.length)) * (WIDTH - 2 * MARGIN);
    const up = (share) => HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN);
    // An epoch is a step of its own: the value holds until the next one begins.
    const points = shares.flatMap((share, index) => [[across(index), up(share)], [across(index + 1), up(share)]]);
    this.line.setAttribute("points", points.map((point) => point.map((value) => value.toFixed(1)).join(",")).join(" "));
    const percent = (share) => `${Math.round(share * 100)} %`;
    const text = `Probability of strong steps over ${epochs} epochs: ${percent(shares[0])} in the first, ${percent(shares.at(-1))} in the last`;
    this.chart.setAttribute("aria-label", text);
    this.root.dataset.shares = shares.map((share) => share.toFixed(3)).join(" ");
  }
}

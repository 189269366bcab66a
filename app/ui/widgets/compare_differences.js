// The first tab of the Compare page: the figures of two sides with the noise of their differences, as a table with the
// intervals drawn in it; below it the options that differ and what keeps AP50 down.

import { colorOfSide, letterOf, sideMark } from "./compare_sides.js";
import { element } from "./element.js";
import { KINDS } from "./error_kinds.js";
import { formatFigure, signed, withMinus } from "./number_words.js";

const FIGURES = {
  map: ["mAP", "Mean average precision over IoU .50 to .95"],
  map50: ["mAP50", "Mean average precision at IoU .50"],
  map75: ["mAP75", "Mean average precision at IoU .75: boxes must sit tightly"],
  f1: ["F1", "Best F1 at IoU .50"],
  map50_f1: ["0.5 mAP50 + 0.5 F1", "Half of each: what picks the best checkpoint of a run unless another metric is chosen, and what Ensemble goes by"],
};
const KIND_NAMES = Object.fromEntries(KINDS.map(({ key, name }) => [key, name]));
const NS = "http://www.w3.org/2000/svg";
const PLOT = { height: 26, edge: 4 }; // pixels; percent of the width left free at each end

const interval = (low, high) => (low < 0 && high < 0 ? "" : `${low.toFixed(3)} to ${high.toFixed(3)}`);

/** What a difference of a pair of sides means, in a few words. */
export function outcomeWords(item, [first, second]) {
  return item.is_clear ? `${letterOf(item.difference > 0 ? second : first)} is better` : item.words.toLowerCase();
}

/** A side's mark with its name beside it, for the head of a column. */
export function sideHead(answer, place) {
  const { name } = answer.sides[place];
  return element("span", { class: "side-head", title: name }, sideMark(place), element("span", {}, name));
}

export class DifferenceView {
  constructor({ answer, figures, pair, wait }) {
    Object.assign(this, { answer, figures, pair });
    const cards = [wait ?? this._figures(), element("div", { class: "columns" }, this._options(), figures ? this._budgets() : null)];
    this.root = element("div", { class: "differences" }, ...cards);
  }

  _figures() {
    const { figures, answer } = this;
    const [first, second] = this.pair;
    const items = Object.entries(figures.differences);
    const reach = Math.max(...items.map(([, item]) => Math.max(Math.abs(item.low), Math.abs(item.high), Math.abs(item.difference))), 0.001) * 1.15;
    const rows = items.map(([name, item]) => this._row(name, item, reach));
    const head = [
      ["Figure", ""],
      [sideHead(answer, first), "a-number"],
      [sideHead(answer, second), "a-number"],
      [`${letterOf(second)} less ${letterOf(first)}`, "a-number"],
      ["95 % interval", "a-number"],
      [this._scale(reach), "plot"],
      ["In words", ""],
      ["Smallest detectable", "a-number"],
    ];
    const clear = items.filter(([, item]) => item.is_clear).length;
    return element(
      "section",
      { class: "a-card figures", "data-clear": clear },
      element("p", { class: "verdict" }, withMinus(figures.verdict)),
      element("div", { class: "scroll" }, element("table", { class: "a-table" }, element("thead", {}, element("tr", {}, ...head.map(([content, kind]) => element("th", { class: kind || null }, content)))), element("tbody", {}, ...rows))),
      element("p", { class: "note" }, this._explanation()),
    );
  }

  _explanation() {
    const { images, left_out: left, truth } = this.figures;
    const texts = [
      `Judged on ${images} images of ${this.answer.split} that both have.`,
      left ? `${left} that only one of them has are left out.` : "",
      ...truth.words,
      "The noise is that of drawing the images anew 1,000 times, the same ones for both. An interval that holds 0 is within the noise. A difference must be at least the smallest detectable one to show on images like these in four of five cases; the light band is what is smaller.",
    ];
    return texts.filter(Boolean).join(" ");
  }

  _row(name, item, reach) {
    const [title, help] = FIGURES[name];
    const [first, second] = this.pair;
    const isMeasured = item.first >= 0;
    const better = item.difference > 0 ? second : first;
    const value = (figure, low, high) => element("td", { class: "a-number" }, element("span", {}, formatFigure(figure)), element("span", { class: "a-muted interval" }, interval(low, high)));
    const row = element(
      "tr",
      { "data-figure": name, "data-clear": String(item.is_clear), class: item.is_clear ? "clear" : "noise" },
      element("td", { title: help }, title),
      value(item.first, item.first_low, item.first_high),
      value(item.second, item.second_low, item.second_high),
      element("td", { class: "a-number difference" }, isMeasured ? signed(item.difference) : "–"),
      element("td", { class: "a-number" }, isMeasured ? `${signed(item.low)} to ${signed(item.high)}` : "–"),
      element("td", { class: "plot" }, isMeasured ? drawInterval(item, reach) : null),
      element("td", { class: "words" }, outcomeWords(item, this.pair)),
      element("td", { class: "a-number" }, isMeasured ? item.detectable.toFixed(3) : "–"),
    );
    if (item.is_clear) row.style.setProperty("--side", colorOfSide(better));
    return row;
  }

  /** The axis that the intervals of all rows share. */
  _scale(reach) {
    const root = plot("The axis of the intervals");
    for (const share of [-1, 0, 1]) {
      const text = svg("text", { x: `${across(share * reach, reach)}%`, y: 16, "text-anchor": { [-1]: "start", 0: "middle", 1: "end" }[share] });
      text.textContent = share ? signed(share * reach) : "0";
      root.append(text);
    }
    return root;
  }

  _options() {
    const { config, sides } = this.answer;
    const head = sides.map((_, place) => element("th", {}, sideHead(this.answer, place)));
    const table = element("table", { class: "a-table" }, element("thead", {}, element("tr", {}, element("th", {}, "Option"), ...head)), element("tbody", {}, ...config.map(optionRow)));
    return element(
      "section",
      { class: "a-card options", "data-options": config.length },
      element("h3", { class: "a-subtitle" }, "Options that differ"),
      config.length ? element("div", { class: "scroll" }, table) : element("p", { class: "a-muted" }, sides.length > 1 ? "None: all were set alike." : "They are shown once there is a second side."),
    );
  }

  _budgets() {
    const budgets = [this.figures.first, this.figures.second].map((side) => side.error_budget);
    const most = Math.max(...budgets.flatMap((budget) => budget.kinds.map((kind) => kind.d_ap50)), 0.001);
    const rows = budgets[0].kinds.map((one, at) => {
      const values = [one, budgets[1].kinds[at]];
      const bars = values.map((kind, side) => {
        const bar = element("span", { class: "bar" });
        bar.style.cssText = `width: ${(100 * kind.d_ap50) / most}%; background: ${colorOfSide(this.pair[side])}`;
        return element("div", { class: "budget-bar", title: `${kind.count} errors` }, element("span", { class: "track" }, bar), element("span", { class: "a-number" }, kind.d_ap50.toFixed(3)));
      });
      return element("tr", { title: one.advice }, element("td", {}, KIND_NAMES[one.kind]), element("td", { class: "bars" }, ...bars), element("td", { class: "a-number" }, `${values[0].count} / ${values[1].count}`));
    });
    const head = ["Kind of error", "AP50 that mending it alone would bring", "Errors"].map((text, at) => element("th", { class: at === 2 ? "a-number" : null }, text));
    return element(
      "section",
      { class: "a-card budgets" },
      element("h3", { class: "a-subtitle" }, "What keeps AP50 down"),
      element("table", { class: "a-table" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)),
    );
  }

  retheme() {
    const next = new DifferenceView({ ...this, wait: this.root.querySelector(".wait") });
    this.root.replaceChildren(...next.root.children);
  }
}

function optionRow({ option, title, help, values, texts }) {
  return element(
    "tr",
    { "data-option": option },
    element("td", { title: help }, title),
    ...values.map((value, at) => element("td", { class: texts[at] === texts[0] ? null : "other", title: typeof value === "object" ? JSON.stringify(value) : null }, texts[at])),
  );
}

function drawInterval(item, reach) {
  const [low, high, middle] = [item.low, item.high, item.difference].map((value) => across(value, reach));
  const root = plot(`${signed(item.difference)}, from ${signed(item.low)} to ${signed(item.high)}`);
  const y = PLOT.height / 2;
  const band = [-item.detectable, item.detectable].map((value) => across(Math.max(-reach, Math.min(reach, value)), reach));
  root.append(
    svg("rect", { class: "band", x: `${band[0]}%`, width: `${band[1] - band[0]}%`, y: 0, height: PLOT.height }),
    svg("line", { class: "zero", x1: `${across(0, reach)}%`, x2: `${across(0, reach)}%`, y1: 0, y2: PLOT.height }),
    svg("line", { class: "range", x1: `${low}%`, x2: `${high}%`, y1: y, y2: y }),
    svg("circle", { cx: `${middle}%`, cy: y, r: 4.5 }),
  );
  return root;
}

/** Where a value lies between -reach and reach, in percent of the plot's width. */
const across = (value, reach) => PLOT.edge + ((100 - 2 * PLOT.edge) * (value + reach)) / (2 * reach);

function plot(label) {
  return svg("svg", { width: "100%", height: PLOT.height, role: "img", "aria-label": label });
}

function svg(tag, attributes) {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

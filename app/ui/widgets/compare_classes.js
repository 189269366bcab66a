// Class by class: both sides beside each other with their difference, sorted by any column. AP50's comes with its noise.

import { outcomeWords, sideHead } from "./compare_differences.js";
import { letterOf } from "./compare_sides.js";
import { element } from "./element.js";
import { formatFigure, signed } from "./number_words.js";
import { colorOf } from "./palette.js";

const FIGURES = [["ap50", "AP50"], ["ap", "AP"], ["f1", "F1"]];
const WITH_NOISE = "ap50";

export class ClassTable {
  constructor({ answer, figures, pair }) {
    Object.assign(this, { answer, figures, pair });
    this.rows = figures.first.per_class.map((first, at) => ({ ...first, both: [first, figures.second.per_class[at]], noise: figures.class_differences[at] }));
    this.sort = { key: "label", isRising: true };
    this.body = element("tbody");
    this.heads = [];
    const [first, second] = pair;
    const groups = element("tr", {}, element("th", { colspan: 2 }), ...FIGURES.map(([key, title]) => element("th", { colspan: key === WITH_NOISE ? 5 : 3, class: "group" }, title)));
    const head = element(
      "tr",
      {},
      this._head("label", "Class"),
      this._head("num_truth", "Objects", true),
      ...FIGURES.flatMap(([key]) => [
        this._head(`${key} 0`, letterOf(first), true, "group"),
        this._head(`${key} 1`, letterOf(second), true),
        this._head(`${key} d`, `${letterOf(second)} less ${letterOf(first)}`, true),
        ...(key === WITH_NOISE ? [element("th", { class: "a-number" }, "95 % interval"), element("th", {}, "In words")] : []),
      ]),
    );
    this.root = element(
      "section",
      { class: "a-card classes" },
      element("p", { class: "note" }, sideHead(answer, first), sideHead(answer, second)),
      element("div", { class: "scroll" }, element("table", { class: "a-table" }, element("thead", {}, groups, head), this.body)),
      element(
        "p",
        { class: "note" },
        "Gray is what drawing the images anew explains: an interval that holds 0, or a class whose objects are all in one image; and what does not show in three decimals. AP and F1 of a class are gray because their noise is not measured. Of many classes some stand out by chance alone: about one in twenty.",
      ),
    );
    this._fill();
  }

  _head(key, text, isNumber = false, kind = "") {
    const button = element("button", { type: "button", onclick: () => this._sortBy(key) }, text);
    const head = element("th", { class: `${isNumber ? "a-number" : ""} ${kind}`, "data-key": key }, button);
    this.heads.push(head);
    return head;
  }

  _sortBy(key) {
    const isAgain = this.sort.key === key;
    this.sort = { key, isRising: isAgain ? !this.sort.isRising : key === "label" };
    this._fill();
  }

  _valueOf(row, key) {
    const [figure, which] = key.split(" ");
    if (which === undefined) return row[figure];
    const [first, second] = row.both.map((side) => side[figure]);
    return which === "d" ? (first < 0 ? -9 : second - first) : row.both[which][figure];
  }

  _fill() {
    const { key, isRising } = this.sort;
    const rows = [...this.rows].sort((a, b) => (isRising ? 1 : -1) * (this._valueOf(a, key) - this._valueOf(b, key)) || a.label - b.label);
    for (const head of this.heads) head.setAttribute("aria-sort", head.dataset.key !== key ? "none" : isRising ? "ascending" : "descending");
    this.body.replaceChildren(...rows.map((row) => this._row(row)));
  }

  _row(row) {
    const swatch = element("span", { class: "a-swatch" });
    swatch.style.background = colorOf(row.label - 1);
    const { noise } = row;
    const images = noise.num_images === 1 ? "1 image" : `${noise.num_images} images`;
    const cells = FIGURES.flatMap(([key]) => {
      const [first, second] = row.both.map((side) => side[key]);
      const isClear = key === WITH_NOISE && noise.is_clear;
      return [
        element("td", { class: "a-number group" }, formatFigure(first)),
        element("td", { class: "a-number" }, formatFigure(second)),
        element("td", { class: `a-number ${isClear ? "clear" : "a-muted"}` }, first < 0 ? "–" : signed(second - first)),
        ...(key === WITH_NOISE ? noiseCells(noise, this.pair) : []),
      ];
    });
    return element("tr", { "data-class": row.label, "data-outcome": noise.outcome ?? "" }, element("td", { class: "name", title: row.name }, swatch, element("span", {}, row.name)), element("td", { class: "a-number", title: `In ${images}` }, String(row.num_truth)), ...cells);
  }
}

function noiseCells(noise, pair) {
  if (noise.outcome === null) return [element("td", { class: "a-number a-muted" }, "–"), element("td", { class: "a-muted words" }, outcomeWords(noise, pair))];
  const kind = noise.is_clear ? "clear" : "a-muted";
  const why = noise.num_images === 1 ? "All its objects are in one image, so chance cannot be told." : null;
  return [
    element("td", { class: `a-number ${noise.is_clear ? "" : "a-muted"}` }, `${signed(noise.low)} to ${signed(noise.high)}`),
    element("td", { class: `words ${kind}`, title: why }, `${outcomeWords(noise, pair)}${why ? " (one image)" : ""}`),
  ];
}

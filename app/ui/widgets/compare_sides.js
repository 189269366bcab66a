// Choosing what is compared: up to six sides, the split, and whose differences are shown.

import { element } from "./element.js";
import { lineColor } from "./palette.js";
import { checkpointTitle, setTitle, SPLITS } from "./run_words.js";

export const MAX_SIDES = 6;
const LETTERS = "ABCDEF";

/** "A" for the first side. */
export const letterOf = (place) => LETTERS[place];

/** The color of a side by its place, the same on every tab. */
export const colorOfSide = (place) => lineColor(place);

/** A side's letter in its color. */
export function sideMark(place) {
  const mark = element("span", { class: "side-mark", "data-place": place }, letterOf(place));
  mark.style.setProperty("--side", colorOfSide(place));
  return mark;
}

/** Those of `sides` that the project has. */
export function existingSides(runs, sides) {
  const known = new Set(runs.flatMap((run) => [`run-${run.id}`, ...run.checkpoints.map((item) => `checkpoint-${item.id}`), ...run.sets.map((set) => `set-${set.id}`)]));
  return [...new Set(sides)].filter((side) => known.has(side));
}

/** The newest two runs, the older one first; of a single run its best two checkpoints. */
export function suggestedSides(runs) {
  if (runs.length > 1) return [`run-${runs[1].id}`, `run-${runs[0].id}`];
  const [run] = runs;
  return run.checkpoints.length > 1 ? [`checkpoint-${run.checkpoints[1].id}`, `run-${run.id}`] : [`run-${run.id}`];
}

export class SidePicker {
  /** @param {(change: {sides?, pair?, split?}) => void} onChange */
  constructor(onChange) {
    this.onChange = onChange;
    this.root = element("div", { class: "sides a-card" });
  }

  show({ runs, sides, pair, split }) {
    Object.assign(this, { runs, sides, pair, split });
    const focused = this.root.contains(document.activeElement) ? document.activeElement.dataset.pick : null;
    const add = element("button", { type: "button", class: "a-button small", "data-pick": "add", onclick: () => this._add() }, "+ Add");
    add.title = "Another side for the curves and the options";
    add.disabled = !this._unused();
    const swap = element("button", { type: "button", class: "a-button small quiet", "data-pick": "swap", title: "Swap the two", "aria-label": "Swap the two", onclick: () => this._swap() }, "⇄");
    const items = sides.map((side, place) => this._side(side, place));
    if (sides.length === 2) items.splice(1, 0, swap);
    this.root.replaceChildren(
      ...items,
      sides.length < MAX_SIDES ? add : "",
      element("span", { class: "spacer" }),
      sides.length > 2 ? this._pairPick() : "",
      this._splitPick(),
    );
    if (focused) this.root.querySelector(`[data-pick="${focused}"]`)?.focus();
  }

  _side(side, place) {
    const pick = element("select", { class: "a-input", "data-pick": `side-${place}`, "aria-label": `Side ${letterOf(place)}`, onchange: () => this._set(place, pick.value) });
    pick.append(...this.runs.map((run) => this._group(run, side)));
    pick.title = pick.selectedOptions[0]?.textContent ?? "";
    const remove = element("button", { type: "button", class: "a-button small quiet", title: "Remove", "aria-label": `Remove side ${letterOf(place)}`, onclick: () => this._remove(place) }, "✕");
    return element("span", { class: "side" }, sideMark(place), pick, this.sides.length > 2 ? remove : "");
  }

  _group(run, chosen) {
    const option = (value, text) => element("option", { value, selected: value === chosen }, text);
    const sets = run.sets.filter((set) => set.split === this.split && (set.kind === "ensemble" || !set.is_main));
    return element(
      "optgroup",
      { label: run.name },
      option(`run-${run.id}`, `${run.name}, best`),
      ...run.checkpoints.map((item) => option(`checkpoint-${item.id}`, `${run.name}, ${checkpointTitle(item)}`)),
      ...sets.map((set) => option(`set-${set.id}`, `${run.name}, ${setTitle(set, run)}`)),
    );
  }

  _pairPick() {
    const pick = (at) => {
      const select = element("select", { class: "a-input", "data-pick": `pair-${at}`, "aria-label": at ? "Difference of" : "less", onchange: () => this._pairWith(at, Number(select.value)) });
      select.append(...this.sides.map((_, place) => element("option", { value: place, selected: place === this.pair[at] }, letterOf(place))));
      return select;
    };
    return element("span", { class: "pick" }, "Differences of", pick(1), "less", pick(0));
  }

  _splitPick() {
    const counts = Object.fromEntries(SPLITS.map((split) => [split, Math.max(...this.runs.map((run) => run.splits[split] ?? 0))]));
    const pick = element("select", { class: "a-input", "data-pick": "split", onchange: () => this.onChange({ split: pick.value }) });
    pick.append(...SPLITS.filter((split) => counts[split] || split === this.split).map((split) => element("option", { value: split, selected: split === this.split }, `${split} (${counts[split]})`)));
    return element("label", { class: "pick" }, "Images of", pick);
  }

  _set(place, side) {
    this.onChange({ sides: this.sides.map((old, at) => (at === place ? side : old)) });
  }

  _unused() {
    const known = this.runs.map((run) => `run-${run.id}`).concat(this.runs.flatMap((run) => run.checkpoints.slice(1).map((item) => `checkpoint-${item.id}`)));
    return known.find((side) => !this.sides.includes(side));
  }

  _add() {
    this.onChange({ sides: [...this.sides, this._unused()] });
  }

  _remove(place) {
    this.onChange({ sides: this.sides.filter((_, at) => at !== place), pair: [0, 1] });
  }

  _swap() {
    this.onChange({ sides: [...this.sides].reverse() });
  }

  _pairWith(at, place) {
    const pair = [...this.pair];
    if (place === pair[1 - at]) pair[1 - at] = pair[at]; // the same twice: they change places
    pair[at] = place;
    this.onChange({ pair });
  }
}

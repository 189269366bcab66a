// Where the time of a run goes: a bar of its parts, and what would help where something other than training takes much.

import { element } from "./element.js";
import { lineColor } from "./palette.js";

const PARTS = [
  ["data", "waiting", "waiting for images"],
  ["forward", "forward"],
  ["backward", "backward"],
  ["optimizer", "optimizer"],
  ["evaluation", "validation"],
  ["other", "other", "saving, logging and all else"],
];
const ADVICE = [
  ["data", 0.02, (share) => `The model waits for images ${share} of the time: more workers (num_workers), or fewer augmentations.`],
  ["evaluation", 0.2, (share) => `Validation takes ${share} of the time: judge less often (evaluate_every; 0 keeps it to a fifth).`],
  ["other", 0.15, (share) => `Saving and logging take ${share} of the time: is the disk slow, or busy with something else?`],
];
const FEWEST_S = 5; // of a run, before its shares mean anything

export class TimeBar {
  constructor() {
    this.bar = element("div", { class: "train-time-bar", role: "img" });
    this.words = element("div", { class: "train-time-words a-small" });
    this.advice = element("div", { class: "a-small train-time-advice", role: "status" });
    this.root = element("div", { class: "train-time", hidden: true }, element("span", { class: "a-small a-muted" }, "Time"), this.bar, this.words, this.advice);
  }

  /** @param {Map<string, {elapsed_s: number[], value: number[]}>} series a run's numbers */
  update(series) {
    const shares = sharesOfRun(series);
    this.root.hidden = !shares;
    if (!shares) return;
    const key = JSON.stringify([shares.map((share) => share.toFixed(3)), lineColor(0)]);
    if (key === this.key) return;
    this.key = key;
    const parts = PARTS.map(([, title, meaning = title], index) => ({ title, meaning, share: shares[index], color: lineColor(index) }));
    this.bar.replaceChildren(...parts.map(({ meaning, share, color }) => {
      const part = element("span", { title: `${meaning}: ${percent(share)}` });
      part.style.cssText = `width: ${100 * share}%; background: ${color}`;
      return part;
    }));
    this.bar.setAttribute("aria-label", parts.map(({ meaning, share }) => `${meaning} ${percent(share)}`).join(", "));
    this.words.replaceChildren(...parts.filter(({ share }) => share >= 0.005).map(({ title, meaning, share, color }) => {
      const swatch = element("span", { class: "a-swatch" });
      swatch.style.background = color;
      return element("span", { title: meaning }, swatch, `${title} ${percent(share)}`);
    }));
    const named = Object.fromEntries(PARTS.map(([name], index) => [name, shares[index]]));
    this.advice.textContent = ADVICE.filter(([name, limit]) => named[name] > limit).map(([name, , text]) => text(percent(named[name]))).join(" ");
    this.advice.hidden = !this.advice.textContent;
  }
}

/** Each part's share of the run so far: those of the reports, weighted by the time between them. The first one is about loading. */
function sharesOfRun(series) {
  const columns = PARTS.map(([name]) => series.get(`system/share_${name}`));
  const first = columns[0];
  if (columns.some((column) => !column) || first.elapsed_s.at(-1) - first.elapsed_s[0] < FEWEST_S) return null;
  const seconds = columns.map((column) => column.value.reduce((sum, share, index) => (index ? sum + share * (first.elapsed_s[index] - first.elapsed_s[index - 1]) : 0), 0));
  const total = seconds.reduce((sum, value) => sum + value, 0);
  return total > 0 ? seconds.map((value) => value / total) : null;
}

function percent(share) {
  return share > 0 && share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`;
}

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
const FEW_REGIONS = 64;
const FEW_LAYERS = 3;
const LARGE_OPTIMIZER = 0.1; // a share worth a word
const FEWEST_S = 5; // of a run, before its shares mean anything

export class TimeBar {
  constructor() {
    this.bar = element("div", { class: "train-time-bar", role: "img" });
    this.words = element("div", { class: "train-time-words a-small" });
    this.advice = element("div", { class: "a-small train-time-advice", role: "status" });
    this.hint = element("div", { class: "a-small a-muted train-time-hint" });
    this.root = element("div", { class: "train-time", hidden: true }, element("span", { class: "a-small a-muted" }, "Time"), this.bar, this.words, this.advice, this.hint);
  }

  /**
   * @param {Map<string, {elapsed_s: number[], value: number[]}>} series a run's numbers
   * @param {Object} config its options  @param {Object[]} models those of GET /config
   */
  update(series, config, models) {
    const shares = sharesOfRun(series);
    this.root.hidden = !shares;
    if (!shares) return;
    const key = JSON.stringify([shares.map((share) => share.toFixed(3)), lineColor(0), config, models.length]);
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
    this.hint.textContent = hintsFor(named, config, models).join(" ");
  }
}

/**
 * What would make the steps themselves shorter: a sentence about the longer of the two passes, and one about an optimizer
 * that takes much. Each names only what the run's options leave open.
 */
export function hintsFor(shares, config, models) {
  const longer = shares.backward >= shares.forward ? "backward" : "forward";
  const levers = [precisionLever(config), sizeLever(config), regionsLever(config), longer === "backward" ? layersLever(config) : "", modelLever(config, models)];
  const hints = [hint(`The ${longer} pass takes ${percent(shares[longer])} of the time`, levers)];
  if (shares.optimizer > LARGE_OPTIMIZER) hints.push(hint(`The optimizer takes ${percent(shares.optimizer)}`, [batchLever(config), modelLever(config, models)]));
  return hints;
}

function hint(what, levers) {
  const open = levers.filter(Boolean);
  if (!open.length) return `${what}: the options leave nothing open that would shorten it; only a faster machine would.`;
  const last = open.pop();
  return `${what}. What would help: ${open.length ? `${open.join(", ")} or ${last}` : last}.`;
}

function precisionLever({ precision, device }) {
  return precision === "float32" && device !== "mps" ? "precision auto, which takes 16 bits where this machine is fast at them" : "";
}

function sizeLever({ image_size: size, resize }) {
  if (resize === "as_is") return "resizing the images (resize longest)";
  const smaller = Math.max(64, Math.floor((0.8 * size) / 32) * 32);
  return smaller < size ? `image size ${smaller} (${percent(1 - (smaller / size) ** 2)} fewer pixels than at ${size})` : "";
}

function regionsLever({ roi_batch_size: regions }) {
  return regions > FEW_REGIONS ? `fewer regions an image (RoI batch size ${Math.max(FEW_REGIONS, Math.round(regions / 2))} in place of ${regions})` : "";
}

function layersLever({ pretrained, trainable_layers: layers }) {
  return pretrained !== "none" && layers > FEW_LAYERS ? `${FEW_LAYERS} trainable layers in place of ${layers}` : "";
}

/** The next smaller detector of the same kind. */
function modelLever({ model }, models) {
  const own = models.find((one) => one.name === model);
  const smaller = models.filter((one) => own && one.family === own.family && one.head === own.head && one.parameters < own.parameters);
  return smaller.length ? `a smaller model (${smaller.reduce((most, one) => (one.parameters > most.parameters ? one : most)).title})` : "";
}

function batchLever({ batch_size: batch, accumulate_batches: batches }) {
  return batch < 256 && batches < 256 ? `fewer, larger steps (accumulate batches ${2 * batches} in place of ${batches})` : "";
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

// What stands above the suspects of an audit: how many of which kind, the filters, whether the model knew the images, and
// the figures on the labels as they are now.

import { getParam, notify } from "./api.js";
import { slider } from "./controls.js";
import { element } from "./element.js";
import { formatFigure } from "./number_words.js";
import { KINDS } from "./suspects.js";

const TITLES = { map50: "mAP50", f1: "F1" };

export class AuditSummary {
  /**
   * @param {{categories: Map, onFilter: (change: Object) => void, onScore: (score: number) => void,
   *   onJudge: () => Promise<Object>}} options
   */
  constructor(options) {
    this.options = options;
    this.counts = {};
    this.ignored = 0;
    this.tabs = new Map();
    const tab = (kind, text, help) => {
      const count = element("strong", { class: "count" }, "–");
      const button = element("button", { type: "button", class: "a-button small kind", "data-kind": kind, title: help, onclick: () => options.onFilter({ kind }) }, text, count);
      this.tabs.set(kind, { button, count });
      return button;
    };
    this.kinds = element(
      "div",
      { class: "kinds", role: "group", "aria-label": "Kinds of suspects" },
      tab("", "All", "Every kind, the surest first"),
      ...Object.entries(KINDS).map(([kind, { plural, help }]) => tab(kind, plural, help)),
      tab("ignored", "Ignored", "What was looked at and left as it is"),
    );
    this.category = element("select", { class: "a-input", "aria-label": "Class", onchange: () => options.onFilter({ category: this.category.value }) });
    this.category.append(element("option", { value: "" }, "Any class"), ...[...options.categories.values()].map(({ id, name }) => element("option", { value: id }, name)));
    this.score = slider({ label: "Score ≥", name: "Smallest score", min: 0, max: 1, step: 0.01, onInput: options.onScore });
    this.judge = element("button", { type: "button", class: "a-button small judge", title: "The figures on the labels as they are now, beside those the run began with", onclick: () => this._judge() }, "Judge again");
    this.judged = element("span", { class: "judged", role: "status" });
    this.sample = element("p", { class: "sample" });
    this.root = element(
      "div",
      { class: "summary" },
      element("div", { class: "bar" }, this.kinds, element("span", { class: "spacer" }), this.category, this.score.field),
      element("div", { class: "line" }, this.sample, element("span", { class: "spacer" }), this.judged, this.judge),
    );
    this.mark();
  }

  /** Show the filters as the address has them. */
  mark() {
    const kind = getParam("kind") ?? "";
    for (const [name, { button }] of this.tabs) button.setAttribute("aria-pressed", String(name === kind));
    this.category.value = getParam("category") ?? "";
    const isIgnoredList = kind === "ignored";
    this.category.disabled = this.score.range.disabled = isIgnoredList;
  }

  /** Show the numbers of an audit. */
  show({ counts, ignored_in_project: ignored, images, in_sample: inSample, skipped, min_score: minScore }) {
    Object.assign(this, { counts: { ...counts }, ignored });
    this._count();
    this.score.show(minScore);
    this.score.range.disabled = this.category.disabled;
    this.sample.replaceChildren(...sampleText(images, inSample, skipped));
  }

  /** One more or one less of a kind. */
  step(kind, by) {
    this.counts[kind] += by;
    this._count();
  }

  stepIgnored(by) {
    this.ignored += by;
    this._count();
  }

  _count() {
    const all = Object.values(this.counts).reduce((sum, count) => sum + count, 0);
    for (const [name, { count }] of this.tabs) count.textContent = String({ "": all, ignored: this.ignored, ...this.counts }[name] ?? 0);
  }

  async _judge() {
    this.judge.disabled = true;
    this.judged.textContent = "Judging…";
    try {
      this.judged.replaceChildren(...judgedText(await this.options.onJudge()));
    } catch (error) {
      this.judged.textContent = "";
      notify(error, "error");
    }
    this.judge.disabled = false;
  }
}

function sampleText(images, inSample, skipped) {
  const parts = [];
  const many = images === 1 ? "1 image" : `${images} images`;
  if (!inSample) parts.push(`${many}, judged by a model that never saw ${images === 1 ? "it" : "them"}.`);
  else {
    const share = inSample === images ? "all of them" : `${inSample} of them`;
    parts.push(element("span", { class: "a-chip warn" }, "in sample"), ` ${many}; the model was trained on ${share}: it has learned their faults too.`);
  }
  if (skipped) parts.push(` ${skipped} left out: deleted, turned or put aside since.`);
  return parts;
}

function judgedText({ before, after, changed }) {
  if (!changed) return ["No label changed since the run began: the figures are the same."];
  const figures = Object.entries(TITLES).map(([name, title]) => {
    const [was, is] = [formatFigure(before[name]), formatFigure(after[name])];
    const move = element("strong", { class: was === is ? null : after[name] > before[name] ? "up" : "down", "data-figure": name }, `${was} → ${is}`);
    return element("span", { class: "figure" }, `${title} `, move);
  });
  return [...figures, element("span", { class: "a-muted" }, changed === 1 ? "1 image labeled anew" : `${changed} images labeled anew`)];
}

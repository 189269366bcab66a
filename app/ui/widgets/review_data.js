// The predictions of a set with their ground truth, matched in the browser so that sliders need no server.

import { getJSON, projectURL } from "./api.js";
import { candidatesOf, countErrors, matchImage, MISS, turnsOf } from "./matching.js";

const PAGE_SIZE = 200;
const SLICE_MS = 8; // matching of images out of sight goes on in slices of this length

export const OUTCOMES = {
  tp: { name: "Found", long: "True positive: a prediction that matches a labelled box", dash: [] },
  fp: { name: "False alarm", long: "False positive: a prediction without a labelled box", dash: [6, 4] },
  fn: { name: "Missed", long: "False negative: a labelled box that no prediction matches", dash: [2, 3] },
};

/** One image; `boxesAt` says what to draw. */
class ReviewImage {
  constructor(entry, position) {
    this.id = entry.id;
    this.position = position;
    this.fileName = entry.file_name;
    this.width = entry.width;
    this.height = entry.height;
    this.truth = {
      boxes: Float64Array.from(entry.truth.boxes),
      labels: Int32Array.from(entry.truth.labels),
      isCrowd: Uint8Array.from(entry.truth.is_crowd),
    };
    this.found = {
      boxes: Float32Array.from(entry.predictions.boxes),
      scores: Float32Array.from(entry.predictions.scores),
      labels: Int32Array.from(entry.predictions.labels),
    };
    this.turns = turnsOf(this.found.scores);
    this.matchedAt = null;
    this.counts = { tp: 0, fp: 0, fn: 0 };
  }

  /** Match again if the IoU threshold is another, and count. */
  update({ iou, score, label }) {
    if (this.matchedAt !== iou) {
      this.candidates ??= candidatesOf(this.truth, this.found);
      this.match = matchImage(this.truth, this.found, this.turns, this.candidates, iou);
      this.matchedAt = iou;
    }
    this.counts = countErrors(this.truth, this.found, this.match, score, label);
  }

  get errors() {
    return this.counts.fp + this.counts.fn;
  }

  /** Whether it has anything of the class: a labelled box or a shown prediction (0: any image does). */
  has(label, score) {
    if (!label || this.truth.labels.includes(label)) return true;
    return this.found.labels.some((found, index) => found === label && this.found.scores[index] >= score);
  }

  /** Boxes with outcome, label and score, the missed ones first so that predictions lie over them. */
  boxesAt({ score, label }) {
    const { truth, found, match } = this;
    const boxes = [];
    truth.labels.forEach((own, index) => {
      if (truth.isCrowd[index] || (label && own !== label)) return;
      const by = match.takenBy[index];
      if (by === MISS || found.scores[by] < score) boxes.push({ outcome: "fn", bbox: cut(truth.boxes, index), label: own });
    });
    for (let turn = this.turns.length - 1; turn >= 0; turn--) {
      const index = this.turns[turn];
      if (found.scores[index] < score || match.isIgnored[index] || (label && found.labels[index] !== label)) continue;
      const outcome = match.truthOf[index] === MISS ? "fp" : "tp";
      boxes.push({ outcome, bbox: cut(found.boxes, index), label: found.labels[index], score: found.scores[index] });
    }
    return boxes;
  }
}

const cut = (boxes, index) => Array.from(boxes.subarray(4 * index, 4 * index + 4));

export class ReviewData {
  /** @param {number} setId @param {() => void} onChange totals or images have changed */
  constructor(setId, onChange) {
    this.setId = setId;
    this.onChange = onChange;
    this.images = [];
    this.total = 0;
    this.isLoaded = false;
    this.isCounted = false;
    this.view = { iou: 0.5, score: 0.5, label: 0 };
    this._pending = [];
    this._timer = 0;
    this._isStopped = false;
  }

  /** Fetch all images, page by page, worst first; the first page is there when `onChange` is first called. */
  async load() {
    for (let after = 0; after !== null; ) {
      const query = `sort=errors&after=${after}&limit=${PAGE_SIZE}&score=${this.view.score}&iou=${this.view.iou}`;
      const page = await getJSON(projectURL(`/prediction-sets/${this.setId}/images?${query}`));
      if (this._isStopped) return;
      for (const entry of page.images) this.images.push(new ReviewImage(entry, this.images.length));
      this.total = page.total;
      after = page.next;
      this.isLoaded = after === null;
      this.setView(this.view);
    }
  }

  stop() {
    this._isStopped = true;
    clearTimeout(this._timer);
  }

  /** Take new thresholds; `first` (images in sight) are ready on return, the others follow in slices. */
  setView(view, first = []) {
    this.view = { ...view };
    this._pending = this.images.slice().reverse();
    for (const image of first) image.update(this.view);
    this._work();
  }

  _work() {
    clearTimeout(this._timer);
    const start = performance.now();
    while (this._pending.length) {
      this._pending.pop().update(this.view);
      if (performance.now() - start > SLICE_MS) break;
    }
    this.isCounted = this._pending.length === 0;
    if (!this.isCounted && !this._isStopped) this._timer = setTimeout(() => this._work(), 0);
    this.onChange();
  }

  /** Sums over all images. */
  totals() {
    const sum = { tp: 0, fp: 0, fn: 0 };
    for (const { counts } of this.images) for (const name of Object.keys(sum)) sum[name] += counts[name];
    return sum;
  }

  /** Images to show, in order: "errors" (most first) or "name". */
  ordered(sort) {
    const { label, score } = this.view;
    const images = this.images.filter((image) => image.has(label, score));
    if (sort === "name") return images.sort((a, b) => a.fileName.localeCompare(b.fileName, undefined, { numeric: true }));
    return images.sort((a, b) => b.errors - a.errors || a.position - b.position);
  }
}

/** Precision, recall and F1 of counts; precision of nothing is 1, as in the curves. */
export function ratesOf({ tp, fp, fn }) {
  return {
    precision: tp + fp ? tp / (tp + fp) : 1,
    recall: tp + fn ? tp / (tp + fn) : 0,
    f1: tp + fp + fn ? (2 * tp) / (2 * tp + fp + fn) : 0,
  };
}

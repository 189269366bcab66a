// The images of two sides with their ground truth, matched in the browser so that the threshold needs no server.

import { getJSON, projectURL } from "./api.js";
import { candidatesOf, countErrors, matchImage, MISS, turnsOf } from "./matching.js";

const PAGE_SIZE = 200;
const SLICE_MS = 8; // matching of images out of sight goes on in slices of this length
const IOU = 0.5;

/** One image: ground truth, and what each of the two sides found on it. */
export class ImagePair {
  constructor(entry, position) {
    Object.assign(this, { id: entry.id, position, fileName: entry.file_name, width: entry.width, height: entry.height });
    const { boxes, labels, is_crowd: isCrowd } = entry.truth;
    this.truth = { boxes: Float64Array.from(boxes), labels: Int32Array.from(labels), isCrowd: Uint8Array.from(isCrowd) };
    this.sides = [entry.first, entry.second].map((side) => {
      const found = { boxes: Float32Array.from(side.boxes), scores: Float32Array.from(side.scores), labels: Int32Array.from(side.labels) };
      return { found, turns: turnsOf(found.scores), match: null, counts: { tp: 0, fp: 0, fn: 0 } };
    });
    this.difference = 0;
  }

  /** Count at the scores of both sides, and how far they differ: objects that one alone found, and false alarms. */
  update(scores) {
    this.sides.forEach((side, at) => {
      side.match ??= matchImage(this.truth, side.found, side.turns, candidatesOf(this.truth, side.found), IOU);
      side.score = scores[at];
      side.counts = countErrors(this.truth, side.found, side.match, side.score);
    });
    let byOne = 0;
    for (let index = 0; index < this.truth.labels.length; index++) byOne += this.isFound(0, index) !== this.isFound(1, index);
    this.onlyOne = byOne;
    this.difference = byOne + Math.abs(this.sides[0].counts.fp - this.sides[1].counts.fp);
  }

  /** Whether a side found a labelled box. */
  isFound(at, index) {
    const { match, found, score } = this.sides[at];
    return match.takenBy[index] !== MISS && found.scores[match.takenBy[index]] >= score;
  }

  /** Boxes of a side with outcome, label and score; the missed ones first, so that predictions lie over them. */
  boxesOf(at) {
    const { truth } = this;
    const { found, match, turns, score } = this.sides[at];
    const boxes = [];
    truth.labels.forEach((label, index) => {
      if (!truth.isCrowd[index] && !this.isFound(at, index)) boxes.push({ outcome: "fn", bbox: cut(truth.boxes, index), label });
    });
    for (const index of [...turns].reverse()) {
      if (found.scores[index] < score || match.isIgnored[index]) continue;
      const outcome = match.truthOf[index] === MISS ? "fp" : "tp";
      boxes.push({ outcome, bbox: cut(found.boxes, index), label: found.labels[index], score: found.scores[index] });
    }
    return boxes;
  }
}

const cut = (boxes, index) => Array.from(boxes.subarray(4 * index, 4 * index + 4));

export class PairData {
  /** @param {URLSearchParams} query names the sides and the split @param {() => void} onChange images or counts changed */
  constructor(query, onChange) {
    Object.assign(this, { query, onChange, images: [], total: 0, isCounted: false });
    this._pending = [];
  }

  /** Fetch all images page by page, in the order of the difference at each side's best score. */
  async load(scores) {
    this.scores = scores;
    for (let after = 0; after !== null; ) {
      const page = await getJSON(projectURL(`/compare/images?${this.query}&after=${after}&limit=${PAGE_SIZE}`));
      if (this._isStopped) return;
      const images = page.images.map((entry, at) => new ImagePair(entry, this.images.length + at));
      this.images.push(...images);
      this._pending.push(...images.reverse());
      this.total = page.total;
      after = page.next;
      this._work();
    }
  }

  /** Take new scores; `first` is ready on return, the others follow in slices. */
  setScores(scores, first) {
    this.scores = scores;
    first?.update(scores);
    this._pending = this.images.slice().reverse();
    this._work();
  }

  stop() {
    this._isStopped = true;
    clearTimeout(this._timer);
  }

  _work() {
    clearTimeout(this._timer);
    const start = performance.now();
    while (this._pending.length) {
      this._pending.pop().update(this.scores);
      if (performance.now() - start > SLICE_MS) break;
    }
    this.isCounted = this._pending.length === 0 && this.images.length === this.total;
    if (this._pending.length && !this._isStopped) this._timer = setTimeout(() => this._work(), 0);
    this.onChange();
  }

  /** Those on which the sides differ most first. */
  ordered() {
    return [...this.images].sort((a, b) => b.difference - a.difference || a.position - b.position);
  }
}

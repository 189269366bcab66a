// One image of a prediction set: its boxes, matched at the thresholds, and what is counted and drawn of them.

import { kindsOf, KINDS, MISSED, nearestOf, reachedBox } from "./error_kinds.js";
import { candidatesOf, matchImage, MISS, turnsOf } from "./matching.js";
import { rivalsOf, suppress } from "./suppression.js";

/** COCO's sizes, by the area of a box in pixels of the original image. */
export const SIZES = [
  { key: "small", name: "Small (below 32²)", from: 0 },
  { key: "medium", name: "Medium (32² to 96²)", from: 32 ** 2 },
  { key: "large", name: "Large (above 96²)", from: 96 ** 2 },
];

/**
 * @typedef {Object} View what is looked at
 * @property {number} score threshold of all classes
 * @property {Float64Array|null} thresholds by label, in place of `score`
 * @property {number} iou @property {number} nms thresholds; NMS is off at 1
 * @property {number} label 0: all classes @property {number} size place in SIZES, -1: all
 * @property {number} kind place in KINDS, -1: all
 */

export class ReviewImage {
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
    this.truthSizes = sizesOf(this.truth.boxes);
    this.foundSizes = sizesOf(this.found.boxes);
    this.turns = turnsOf(this.found.scores);
    this.isTaken = new Uint8Array(this.truth.labels.length);
    this.isReached = new Uint8Array(this.truth.labels.length);
    this.match = null;
    this.counts = { tp: 0, fp: 0, fn: 0 };
    this.kinds = new Int32Array(KINDS.length);
  }

  /** Match again if the IoU or NMS threshold is another, and count. @param {View} view */
  update(view) {
    if (this.matchedIou !== view.iou || this.matchedNms !== view.nms) this._match(view);
    this._count(view);
  }

  _match({ iou, nms }) {
    if (this.matchedNms !== nms) {
      this.kept = nms < 1 ? suppress(this.turns, (this.rivals ??= rivalsOf(this.found, this.turns)), nms) : this.turns;
    }
    this.candidates ??= candidatesOf(this.truth, this.found);
    this.nearest ??= nearestOf(this.truth, this.found);
    this.match = matchImage(this.truth, this.found, this.kept, this.candidates, iou);
    this.kindOf = kindsOf(this.match, this.nearest, iou);
    [this.matchedIou, this.matchedNms] = [iou, nms];
  }

  /** Counts of what passes class and size: outcomes, kinds of errors, the surest false alarm, mean best IoU. */
  _count(view) {
    const { found, match, kept, nearest, kinds, isTaken, isReached } = this;
    isTaken.fill(0);
    isReached.fill(0);
    kinds.fill(0);
    let [tp, fp, fn, surest, overlaps] = [0, 0, 0, 0, 0];
    for (const detection of kept) {
      if (!isShown(view, found, detection)) {
        if (view.thresholds) continue;
        break; // the others have lower scores still
      }
      if (match.isIgnored[detection]) continue;
      const taken = match.truthOf[detection];
      const kind = this.kindOf[detection];
      if (taken !== MISS) isTaken[taken] = 1;
      else if (reachedBox(kind, nearest, detection) !== MISS) isReached[reachedBox(kind, nearest, detection)] = 1;
      if (!passes(view, found.labels[detection], this._sizeOf(detection))) continue;
      overlaps += nearest.ownIou[detection];
      if (taken !== MISS) {
        tp++;
        continue;
      }
      fp++;
      kinds[kind]++;
      surest = Math.max(surest, found.scores[detection]);
    }
    const { labels, isCrowd } = this.truth;
    for (let index = 0; index < labels.length; index++) {
      if (isTaken[index] || isCrowd[index] || !passes(view, labels[index], this.truthSizes[index])) continue;
      fn++;
      if (!isReached[index]) kinds[MISSED]++;
    }
    this.counts = { tp, fp, fn };
    this.surest = surest;
    this.meanIou = tp + fp ? overlaps / (tp + fp) : Infinity;
  }

  /** A prediction that found an object has the object's size, as in COCO's figures. */
  _sizeOf(detection) {
    const taken = this.match.truthOf[detection];
    return taken === MISS ? this.foundSizes[detection] : this.truthSizes[taken];
  }

  get errors() {
    return this.counts.fp + this.counts.fn;
  }

  /** Predictions less labelled boxes. */
  get difference() {
    return this.counts.fp - this.counts.fn;
  }

  /** Whether it has anything that the filters ask for, counted at the last update. */
  isWanted({ label, size, kind }) {
    if (kind >= 0) return this.kinds[kind] > 0;
    if (!label && size < 0) return true;
    return this.counts.tp + this.errors > 0;
  }

  /** Boxes to draw, {outcome, bbox, label, score?, kind, isFaint}; missed ones first, so that predictions lie over them. */
  boxesAt(view) {
    const { truth, found, match, kept } = this;
    const boxes = [];
    const add = (outcome, source, index, size, kind) => {
      if (!passes(view, source.labels[index], size)) return;
      const bbox = Array.from(source.boxes.subarray(4 * index, 4 * index + 4));
      const isFaint = view.kind >= 0 && kind !== view.kind;
      boxes.push({ outcome, bbox, label: source.labels[index], score: source.scores?.[index], kind, isFaint });
    };
    for (let index = 0; index < truth.labels.length; index++) {
      if (truth.isCrowd[index] || this.isTaken[index]) continue;
      add("fn", truth, index, this.truthSizes[index], this.isReached[index] ? -1 : MISSED);
    }
    for (let turn = kept.length - 1; turn >= 0; turn--) {
      const index = kept[turn];
      if (match.isIgnored[index] || !isShown(view, found, index)) continue;
      add(match.truthOf[index] === MISS ? "fp" : "tp", found, index, this._sizeOf(index), this.kindOf[index]);
    }
    return boxes;
  }

  /** Tell the curves every labelled box, and every kept detection with its outcome, of a size (-1: all). */
  addTo(curves, size) {
    const { truth, found, match } = this;
    for (let index = 0; index < truth.labels.length; index++) {
      if (!truth.isCrowd[index] && (size < 0 || this.truthSizes[index] === size)) curves.addTruth(truth.labels[index]);
    }
    for (const detection of this.kept) {
      if (match.isIgnored[detection] || (size >= 0 && this._sizeOf(detection) !== size)) continue;
      curves.addDetection(found.labels[detection], found.scores[detection], match.truthOf[detection] !== MISS);
    }
  }
}

const isShown = ({ thresholds, score }, found, detection) =>
  found.scores[detection] >= (thresholds ? thresholds[found.labels[detection]] : score);

const passes = (view, label, size) => (!view.label || label === view.label) && (view.size < 0 || size === view.size);

function sizesOf(boxes) {
  return Uint8Array.from({ length: boxes.length / 4 }, (_, index) => {
    const [x1, y1, x2, y2] = boxes.subarray(4 * index, 4 * index + 4);
    const area = (x2 - x1) * (y2 - y1);
    return area > SIZES[2].from ? 2 : area >= SIZES[1].from ? 1 : 0;
  });
}

// The kinds of errors (TIDE) of one image, number for number as pipeline/evaluate/error_budget.py sorts them; here the
// foreground threshold t_f is that of the IoU slider, .5 in the error budget.

import { boxIou, MISS } from "./matching.js";

export const BACKGROUND_IOU = 0.1;

/** In the order of the Python module: an index here is a kind everywhere. */
export const KINDS = [
  { key: "classification", name: "Wrong class", long: "On an object of another class" },
  { key: "localization", name: "Poor place", long: "On an object of its class, but too far off: IoU from .1 to the threshold" },
  { key: "both", name: "Class and place", long: "Near an object of another class, and too far off" },
  { key: "duplicate", name: "Duplicate", long: "On an object that a surer prediction found already" },
  { key: "background", name: "Background", long: "On no object: IoU of at most .1 with all" },
  { key: "missed", name: "Missed", long: "An object that no prediction found or came near" },
];
export const [CLASSIFICATION, LOCALIZATION, BOTH, DUPLICATE, BACKGROUND, MISSED] = KINDS.keys();
export const NO_ERROR = -1;

/**
 * The labelled box, crowds left out, that each detection overlaps most: one of its class and one of any other.
 * @returns {{ownIou: Float64Array, own: Int32Array, otherIou: Float64Array, other: Int32Array}} 0 and -1 without
 */
export function nearestOf(truth, found) {
  const count = found.scores.length;
  const [ownIou, otherIou] = [new Float64Array(count), new Float64Array(count)];
  const [own, other] = [new Int32Array(count).fill(MISS), new Int32Array(count).fill(MISS)];
  for (let detection = 0; detection < count; detection++) {
    for (let index = 0; index < truth.labels.length; index++) {
      if (truth.isCrowd[index]) continue;
      const overlap = boxIou(found.boxes, 4 * detection, truth.boxes, 4 * index);
      const isOwn = truth.labels[index] === found.labels[detection];
      if (isOwn && overlap > ownIou[detection]) [ownIou[detection], own[detection]] = [overlap, index];
      else if (!isOwn && overlap > otherIou[detection]) [otherIou[detection], other[detection]] = [overlap, index];
    }
  }
  return { ownIou, own, otherIou, other };
}

/** Place in KINDS of each detection's error, NO_ERROR for those that are right or in a crowd. Int8Array [D] */
export function kindsOf(match, { ownIou, otherIou }, iouThreshold) {
  return Int8Array.from(match.truthOf, (truth, detection) =>
    truth === MISS ? kindOf(ownIou[detection], otherIou[detection], iouThreshold) : NO_ERROR,
  );
}

function kindOf(own, other, threshold) {
  if (own >= BACKGROUND_IOU && own <= threshold) return LOCALIZATION;
  if (other >= threshold) return CLASSIFICATION;
  if (own >= threshold) return DUPLICATE;
  return Math.max(own, other) <= BACKGROUND_IOU ? BACKGROUND : BOTH;
}

/** The labelled box that a detection's error of class or place lies on, else -1: such a box is not "missed". */
export function reachedBox(kind, nearest, detection) {
  if (kind === LOCALIZATION) return nearest.own[detection];
  return kind === CLASSIFICATION ? nearest.other[detection] : MISS;
}

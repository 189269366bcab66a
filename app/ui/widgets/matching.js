// COCO's greedy matching of one image, number for number as pipeline/evaluate/matching.py does it.
//
// Boxes are flat arrays [x1, y1, x2, y2, …]: labelled ones Float64Array, predicted ones Float32Array (as stored), so
// that both sides compute from the same doubles. Detections take their turn by falling score; what is below a score
// threshold comes last and changes nothing before it, so one match answers for every score threshold.

const LARGEST_THRESHOLD = 1 - 1e-10;

export const MISS = -1;

/**
 * @typedef {Object} Truth boxes: Float64Array [4 M], labels: Int32Array [M], isCrowd: Uint8Array [M]
 * @typedef {Object} Found boxes: Float32Array [4 D], scores: Float32Array [D], labels: Int32Array [D]
 * @typedef {Object} Match truthOf: Int32Array [D] (labelled box taken, -1: none), isIgnored: Uint8Array [D] (in a crowd),
 *   takenBy: Int32Array [M] (detection that took it, -1: none)
 */

/** Positions of the detections by falling score, equal scores as given. Int32Array [D] */
export function turnsOf(scores) {
  return Int32Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
}

/**
 * The labelled boxes that each detection overlaps and shares its class with: found once, they make every further match
 * cheap. Those of detection d lie at first[d] … first[d + 1], by rising index.
 * @returns {{first: Int32Array, index: Int32Array, iou: Float64Array}}
 */
export function candidatesOf(truth, found) {
  const first = new Int32Array(found.scores.length + 1);
  const index = [];
  const iou = [];
  for (let detection = 0; detection < found.scores.length; detection++) {
    for (let other = 0; other < truth.labels.length; other++) {
      if (truth.labels[other] !== found.labels[detection]) continue;
      const overlap = boxIou(found.boxes, 4 * detection, truth.boxes, 4 * other, Boolean(truth.isCrowd[other]));
      if (overlap > 0) iou.push(overlap) && index.push(other);
    }
    first[detection + 1] = index.length;
  }
  return { first, index: Int32Array.from(index), iou: Float64Array.from(iou) };
}

/** Match all detections of an image at an IoU threshold above 0, whatever their scores. @returns {Match} */
export function matchImage(truth, found, turns, candidates, iouThreshold) {
  const threshold = Math.min(iouThreshold, LARGEST_THRESHOLD);
  const truthOf = new Int32Array(found.scores.length).fill(MISS);
  const isIgnored = new Uint8Array(found.scores.length);
  const takenBy = new Int32Array(truth.labels.length).fill(MISS);
  for (const detection of turns) {
    let best = bestFree(truth, takenBy, candidates, detection, threshold, false);
    if (best === MISS) {
      best = bestFree(truth, takenBy, candidates, detection, threshold, true);
      if (best !== MISS) isIgnored[detection] = 1;
    }
    if (best === MISS) continue;
    truthOf[detection] = best;
    if (!isIgnored[detection]) takenBy[best] = detection;
  }
  return { truthOf, isIgnored, takenBy };
}

function bestFree(truth, takenBy, { first, index, iou }, detection, threshold, wantsCrowd) {
  let best = MISS;
  let bestIou = threshold;
  for (let at = first[detection]; at < first[detection + 1]; at++) {
    const other = index[at];
    if (iou[at] < bestIou || Boolean(truth.isCrowd[other]) !== wantsCrowd) continue;
    if (!wantsCrowd && takenBy[other] !== MISS) continue;
    best = other;
    bestIou = iou[at];
  }
  return best;
}

/** IoU of the box of `a` at offset i with that of `b` at j; for a crowd `b`, the share of `a` inside it. */
export function boxIou(a, i, b, j, isCrowd = false) {
  const width = Math.min(a[i + 2], b[j + 2]) - Math.max(a[i], b[j]);
  const height = Math.min(a[i + 3], b[j + 3]) - Math.max(a[i + 1], b[j + 1]);
  const intersection = Math.max(width, 0) * Math.max(height, 0);
  const area = (a[i + 2] - a[i]) * (a[i + 3] - a[i + 1]);
  const union = isCrowd ? area : area + (b[j + 2] - b[j]) * (b[j + 3] - b[j + 1]) - intersection;
  return union > 0 ? intersection / union : 0;
}

/**
 * How many boxes of a class (0: all) are found, false and missed with the detections of at least `scoreThreshold`.
 * @returns {{tp: number, fp: number, fn: number}}
 */
export function countErrors(truth, found, match, scoreThreshold, label = 0) {
  let [tp, fp, labelled] = [0, 0, 0];
  for (let index = 0; index < found.scores.length; index++) {
    if (found.scores[index] < scoreThreshold || match.isIgnored[index]) continue;
    if (label && found.labels[index] !== label) continue;
    if (match.truthOf[index] === MISS) fp++;
    else tp++;
  }
  for (let index = 0; index < truth.labels.length; index++) {
    if (!truth.isCrowd[index] && (!label || truth.labels[index] === label)) labelled++;
  }
  return { tp, fp, fn: labelled - tp };
}

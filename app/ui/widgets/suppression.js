// Non-maximum suppression (NMS) of an image's detections, class by class: a detection falls to a surer one of its class
// that overlaps it by more than the threshold and was itself kept. As torchvision.ops.batched_nms does it.

import { boxIou } from "./matching.js";

/**
 * The surer detections of its class that each detection overlaps: found once, they make every threshold cheap. Those of
 * detection d lie at first[d] … first[d] + count[d].
 * @param {Found} found @param {Int32Array} turns positions by falling score
 * @returns {{first: Int32Array, count: Int32Array, index: Int32Array, iou: Float64Array}}
 */
export function rivalsOf(found, turns) {
  const first = new Int32Array(found.scores.length);
  const count = new Int32Array(found.scores.length);
  const [index, iou] = [[], []];
  const before = new Map(); // label -> detections that had their turn
  for (const detection of turns) {
    const label = found.labels[detection];
    if (!before.has(label)) before.set(label, []);
    const surer = before.get(label);
    first[detection] = index.length;
    for (const other of surer) {
      const overlap = boxIou(found.boxes, 4 * detection, found.boxes, 4 * other);
      if (overlap > 0) iou.push(overlap) && index.push(other);
    }
    count[detection] = index.length - first[detection];
    surer.push(detection);
  }
  return { first, count, index: Int32Array.from(index), iou: Float64Array.from(iou) };
}

/** The detections that are left at a threshold, by falling score. Int32Array, a part of `turns` */
export function suppress(turns, { first, count, index, iou }, threshold) {
  const isKept = new Uint8Array(turns.length);
  return turns.filter((detection) => {
    const end = first[detection] + count[detection];
    for (let at = first[detection]; at < end; at++) if (iou[at] > threshold && isKept[index[at]]) return false;
    isKept[detection] = 1;
    return true;
  });
}

// The predictions of a set with their ground truth, matched in the browser so that sliders need no server.

import { getJSON, projectURL } from "./api.js";
import { KINDS } from "./error_kinds.js";
import { ReviewImage } from "./review_image.js";
import { ThresholdCurves } from "./threshold_curves.js";

const PAGE_SIZE = 200;
const SLICE_MS = 6; // what is out of sight follows in slices of this length

const byName = (a, b) => a.fileName.localeCompare(b.fileName, undefined, { numeric: true });

/** What images can be ordered by; equal ones keep the order they came in. */
export const SORTS = {
  errors: { name: "Most errors first", compare: (a, b) => b.errors - a.errors },
  fp: { name: "Most false alarms", compare: (a, b) => b.counts.fp - a.counts.fp },
  fn: { name: "Most missed", compare: (a, b) => b.counts.fn - a.counts.fn },
  surest: { name: "Surest false alarm", compare: (a, b) => b.surest - a.surest },
  iou: { name: "Lowest mean best IoU", compare: (a, b) => (a.meanIou === b.meanIou ? 0 : a.meanIou - b.meanIou) },
  more: { name: "Too many boxes", compare: (a, b) => b.difference - a.difference },
  fewer: { name: "Too few boxes", compare: (a, b) => a.difference - b.difference },
  tp: { name: "Most found", compare: (a, b) => b.counts.tp - a.counts.tp },
  name: { name: "By file name", compare: byName },
};
export const USUAL_SORT = "errors";
export const AS_LISTED = "list"; // what there is besides while a list of images is shown: its own order

export class ReviewData {
  /**
   * @param {number} setId
   * @param {number} numClasses
   * @param {() => void} onChange counts or images have changed
   */
  constructor(setId, numClasses, onChange) {
    this.setId = setId;
    this.numClasses = numClasses;
    this.onChange = onChange;
    this.images = [];
    this.total = 0;
    this.isLoaded = false;
    this.isCounted = false;
    this._pending = [];
    this._timer = 0;
    this._isStopped = false;
    this._curves = null;
    this._curvesOf = "";
  }

  /** Fetch all images, page by page, worst first; the first page is there when `onChange` is first called. */
  async load(view) {
    this.view = { ...view };
    for (let after = 0; after !== null; ) {
      const query = `sort=errors&after=${after}&limit=${PAGE_SIZE}&score=${view.score}&iou=${view.iou}`;
      const page = await getJSON(projectURL(`/prediction-sets/${this.setId}/images?${query}`));
      if (this._isStopped) return;
      const added = page.images.map((entry, index) => new ReviewImage(entry, this.images.length + index));
      this.images.push(...added);
      this._pending.unshift(...added.reverse());
      this.total = page.total;
      after = page.next;
      this.isLoaded = after === null;
      this._work();
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

  /** Sums over all images: tp, fp, fn and, by place in KINDS, kinds. */
  totals() {
    const sum = { tp: 0, fp: 0, fn: 0, kinds: KINDS.map(() => 0) };
    for (const { counts, kinds } of this.images) {
      sum.tp += counts.tp;
      sum.fp += counts.fp;
      sum.fn += counts.fn;
      kinds.forEach((count, kind) => (sum.kinds[kind] += count));
    }
    return sum;
  }

  /** Images that the filters leave, ordered by a key of SORTS. */
  ordered(sort) {
    const { compare } = SORTS[sort];
    const { kind } = this.view;
    const images = this.images.filter((image) => image.match && image.isWanted(this.view));
    const first = kind >= 0 && sort === "errors" ? (a, b) => b.kinds[kind] - a.kinds[kind] : compare;
    return images.sort((a, b) => first(a, b) || a.position - b.position);
  }

  /** Images by predictions less labeled boxes: Map of difference -> images, rising. */
  byDifference() {
    const groups = new Map();
    for (const image of this.images) {
      if (!groups.has(image.difference)) groups.set(image.difference, []);
      groups.get(image.difference).push(image);
    }
    return new Map([...groups].sort(([a], [b]) => a - b));
  }

  /** Precision, recall and F1 over the score threshold at the IoU, NMS and size that all images are counted at. */
  get curves() {
    const { iou, nms, size } = this.view;
    const wanted = [iou, nms, size, this.images.length].join();
    if (this._curves && (this._curvesOf === wanted || !this.isCounted)) return this._curves;
    const curves = new ThresholdCurves(this.numClasses);
    for (const image of this.images) if (image.match) image.addTo(curves, size);
    this._curvesOf = this.isCounted ? wanted : "";
    this._curves = curves.finish();
    return this._curves;
  }
}

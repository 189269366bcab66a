// Precision, recall and F1 over the score threshold, from the outcomes of many detections, by class and for all.

export const NUM_STEPS = 1000; // thresholds are 0, 1/1000 … 1; the slider's are among them

/** The largest step whose threshold a score reaches, to the last bit. */
export function stepOf(score) {
  const step = Math.floor(score * NUM_STEPS);
  if (step / NUM_STEPS > score) return step - 1;
  return (step + 1) / NUM_STEPS <= score ? step + 1 : step;
}

/** Precision, recall and F1 of counts; precision of nothing is 1. */
export function ratesOf({ tp, fp, fn }) {
  return {
    precision: tp + fp ? tp / (tp + fp) : 1,
    recall: tp + fn ? tp / (tp + fn) : 0,
    f1: tp + fp + fn ? (2 * tp) / (2 * tp + fp + fn) : 0,
  };
}

export class ThresholdCurves {
  /** @param {number} numClasses labels are 1 … numClasses; 0 stands for all of them */
  constructor(numClasses) {
    this.curves = Array.from({ length: numClasses + 1 }, () => ({
      tp: new Int32Array(NUM_STEPS + 2),
      fp: new Int32Array(NUM_STEPS + 2),
      numTruth: 0,
    }));
  }

  addTruth(label) {
    this.curves[0].numTruth++;
    this.curves[label].numTruth++;
  }

  addDetection(label, score, isRight) {
    const step = stepOf(score);
    const name = isRight ? "tp" : "fp";
    this.curves[0][name][step]++;
    this.curves[label][name][step]++;
  }

  /** Call once when all are in: from then on tp and fp count all scores of at least a step's threshold. */
  finish() {
    for (const { tp, fp } of this.curves) {
      for (let step = NUM_STEPS; step >= 0; step--) {
        tp[step] += tp[step + 1];
        fp[step] += fp[step + 1];
      }
    }
    return this;
  }

  /** Precision, recall and F1 of a class at a step; all of them 0 … 1. */
  at(label, step) {
    const { tp, fp, numTruth } = this.curves[label];
    return ratesOf({ tp: tp[step], fp: fp[step], fn: numTruth - tp[step] });
  }

  /** The first step that no detection reaches: from there on precision says nothing. */
  endOf(label) {
    const { tp, fp } = this.curves[label];
    let step = NUM_STEPS + 1;
    while (step > 0 && tp[step - 1] + fp[step - 1] === 0) step--;
    return step;
  }

  numTruth(label) {
    return this.curves[label].numTruth;
  }
}

// A score threshold for each class: at first that of the class's best F1, changed by hand, kept in this browser.

import { projectSlug } from "./api.js";

export class ClassThresholds {
  /** @param {Object} evaluation of a set, as the server gives it */
  constructor(evaluation) {
    this.evaluation = evaluation;
    const { set, per_class: classes, f1_threshold: overall } = evaluation;
    this.key = `anchorage-thresholds:${projectSlug()}:${set.id}:${set.created_at}`;
    this.best = Float64Array.of(overall, ...classes.map((row) => (row.f1 > 0 ? row.threshold : overall)));
    this.values = this.best.slice();
    this.isOn = false;
    this._read();
  }

  /** Values by label (0 is nobody's) while they are in use, else null. */
  get inUse() {
    return this.isOn ? this.values : null;
  }

  use(isOn) {
    this.isOn = isOn;
    this._keep();
  }

  /** @param {number} label @param {number} value 0..1 */
  set(label, value) {
    this.values[label] = value;
    this._keep();
  }

  /** Back to the best F1, of one class or (0) of all. */
  reset(label = 0) {
    if (label) this.values[label] = this.best[label];
    else this.values = this.best.slice();
    this._keep();
  }

  /** The thresholds as a file to take away: a list of category_id, name and threshold. */
  toJSON() {
    const { set, per_class: classes } = this.evaluation;
    const rows = classes.map(({ label, name, category_id }) => ({ category_id, name, threshold: this.values[label] }));
    return { prediction_set: set.id, split: set.split, thresholds: rows };
  }

  download() {
    const address = URL.createObjectURL(new Blob([JSON.stringify(this, null, 2)], { type: "application/json" }));
    const link = document.createElement("a");
    Object.assign(link, { href: address, download: `${projectSlug()}-thresholds-${this.evaluation.set.id}.json` });
    link.click();
    URL.revokeObjectURL(address);
  }

  /** Only what differs from the best is kept, so that nothing old stays behind. */
  _keep() {
    const changed = [...this.values.entries()].filter(([label, value]) => value !== this.best[label]);
    if (!this.isOn && !changed.length) localStorage.removeItem(this.key);
    else localStorage.setItem(this.key, JSON.stringify({ isOn: this.isOn, changed }));
  }

  _read() {
    const kept = localStorage.getItem(this.key);
    if (!kept) return;
    const { isOn, changed } = JSON.parse(kept);
    this.isOn = isOn;
    for (const [label, value] of changed) if (label in this.values) this.values[label] = value;
  }
}

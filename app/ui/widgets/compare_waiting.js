// What stands in the place of figures while there are none: what is missing, how far the work is, why it cannot be.

import { pageURL } from "./api.js";
import { element } from "./element.js";
import { duration } from "./train_runs.js";

/** A card in the middle: what is not there, and what to do. */
export function explain(title, text, ...content) {
  return element("div", { class: "a-empty" }, element("h3", {}, title), text ? element("p", {}, text) : null, ...content);
}

export class WaitCard {
  /**
   * @param {Object} state kind, and what belongs to it: missing, jobs, progress or error
   * @param {Object} doing onPredict(missing), onCancel(jobs), onStop(), onAgain(), split
   */
  constructor(state, doing) {
    Object.assign(this, { state, doing, firstSeen: new Map() });
    this.root = element("div", { class: "wait", role: "status" });
    this.root.append(this._build());
    this.update(state);
  }

  get isConnected() {
    return this.root.isConnected;
  }

  _build() {
    const { state, doing } = this;
    const button = (text, onclick, kind = "") => element("button", { type: "button", class: `a-button ${kind}`, onclick }, text);
    switch (state.kind) {
      case "single":
        return explain("Choose a second side", "A comparison needs two runs, checkpoints or ensembles. Train another run with other options, or choose a checkpoint.", element("a", { class: "a-button", href: pageURL("/train") }, "Train"));
      case "missing": {
        const names = state.missing.map((side) => side.name).join(" and ");
        const count = state.missing[0].images;
        const each = `${count} image${count === 1 ? "" : "s"}${state.missing.length > 1 ? " each" : ""}`;
        return explain(`No predictions on ${doing.split} yet`, `${names}: the detector looks at ${each}; it goes on in the background if you leave the page.`, button(`Predict ${doing.split} images`, () => doing.onPredict(state.missing), "primary"));
      }
      case "predicting":
        this.rows = new Map(state.jobs.map((job) => [job.id, progressRow(job.name)]));
        return explain("Predicting", "", ...[...this.rows.values()].map((row) => row.root), button("Stop", () => doing.onCancel(this.state.jobs)));
      case "working":
        this.row = progressRow("");
        return explain("Comparing", "", this.row.root, button("Stop", () => doing.onStop()));
      case "stopped":
        return explain("Comparing was stopped", "", button("Go on", () => doing.onAgain(), "primary"));
      case "refused":
        return explain(state.error.message, state.error.hint ?? "", button("Try again", () => doing.onAgain()));
      default:
        return element("p", { class: "a-muted loading" }, "Loading…");
    }
  }

  update(state) {
    this.state = state;
    if (state.kind === "working") this.row.show(state.progress.message || "Judging both", state.progress);
    if (state.kind !== "predicting") return;
    for (const job of state.jobs) {
      const text = { queued: "waiting for its turn", stopping: "stopping", done: "done", cancelled: "stopped" }[job.state] ?? (job.progress.message || "loading the detector");
      this.rows.get(job.id).show(text, { ...job.progress, eta_s: this._remaining(job) });
    }
  }

  /** Seconds by the pace since it was first seen at work, where the job does not tell them itself. */
  _remaining({ id, state, progress: { done = 0, total = 0, eta_s } }) {
    if (eta_s !== null && eta_s !== undefined) return eta_s;
    if (state !== "running" || !done) return null;
    const first = this.firstSeen.get(id) ?? { done, at: Date.now() };
    this.firstSeen.set(id, first);
    return done > first.done ? (((Date.now() - first.at) / 1000) * (total - done)) / (done - first.done) : null;
  }
}

function progressRow(name) {
  const bar = element("div");
  const words = element("span", { class: "a-muted" });
  const root = element("div", { class: "progress-row" }, element("div", { class: "words" }, element("span", { class: "name" }, name), words), element("div", { class: "a-progress" }, bar));
  const show = (text, { done = 0, total = 0, eta_s: left = null }) => {
    const rest = left === null ? "" : `, ${duration(left)} left`;
    words.textContent = total ? `${text}: ${done} of ${total}${rest}` : text;
    bar.style.width = `${total ? (100 * done) / total : 0}%`;
  };
  return { root, show };
}

// A job that is being waited for: what it does, how far it is, how long it still takes, and a way to stop it.

import { getJSON, notify, poll, projectURL, sendJSON } from "./api.js";
import { element } from "./element.js";
import { duration } from "./train_runs.js";

const POLL_MS = 700;
const FINAL_STATES = ["done", "failed", "cancelled", "interrupted", "paused"];

export class JobProgress {
  /**
   * @param {Object} job as the server gave it
   * @param {{title: string, onEnd: (job: Object) => void}} options onEnd is called once, with the job as it ended
   */
  constructor(job, { title, onEnd }) {
    this.job = job;
    this.title = title;
    this.onEnd = onEnd;
    this.start = null; // {at, done}: where it was when it was first seen to move
    this.fill = element("div");
    this.message = element("p", { class: "message", role: "status" }, "Waiting for its turn…");
    this.left = element("p", { class: "left a-muted" });
    this.stop = element("button", { type: "button", class: "a-button", onclick: () => this._stop() }, "Stop");
    this.bar = element("div", { class: "a-progress", role: "progressbar", "aria-label": title, "aria-valuemin": 0, "aria-valuemax": 100 }, this.fill);
    this.root = element("div", { class: "a-card job-progress" }, element("h3", { class: "a-subtitle" }, title), this.message, this.bar, element("div", { class: "a-toolbar" }, this.left, element("span", { class: "spacer" }), this.stop));
    this.end = poll(() => this._look(), POLL_MS);
  }

  async _look() {
    const { job } = await getJSON(projectURL(`/jobs/${this.job.id}`));
    if (!this.root.isConnected) return this.end(); // only now: at first it is not on the page yet
    this._show(job);
    if (!FINAL_STATES.includes(job.state)) return null;
    this.end();
    if (job.state === "failed" || job.state === "interrupted") notify(job.error || `${this.title} was ${job.state}.`, "error");
    return this.onEnd(job);
  }

  _show(job) {
    const { done = 0, total = 0, message = "", eta_s: eta = null } = job.progress ?? {};
    const what = message ? message[0].toUpperCase() + message.slice(1) : this.title;
    if (total) this.message.textContent = `${what}: ${done} of ${total} images`;
    if (job.state === "stopping") this.message.textContent = "Stopping…";
    this.stop.disabled = job.state === "stopping";
    const percent = total ? (100 * done) / total : 0;
    this.fill.style.width = `${percent}%`;
    this.bar.setAttribute("aria-valuenow", Math.round(percent));
    const seconds = eta ?? this._estimate(done, total);
    this.left.textContent = job.state === "running" && seconds !== null ? `About ${duration(seconds)} left` : "";
  }

  /** Seconds left at the pace seen so far; null before there is one. */
  _estimate(done, total) {
    const now = performance.now();
    if (!done || !total) return null;
    this.start ??= { at: now, done };
    const moved = done - this.start.done;
    return moved > 0 ? (((now - this.start.at) / 1000) * (total - done)) / moved : null;
  }

  async _stop() {
    this.stop.disabled = true;
    await sendJSON("POST", projectURL(`/jobs/${this.job.id}/cancel`)).catch((error) => notify(error, "error"));
  }
}

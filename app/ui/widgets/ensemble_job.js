// A job that the Ensemble page waits for, as a card: what it does, how far it is, how long it will take, and Stop.

import { ApiError, getJSON, notify, poll, projectURL, sendJSON } from "./api.js";
import { element } from "./element.js";
import { duration } from "./train_runs.js";

const FINAL_STATES = ["done", "failed", "cancelled", "interrupted"];
const JOB_MS = 600;

export const LIVE_STATES = ["queued", "running", "stopping"];

export class JobCard {
  /** Put `root` into the page, then call `follow`. @param {{title: string, onEnded: (job: Object) => void}} given */
  constructor(job, { title, onEnded }) {
    this.job = job;
    this.onEnded = onEnded;
    this.bar = element("div");
    this.message = element("p", { role: "status" }, "Waiting for its turn…");
    this.stopButton = element("button", { type: "button", class: "a-button", "data-action": "stop", onclick: () => this.cancel() }, "Stop");
    const track = element("div", { class: "a-progress" }, this.bar);
    this.root = element("div", { class: "a-card working" }, element("h3", {}, title), this.message, track, this.stopButton);
  }

  /** Ask now and then until the job has ended or the card has left the page. */
  follow() {
    this.leave = poll(() => this.look(), JOB_MS, this.root);
  }

  async look() {
    const { job } = await getJSON(projectURL(`/jobs/${this.job.id}`));
    const { done = 0, total = 0, message = "", eta_s: left = null } = job.progress;
    const count = total > 1 ? `: ${done} of ${total}` : "";
    const time = left && job.state === "running" ? ` · about ${duration(left)} left` : "";
    if (job.state === "stopping") this.message.textContent = "Stopping…";
    else if (total) this.message.textContent = `${message || "Working"}${count}${time}`;
    this.bar.style.width = `${total ? (100 * done) / total : 0}%`;
    this.stopButton.disabled = job.state === "stopping";
    if (!FINAL_STATES.includes(job.state)) return;
    this.leave();
    await this.onEnded(job);
  }

  async cancel() {
    this.stopButton.disabled = true;
    try {
      await sendJSON("POST", projectURL(`/jobs/${this.job.id}/cancel`));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      notify(error, "error");
    }
  }
}

/** What to say of a job that did not end well. */
export function endingText(job, what) {
  return job.error || `${what} was ${job.state === "cancelled" ? "stopped" : job.state}.`;
}

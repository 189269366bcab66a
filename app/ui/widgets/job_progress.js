// Work that is being waited for: what it does, how far it is, how long it still takes, and a way to stop it. JobProgress
// follows jobs; ProgressCard alone shows what somebody else follows.

import { getJSON, notify, poll, projectURL, sendJSON } from "./api.js";
import { element } from "./element.js";
import { endingText, isLive } from "./job_states.js";
import { duration } from "./number_words.js";

const POLL_MS = 700;
const WORDS = { queued: "Waiting for its turn…", stopping: "Stopping…", done: "Done", cancelled: "Stopped", failed: "Failed", interrupted: "Interrupted" };

/** A bar with words over it: what is done, done of total, and the remaining time. */
class ProgressLine {
  constructor(name) {
    this.start = null; // {at, done}: where it was when it was first seen at work
    this.phase = element("span", { role: "status" }, WORDS.queued); // read out when it changes; the numbers are not
    this.count = element("span");
    this.left = element("span", { class: "a-muted" });
    this.fill = element("div");
    this.bar = element("div", { class: "a-progress", role: "progressbar", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100 }, this.fill);
    this.words = element("div", { class: "job-words" }, element("p", {}, this.phase, this.count), this.left);
  }

  /** @param {{state: string, progress: {done?: number, total?: number, message?: string, eta_s?: number}}} work */
  show({ state, progress = {} }) {
    const { done = 0, total = 0, message = "" } = progress;
    const phase = WORDS[state] ?? (message ? message[0].toUpperCase() + message.slice(1) : "Starting…");
    if (this.phase.textContent !== phase) this.phase.textContent = phase;
    this.count.textContent = state === "running" && total > 1 ? `: ${done} of ${total}` : "";
    const seconds = state === "running" ? (progress.eta_s ?? this._byPace(done, total)) : null;
    this.left.textContent = seconds === null ? "" : `About ${duration(seconds)} left`;
    const percent = total ? Math.round((100 * done) / total) : 0;
    this.fill.style.width = `${percent}%`;
    this.bar.classList.toggle("moving", state === "running" && !total && Boolean(message)); // how far is not known
    if (total) this.bar.setAttribute("aria-valuenow", percent);
    else this.bar.removeAttribute("aria-valuenow");
  }

  /** Seconds left at the pace seen so far; null before there is one. */
  _byPace(done, total) {
    if (!done || !total) return null;
    const now = performance.now();
    if (!this.start || done < this.start.done) this.start = { at: now, done };
    const moved = done - this.start.done;
    return moved > 0 ? (((now - this.start.at) / 1000) * (total - done)) / moved : null;
  }
}

export class ProgressCard {
  /** @param {{title: string, names?: string[], onStop: () => void}} options names tell several works apart, one line each */
  constructor({ title, names = [], onStop }) {
    this.lines = (names.length ? names : [title]).map((name) => new ProgressLine(name));
    this.stop = element("button", { type: "button", class: "a-button", "data-action": "stop", onclick: onStop }, "Stop");
    const rows = this.lines.map(({ words, bar }, index) => element("div", { class: "job-line" }, names.length ? element("strong", {}, names[index]) : null, words, bar));
    this.root = element("section", { class: "a-card a-job", "aria-label": title }, element("h3", { class: "a-subtitle" }, title), ...rows, this.stop);
  }

  /** How far each work is, in the order of the names. */
  show(works) {
    works.forEach((work, index) => this.lines[index].show(work));
    this.stop.disabled = !works.some(({ state }) => state === "queued" || state === "running");
  }
}

export class JobProgress {
  /**
   * @param {Object[]} jobs as the server gave them; several have a `name` each
   * @param {{title: string, onEnd: (...jobs: Object[]) => void, owner?: Element}} options onEnd is called once, with the
   *   jobs as they ended; `owner` (the card itself) ends the following when it leaves the page
   */
  constructor(jobs, { title, onEnd, owner = null }) {
    Object.assign(this, { jobs, title, onEnd });
    const names = jobs.length > 1 || jobs[0].name ? jobs.map((job) => job.name) : [];
    this.card = new ProgressCard({ title, names, onStop: () => this._stop() });
    this.root = this.card.root;
    this.owner = owner ?? this.root;
    this.isOver = false;
    this.endPolling = poll(() => this._look(), POLL_MS);
  }

  /** Follow no longer; the jobs go on. */
  end() {
    this.isOver = true;
    this.endPolling();
  }

  async _look() {
    const jobs = await Promise.all(this.jobs.map(async ({ id, name }) => ({ ...(await getJSON(projectURL(`/jobs/${id}`))).job, name })));
    if (!this.owner.isConnected) this.end(); // asked only now: at first it is not on the page yet
    if (this.isOver) return null;
    this.jobs = jobs;
    this.card.show(jobs);
    if (jobs.some(isLive)) return null;
    this.end();
    for (const job of jobs) {
      const isToldAlready = job.state === "done" || job.state === "cancelled"; // by the page, or by whoever stopped it
      if (!isToldAlready) notify(`${job.name ? `${job.name}: ` : ""}${endingText(job, this.title)}`, "error");
    }
    return this.onEnd(...jobs);
  }

  async _stop() {
    this.card.stop.disabled = true;
    const live = this.jobs.filter(isLive);
    await Promise.all(live.map((job) => sendJSON("POST", projectURL(`/jobs/${job.id}/cancel`)).catch((error) => notify(error, "error"))));
  }
}

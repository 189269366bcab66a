// The checks of a run before it is started: a button in the form, and the verdicts as a list that grows while they run.

import { ApiError, getJSON, notify, pageURL, poll, projectURL, sendJSON } from "./api.js";
import { element } from "./element.js";
import { isLive } from "./job_states.js";

const POLL_MS = 700;
const LEVELS = { green: ["✓", "good", "good"], amber: ["!", "note", "notes"], red: ["✕", "problem", "problems"] }; // mark, word, words

export class Preflight {
  /** @param {{values: () => Object, apply: (fix: Object) => void, titleOf: (name: string) => string, textOf: (name: string, value: *) => string, onRefused: (fields: Object) => void}} form */
  constructor(form) {
    this.form = form;
    this.button = element("button", { type: "button", class: "a-button small train-check", "data-action": "preflight", onclick: () => (this.isLive() ? this.cancel() : this.start()) }, "Check before training");
    this.title = element("summary", {});
    this.note = element("div", { class: "a-small a-muted", role: "status" });
    this.list = element("ul", { class: "train-verdicts" });
    this.root = element("details", { class: "a-card train-preflight", hidden: true }, this.title, this.list, this.note);
    this.load(true).catch((error) => notify(error, "error"));
  }

  isLive() {
    return Boolean(this.job) && isLive(this.job);
  }

  async start() {
    this.button.disabled = true;
    try {
      const { job } = await sendJSON("POST", projectURL("/preflight"), { config: this.form.values() });
      this.job = job;
      this.report = { job: job.id, config: null, verdicts: [] };
      this.root.open = true;
      this.show();
      this.follow();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.body?.fields) this.form.onRefused(error.body.fields);
      else notify(error, "error");
    } finally {
      this.button.disabled = false;
    }
  }

  async cancel() {
    try {
      await sendJSON("POST", projectURL(`/jobs/${this.job.id}/cancel`), {});
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      notify(error, "error");
    }
  }

  follow() {
    this.stop?.();
    this.stop = poll(() => this.load(), POLL_MS, this.button);
  }

  async load(isFirst = false) {
    const asked = this.job?.id;
    const { job, report } = await getJSON(projectURL("/preflight"));
    if (asked && job?.id !== asked) {
      this.job = (await getJSON(projectURL(`/jobs/${asked}`))).job; // it has not begun to write yet
    } else if (report) {
      Object.assign(this, { job, report });
    }
    if (isFirst && this.isLive()) {
      this.root.open = true;
      this.follow();
    }
    if (!this.isLive()) this.stop?.();
    this.show();
  }

  /** Draw the report; again when the form has changed, because it may be about other options then. */
  show() {
    this.button.textContent = this.isLive() ? "Stop checking" : "Check before training";
    if (!this.report) return;
    this.root.hidden = false;
    this.root.dataset.state = this.job.state;
    const { verdicts } = this.report;
    const counts = Object.entries(LEVELS).map(([level, [, one, many]]) => [verdicts.filter((verdict) => verdict.level === level).length, one, many]);
    const words = counts.filter(([count]) => count).map(([count, one, many]) => `${count} ${count === 1 ? one : many}`).join(" · ");
    this.title.replaceChildren(element("strong", {}, this.isLive() ? "Checking before training" : "Checked before training"), element("span", { class: "a-small a-muted" }, words));
    this.list.replaceChildren(...verdicts.map((verdict) => this.row(verdict)));
    this.note.textContent = this.noteText();
    this.note.hidden = !this.note.textContent;
  }

  noteText() {
    const { state, progress = {}, error } = this.job;
    if (state === "queued") return "Waiting for its turn…";
    if (this.isLive()) return `${progress.message || "loading"}…`;
    if (state === "cancelled") return "Stopped before the end.";
    if (state !== "done") return (error || state).split("\n")[0];
    return this.isCurrent() ? "" : "The options have changed since: check again.";
  }

  /** Whether the form still says what was checked. */
  isCurrent() {
    const values = this.form.values();
    return Object.entries(this.report.config ?? {}).every(([name, value]) => !(name in values) || JSON.stringify(values[name]) === JSON.stringify(value));
  }

  row(verdict) {
    const [mark, word] = LEVELS[verdict.level];
    return element("li", { "data-check": verdict.check, "data-level": verdict.level },
      element("span", { class: `train-mark ${verdict.level}` }, element("span", { "aria-hidden": "true" }, mark), ` ${word}`),
      element("span", { class: "train-verdict" }, element("strong", {}, verdict.title), " ", verdict.text), this.remedy(verdict));
  }

  /** What mends it in one click: option values, or where no option does, a page to look at or another try. */
  remedy({ fix, action }) {
    if (action === "open_data") return element("a", { class: "a-button small", "data-action": action, href: pageURL("/data") }, "Open Data");
    if (action === "check_again") {
      const again = element("button", { type: "button", class: "a-button small", "data-action": action, onclick: () => this.start() }, "Check again");
      again.disabled = this.isLive();
      return again;
    }
    const entries = Object.entries(fix);
    if (!entries.length) return null;
    const text = entries.map(([name, value]) => `${this.form.titleOf(name).replace(/^[A-Z](?![A-Z])/, (letter) => letter.toLowerCase())} ${this.form.textOf(name, value)}`).join(", ");
    const isApplied = entries.every(([name, value]) => JSON.stringify(this.form.values()[name]) === JSON.stringify(value));
    const use = element("button", { type: "button", class: "a-button small train-fix", "data-action": "apply-fix", title: `Sets ${text} in the form`, onclick: () => this.form.apply(fix) }, isApplied ? "Set in the form" : `Use ${text}`);
    use.disabled = isApplied;
    return use;
  }
}

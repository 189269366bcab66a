// What people write about the runs: hypothesis, setup, results and conclusion, edited where they stand. Each is saved by
// itself soon after the last key; until the server has it, it also lies in localStorage, so that nothing is lost.

import { getJSON, notify, projectSlug, projectURL, sendJSON } from "./api.js";
import { sideMark } from "./compare_sides.js";
import { element } from "./element.js";

const PARTS = {
  hypothesis: ["Hypothesis", "What should this run show, and why?"],
  setup: ["Setup", "What is different from the run before?"],
  results: ["Results", "What came out?"],
  conclusion: ["Conclusion", "What follows from it?"],
};
const DELAY_MS = 600;
const RETRY_MS = 4000;
const MAX_LENGTH = 10_000;

export class NoteSheets {
  constructor({ answer }) {
    this.answer = answer;
    const runs = answer.sides.map((side, place) => ({ ...side, place })).filter((side, at, all) => all.findIndex((one) => one.run === side.run) === at);
    this.sheets = runs.map((run) => new NoteSheet(run));
    this.root = element("div", { class: "notes" }, ...this.sheets.map((sheet) => sheet.root));
  }

  onShown() {
    for (const sheet of this.sheets) sheet.load();
  }

  destroy() {
    for (const sheet of this.sheets) sheet.destroy();
  }
}

class NoteSheet {
  constructor({ run, run_name: name, place }) {
    this.run = run;
    this.parts = Object.entries(PARTS).map(([part, words]) => this._part(part, ...words));
    this.status = element("span", { class: "a-muted status", role: "status" });
    this.root = element(
      "section",
      { class: "a-card sheet", "data-run": run, "data-status": "loading" },
      element("div", { class: "head" }, sideMark(place), element("h3", { class: "a-subtitle", title: name }, name), element("span", { class: "spacer" }), this.status),
      ...this.parts.map((part) => part.root),
    );
    this._leaving = new AbortController();
    const signal = this._leaving.signal;
    window.addEventListener("pagehide", () => this._save(true), { signal });
    document.addEventListener("visibilitychange", () => (document.hidden ? this._save(true) : this.load()), { signal });
    window.addEventListener("online", () => this._save(), { signal });
  }

  destroy() {
    this._save(true);
    this._leaving.abort();
    clearTimeout(this._timer);
  }

  _part(name, title, help) {
    const area = element("textarea", { class: "a-input", rows: 3, maxlength: MAX_LENGTH, placeholder: help, disabled: true });
    const conflict = element("div", { class: "conflict", role: "alert", hidden: true });
    const part = { name, title, area, conflict, known: "", sent: null, theirs: null, root: element("div", { class: "part", "data-part": name }, element("label", { class: "a-field" }, title, area), conflict) };
    area.addEventListener("input", () => this._typed(part));
    return part;
  }

  /** Read what the server has; what is being written here stays. */
  async load() {
    let notes;
    try {
      ({ notes } = await getJSON(projectURL(`/runs/${this.run}/notes`)));
    } catch (error) {
      if (this.root.dataset.status === "loading") notify(error, "error");
      return;
    }
    for (const part of this.parts) {
      if (part.area.disabled) this._begin(part, notes[part.name]);
      else if (!this._isDirty(part)) this._take(part, notes[part.name]);
    }
    this._report();
    if (this.parts.some((part) => this._isDirty(part))) this._schedule(0); // a draft of an earlier page
  }

  _begin(part, text) {
    part.area.disabled = false;
    this._take(part, text);
    const draft = JSON.parse(localStorage.getItem(this._key(part)) ?? "null");
    if (draft) {
      if (draft.sent !== text) part.known = draft.known; // else the page was left while this very text was on its way
      part.area.value = draft.text;
    }
    grow(part.area);
  }

  _take(part, text) {
    part.known = text;
    if (part.area.value.trim() !== text) part.area.value = text;
    grow(part.area);
  }

  _isDirty(part) {
    return !part.area.disabled && part.area.value.trim() !== part.known;
  }

  _typed(part) {
    grow(part.area);
    if (part.theirs === null) this._schedule(DELAY_MS);
    this._keep(part);
    this._report();
  }

  // ---- saving -----------------------------------------------------------------------------------------------------

  _schedule(delay) {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._save(), delay);
  }

  async _save(isLeaving = false) {
    clearTimeout(this._timer);
    const parts = this.parts.filter((part) => this._isDirty(part) && part.theirs === null);
    if (!parts.length || this._isBusy) return this._report(); // what is typed meanwhile is kept, and sent afterwards
    this._isBusy = true;
    for (const part of parts) {
      part.sent = part.area.value.trim();
      this._keep(part);
    }
    const changes = Object.fromEntries(parts.map((part) => [part.name, part.sent]));
    const known = Object.fromEntries(parts.map((part) => [part.name, part.known]));
    this._report();
    try {
      const { notes } = await sendJSON("PUT", projectURL(`/runs/${this.run}/notes`), { changes, known }, { keepalive: isLeaving });
      for (const part of parts) {
        part.known = notes[part.name];
        this._keep(part);
      }
      this.error = null;
    } catch (error) {
      const current = error.status === 409 ? error.body?.current : null;
      if (current) this._ask(parts, current);
      else this.error = error;
    }
    this._isBusy = false;
    this._report();
    const isWaiting = this.parts.some((part) => this._isDirty(part) && part.theirs === null);
    const isRefused = this.error && this.error.status >= 400 && this.error.status < 500;
    if (isWaiting && !isRefused) this._schedule(this.error ? RETRY_MS : DELAY_MS);
  }

  /** Somebody else wrote the same part: the reader chooses; the other parts are saved again by themselves. */
  _ask(parts, current) {
    for (const part of parts) {
      const theirs = current[part.name];
      if (theirs === part.known) continue;
      part.theirs = theirs;
      const choose = (text, keeps) => element("button", { type: "button", class: "a-button small", onclick: () => this._settle(part, keeps) }, text);
      part.conflict.hidden = false;
      part.conflict.replaceChildren(element("p", {}, "Changed elsewhere since it was opened here. There it says:"), element("blockquote", {}, theirs || "(nothing)"), choose("Keep mine", true), choose("Take theirs", false));
    }
  }

  _settle(part, keepsOwn) {
    part.known = part.theirs;
    if (!keepsOwn) part.area.value = part.theirs;
    part.theirs = null;
    part.conflict.hidden = true;
    grow(part.area);
    this._keep(part);
    this._save();
  }

  _key(part) {
    return `anchorage:notes:${projectSlug()}:${this.run}:${part.name}`;
  }

  /** Keep unsaved text in the browser, and forget saved text. */
  _keep(part) {
    if (!this._isDirty(part)) return localStorage.removeItem(this._key(part));
    try {
      localStorage.setItem(this._key(part), JSON.stringify({ text: part.area.value, known: part.known, sent: part.sent }));
    } catch (error) {
      console.warn("An unsaved note could not be kept in the browser.", error);
    }
  }

  _report() {
    const isConflict = this.parts.some((part) => part.theirs !== null);
    const isDirty = this.parts.some((part) => this._isDirty(part));
    const status = isConflict ? "conflict" : this.error && isDirty ? "failed" : isDirty ? "saving" : "saved";
    this.root.dataset.status = status;
    const words = { conflict: "Changed elsewhere: choose", saving: "Saving…", saved: "Saved" };
    this.status.textContent = words[status] ?? `Not saved: ${this.error.message} It is kept in this browser.`;
    this.status.classList.toggle("a-error", status === "failed" || status === "conflict");
  }
}

/** As high as its text. */
function grow(area) {
  area.style.height = "auto";
  if (area.scrollHeight) area.style.height = `${area.scrollHeight + 2}px`;
}

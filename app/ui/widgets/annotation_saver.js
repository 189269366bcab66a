// Saving edited images: soon after a stroke, the newest boxes per image, one request at a time, retried until the
// server has them. Until then they also lie in localStorage, so that a reload or a crash loses nothing.

import { projectURL, sendJSON } from "./api.js";
import { isSameContent } from "./annotation_document.js";

const DELAY_MS = 300;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 15000;
const KEEPALIVE_BYTES = 60000; // browsers allow 64 KiB in requests that outlive their page

export class AnnotationSaver {
  /**
   * @param {string} slug the project
   * @param {(status: "saved"|"saving"|"failed"|"conflict", error: Error|null) => void} onStatus
   * @param {(document: AnnotationDocument, current: Object) => Promise<string|null>} onConflict asks the user:
   *   "mine", "theirs", "merge", or null to be asked again later
   * @param {(document: AnnotationDocument) => void} onResolved a conflict was settled and the boxes may have changed
   */
  constructor(slug, { onStatus, onConflict, onResolved }) {
    Object.assign(this, { slug, onStatus, onConflict, onResolved });
    this._waiting = new Map(); // image id -> document with unsaved changes, oldest first
    this._conflicts = new Map(); // image id -> {document, current}
    this._refused = new Map(); // image id -> the server's answer to a save it will never take
    this._timer = null;
    this._isBusy = false;
    this._failures = 0;
    this._lastError = null;
    this._isStorageFull = false;
    this._leaving = new AbortController();
    const signal = this._leaving.signal;
    window.addEventListener("pagehide", () => this.flush(), { signal });
    window.addEventListener("online", () => this.flush(), { signal });
    document.addEventListener("visibilitychange", () => document.hidden && this.flush(), { signal });
    window.addEventListener("beforeunload", (event) => this._isStorageFull && this.isDirty && event.preventDefault(), { signal });
  }

  destroy() {
    this.flush();
    this._leaving.abort();
    this._stopTimer();
  }

  get isDirty() {
    return this._waiting.size > 0;
  }

  /** Whether the server does not have all of a document yet. */
  holds(document) {
    return document.isDirty || this._waiting.has(document.id);
  }

  get status() {
    if (this._conflicts.size) return "conflict";
    if (this._failures || this._refused.size) return "failed";
    return this.isDirty ? "saving" : "saved";
  }

  /** A document was changed: keep it safe at once and send it soon. */
  touch(document) {
    this._refused.delete(document.id);
    if (document.isDirty || this._conflicts.has(document.id)) {
      this._waiting.set(document.id, document);
      this._keep(document, this._sending?.document === document ? this._sending.state : null);
    } else if (this._sending?.document !== document) {
      this._forget(document); // undone back to what the server has, with nothing on its way
    } else {
      this._waiting.set(document.id, document);
    }
    this._report();
    if (this._failures) this._stopTimer(); // a new stroke does not wait for the end of a back-off
    this._schedule(DELAY_MS);
  }

  /** Send what is waiting now. */
  flush() {
    this._failures = 0;
    this._stopTimer();
    this._run();
  }

  /** Ask about the open conflicts again. */
  async askAgain() {
    for (const { document, current } of [...this._conflicts.values()]) await this._settle(document, current);
  }

  /** Ids of the images of this project that have unsaved changes of an earlier page. */
  draftIds() {
    const prefix = this._draftKey("");
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(prefix))
      .map((key) => Number(key.slice(prefix.length)));
  }

  /** Bring back the unsaved changes of an image from an earlier page, if there are any. */
  restore(document) {
    if (this._waiting.has(document.id)) return;
    const draft = this._draftOf(document.id);
    if (draft?.sha256 === document.image.sha256 && document.restore(draft)) this.touch(document);
    else this.discardDraft(document.id);
  }

  _draftOf(imageId) {
    const text = localStorage.getItem(this._draftKey(imageId));
    try {
      return text && JSON.parse(text);
    } catch (error) {
      console.warn("An unreadable draft is dropped.", text, error);
      return null;
    }
  }

  /** Drop the draft of an image. */
  discardDraft(imageId) {
    localStorage.removeItem(this._draftKey(imageId));
  }

  _schedule(delay) {
    if (this._timer === null) {
      this._timer = setTimeout(() => {
        this._timer = null;
        this._run();
      }, delay);
    }
  }

  _stopTimer() {
    clearTimeout(this._timer);
    this._timer = null;
  }

  async _run() {
    if (this._isBusy) return;
    this._isBusy = true;
    for (let document = this._next(); document; document = this._next()) {
      if (!(await this._send(document))) break;
    }
    this._isBusy = false;
    this._report();
    if (this._failures && this._next()) {
      this._schedule(Math.min(FIRST_RETRY_MS * 2 ** (this._failures - 1), LAST_RETRY_MS));
    }
  }

  _next() {
    return [...this._waiting.values()].find(({ id }) => !this._conflicts.has(id) && !this._refused.has(id)) ?? null;
  }

  /** One PUT; false when it could not be carried out and has to be tried again. */
  async _send(document) {
    const state = document.state;
    const body = document.body();
    this._sending = { document, state };
    this._keep(document, state);
    this._report();
    const url = projectURL(`/images/${document.id}/annotations`);
    try {
      const answer = await sendJSON("PUT", url, body, { keepalive: JSON.stringify(body).length < KEEPALIVE_BYTES });
      document.acknowledge(state, answer);
      this._stored(document);
    } catch (error) {
      this._sending = null;
      return this._failed(document, state, error);
    }
    return true;
  }

  _stored(document) {
    this._sending = null;
    this._failures = 0;
    this._lastError = null;
    if (document.isDirty) this._keep(document, null);
    else this._forget(document);
    this._report();
  }

  _failed(document, state, error) {
    this._lastError = error;
    const current = error.status === 409 ? error.body?.current : null;
    if (current && isSameContent(current.annotations, state.boxes) && current.is_empty_on_purpose === state.isEmpty) {
      // The server had taken this very save, only its answer got lost.
      document.adopt(state, current);
      this._stored(document);
      return true;
    }
    if (current) {
      this._conflicts.set(document.id, { document, current });
      this._settle(document, current);
      return true;
    }
    if (error.status >= 400 && error.status < 500) {
      this._refused.set(document.id, error);
      return true;
    }
    this._failures += 1;
    return false;
  }

  async _settle(document, current) {
    this._report();
    const choice = await this.onConflict(document, current);
    if (choice === null || this._conflicts.get(document.id)?.current !== current) return;
    this._conflicts.delete(document.id);
    this._lastError = null;
    document.resolve(choice, current);
    this.onResolved(document);
    if (document.isDirty) this.touch(document);
    else this._forget(document);
    this._report();
  }

  _report() {
    this.onStatus(this.status, this._lastError);
  }

  _draftKey(imageId) {
    return `anchorage:draft:${this.slug}:${imageId}`;
  }

  _keep(document, sent) {
    try {
      localStorage.setItem(this._draftKey(document.id), JSON.stringify(document.draft(sent)));
      this._isStorageFull = false;
    } catch (error) {
      this._isStorageFull = true; // leaving the page now asks first
      console.warn("Unsaved boxes could not be kept in the browser.", error);
    }
  }

  _forget(document) {
    this._waiting.delete(document.id);
    this.discardDraft(document.id);
  }
}

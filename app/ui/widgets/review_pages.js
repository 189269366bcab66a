// A long list of errors, opened page by page: each page is handed to the Review page as what to show.

import { getJSON, notify, projectURL } from "./api.js";
import { element } from "./element.js";

const PAGE_SIZE = 100; // as many boxes mostly fit into the address

export class ErrorPages {
  /** @param {HTMLElement} owner sends review-open events; the pager stands in `node`, hidden while one page is all */
  constructor(owner) {
    this.owner = owner;
    const turn = (text, label, onclick) => element("button", { type: "button", class: "a-button small", "aria-label": label, title: label, onclick }, text);
    this.back = turn("‹", "Previous page", () => this._turn(this.after - PAGE_SIZE));
    this.on = turn("›", "Next page", () => this._turn(this.next));
    this.place = element("span", { role: "status" });
    this.node = element("div", { class: "error-pages", hidden: true }, this.back, this.place, this.on);
  }

  /**
   * Open the first page of a list.
   * @param {Object} list
   * @param {string} list.path of the route, below the project's
   * @param {Object} list.query its parameters
   * @param {string} list.title of the list
   * @param {(entry: Object) => string} list.describe what is written beside an entry's box
   */
  async open(list) {
    this.list = list;
    await this._turn(0, false);
  }

  /** Forget the list, as when another set is shown. */
  close() {
    this.list = null;
    this.node.hidden = true;
    for (const button of this.owner.querySelectorAll("[aria-pressed=true]")) button.setAttribute("aria-pressed", "false");
  }

  async _turn(after, isNextPage = true) {
    const { list } = this;
    const query = new URLSearchParams({ ...list.query, after, limit: PAGE_SIZE });
    try {
      const page = await getJSON(projectURL(`${list.path}?${query}`));
      if (this.list === list) this._show(page, after, isNextPage);
    } catch (error) {
      notify(error, "error");
    }
  }

  _show(page, after, isNextPage) {
    const { title, describe } = this.list;
    const entries = page.errors ?? page.pairs;
    this.after = after;
    this.next = page.next;
    const range = `${count(after + 1)} to ${count(after + entries.length)} of ${count(page.total)}`;
    this.back.disabled = after === 0;
    this.on.disabled = page.next === null;
    this.place.textContent = range;
    this.node.hidden = page.total <= PAGE_SIZE;
    const items = entries.map((entry) => ({ imageId: entry.image_id, box: entry.box, kind: describe(entry) }));
    const detail = { title: this.node.hidden ? title : `${title}, ${range}`, items, isNextPage };
    this.owner.dispatchEvent(new CustomEvent("review-open", { bubbles: true, detail }));
  }
}

/** A whole number for people: 41,203. */
export function count(number) {
  return number.toLocaleString("en");
}

/** Call `onSeen` each time `node` comes into sight, as when its tab is chosen. Returns the observer. */
export function whenSeen(node, onSeen) {
  const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && onSeen());
  observer.observe(node);
  return observer;
}

// Tabs of the Review page's side panel, by mouse and by keyboard; the chosen one stands in the address as panel=, and Back
// returns to the one before.

import { getParam, setParam } from "./api.js";
import { element } from "./element.js";
import { enterPlace } from "./places.js";

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };

export class ReviewTabs {
  /**
   * @param {HTMLElement} root filled
   * @param {{key: string, title: string, pane: HTMLElement, isHidden?: boolean}[]} tabs the first is shown by default
   * @param {(key: string) => void} onChange a tab has come to the front
   */
  constructor(root, tabs, onChange) {
    this.onChange = onChange;
    this.tabs = new Map();
    this.list = element("div", { class: "tabs", role: "tablist", "aria-label": "What to show" });
    this.list.addEventListener("keydown", (event) => this._onKey(event));
    root.replaceChildren(this.list, ...tabs.map((tab) => this._add(tab)));
    this.follow();
  }

  /** Bring up the tab that the address names. */
  follow() {
    const wanted = getParam("panel");
    const isOffered = this.tabs.has(wanted) && !this.tabs.get(wanted).button.hidden;
    this._bringUp(isOffered ? wanted : this.tabs.keys().next().value);
    this._wanted = isOffered ? null : wanted; // its element may be defined later
  }

  _add({ key, title, pane, isHidden = false }) {
    const ids = { id: `review-tab-${key}`, "aria-controls": `review-pane-${key}` };
    const button = element("button", { type: "button", role: "tab", ...ids, hidden: isHidden, onclick: () => this._open(key) }, title);
    const holder = element("div", { class: "pane", role: "tabpanel", id: ids["aria-controls"], "aria-labelledby": ids.id, "data-pane": key }, pane);
    this.tabs.set(key, { button, holder });
    this.list.append(button);
    return holder;
  }

  /** Offer a tab that was hidden; it comes to the front if the address asked for it. */
  reveal(key) {
    this.tabs.get(key).button.hidden = false;
    if (this._wanted === key) this.choose(key);
  }

  _open(key) {
    if (key !== this.chosen) enterPlace("panel", {});
    this.choose(key);
  }

  /** Bring a tab to the front and note it in the address of this place. */
  choose(key) {
    this._wanted = null;
    this._bringUp(key);
    setParam("panel", this.tabs.keys().next().value === this.chosen ? null : this.chosen);
  }

  _bringUp(key) {
    this.chosen = key;
    for (const [name, { button, holder }] of this.tabs) {
      const isChosen = name === key;
      button.setAttribute("aria-selected", String(isChosen));
      button.tabIndex = isChosen ? 0 : -1;
      holder.hidden = !isChosen;
    }
    this.onChange(key);
  }

  _onKey(event) {
    const step = STEPS[event.key];
    if (!step) return;
    const offered = [...this.tabs].filter(([, { button }]) => !button.hidden).map(([key]) => key);
    this.choose(offered[(offered.indexOf(this.chosen) + step + offered.length) % offered.length]);
    this.tabs.get(this.chosen).button.focus();
    event.preventDefault();
    event.stopPropagation();
  }
}

// <anchorage-review-confusion>: which class was taken for which at the page's thresholds. Rows are labeled, columns
// predicted, the background last; a cell opens its images. Reads the properties setId and view; the server counts, once
// the sliders have rested.
//
// data-state: waiting, loading, ready, failed; data-at: the score, IoU and NMS thresholds that are shown.

import { getJSON, projectURL } from "./api.js";
import { element } from "./element.js";
import { count, ErrorPages, whenSeen } from "./review_pages.js";

const REST_MS = 250;
const BACKGROUND = 0;
const MOST_COLOR = 55; // percent of the color in a full cell: text stays readable on it, in light and in dark
const MOST_LEVEL = 3; // letters
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

class ReviewConfusion extends HTMLElement {
  connectedCallback() {
    this.dataset.state = "waiting";
    this.pages = new ErrorPages(this);
    this.status = element("p", { class: "note", role: "status" }, "Counting…");
    this.large = element("button", { type: "button", class: "a-button small", onclick: () => this._enlarge() }, "Enlarge");
    this.matrix = element("div", { class: "matrix" });
    this.matrix.addEventListener("keydown", (event) => this._onKey(event));
    this.replaceChildren(
      element(
        "section",
        {},
        element("div", { class: "head" }, element("h3", {}, "Labeled and predicted"), this.large),
        this.status,
        this.matrix,
        this.pages.node,
        element("p", { class: "note" }, "Rows are labeled, columns predicted. Colors are shares of a row. The last column: missed objects. The last row: false alarms, which match no labeled box at this IoU, or one that a surer box has found. A cell opens its images; arrow keys move between cells."),
      ),
    );
    this.large.hidden = true;
    this._seeing = whenSeen(this, () => this._refresh());
  }

  disconnectedCallback() {
    this._seeing.disconnect();
    clearTimeout(this._resting);
    this._request?.abort();
  }

  set setId(id) {
    this._setId = id;
    if (this.isConnected) this._refresh();
  }

  get setId() {
    return this._setId;
  }

  /** {score, iou, label, nms, isByClass}: the page's sliders and its chosen class (0: all). */
  set view(view) {
    this._view = view;
    if (!this.isConnected) return;
    clearTimeout(this._resting);
    this._resting = setTimeout(() => this._refresh(), REST_MS);
  }

  get view() {
    return this._view;
  }

  /** Count anew where it is in sight and what is shown is no longer true. */
  async _refresh() {
    if (!this.offsetParent || !this.view) return;
    this._markClass();
    const { setId, view } = this;
    const at = { score: view.score, iou: view.iou, nms: view.nms };
    const wanted = [setId, view.isByClass, ...Object.values(at)].join(" ");
    if (wanted === this._wanted) return;
    this._wanted = wanted;
    this._request?.abort();
    this._request = new AbortController();
    this.dataset.state = "loading";
    const query = new URLSearchParams(at);
    try {
      const confusion = await getJSON(projectURL(`/prediction-sets/${setId}/confusion?${query}`), { signal: this._request.signal });
      this._show(confusion, setId, at);
    } catch (error) {
      if (error.name === "AbortError") return;
      this._wanted = null;
      this._fail(error);
    }
  }

  _show({ labels, counts }, setId, at) {
    this.shown = { setId, at };
    this.pages.close();
    // Short names stand level above narrow columns, the background by its first letters; long ones stand upright.
    const isLevel = labels.slice(1).every((label) => [...label].length <= MOST_LEVEL);
    const order = [...labels.keys()].slice(1).concat(BACKGROUND);
    const head = order.map((label) => element("th", { scope: "col", "data-label": label, "aria-label": labels[label] }, name(labels[label], isLevel && label === BACKGROUND ? "bg" : labels[label])));
    const rows = order.map((label) => {
      const total = counts[label].reduce((sum, number) => sum + number, 0);
      const cells = order.map((predicted) => element("td", {}, this._cell(labels, label, predicted, counts[label][predicted], total)));
      return element("tr", {}, element("th", { scope: "row", "data-label": label }, name(labels[label])), ...cells);
    });
    const corner = element("td", { class: "corner" }, element("span", {}, "labeled ↓"), element("span", {}, "predicted →"));
    this.matrix.style.setProperty("--columns", order.length);
    this.matrix.replaceChildren(element("table", { class: isLevel ? "level" : null }, element("thead", {}, element("tr", {}, corner, ...head)), element("tbody", {}, ...rows)));
    this.matrix.querySelector("button")?.setAttribute("tabindex", "0");
    const nms = at.nms < 1 ? `, after NMS at ${at.nms.toFixed(2)}` : "";
    this.status.textContent = `At score ${at.score.toFixed(2)} and IoU ${at.iou.toFixed(2)}${nms}.${this.view.isByClass ? " Thresholds by class do not act here." : ""}`;
    this.status.classList.remove("a-error");
    this.large.hidden = false;
    this._markClass();
    this.dataset.state = "ready";
    this.dataset.at = `${at.score.toFixed(2)} ${at.iou.toFixed(2)} ${at.nms.toFixed(2)}`;
  }

  _cell(labels, truth, predicted, number, total) {
    if (!number) return element("span", { class: "zero" }, truth === predicted && truth === BACKGROUND ? "" : "0");
    const share = number / total;
    const [row, column] = [labels[truth], labels[predicted]];
    const what = truth === BACKGROUND ? `${column} that matches no labeled box` : predicted === BACKGROUND ? `${row} missed` : truth === predicted ? `${row} found` : `${row} taken for ${column}`;
    const percent = truth === BACKGROUND ? `${text(share)} of the false alarms` : `${text(share)} of labeled ${row}`;
    const kind = truth === predicted ? "tp" : predicted === BACKGROUND ? "fn" : "fp";
    const button = element(
      "button",
      {
        type: "button",
        class: `cell ${kind}`,
        tabindex: -1,
        title: `${what}: ${count(number)} (${percent})`,
        "aria-label": `${what}: ${count(number)}, ${percent}. Show the images`,
        "data-truth": truth,
        "data-predicted": predicted,
        onclick: () => this._open(button, what, truth, predicted),
      },
      count(number),
    );
    button.style.setProperty("--share", `${(MOST_COLOR * share).toFixed(1)}%`);
    return button;
  }

  async _open(button, what, truth, predicted) {
    for (const other of this.matrix.querySelectorAll("[aria-pressed]")) other.removeAttribute("aria-pressed");
    button.setAttribute("aria-pressed", "true");
    this._focus(button);
    this.dialog?.close();
    const { setId, at } = this.shown;
    const describe = (entry) => (entry.score === null ? what : `${what} ${entry.score.toFixed(2)}`);
    await this.pages.open({ path: `/prediction-sets/${setId}/confused`, query: { truth, predicted, ...at }, title: what, describe });
  }

  /** The same matrix in a window of its own, for many classes. */
  _enlarge() {
    const close = element("button", { type: "button", class: "a-button", onclick: () => this.dialog.close() }, "Close");
    const place = document.createComment("matrix");
    this.matrix.replaceWith(place);
    this.dialog = element("dialog", { class: "a-dialog matrix-window", "aria-label": "Labeled and predicted" }, this.matrix, element("div", { class: "actions" }, close));
    this.dialog.addEventListener("close", () => {
      place.replaceWith(this.matrix);
      this.dialog.remove();
      this.dialog = null;
    });
    this.append(this.dialog);
    this.dialog.showModal();
  }

  /** Arrow keys go to the next cell with a count in that direction; only one cell takes part in tabbing. */
  _onKey(event) {
    const step = ARROWS[event.key];
    const cell = event.target.closest?.("td");
    if (!step || !cell) return;
    event.preventDefault();
    event.stopPropagation();
    const rows = [...this.matrix.querySelectorAll("tbody tr")];
    let row = rows.indexOf(cell.parentElement) + step[0];
    let column = cell.cellIndex + step[1];
    while (rows[row]?.cells[column]) {
      const button = rows[row].cells[column].querySelector("button");
      if (button) return this._focus(button);
      row += step[0];
      column += step[1];
    }
  }

  _focus(button) {
    for (const other of this.matrix.querySelectorAll("button[tabindex='0']")) other.setAttribute("tabindex", "-1");
    button.setAttribute("tabindex", "0");
    button.focus();
  }

  _markClass() {
    for (const head of this.matrix.querySelectorAll("th")) head.classList.toggle("chosen", this.view.label > 0 && Number(head.dataset.label) === this.view.label);
  }

  _fail(error) {
    this.dataset.state = "failed";
    this.matrix.replaceChildren();
    this.large.hidden = true;
    this.status.textContent = [error.message, error.hint].filter(Boolean).join(" ");
    this.status.classList.add("a-error");
  }
}

const name = (label, text = label) => element("span", { class: "name", title: label }, text);

const text = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

if (!customElements.get("anchorage-review-confusion")) customElements.define("anchorage-review-confusion", ReviewConfusion);

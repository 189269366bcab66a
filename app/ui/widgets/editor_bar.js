// The bar above the editor's canvas: place, filters, file name, saving, undo, zoom; and the line about a problem.

import { getParam, setParam } from "./api.js";
import { element } from "./element.js";

const SPLITS = ["train", "valid", "test"];
const STATUS_TEXT = {
  saved: "Saved",
  saving: "Saving…",
  failed: "Not saved – retrying",
  conflict: "Changed elsewhere – choose",
};
const FURTHER_FILTERS = {
  problem: (value) => (value === "true" ? "left out of training" : "without problems"),
  name: (value) => `name: ${value}`,
  min_boxes: (value) => `at least ${value} boxes`,
  max_boxes: (value) => `at most ${value} boxes`,
};

function button(text, label, onclick, extra = "square") {
  const attributes = { type: "button", class: `a-button quiet ${extra}`, title: label, "aria-label": label, onclick };
  return element("button", attributes, text);
}

export class EditorBar {
  /** @param {Object} actions onStep(±1), onJump(text), onFilter(name, value), onUndo, onRedo, onStatus, onHelp, zoom: {in, out, fit, full} */
  constructor(actions) {
    this.actions = actions;
    const group = (...children) => element("div", { class: "group" }, ...children);
    this.root = element(
      "div",
      { class: "bar", role: "toolbar", "aria-label": "Image" },
      group(...this._place()),
      group(...this._filters()),
      (this.fileName = element("span", { class: "file-name" })),
      (this.shownSplit = element("span", { class: "a-chip", title: "The split of this image" })),
      (this.status = element("button", { type: "button", class: "status", "aria-live": "polite", onclick: actions.onStatus })),
      group(
        (this.undo = button("↶", "Undo (Ctrl Z)", actions.onUndo)),
        (this.redo = button("↷", "Redo (Ctrl ⇧ Z)", actions.onRedo)),
      ),
      group(
        button("−", "Zoom out (−)", actions.zoom.out),
        (this.zoom = button("100%", "Zoom to 100 % (⇧0)", actions.zoom.full, "zoom")),
        button("+", "Zoom in (+)", actions.zoom.in),
        button("Fit", "Whole image (0)", actions.zoom.fit, ""),
      ),
      group(button("?", "Keys (?)", actions.onHelp)),
    );
  }

  _place() {
    this.position = element("input", {
      class: "a-input position",
      type: "text",
      inputmode: "numeric",
      "aria-label": "Number of the image; type another to go there",
      onchange: () => this.actions.onJump(this.position.value),
      onkeydown: (event) => event.key === "Enter" && this.position.blur(),
    });
    this.total = element("span", { class: "total" });
    this.previous = button("‹", "Previous image (←)", () => this.actions.onStep(-1));
    this.next = button("›", "Next image (→)", () => this.actions.onStep(1));
    return [this.previous, this.position, this.total, this.next];
  }

  _filters() {
    this.split = this._filter("split", "Show images of this split");
    this.split.append(...["", ...SPLITS].map((name) => element("option", { value: name }, name || "All splits")));
    this.split.value = getParam("split") ?? "";
    this.category = this._filter("category", "Show images with this class");
    return [this.split, this.category, this._furtherFilters()];
  }

  _filter(name, label) {
    const choice = element("select", { class: "a-input", "aria-label": label, title: label });
    choice.addEventListener("change", () => this.actions.onFilter(name, choice.value));
    return choice;
  }

  /** Filters that came along from another page: shown, and taken off with a click. */
  _furtherFilters() {
    const given = Object.keys(FURTHER_FILTERS).filter((name) => getParam(name));
    if (!given.length) return null;
    const clear = () => {
      chip.remove();
      given.forEach((name) => setParam(name, null));
      this.actions.onFilter("split", this.split.value);
    };
    const text = given.map((name) => FURTHER_FILTERS[name](getParam(name))).join(", ");
    const chip = element("button", { type: "button", class: "a-chip", title: "Take this filter off", onclick: clear }, `${text} ×`);
    return chip;
  }

  /** The classes to filter by. */
  showClasses(categories) {
    const chosen = getParam("category") ?? "";
    const options = categories.map(({ id, name }) => element("option", { value: id }, name));
    this.category.replaceChildren(element("option", { value: "" }, "Any class"), ...options);
    this.category.value = chosen;
  }

  showDocument({ image, position, total, previous, next, isListed, undoStack, redoStack }) {
    if (document.activeElement !== this.position) this.position.value = isListed ? String(position) : "–";
    this.total.textContent = `of ${total}`;
    this.fileName.textContent = image.file_name;
    this.fileName.title = `${image.file_name} · ${image.width} × ${image.height} px · ${image.split}`;
    this.shownSplit.textContent = image.split;
    this.previous.disabled = previous === null;
    this.next.disabled = next === null;
    this.undo.disabled = !undoStack.length;
    this.redo.disabled = !redoStack.length;
  }

  showScale(scale) {
    this.zoom.textContent = `${Math.round(scale * 100)}%`;
  }

  /** @param {string} status as the saver says it @param {Error|null} error why the last save failed */
  showStatus(status, error, isRefused) {
    this.status.textContent = isRefused ? "Not saved" : STATUS_TEXT[status];
    this.status.title = error ? `${error.message} ${error.hint ?? ""}` : "Every stroke is saved at once.";
  }
}

/** Why an image is left out of training, and what can be done: choosing how the picture has to be turned. */
export class ProblemBar {
  /** @param {(degrees: number) => void} onTurn degrees clockwise from how it is shown now; 0: it is right */
  constructor(onTurn) {
    const turn = (degrees, text) =>
      element("button", { type: "button", class: "a-button small", "data-turn": degrees, onclick: () => onTurn(degrees) }, text);
    this.text = element("span", { class: "text" });
    this.asItIs = turn(0, "Right as it is");
    const others = [turn(270, "Turn left"), turn(180, "Turn around"), turn(90, "Turn right")];
    this.root = element("div", { class: "problem", role: "note", hidden: true }, this.text, this.asItIs, ...others);
  }

  show({ problem, rotation }) {
    this.root.hidden = !problem && !rotation;
    this.asItIs.hidden = !problem;
    this.text.textContent = problem ? `Left out of training: ${problem}` : `Turned by ${rotation}° to fit its boxes.`;
  }
}

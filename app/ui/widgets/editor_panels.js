// The parts around the editor's canvas: the palette of classes, the list of boxes, the dialogs.

import { element } from "./element.js";
import { colorOf } from "./palette.js";

/** The key that chooses the class at a 0-based position: 1 to 9, then shift and 1 to 9; "" for further ones. */
export function keyOf(position) {
  if (position < 9) return String(position + 1);
  return position < 18 ? `⇧${position - 8}` : "";
}

function swatch(category) {
  const mark = element("span", { class: "a-swatch" });
  mark.style.background = colorOf(category.position);
  return mark;
}

/** The classes: choose one, find one by typing, add one, rename one. */
export class ClassPalette {
  /** @param {{onChoose, onAdd, onRename}} callbacks each gets what it needs: an id, a name, or an id and a name */
  constructor(callbacks) {
    this.callbacks = callbacks;
    this.categories = [];
    this.counts = new Map();
    this.current = null;
    this.search = element("input", {
      class: "a-input",
      type: "text",
      placeholder: "Find or add a class  ( / )",
      "aria-label": "Find or add a class",
      autocomplete: "off",
      maxlength: 200,
      oninput: () => this.render(),
      onkeydown: (event) => this._key(event),
    });
    this.list = element("div", { class: "classes", role: "group", "aria-label": "Classes" });
    this.root = element("section", { class: "palette" }, element("h2", {}, "Classes"), this.search, this.list);
  }

  /** Show these classes with how many boxes of each this image has. */
  show(categories, counts, current) {
    Object.assign(this, { categories, counts, current });
    if (!this.list.contains(document.activeElement) || document.activeElement.tagName !== "INPUT") this.render();
  }

  focus() {
    this.search.focus();
    this.search.select();
  }

  _matches() {
    const wanted = this.search.value.trim().toLowerCase();
    return this.categories.filter(({ name }) => name.toLowerCase().includes(wanted));
  }

  render() {
    const name = this.search.value.trim();
    const rows = this._matches().map((category) => this._row(category));
    const isNew = name && !this.categories.some((category) => category.name === name);
    if (isNew) rows.push(this._addRow(name));
    if (!rows.length) rows.push(element("p", { class: "a-muted a-small" }, "No classes yet: type the name of the first one above."));
    this.list.replaceChildren(...rows);
  }

  _row(category) {
    const isCurrent = category.id === this.current;
    const choose = element(
      "button",
      {
        type: "button",
        class: "class-choice",
        "aria-pressed": String(isCurrent),
        "data-category": category.id,
        title: category.name,
        onclick: () => this._choose(category.id),
      },
      swatch(category),
      element("span", { class: "name" }, category.name),
      element("span", { class: "count", title: "boxes of this class in this image" }, String(this.counts.get(category.id) ?? "")),
      element("kbd", {}, keyOf(category.position)),
    );
    const rename = element(
      "button",
      {
        type: "button",
        class: "icon",
        title: "Rename this class",
        "aria-label": `Rename ${category.name}`,
        onclick: () => this._rename(category),
      },
      "✎",
    );
    return element("div", { class: "class-row" }, choose, rename);
  }

  _addRow(name) {
    return element(
      "button",
      { type: "button", class: "class-choice add", onclick: () => this._add(name) },
      element("span", { class: "plus" }, "+"),
      element("span", { class: "name" }, `Add class “${name}”`),
    );
  }

  _choose(id) {
    this.search.value = "";
    this.search.blur();
    this.callbacks.onChoose(id);
    this.render();
  }

  async _add(name) {
    if (await this.callbacks.onAdd(name)) {
      this.search.value = "";
      this.search.blur();
      this.render();
    }
  }

  _key(event) {
    if (event.key === "Escape") {
      this.search.value = "";
      this.search.blur();
      this.render();
    }
    if (event.key !== "Enter") return;
    event.preventDefault();
    const name = this.search.value.trim();
    const exact = this.categories.find((category) => category.name === name);
    const first = exact ?? this._matches()[0];
    if (name && first) this._choose(first.id);
    else if (name) this._add(name);
  }

  _rename(category) {
    const row = this.list.querySelector(`[data-category="${category.id}"]`).parentElement;
    const input = element("input", { class: "a-input", type: "text", maxlength: 200, "aria-label": `New name of ${category.name}` });
    input.value = category.name;
    let isDone = false;
    const finish = async (isMeant) => {
      if (isDone) return;
      isDone = true;
      const name = input.value.trim();
      if (isMeant && name && name !== category.name) await this.callbacks.onRename(category.id, name);
      this.render();
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") finish(true);
      if (event.key === "Escape") finish(false);
    });
    input.addEventListener("blur", () => finish(true));
    row.replaceChildren(swatch(category), input);
    input.focus();
    input.select();
  }
}

/** The boxes as a list for eyes, keyboard and screen reader. */
export class BoxList {
  /** @param {{onSelect, onHover, onDelete}} callbacks each gets the key of a box (or null) */
  constructor(callbacks) {
    this.callbacks = callbacks;
    this.rows = new Map();
    this.order = [];
    this.selected = null;
    this.title = element("h2", {}, "Boxes");
    this.list = element("div", {
      class: "boxes",
      role: "listbox",
      tabindex: 0,
      "aria-label": "Boxes of this image",
      onkeydown: (event) => this._key(event),
      onpointerleave: () => callbacks.onHover(null),
    });
    this.root = element("section", { class: "box-list" }, this.title, this.list);
  }

  /** Rows are kept by key: only what changed is touched, so a thousand boxes stay quick. */
  show(boxes, categories, selected) {
    this.title.textContent = boxes.length === 1 ? "1 box" : `${boxes.length} boxes`;
    const kept = new Map();
    for (const box of boxes) {
      const row = this.rows.get(box.key) ?? this._row(box.key);
      const category = categories.get(box.category_id);
      const [width, height] = [box.bbox[2] - box.bbox[0], box.bbox[3] - box.bbox[1]];
      const size = `${Math.round(width)} × ${Math.round(height)}`;
      const name = category?.name ?? `class ${box.category_id}`;
      const text = `${name} ${size} ${box.is_crowd}`;
      if (row.text !== text || row.position !== category?.position) {
        row.text = text;
        row.position = category?.position;
        row.swatch.style.background = colorOf(category?.position ?? 0);
        row.name.textContent = box.is_crowd ? `${name} (crowd)` : name;
        row.size.textContent = size;
      }
      kept.set(box.key, row);
    }
    const isSameOrder = boxes.length === this.order.length && boxes.every(({ key }, index) => key === this.order[index]);
    if (!isSameOrder) this.list.replaceChildren(...[...kept.values()].map(({ node }) => node));
    this.rows = kept;
    this.order = boxes.map(({ key }) => key);
    this.select(selected);
  }

  select(key) {
    this.rows.get(this.selected)?.node.setAttribute("aria-selected", "false");
    this.selected = key;
    const row = this.rows.get(key);
    if (!row) return this.list.removeAttribute("aria-activedescendant");
    row.node.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", row.node.id);
    return row.node.scrollIntoView({ block: "nearest" });
  }

  highlight(key) {
    this.list.querySelector(".hovered")?.classList.remove("hovered");
    this.rows.get(key)?.node.classList.add("hovered");
  }

  _row(key) {
    const parts = {
      swatch: element("span", { class: "a-swatch" }),
      name: element("span", { class: "name" }),
      size: element("span", { class: "size" }),
    };
    const remove = element(
      "button",
      { type: "button", class: "icon", tabindex: -1, title: "Delete this box (Del)", "aria-label": "Delete this box" },
      "×",
    );
    remove.addEventListener("click", (event) => {
      event.stopPropagation();
      this.callbacks.onDelete(key);
    });
    const node = element(
      "div",
      {
        id: `box-${key}`,
        class: "box-row",
        role: "option",
        "aria-selected": "false",
        "data-key": key,
        onclick: () => this.callbacks.onSelect(key),
        onpointerenter: () => this.callbacks.onHover(key),
      },
      parts.swatch,
      parts.name,
      parts.size,
      remove,
    );
    return { node, ...parts, text: "", position: undefined };
  }

  _key(event) {
    if (event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !this.order.length) return;
    event.preventDefault();
    const place = this.order.indexOf(this.selected);
    const next = place < 0 ? (step > 0 ? 0 : this.order.length - 1) : place + step;
    this.callbacks.onSelect(this.order[Math.min(Math.max(next, 0), this.order.length - 1)]);
  }
}

const KEYS = [
  ["1 – 9, ⇧1 – ⇧9", "class of the selected box (one just drawn is), and of the next ones"],
  ["/", "find or add a class by name"],
  ["drag", "draw a box; from inside the selected one: move it (hold ⇧ to draw)"],
  ["click", "select; click again for the box beneath"],
  ["Esc", "stop drawing, or select nothing"],
  ["Del", "delete the selected box"],
  ["[  ]", "select the previous or next box"],
  ["⇧ arrows", "move the selected box by 1 px; with Ctrl: resize it"],
  ["← →  or  A D", "previous and next image"],
  ["Ctrl Z, Ctrl ⇧ Z", "undo, redo"],
  ["Ctrl C, Ctrl V", "copy and paste boxes, also to another image"],
  ["wheel, + −", "zoom"],
  ["0, ⇧0", "whole image, 100 %"],
  ["Space drag, middle button", "pan (or two fingers)"],
  ["E", "empty on purpose"],
  ["Enter", "accept what an audit suggests"],
  ["H", "hide the boxes while held"],
  ["?", "this list"],
];

/** The sheet of keys. */
export function helpDialog() {
  const rows = KEYS.map(([keys, text]) => element("tr", {}, element("th", {}, keys), element("td", {}, text)));
  const dialog = element("dialog", { class: "a-dialog editor-help", "aria-label": "Keys" });
  const close = element("button", { type: "button", class: "a-button", onclick: () => dialog.close() }, "Close");
  dialog.append(
    element("h2", { class: "a-subtitle" }, "Keys"),
    element("table", {}, element("tbody", {}, ...rows)),
    element("div", { class: "actions" }, close),
  );
  return dialog;
}

const count = (number) => (number === 1 ? "1 box" : `${number} boxes`);

/**
 * Ask which boxes to keep. Resolves to "mine", "theirs" or "merge"; to null when it is closed without a choice.
 * @param {HTMLElement} parent where the dialog stands while it is open
 */
export function askConflict(parent, fileName, numMine, numTheirs) {
  return new Promise((resolve) => {
    const dialog = element("dialog", { class: "a-dialog editor-conflict", "aria-label": "Changed elsewhere" });
    const choice = (name, text, extra = "") =>
      element(
        "button",
        { type: "button", class: `a-button ${extra}`, "data-choice": name, autofocus: name === "merge", onclick: () => dialog.close(name) },
        text,
      );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue || null);
    });
    dialog.append(
      element("h2", { class: "a-subtitle" }, "This image was changed elsewhere"),
      element("p", {}, `${fileName} was saved from another tab or script after you opened it.`),
      element("p", {}, `You have ${count(numMine)} here; the saved version has ${count(numTheirs)}. Nothing is lost yet, and undo takes the choice back.`),
      element(
        "div",
        { class: "actions" },
        choice("mine", "Keep mine"),
        choice("theirs", "Take theirs"),
        choice("merge", "Merge both", "primary"),
      ),
    );
    parent.append(dialog);
    dialog.showModal();
  });
}

// The ordered list of augmentation steps: add, switch on and off, adjust, reorder by dragging or with buttons, remove.

import { element } from "./element.js";

const KINDS = [
  ["geometry", "Geometry"],
  ["color", "Color"],
  ["blur", "Blur"],
  ["dropout", "Dropout"],
  ["mixing", "Several images"],
];

export class StepList {
  /**
   * @param {Object[]} catalogue entries as GET /api/augment/catalogue gives them
   * @param {Object} callbacks
   * @param {(steps: Object[]) => void} callbacks.onChange the chain is another one now
   */
  constructor(catalogue, { onChange }) {
    this.entries = new Map(catalogue.map((entry) => [entry.name, entry]));
    this.onChange = onChange;
    this.steps = [];
    this.opened = new Set();
    this.history = [];
    this.list = element("ol", { class: "steps", "aria-label": "Steps in order" });
    this.adder = this._buildAdder();
    this.undoButton = element(
      "button",
      { class: "a-button quiet small", type: "button", title: "Take back the last change of the list", onclick: () => this.undo() },
      "Undo",
    );
    this._listenToDrags();
    this._render();
  }

  /** The step with a value for every slider. */
  complete({ name, probability = 0.5, strength = {}, is_enabled = true }) {
    const { sliders } = this.entries.get(name);
    const values = Object.fromEntries(sliders.map((slider) => [slider.name, strength[slider.name] ?? slider.default]));
    return { name, probability, strength: values, is_enabled };
  }

  /** Show another chain; with `isEdit` it can be taken back and is told to the owner. */
  set(steps, { isEdit = false } = {}) {
    if (isEdit) this._remember();
    this.steps = steps.map((step) => this.complete(step));
    this.opened.clear();
    this._render();
    if (isEdit) this.onChange(this.steps);
  }

  /** Whether a step is switched on that a run may do less and less. */
  hasStrong() {
    return this.steps.some((step) => step.is_enabled && this.entries.get(step.name).is_strong);
  }

  undo() {
    if (!this.history.length) return;
    this.steps = this.history.pop();
    this._changedList();
  }

  // ---- changes ----------------------------------------------------------------------------------------------------

  _add(name) {
    this._remember();
    const step = this.complete({ name });
    this.steps.push(step);
    this.opened.add(step);
    this._changedList();
    this.list.lastElementChild.scrollIntoView({ block: "nearest" });
  }

  _remove(step) {
    this._remember();
    this.steps = this.steps.filter((other) => other !== step);
    this._changedList();
  }

  _move(step, target) {
    const from = this.steps.indexOf(step);
    const to = Math.max(0, Math.min(this.steps.length - 1, target));
    if (from === to) return;
    this._remember();
    this.steps.splice(from, 1);
    this.steps.splice(to, 0, step);
    this._changedList();
  }

  _remember() {
    this.history.push(this.steps.map((step) => ({ ...step, strength: { ...step.strength } })));
    if (this.history.length > 50) this.history.shift();
  }

  _changedList() {
    this._render();
    this.onChange(this.steps);
  }

  // ---- drawing ----------------------------------------------------------------------------------------------------

  _render() {
    this.undoButton.disabled = !this.history.length;
    if (!this.steps.length) {
      const text = "No steps: training sees the images as they are. Add a step below, or begin with a preset.";
      this.list.replaceChildren(element("li", { class: "none a-muted" }, text));
      return;
    }
    this.list.replaceChildren(...this.steps.map((step, index) => this._card(step, index)));
  }

  _card(step, index) {
    const entry = this.entries.get(step.name);
    const card = element("li", {
      class: "step",
      "data-name": step.name,
      "data-index": index,
      "data-enabled": step.is_enabled ? "1" : "0",
    });
    const details = this._details(step, entry);
    details.hidden = !this.opened.has(step);
    card.append(this._head(step, entry, index, card, details), this._probability(step), details);
    return card;
  }

  _head(step, entry, index, card, details) {
    const toggle = element("input", {
      type: "checkbox",
      checked: step.is_enabled,
      "aria-label": `${entry.title}: on`,
      onchange: () => {
        step.is_enabled = toggle.checked;
        card.dataset.enabled = step.is_enabled ? "1" : "0";
        this.onChange(this.steps);
      },
    });
    const title = element(
      "button",
      {
        class: "title",
        type: "button",
        title: `${entry.title}: ${entry.help}`,
        "aria-expanded": String(!details.hidden),
        onclick: () => {
          details.hidden = !details.hidden;
          title.setAttribute("aria-expanded", String(!details.hidden));
          if (details.hidden) this.opened.delete(step);
          else this.opened.add(step);
        },
      },
      entry.title,
    );
    const handle = element("span", { class: "handle", title: "Drag to reorder", "aria-hidden": "true" }, "⠿");
    handle.addEventListener("pointerdown", () => (card.draggable = true));
    handle.addEventListener("pointerup", () => (card.draggable = false));
    const last = this.steps.length - 1;
    return element(
      "div",
      { class: "head" },
      handle,
      toggle,
      title,
      this._button("↑", `${entry.title}: earlier`, () => this._move(step, index - 1), index === 0),
      this._button("↓", `${entry.title}: later`, () => this._move(step, index + 1), index === last),
      this._button("×", `${entry.title}: remove`, () => this._remove(step), false),
    );
  }

  _button(sign, label, onclick, disabled) {
    return element("button", { class: "icon", type: "button", "aria-label": label, title: label, disabled, onclick }, sign);
  }

  _probability(step) {
    const slider = { name: "probability", label: "How often", min: 0, max: 1, step: 0.05 };
    return this._slider(slider, step.probability, (value) => (step.probability = value), percent);
  }

  _details(step, entry) {
    const sliders = entry.sliders.map((slider) =>
      this._slider(slider, step.strength[slider.name], (value) => (step.strength[slider.name] = value), (value) => plain(value, slider)),
    );
    return element("div", { class: "details" }, element("p", { class: "a-muted a-small" }, entry.help), ...sliders);
  }

  _slider(slider, value, assign, format) {
    const output = element("output", {}, format(value));
    const input = element("input", {
      class: "a-input",
      type: "range",
      name: slider.name,
      min: slider.min,
      max: slider.max,
      step: slider.step,
      value,
      oninput: () => {
        assign(Number(input.value));
        output.textContent = format(Number(input.value));
        this.onChange(this.steps);
      },
    });
    return element("label", { class: "slider" }, element("span", {}, slider.label), input, output);
  }

  _buildAdder() {
    const groups = KINDS.map(([kind, title]) => {
      const entries = [...this.entries.values()].filter((entry) => entry.kind === kind);
      return element(
        "optgroup",
        { label: title },
        ...entries.map((entry) => element("option", { value: entry.name, title: entry.help }, entry.title)),
      );
    });
    const prompt = element("option", { value: "" }, "+ Add a step…");
    const select = element("select", { class: "a-input adder", "aria-label": "Add a step" }, prompt, ...groups);
    select.addEventListener("change", () => {
      const name = select.value;
      select.value = "";
      if (name) this._add(name);
    });
    return select;
  }

  // ---- dragging ---------------------------------------------------------------------------------------------------

  _listenToDrags() {
    let dragged = null;
    const cards = () => [...this.list.querySelectorAll(".step")];
    this.list.addEventListener("dragstart", (event) => {
      dragged = event.target.closest(".step");
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", "");
      dragged.classList.add("dragged");
    });
    this.list.addEventListener("dragover", (event) => {
      if (!dragged) return;
      event.preventDefault();
      const below = cards().find((card) => {
        const { top, height } = card.getBoundingClientRect();
        return card !== dragged && event.clientY < top + height / 2;
      });
      this.list.insertBefore(dragged, below ?? null);
    });
    this.list.addEventListener("drop", (event) => event.preventDefault());
    this.list.addEventListener("dragend", () => {
      if (!dragged) return;
      const step = this.steps[Number(dragged.dataset.index)];
      const target = cards().indexOf(dragged);
      dragged = null;
      this._move(step, target);
      this._render();
    });
  }
}

function percent(value) {
  return `${Math.round(value * 100)} %`;
}

function plain(value, slider) {
  const decimals = (String(slider.step).split(".")[1] ?? "").length;
  return value.toFixed(decimals);
}

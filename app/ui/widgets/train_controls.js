// The controls of the run form. Each is {node, show(value), read()} for one option; changes are told by `onChange`.
// read() gives what stands there: a value of the option's type when it is one, else the text, for the server to refuse.

import { pageURL } from "./api.js";
import { element } from "./element.js";
import { modelPicker } from "./model_picker.js";
import { chainText } from "./option_words.js";

/** The control of an option as GET /config describes it. `context`: {description, values(), onChange(value, node)}. */
export function makeControl(field, id, context) {
  if (field.name === "model") return modelPicker(id, context);
  if (field.name === "augmentation") return chainLink(id);
  if (field.name === "phases") return phaseRows(id, context);
  if (field.kind === "numbers") return numberList(id, context);
  if (field.enum) return select(field, id, field.enum.map((value) => [value, titleOfValue(field, value, context)]), context);
  if (field.type === "boolean") return checkbox(id, context);
  return textInput(field, id, context);
}

function titleOfValue(field, value, { description }) {
  return field.name === "selection_metric" ? (description.metrics[value] ?? value) : String(value);
}

function select(field, id, choices, { onChange }) {
  const node = element("select", { id, class: "a-input" }, ...choices.map(([value, title]) => element("option", { value }, title)));
  const valueOf = (text) => choices.map(([value]) => value).find((value) => String(value) === text) ?? text;
  node.addEventListener("change", () => onChange(valueOf(node.value), null));
  const show = (value) => {
    if (!choices.some(([known]) => known === value)) {
      choices.push([value, String(value)]); // a value that is not offered, such as timm/NAME, is shown all the same
      node.append(element("option", { value }, String(value)));
    }
    node.value = String(value);
  };
  return { node, show };
}

function checkbox(id, { onChange }) {
  const node = element("input", { id, type: "checkbox", onchange: () => onChange(node.checked, null) });
  return { node, show: (value) => (node.checked = value) };
}

function textInput(field, id, { onChange }) {
  const isNumber = field.type !== "string";
  const node = element("input", { id, class: "a-input", inputmode: isNumber ? "decimal" : "text", spellcheck: "false", autocomplete: "off" });
  node.addEventListener("input", () => onChange(isNumber ? toNumber(node.value) : node.value, node));
  return { node, show: (value) => (node.value = String(value ?? "")) };
}

/** "16, 32, 64" <-> [16, 32, 64]; a text with anything else in it stays a text. */
function numberList(id, { onChange }) {
  const node = element("input", { id, class: "a-input", spellcheck: "false", autocomplete: "off", placeholder: "none" });
  const read = () => {
    const words = node.value.replace(/[[\]()]/g, " ").split(/[\s,;]+/).filter(Boolean);
    const numbers = words.map(Number);
    return numbers.every(Number.isFinite) ? numbers : node.value;
  };
  node.addEventListener("input", () => onChange(read(), node));
  return { node, show: (value) => (node.value = Array.isArray(value) ? value.join(", ") : value) };
}

function chainLink(id) {
  const node = element("a", { id, class: "train-chain", href: pageURL("/augment") });
  const show = (steps) => {
    node.textContent = `${chainText(steps)} ›`;
    node.title = steps.map((step) => `${step.name} ${step.probability}`).join("\n");
  };
  return { node, show };
}

const PARTS = [["rpn", "RPN"], ["heads", "Heads"], ["all", "Everything"]];

/** A row for each stage of training: what learns, for how many epochs, at which peak rate. */
function phaseRows(id, { values, onChange }) {
  const rows = element("div", { class: "train-phases" });
  const add = element("button", { type: "button", id, class: "a-button quiet small", "data-action": "add-phase" });
  const node = element("div", { class: "train-phases-box" }, rows, add);
  let phases = [];
  add.addEventListener("click", () => {
    const { epochs, learning_rate: rate } = values();
    const first = Math.max(1, Math.floor(epochs / 2));
    const more = { train: "all", epochs: 1, learning_rate: rate };
    phases = phases.length ? [...phases, more] : [{ train: "rpn", epochs: first, learning_rate: rate }, { ...more, epochs: Math.max(1, epochs - first) }];
    onChange(phases, null);
  });

  const edit = (index, change, input) => {
    phases = phases.map((phase, at) => (at === index ? { ...phase, ...change } : phase));
    onChange(phases, input ? node : null);
  };

  const row = (phase, index) => {
    const name = `Phase ${index + 1}`;
    const part = element("select", { class: "a-input", "aria-label": `${name}: what learns` }, ...PARTS.map(([value, title]) => element("option", { value }, title)));
    part.value = phase.train;
    part.addEventListener("change", () => edit(index, { train: part.value }, null));
    const number = (key, label) => {
      const input = element("input", { class: "a-input", inputmode: "decimal", "aria-label": `${name}: ${label}`, title: label, autocomplete: "off" });
      input.value = String(phase[key]);
      input.addEventListener("input", () => edit(index, { [key]: toNumber(input.value) }, input));
      return input;
    };
    const remove = element("button", { type: "button", class: "train-phase-remove", title: "Remove", "aria-label": `Remove phase ${index + 1}` }, "✕");
    remove.addEventListener("click", () => onChange((phases = phases.filter((_, at) => at !== index)), null));
    return element("div", { class: "train-phase" }, part, number("epochs", "epochs"), number("learning_rate", "learning rate"), remove);
  };

  const show = (value) => {
    phases = Array.isArray(value) ? value : [];
    const head = element("div", { class: "train-phase a-small a-muted" }, ...["learns", "epochs", "rate", ""].map((title) => element("span", {}, title)));
    rows.replaceChildren(...(phases.length ? [head] : []), ...phases.map(row));
    add.textContent = phases.length ? "Add a phase" : "Train in phases";
  };
  return { node, show, isWide: true };
}

function toNumber(text) {
  const number = Number(text.trim().replace(",", "."));
  return text.trim() && Number.isFinite(number) ? number : text;
}

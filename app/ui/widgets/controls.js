// Small controls of the bars above a page: a labelled choice, a slider with its value.

import { element } from "./element.js";

/** A choice with a label before it: {field, input}. */
export function select(label, onChange) {
  const input = element("select", { class: "a-input", "aria-label": label, onchange: () => onChange(input.value) });
  return { input, field: element("label", { class: "pick" }, label, input) };
}

/** Fill a select (or an optgroup) with [value, text] pairs. */
export function fill(input, items, value) {
  input.replaceChildren(
    ...items.map(([key, text]) => element("option", { value: key, selected: String(key) === String(value) }, text)),
  );
}

/**
 * A slider with its value after it: {field, range, show(value, text)}; with a text it stands for no single value.
 * @param {{label: string, name: string, min: number, max: number, step: number, format?: (value: number) => string,
 *   onInput: (value: number) => void}} options `name` is read by screen readers
 */
export function slider({ label, name, min, max, step, format = (value) => value.toFixed(2), onInput }) {
  const range = element("input", { type: "range", class: "a-input", min, max, step, "aria-label": name });
  const output = element("output", {});
  const write = (text) => {
    output.textContent = text;
    range.setAttribute("aria-valuetext", text);
  };
  range.addEventListener("input", () => {
    write(format(Number(range.value)));
    onInput(Number(range.value));
  });
  const show = (value, text = null) => {
    range.value = value;
    range.disabled = text !== null;
    write(text ?? format(value));
  };
  return { range, show, field: element("label", { class: "slide" }, label, range, output) };
}

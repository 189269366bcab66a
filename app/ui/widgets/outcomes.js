// What becomes of a prediction or a labeled box: its words, its kind of line and mark, its color.

import { element } from "./element.js";

const NS = "http://www.w3.org/2000/svg";

export const OUTCOMES = {
  tp: { name: "Found", long: "True positive: a prediction that matches a labeled box", dash: [], mark: null },
  fp: { name: "False alarm", long: "False positive: a prediction without a labeled box", dash: [6, 4], mark: "cross" },
  fn: { name: "Missed", long: "False negative: a labeled box that no prediction matches", dash: [2, 3], mark: "ring" },
};

/** The colors of the outcomes as the theme has them now. */
export function outcomeColors(node) {
  const style = getComputedStyle(node);
  return Object.fromEntries(Object.keys(OUTCOMES).map((name) => [name, style.getPropertyValue(`--a-${name}`).trim()]));
}

/** A short line in the color and kind of an outcome with its mark, as the legend shows it. */
function outcomeMark(name) {
  const { dash, mark } = OUTCOMES[name];
  const svg = shape("svg", { width: 34, height: 12, "aria-hidden": "true" });
  const line = shape("line", { x1: 1, x2: 23, y1: 6, y2: 6, "stroke-width": 3, "stroke-dasharray": dash.join(" ") });
  svg.append(line);
  if (mark === "cross") svg.append(shape("path", { d: "M26 2.5l7 7m0-7l-7 7", "stroke-width": 2, fill: "none" }));
  if (mark === "ring") svg.append(shape("circle", { cx: 29.5, cy: 6, r: 3.4, "stroke-width": 2, fill: "none" }));
  svg.style.stroke = `var(--a-${name})`;
  return svg;
}

/**
 * A button for each outcome that hides and shows it: {root, counters}, counters by outcome where there are any.
 * @param {Set<string>} shown changed by the buttons @param {() => void} onChange
 */
export function outcomeLegend(shown, onChange, { hasCounters = false } = {}) {
  const counters = {};
  const toggles = Object.entries(OUTCOMES).map(([name, { name: title, long }]) => {
    if (hasCounters) counters[name] = element("strong", { class: name }, "–");
    const toggle = element("button", { type: "button", class: "a-button small", "aria-pressed": String(shown.has(name)), title: `${long}. Click to hide or show.` }, outcomeMark(name), title, counters[name]);
    toggle.addEventListener("click", () => {
      if (!shown.delete(name)) shown.add(name);
      toggle.setAttribute("aria-pressed", String(shown.has(name)));
      onChange();
    });
    return toggle;
  });
  return { root: element("div", { class: "a-outcomes" }, ...toggles), counters };
}

function shape(tag, attributes) {
  const node = document.createElementNS(NS, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

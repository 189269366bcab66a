// Making DOM elements in one line. Children that are strings become text nodes: user text is never read as markup.

/**
 * element("button", {class: "a-button", onclick: fn, "aria-label": "Undo", disabled: true}, "Undo")
 * Names beginning with "on" are listeners, null and false leave an attribute out, everything else is an attribute.
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

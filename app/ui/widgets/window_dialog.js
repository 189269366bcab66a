// The project's window on gray values: which of them become black and white, on the screen and in new runs.

import { getJSON, notify, projectURL, sendJSON } from "./api.js";
import { element } from "./element.js";

/** A button that opens the question, or null where the project has no gray or 16-bit pictures. */
export async function grayWindowButton() {
  const described = await getJSON(projectURL("/window"));
  if (!described.range) return null;
  const { window: shown } = described;
  const text = shown ? `Gray values ${round(shown.center - shown.width / 2)} to ${round(shown.center + shown.width / 2)}` : "Gray values …";
  return element("button", { class: "a-button small gray-window", type: "button", onclick: () => askWindow(described) }, text);
}

function askWindow({ window: shown, range: [low, high] }) {
  const number = (value) => element("input", { class: "a-input", type: "number", step: "any", value, required: true });
  const center = number(shown ? shown.center : round((low + high) / 2));
  const width = number(shown ? shown.width : round(high - low));
  width.min = 0;
  const save = async (values) => {
    try {
      await sendJSON("PUT", projectURL("/window"), values);
      location.reload(); // pictures keep their addresses, and a page shows an address as it first saw it
    } catch (error) {
      notify(error, "error");
    }
  };
  const fit = () => {
    center.value = round((low + high) / 2);
    width.value = Math.max(1, round(high - low));
  };
  const dialog = element(
    "dialog",
    { class: "a-dialog window-dialog", "aria-label": "Gray values", onclose: () => dialog.remove() },
    element("h3", { class: "a-subtitle" }, "Which gray values to show"),
    element(
      "p",
      { class: "a-muted a-small" },
      `Most pixels of these pictures lie between ${round(low)} and ${round(high)}. A window makes its ends black and white. `
        + "It acts on gray and 16-bit pictures only, here, in Annotate and Review, and in runs started from now on; the files stay as they came.",
    ),
    element(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          save({ center: Number(center.value), width: Number(width.value) });
        },
      },
      element("label", { class: "a-field" }, "Center", center),
      element("label", { class: "a-field" }, "Width", width),
      element(
        "div",
        { class: "actions" },
        element("button", { class: "a-button", type: "button", onclick: () => dialog.close() }, "Cancel"),
        element("button", { class: "a-button", type: "button", onclick: () => save({ center: 0, width: 0 }) }, "Whole range"),
        element("button", { class: "a-button", type: "button", onclick: fit }, "Fit to the pictures"),
        element("button", { class: "a-button primary" }, "Apply"),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}

const round = (value) => Math.round(value * 10) / 10;

// A suspect as a card: the place in the picture, what is wrong there, and what to do about it.

import { element } from "./element.js";
import { drawCrop } from "./audit_crop.js";
import { explain, KINDS } from "./suspects.js";

const SETTLED = { accepted: "Accepted", ignored: "Ignored", "taken back": "Listed again" };

/**
 * The card of a suspect; `suspect.state` is "" while nothing was decided, "busy", "accepted", "ignored" or "taken back".
 * @param {Object} suspect @param {{width: number, height: number}} size of the picture
 * @param {{categories: Map, href: string, onAccept, onIgnore, onUndo}} options each callback gets the suspect;
 *   without onAccept it is one of the list of ignored ones
 */
export function suspectCard(suspect, size, options) {
  const canvas = element("canvas");
  canvas.style.height = `${size.height}px`;
  const crop = element("a", { class: "crop", href: options.href, title: "Open in the editor", "aria-label": `Open ${suspect.image.file_name} in the editor` }, canvas);
  const sentence = explain(suspect);
  const card = element(
    "article",
    { class: "thumb-card suspect", "data-key": suspect.key ?? suspect.id, "data-kind": suspect.kind, "data-state": suspect.state || "open", "aria-label": sentence },
    crop,
    element(
      "div",
      { class: "what" },
      element("span", { class: "a-chip", title: KINDS[suspect.kind].help }, KINDS[suspect.kind].title),
      suspect.in_sample ? element("span", { class: "a-chip warn", title: "The model was trained on this image: it has learned its faults too" }, "in sample") : null,
      element("span", { class: "file", title: suspect.image.file_name }, suspect.image.file_name),
    ),
    element("p", { class: "sentence", title: sentence }, sentence),
    element("div", { class: "actions" }, ...actionsOf(suspect, options)),
  );
  requestAnimationFrame(() => card.isConnected && drawCrop(canvas, suspect, size, options.categories));
  return card;
}

function actionsOf(suspect, { href, onAccept, onIgnore, onUndo }) {
  const button = (name, text, action, extra = "") =>
    element("button", { type: "button", class: `a-button small ${extra}`, "data-action": name, disabled: suspect.state === "busy", onclick: () => action(suspect) }, text);
  if (suspect.state in SETTLED) {
    const undo = suspect.state === "taken back" ? null : button("undo", "Undo", onUndo);
    return [element("span", { class: "settled", role: "status" }, SETTLED[suspect.state]), undo].filter(Boolean);
  }
  if (!onAccept) return [button("take-back", "Take back", onUndo)];
  return [
    button("accept", acceptText(suspect), onAccept, "primary"),
    element("a", { class: "a-button small", href, title: "Open in the editor, where the suggestion can be dragged" }, "Open"),
    button("ignore", "Ignore", onIgnore),
  ];
}

function acceptText({ kind }) {
  return { missing_box: "Add the box", wrong_class: "Change the class", loose_box: "Take this box" }[kind];
}

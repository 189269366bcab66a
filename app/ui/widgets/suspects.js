// Suspects of a label audit: what they say, and what accepting one does to the boxes of its image. No DOM here.

import { AnnotationDocument } from "./annotation_document.js";
import { ApiError, getJSON, projectURL, sendJSON } from "./api.js";
import { committedBox, sameBox } from "./box_geometry.js";

export const KINDS = {
  missing_box: { title: "Missing box", plural: "Missing boxes", help: "The model sees an object where nobody drew a box" },
  wrong_class: { title: "Wrong class", plural: "Wrong classes", help: "The model is surer of another class than the labeled one" },
  loose_box: { title: "Loose box", plural: "Loose boxes", help: "Labeled box and predicted box of one object lie apart" },
};
const MAX_TRIES = 3;

/** What a suspect says, as a sentence. */
export function explain({ kind, predicted, labeled, score, iou }) {
  const sure = score.toFixed(2);
  if (kind === "missing_box") return `The model is ${sure} sure of ${predicted} here, and nobody drew a box.`;
  if (kind === "wrong_class") return `Labeled ${labeled}; the model is ${sure} sure of ${predicted}.`;
  const overlap = iou === undefined ? "" : ` (IoU ${iou.toFixed(2)})`;
  return `The model is ${sure} sure of this ${predicted}, but puts its box elsewhere${overlap}.`;
}

/** What a suspect was called when it was ignored. */
export function ignoreBody({ image_id, kind, predicted_id, labeled_id, box, score }) {
  return { image_id, kind, predicted_id, labeled_id, box, score };
}

/**
 * Do to the boxes of a document what a suspect suggests: add the missing box, change the class, or take the predicted
 * place; with `bbox` that place instead. Returns the key of the box, or null when the labeled box is no longer as it was.
 */
export function acceptInto(document, suspect, bbox = null) {
  const { width, height } = document.image;
  const place = bbox ?? committedBox(suspect.box, width, height);
  if (suspect.kind === "missing_box") return document.add(suspect.predicted_id, place).key;
  const key = document.keys.get(suspect.annotation_id);
  const box = document.boxes.find((item) => item.key === key);
  if (!box || box.category_id !== suspect.labeled_id || !sameBox(box.bbox, suspect.label_box)) return null;
  const isMoved = bbox !== null || suspect.kind === "loose_box";
  document.edit(key, { category_id: suspect.predicted_id, ...(isMoved && { bbox: place }) });
  return key;
}

/** Take an accepted suspect back; false when its box was changed or deleted since. */
export function takeBackFrom(document, suspect, key) {
  const { width, height } = document.image;
  const box = document.boxes.find((item) => item.key === key);
  const place = suspect.kind === "wrong_class" ? suspect.label_box : committedBox(suspect.box, width, height);
  if (!box || box.category_id !== suspect.predicted_id || !sameBox(box.bbox, place)) return false;
  if (suspect.kind === "missing_box") document.remove(key);
  else document.edit(key, { category_id: suspect.labeled_id, bbox: suspect.label_box });
  return true;
}

/** Changes of boxes outside the editor: saved at once like the editor's, under the revision they began from. */
export class LabelChanges {
  constructor() {
    this._documents = new Map(); // image id -> AnnotationDocument, of the images changed here
    this._turns = new Map(); // image id -> the change before: one at a time
  }

  /** Accept a suspect and return the key of its box; throws ApiError. */
  accept(suspect) {
    return this._change(suspect.image_id, (document) => acceptInto(document, suspect));
  }

  /** Take the acceptance back; throws ApiError. */
  takeBack(suspect, key) {
    return this._change(suspect.image_id, (document) => takeBackFrom(document, suspect, key) || null);
  }

  _change(imageId, apply) {
    const before = this._turns.get(imageId) ?? Promise.resolve();
    const turn = before.catch(() => null).then(() => this._save(imageId, apply));
    this._turns.set(imageId, turn);
    return turn;
  }

  /** Saved elsewhere meanwhile: the same change is made to what is there now, unless that is about another box. */
  async _save(imageId, apply) {
    const path = projectURL(`/images/${imageId}`);
    for (let tries = 1; ; tries += 1) {
      const document = await this._opened(imageId, path, tries > 1);
      const result = apply(document);
      if (result === null && tries === 1) continue;
      if (result === null) throw new ApiError(409, "The label was changed since.", "Open the image in the editor to see it as it is now.");
      const sent = document.state;
      try {
        document.acknowledge(sent, await sendJSON("PUT", `${path}/annotations`, document.body()));
        return result;
      } catch (error) {
        document.state = document.stored;
        if (error.status !== 409 || tries === MAX_TRIES) throw error;
      }
    }
  }

  async _opened(imageId, path, isRefreshed) {
    const known = this._documents.get(imageId);
    if (known && !isRefreshed) return known;
    const opened = await getJSON(path);
    if (known) known.refresh(opened);
    else this._documents.set(imageId, new AnnotationDocument(opened));
    return this._documents.get(imageId);
  }
}

// The boxes of one image while they are edited: undo and redo, what the server has, and joining two versions.
//
// A box is an immutable {key, category_id, bbox, is_crowd}; `key` names it for the life of the page, the server's id
// may change under it (a deleted box that comes back by undo gets a new one). No DOM here.

import { sameBox } from "./box_geometry.js";

const MAX_UNDO = 200;
let lastKey = 0;

const newKey = () => `n${++lastKey}`;

export class AnnotationDocument {
  /** @param {Object} opened the answer of GET /images/{id} */
  constructor(opened) {
    this.keys = new Map(); // server id -> key
    this.origins = new Map(); // key -> {bbox, origin}: what an edit would lose, to give back when it is undone
    this.undoStack = [];
    this.redoStack = [];
    this.place(opened);
    this._store({
      revision: opened.image.revision,
      annotations: opened.annotations,
      is_empty_on_purpose: opened.image.is_empty_on_purpose,
    });
    this.state = this.stored;
  }

  /** Take over the image's facts and its place among the filtered images, but not its boxes. */
  place({ image, previous, next, position, total, is_listed: isListed }) {
    Object.assign(this, { image, previous, next, position, total, isListed });
  }

  get id() {
    return this.image.id;
  }

  get boxes() {
    return this.state.boxes;
  }

  get isEmptyOnPurpose() {
    return this.state.isEmpty;
  }

  get isDirty() {
    return this.state !== this.stored && !isSameState(this.state, this.stored);
  }

  /** Make another list of boxes the present one; undo brings the old one back. */
  change(boxes, isEmpty = this.state.isEmpty && boxes.length === 0) {
    this.undoStack.push(this.state);
    if (this.undoStack.length > MAX_UNDO) this.undoStack.shift();
    this.redoStack = [];
    this.state = { boxes, isEmpty };
  }

  /** Add a box and return it. */
  add(category_id, bbox) {
    return this.addAll([{ category_id, bbox }])[0];
  }

  /** Add several {category_id, bbox} in one step and return them. */
  addAll(rows) {
    const boxes = rows.map((row) => ({ key: newKey(), is_crowd: false, ...row }));
    this.change([...this.boxes, ...boxes]);
    return boxes;
  }

  /** Change fields of the box with this key. */
  edit(key, fields) {
    this.change(this.boxes.map((box) => (box.key === key ? { ...box, ...fields } : box)));
  }

  remove(key) {
    this.change(this.boxes.filter((box) => box.key !== key));
  }

  /** Step back; false when there is nothing to undo. */
  undo() {
    return this._travel(this.undoStack, this.redoStack);
  }

  redo() {
    return this._travel(this.redoStack, this.undoStack);
  }

  _travel(from, to) {
    if (!from.length) return false;
    to.push(this.state);
    this.state = from.pop();
    return true;
  }

  /** The body of the PUT that stores the present state. */
  body() {
    const stored = new Map(this.stored.boxes.map((box) => [box.key, box]));
    return {
      revision: this.revision,
      annotations: this.boxes.map((box) => this._row(box, stored.get(box.key))),
      is_empty_on_purpose: this.isEmptyOnPurpose && this.boxes.length === 0,
    };
  }

  /** A box as the server wants it; with its origin where the server has lost it and the box is back in its place. */
  _row({ category_id, bbox, key }, old) {
    const id = old ? (this.ids.get(key) ?? null) : null;
    const row = { id, category_id, bbox };
    const known = this.origins.get(key);
    if (!known) return row;
    const isInPlace = sameBox(known.bbox, bbox);
    const isKept = id !== null && (!isInPlace || sameBox(known.bbox, old.bbox));
    if (isKept) return row;
    const { coco_id, is_crowd } = known.origin;
    return { ...row, origin: isInPlace ? known.origin : { coco_id, is_crowd } };
  }

  /** The server stored `sent` (a state of this document): note its revision and the ids, which come in the same order. */
  acknowledge(sent, answer) {
    this.revision = answer.revision;
    this.ids = new Map(sent.boxes.map((box, index) => [box.key, answer.annotations[index].id]));
    this.keys = new Map([...this.ids].map(([key, id]) => [id, key]));
    this.stored = sent;
  }

  /** The server turned out to hold `sent` already, its answer had got lost: take over revision and ids. */
  adopt(sent, current) {
    const free = [...current.annotations];
    const annotations = sent.boxes.map((box) => {
      const place = free.findIndex((row) => contentKey(row) === contentKey(box));
      return free.splice(place, 1)[0];
    });
    this.acknowledge(sent, { revision: current.revision, annotations });
  }

  /** Show what the server has now, forgetting undo; only for a document without unsaved changes. */
  refresh(opened) {
    this.place(opened);
    this._store({
      revision: opened.image.revision,
      annotations: opened.annotations,
      is_empty_on_purpose: opened.image.is_empty_on_purpose,
    });
    this.state = this.stored;
    this.undoStack = [];
    this.redoStack = [];
    return true;
  }

  /**
   * Settle a conflict with `current`, the state the server has: "mine" stores ours over it, "theirs" takes it over,
   * "merge" joins both. Every choice can be undone.
   */
  resolve(choice, current) {
    const base = this.stored;
    this._store(current);
    if (choice === "theirs") this.change(this.stored.boxes, this.stored.isEmpty);
    if (choice === "merge") this.change(mergeBoxes(base.boxes, this.boxes, this.stored.boxes));
  }

  /** What is on the server became `stored`: its boxes get the keys they had here. */
  _store({ revision, annotations, is_empty_on_purpose }) {
    this.revision = revision;
    const boxes = annotations.map(({ id, category_id, bbox, is_crowd, origin }) => {
      const key = this.keys.get(id) ?? newKey();
      if (origin) this.origins.set(key, { bbox, origin });
      return { key, category_id, bbox, is_crowd };
    });
    this.ids = new Map(annotations.map(({ id }, index) => [boxes[index].key, id]));
    this.keys = new Map([...this.ids].map(([key, id]) => [id, key]));
    this.stored = { boxes, isEmpty: is_empty_on_purpose };
  }

  /** Everything unsaved as JSON, to outlive the page; `sent` is a state on its way to the server, if any. */
  draft(sent = null) {
    return {
      sha256: this.image.sha256,
      revision: this.revision,
      base: this._plain(this.stored),
      state: this._plain(this.state),
      sent: sent && this._plain(sent),
    };
  }

  _plain({ boxes, isEmpty }) {
    return {
      is_empty_on_purpose: isEmpty,
      annotations: boxes.map((box) => ({
        id: this.ids.get(box.key) ?? null,
        category_id: box.category_id,
        bbox: box.bbox,
        is_crowd: box.is_crowd,
        ...(this.origins.has(box.key) && { origin: this.origins.get(box.key) }),
      })),
    };
  }

  /**
   * Bring a draft of an earlier page back as unsaved changes; false when the server already has all of it.
   * Where the server went on from another version meanwhile, the next save is refused and the user chooses.
   */
  restore(draft) {
    const onServer = this.body().annotations;
    if (isSameContent(draft.state.annotations, onServer) && draft.state.is_empty_on_purpose === this.isEmptyOnPurpose) {
      return false;
    }
    const isOurs = draft.revision === this.revision || (draft.sent && isSameContent(draft.sent.annotations, onServer));
    if (!isOurs) this._store({ revision: draft.revision, ...withOrigins(draft.base) });
    const free = new Map(this.stored.boxes.map((box) => [box.key, box]));
    const boxes = draft.state.annotations.map((row) => this._restored(row, free));
    this.change(boxes, draft.state.is_empty_on_purpose);
    return true;
  }

  /** A box of a draft under the key of the same stored box (by id, or by content for one whose id never came back). */
  _restored({ id, category_id, bbox, is_crowd, origin }, free) {
    let key = this.keys.get(id);
    if (!free.has(key)) key = [...free.values()].find((box) => contentKey(box) === contentKey({ category_id, bbox }))?.key;
    key ??= newKey();
    free.delete(key);
    if (origin) this.origins.set(key, origin);
    return { key, category_id, bbox, is_crowd };
  }
}

function withOrigins({ annotations, is_empty_on_purpose }) {
  const hasOrigin = ({ origin, bbox }) => origin && sameBox(origin.bbox, bbox);
  const rows = annotations.map((row) => ({ ...row, origin: hasOrigin(row) ? row.origin.origin : undefined }));
  return { is_empty_on_purpose, annotations: rows };
}

const contentKey = ({ category_id, bbox }) => `${category_id} ${bbox.map((value) => value.toFixed(2)).join(" ")}`;

/** Whether two lists hold the same classes and boxes, in any order. */
export function isSameContent(a, b) {
  if (a.length !== b.length) return false;
  const [left, right] = [a.map(contentKey).sort(), b.map(contentKey).sort()];
  return left.every((value, index) => value === right[index]);
}

function isSameBoxEntry(a, b) {
  return a === b || (a.category_id === b.category_id && sameBox(a.bbox, b.bbox));
}

function isSameState(a, b) {
  if (a.isEmpty !== b.isEmpty || a.boxes.length !== b.boxes.length) return false;
  return a.boxes.every((box, index) => box.key === b.boxes[index].key && isSameBoxEntry(box, b.boxes[index]));
}

/** Join two versions that began at `base`: what one side changed wins over untouched; changed by both, both stay. */
export function mergeBoxes(base, mine, theirs) {
  const [was, ours, others] = [base, mine, theirs].map((boxes) => new Map(boxes.map((box) => [box.key, box])));
  const merged = [];
  for (const box of mine) {
    const [old, other] = [was.get(box.key), others.get(box.key)];
    if (!old) merged.push(box);
    else if (!other) !isSameBoxEntry(box, old) && merged.push(box);
    else if (isSameBoxEntry(box, old)) merged.push(other);
    else {
      merged.push(box);
      const isAlsoChanged = !isSameBoxEntry(other, old) && !isSameBoxEntry(other, box);
      if (isAlsoChanged) merged.push({ ...other, key: newKey() });
    }
  }
  for (const box of theirs) {
    if (ours.has(box.key)) continue;
    const old = was.get(box.key);
    const isKnown = !old && merged.some((item) => isSameBoxEntry(item, box));
    if ((!old && !isKnown) || (old && !isSameBoxEntry(box, old))) merged.push(box);
  }
  return merged;
}

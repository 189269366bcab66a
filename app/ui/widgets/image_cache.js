// Images of the editor by id: document and picture, fetched ahead of need and kept while they are near or unsaved.

import { AnnotationDocument } from "./annotation_document.js";
import { getJSON, projectURL } from "./api.js";

const MAX_ENTRIES = 12;

/** The filters of the list of images as they stand in the address. */
export const FILTERS = ["split", "category", "problem", "name", "min_boxes", "max_boxes"];

export class ImageCache {
  /**
   * @param {string} slug the project
   * @param {(document: AnnotationDocument) => void} onOpened a document came in
   * @param {(document: AnnotationDocument) => boolean} isUnsaved whether the server does not have all of it yet
   */
  constructor(slug, { onOpened, isUnsaved }) {
    Object.assign(this, { slug, onOpened, isUnsaved });
    this.entries = new Map(); // image id -> {document, picture}: promises; newest last
  }

  _query() {
    const all = new URLSearchParams(location.search);
    const query = new URLSearchParams(FILTERS.filter((name) => all.get(name)).map((name) => [name, all.get(name)]));
    return query.size ? `?${query}` : "";
  }

  /** The entry of an image, begun if it is not there yet. */
  entry(id) {
    const found = this.entries.get(id);
    if (found) {
      this.entries.delete(id);
      this.entries.set(id, found);
      return found;
    }
    return this._begin(id, getJSON(projectURL(`/images/${id}${this._query()}`)));
  }

  /** Whether no image passes the filters. */
  async isEmpty() {
    const query = this._query();
    return (await getJSON(projectURL(`/images${query}${query ? "&" : "?"}limit=1`))).total === 0;
  }

  /** The entry of the image at a 1-based position among the filtered ones; throws ApiError past the ends. */
  async entryAt(position) {
    const opened = await getJSON(projectURL(`/images/at/${position}${this._query()}`));
    const id = opened.image.id;
    if (!this.entries.has(id)) return this._begin(id, Promise.resolve(opened));
    (await this.entries.get(id).document).place(opened);
    return this.entry(id);
  }

  _begin(id, opening) {
    const document = opening.then((opened) => {
      const made = new AnnotationDocument(opened);
      this.onOpened(made);
      return made;
    });
    const picture = document.then(({ image }) => loadPicture(this.slug, image));
    const entry = { document, picture };
    // A failed fetch is not kept: the next try fetches again. Who waits for the entry gets the error.
    for (const part of [document, picture]) part.catch(() => this.entries.get(id) === entry && this.entries.delete(id));
    this.entries.set(id, entry);
    return entry;
  }

  /** Fetch the next two and the previous image ahead, and drop the oldest that are neither unsaved nor in `keptIds`. */
  async prefetch(document, keptIds) {
    if (document.previous !== null) this.entry(document.previous);
    if (document.next !== null) {
      const next = await this.entry(document.next).document;
      if (next.next !== null) this.entry(next.next);
    }
    await this._drop(MAX_ENTRIES, keptIds);
  }

  /** Forget what is neither unsaved nor in `keptIds`: the neighbors of the others are no longer right. */
  clear(keptIds) {
    return this._drop(0, keptIds);
  }

  async _drop(numKept, keptIds) {
    for (const [id, { document }] of [...this.entries]) {
      if (this.entries.size <= numKept) return;
      if (!keptIds.includes(id) && !this.isUnsaved(await document)) this.entries.delete(id);
    }
  }

  /** Look whether an image changed on the server since it was fetched; true when its boxes here are new now. */
  async revalidate(document) {
    const opened = await getJSON(projectURL(`/images/${document.id}${this._query()}`));
    const isOurs = this.isUnsaved(document) || opened.image.revision <= document.revision;
    if (!isOurs) return document.refresh(opened);
    document.place({ ...opened, image: document.image });
    return false;
  }

  /** Forget an image, so that it is fetched again. */
  drop(id) {
    this.entries.delete(id);
  }
}

async function loadPicture(slug, image) {
  const picture = new Image();
  picture.src = `/img/${encodeURIComponent(slug)}/${image.id}?v=${image.sha256.slice(0, 16)}-${image.rotation}`;
  await picture.decode();
  return picture;
}

// <anchorage-editor>: label the images of a project. The project, the image and the filters stand in the address.
//
// State for tests and styles lies in data-* attributes of the element: ready, image, status, dirty, count, selected,
// class, revision, position, total, scale, x, y, open-ms.

import { AnnotationSaver } from "./annotation_saver.js";
import { getJSON, getParam, notify, pageURL, projectSlug, projectURL, sendJSON, setParam } from "./api.js";
import { committedBox, movedBox, resizedBox } from "./box_geometry.js";
import { DetectionCanvas } from "./canvas.js";
import { EditorBar, ProblemBar } from "./editor_bar.js";
import { isTyping, listenToKeys } from "./editor_keys.js";
import { askConflict, BoxList, ClassPalette, helpDialog } from "./editor_panels.js";
import { Suggestion } from "./editor_suggestion.js";
import { element } from "./element.js";
import { emptyState, noProject, wayTo } from "./empty_state.js";
import { FILTERS, ImageCache } from "./image_cache.js";
import { colorOf } from "./palette.js";
import { acceptInto } from "./suspects.js";

const MIN_HEIGHT_PX = 420;
const BOTTOM_PX = 16; // the padding of the page below the editor
const PASTE_STEP_PX = 10;
const ZOOM_STEP = 1.25;
const EMPTY_HELP = "There is nothing to label in this image, and somebody has looked.";
const LOW_EDGES = { x: 0, y: 0 };
const CLIPBOARD = "anchorage:boxes";

class AnchorageEditor extends HTMLElement {
  connectedCallback() {
    if (this._listening) return;
    this._listening = new AbortController();
    this._start().catch((error) => this._showFailure(error));
  }

  disconnectedCallback() {
    this._listening?.abort();
    this._listening = null;
    this.saver?.destroy();
    this.canvas?.destroy();
    this.replaceChildren();
  }

  // ---- starting ---------------------------------------------------------------------------------------------------

  async _start() {
    this.slug = projectSlug();
    this.document = null;
    this.selected = null;
    this._steps = [];
    this._turns = 0;
    this._shownEntries = new WeakSet();
    if (!this.slug) {
      this.replaceChildren(noProject());
      this.dataset.ready = "empty";
      return;
    }
    this.cache = new ImageCache(this.slug, {
      onOpened: (document) => this.saver.restore(document),
      isUnsaved: (document) => this.saver.holds(document),
    });
    this.saver = new AnnotationSaver(this.slug, {
      onStatus: (status, error) => this._showStatus(status, error),
      onConflict: (document, current) =>
        askConflict(this, document.image.file_name, document.boxes.length, current.annotations.length),
      onResolved: (document) => document === this.document && this._show(),
    });
    await this._loadCategories();
    this._build();
    this._listen();
    await this._openFirst();
    if (this.document) await this.suggestion.load();
    this._sendDrafts();
  }

  async _loadCategories() {
    const { categories } = await getJSON(projectURL("/categories"));
    this.categories = new Map(categories.map((category) => [category.id, category]));
    const used = categories.find(({ num_annotations }) => num_annotations > 0) ?? categories[0];
    const remembered = Number(sessionStorage.getItem(this._classKey()) ?? NaN);
    if (!this.categories.has(this.current)) {
      this.current = this.categories.has(remembered) ? remembered : (used?.id ?? null);
    }
  }

  _classKey() {
    return `anchorage:class:${this.slug}`;
  }

  async _openFirst() {
    const wanted = Number(getParam("image") ?? NaN);
    try {
      if (Number.isInteger(wanted)) await this._open(this.cache.entry(wanted));
      else if (await this.cache.isEmpty()) this._showNoImages();
      else await this._open(await this.cache.entryAt(1));
    } catch (error) {
      if (error.status !== 404) throw error;
      if (Number.isInteger(wanted)) {
        notify(error, "error");
        setParam("image", null);
        await this._openFirst();
      } else this._showNoImages();
    }
  }

  /** Images with unsaved boxes of an earlier page are opened in the background, which sends what they hold. */
  async _sendDrafts() {
    for (const id of this.saver.draftIds()) {
      try {
        await this.cache.entry(id).document;
      } catch (error) {
        if (error.status === 404) this.saver.discardDraft(id);
        else console.warn(`Unsaved boxes of image ${id} wait for the next visit.`, error);
      }
    }
  }

  // ---- building ---------------------------------------------------------------------------------------------------

  _build() {
    this.palette = new ClassPalette({
      onChoose: (id) => this._chooseClass(id),
      onAdd: (name) => this._addClass(name),
      onRename: (id, name) => this._renameClass(id, name),
    });
    this.list = new BoxList({
      onSelect: (key) => this._select(key, { isRevealed: true }),
      onHover: (key) => this.canvas.highlight(this._indexOf(key)),
      onDelete: (key) => this._delete(key),
    });
    this.bar = this._bar();
    this.bar.showClasses([...this.categories.values()]);
    this.problem = new ProblemBar((degrees) => this._turn(degrees));
    this.suggestion = new Suggestion({
      onAccept: () => this._takeSuggestion(),
      onEdit: () => this._takeSuggestion({ isEdited: true }),
      onShow: (id) => this._tell(() => this._open(this.cache.entry(id))),
      onChange: () => this.document && this._show(),
    });
    this.stage = element("div", { class: "stage" });
    this.message = element("div", { class: "message", role: "status" });
    const canvasRoot = element("div", { "aria-label": "Image with boxes" });
    this.stage.append(canvasRoot, this.message);
    this.emptyBox = element("input", { type: "checkbox", onchange: () => this._setEmpty(this.emptyBox.checked) });
    this.help = helpDialog();
    this.frame = element(
      "div",
      { class: "editor" },
      this.bar.root,
      this.problem.root,
      this.suggestion.root,
      this.stage,
      element(
        "div",
        { class: "side" },
        this.palette.root,
        this.list.root,
        element("div", { class: "empty-choice" }, element("label", {}, this.emptyBox, "Empty on purpose (E)")),
      ),
    );
    this.replaceChildren(this.frame, this.help);
    this._fitHeight();
    this.canvas = new DetectionCanvas(canvasRoot, {
      editable: true,
      onDraw: (bbox) => this._drawn(bbox),
      onChange: (index, bbox) => this._moved(index, bbox),
      onSelect: (index) => this._select(this.document.boxes[index]?.key ?? null),
      onHover: (index) => this.list.highlight(this.document?.boxes[index]?.key ?? null),
      onView: (view) => this._showView(view),
    });
    this._showStatus("saved", null);
  }

  _bar() {
    return new EditorBar({
      onStep: (direction) => this._step(direction),
      onJump: (text) => this._jump(text),
      onFilter: (name, value) => this._filter(name, value),
      onUndo: () => this._undo(),
      onRedo: () => this._redo(),
      onStatus: () => this._nudgeSaving(),
      onHelp: () => this.help.showModal(),
      zoom: {
        in: () => this.canvas.zoomBy(ZOOM_STEP),
        out: () => this.canvas.zoomBy(1 / ZOOM_STEP),
        fit: () => this.canvas.fit(),
        full: () => this.canvas.zoomTo(1),
      },
    });
  }

  _listen() {
    const signal = this._listening.signal;
    listenToKeys(this._keyActions(), signal);
    window.addEventListener("resize", () => this._fitHeight(), { signal });
    // Buttons do not take the focus from a click: otherwise the space bar would press them again instead of panning.
    this.frame.addEventListener("mousedown", (event) => {
      if (!event.target.closest("button, .box-row")) return;
      event.preventDefault();
      if (isTyping(document.activeElement)) document.activeElement.blur();
    });
    // A press on the canvas ends typing.
    this.stage.addEventListener("pointerdown", () => document.activeElement !== document.body && document.activeElement.blur());
  }

  _keyActions() {
    const { canvas } = this;
    return {
      isReady: () => this.document !== null,
      hasSelection: () => this.selected !== null,
      step: (direction) => this._step(direction),
      selectBeside: (direction) => this._selectBeside(direction),
      deleteSelected: () => this._delete(this.selected),
      acceptSuggestion: () => this._takeSuggestion(),
      giveUp: () => canvas.cancel() || this._giveUp(),
      nudge: (dx, dy, isResize) => this._nudge(dx, dy, isResize),
      chooseAt: (position) => this._chooseClassAt(position),
      findClass: () => this.palette.focus(),
      toggleEmpty: () => this._setEmpty(!this.document.isEmptyOnPurpose),
      undo: () => this._undo(),
      redo: () => this._redo(),
      copy: () => this._copy(),
      paste: () => this._paste(),
      zoomIn: () => canvas.zoomBy(ZOOM_STEP),
      zoomOut: () => canvas.zoomBy(1 / ZOOM_STEP),
      fit: () => canvas.fit(),
      fullSize: () => canvas.zoomTo(1),
      holdPan: (isHeld) => canvas.holdSpace(isHeld),
      hideBoxes: (isHidden) => canvas.setBoxes(isHidden ? [] : this._shownBoxes()),
      help: () => this.help.showModal(),
    };
  }

  _fitHeight() {
    const top = this.frame.getBoundingClientRect().top + window.scrollY;
    this.frame.style.height = `${Math.max(window.innerHeight - top - BOTTOM_PX, MIN_HEIGHT_PX)}px`;
  }

  _showEmpty(title, text, path, action) {
    this.dataset.ready = "empty";
    this.replaceChildren(emptyState(title, text, wayTo(pageURL(path), action)));
  }

  _showNoImages() {
    const isFiltered = FILTERS.some((name) => getParam(name));
    if (isFiltered) this._showEmpty("No image passes the filter", "Take the filters off to see all images.", "/annotate", "All images");
    else this._showEmpty("This project has no images yet", "Import a dataset or a folder of images first.", "/data", "Import images");
  }

  _showFailure(error) {
    this._showEmpty("The editor could not start", `${error.message} ${error.hint ?? ""}`, "/annotate", "Try again");
    this.dataset.ready = "failed";
    if (error.status === undefined) console.error(error);
  }

  // ---- images -----------------------------------------------------------------------------------------------------

  /**
   * Show an image of the cache once it is there. With more steps waiting it is only passed through: `place` goes on,
   * the screen and `document` (what strokes go into) stay with the image that is shown.
   */
  async _open(entry) {
    const start = performance.now();
    const turn = ++this._turns;
    const isSuperseded = () => turn !== this._turns || this._steps.length > 0;
    this.dataset.ready = "false";
    const isSeenBefore = this._shownEntries.has(entry);
    const document = await entry.document;
    if (turn === this._turns) this.place = document;
    if (isSuperseded()) return;
    const picture = await entry.picture.catch((error) => console.warn("The picture could not be shown.", error));
    if (isSuperseded()) return;
    this.document = document;
    this.selected = null;
    this._pendingBox = null;
    this.canvas.select(-1);
    this.canvas.setImage(picture ?? null, document.image.width, document.image.height);
    this._say(picture ? "" : "This picture cannot be shown.");
    setParam("image", document.id);
    this._show();
    await new Promise(requestAnimationFrame);
    this.dataset.openMs = (performance.now() - start).toFixed(1);
    this.dataset.ready = "true";
    this._shownEntries.add(entry);
    this._lookAround(document, isSeenBefore);
  }

  /** Fetch what comes next; an image seen before may have been changed by another tab. */
  async _lookAround(document, isSeenBefore) {
    try {
      if (isSeenBefore && (await this.cache.revalidate(document)) && document === this.document) this._show();
      await this.cache.prefetch(document, [this.document.id, document.previous, document.next]);
    } catch (error) {
      console.warn("The images nearby could not be fetched ahead.", error);
    }
  }

  /** Go on by one image; presses that come while one is loading are queued. */
  async _step(direction) {
    this._steps.push(direction);
    if (this._isWalking || !this.document) return;
    this._isWalking = true;
    await this._tell(async () => {
      while (this._steps.length) await this._walk(this._steps.shift());
    });
    this._steps = [];
    this._isWalking = false;
  }

  async _walk(direction) {
    const from = this.place;
    const id = direction > 0 ? from.next : from.previous;
    if (id !== null) return this._open(this.cache.entry(id));
    this._say(direction > 0 ? "This is the last image." : "This is the first image.");
    return from === this.document || this._steps.length ? null : this._open(this.cache.entry(from.id));
  }

  async _jump(text) {
    const position = Math.min(Math.max(Math.round(Number(text)) || 1, 1), this.document.total);
    this._steps = [];
    await this._tell(async () => this._open(await this.cache.entryAt(position)));
    this.bar.showDocument(this.document);
  }

  /** Change a filter: stay on this image if it passes, else go to the first that does. */
  async _filter(name, value) {
    setParam(name, value);
    this._steps = [];
    const here = this.document;
    await this._tell(async () => {
      await this.cache.clear([here.id]);
      await this.cache.revalidate(here);
      this._show();
      await this._open(here.isListed ? this.cache.entry(here.id) : await this.cache.entryAt(1));
    });
  }

  /** Carry something out and show its error, if any, in the corner. */
  async _tell(action) {
    try {
      await action();
    } catch (error) {
      this.dataset.ready = "true";
      notify(error, "error");
    }
  }

  async _turn(degrees) {
    const { id, rotation } = this.document.image;
    if (this.saver.holds(this.document)) return this._say("Wait until the boxes are saved.");
    return this._tell(async () => {
      await sendJSON("PATCH", projectURL(`/images/${id}`), { rotation: (rotation + degrees) % 360 });
      this.cache.drop(id);
      await this._open(this.cache.entry(id));
    });
  }

  // ---- showing ----------------------------------------------------------------------------------------------------

  /** Bring everything on the screen in line with the document. */
  _show() {
    const { document } = this;
    this.suggestion.follow(document);
    if (this._indexOf(this.selected) < 0) this.selected = null;
    const counts = new Map();
    for (const { category_id } of document.boxes) counts.set(category_id, (counts.get(category_id) ?? 0) + 1);
    this.canvas.setBoxes(this._shownBoxes());
    this.canvas.select(this._indexOf(this.selected));
    this.canvas.drawColor = colorOf(this.categories.get(this.current)?.position ?? 0);
    this.palette.show([...this.categories.values()], counts, this.current);
    this.list.show(document.boxes, this.categories, this.selected);
    this.emptyBox.checked = document.isEmptyOnPurpose;
    this.emptyBox.disabled = document.boxes.length > 0;
    this.emptyBox.parentElement.title = document.boxes.length ? "This image has boxes: it can be empty on purpose once they are deleted." : EMPTY_HELP;
    this.bar.showDocument(document);
    this.problem.show(document.image);
    this._showData();
  }

  /** The document's boxes, and after them the one that waits for its class, and the one that an audit suggests. */
  _shownBoxes() {
    const boxes = this.document.boxes.map((box) => this._shown(box));
    if (this._pendingBox) boxes.push({ bbox: this._pendingBox, color: colorOf(0), label: "no class yet", dashed: true });
    const suggested = this.suggestion.shownBox(this.categories);
    if (suggested) boxes.push(suggested);
    return boxes;
  }

  _shown({ bbox, category_id, is_crowd }) {
    const category = this.categories.get(category_id);
    return { bbox, color: colorOf(category?.position ?? 0), label: category?.name ?? `class ${category_id}`, dashed: is_crowd };
  }

  _showData() {
    const { document } = this;
    Object.assign(this.dataset, {
      image: document.id,
      count: document.boxes.length,
      selected: this.selected ?? "",
      class: this.current ?? "",
      revision: document.revision,
      position: document.position,
      total: document.total,
    });
  }

  _showView({ scale, x, y }) {
    Object.assign(this.dataset, { scale, x, y });
    this.bar.showScale(scale);
  }

  _showStatus(status, error) {
    this.dataset.status = status;
    this.dataset.dirty = String(status !== "saved");
    if (this.document) this.dataset.revision = this.document.revision;
    const isRefused = status === "failed" && error?.status >= 400 && error.status < 500;
    this.bar.showStatus(status, error, isRefused);
    if (isRefused && this._toldError !== error) notify(error, "error");
    this._toldError = error;
  }

  /** A click on the status: choose in a conflict, try again after a failure. */
  _nudgeSaving() {
    if (this.dataset.status === "conflict") this.saver.askAgain();
    else if (this.dataset.status === "failed") this.saver.flush();
  }

  _say(text) {
    clearTimeout(this._saying);
    this.message.textContent = text;
    if (text) this._saying = setTimeout(() => (this.message.textContent = ""), 2500);
  }

  // ---- editing ----------------------------------------------------------------------------------------------------

  _indexOf(key) {
    return key === null || !this.document ? -1 : this.document.boxes.findIndex((box) => box.key === key);
  }

  _changed() {
    this._show();
    this.saver.touch(this.document);
  }

  _drawn(bbox) {
    if (this.current === null) {
      this._pendingBox = bbox;
      this._show();
      this._say("Name the class of this box first.");
      this.palette.focus();
      return;
    }
    this.selected = this.document.add(this.current, bbox).key;
    this._changed();
  }

  /** A box has another place; the one that waits for its class and the suggested one are none of the document's. */
  _moved(index, bbox) {
    const box = this.document.boxes[index];
    if (box) return this._edit(box.key, { bbox });
    if (!this._pendingBox || index > this.document.boxes.length) return this._takeSuggestion({ bbox, isEdited: true });
    this._pendingBox = bbox;
    return this._show();
  }

  /** Make the suggested box one of the image's, at `bbox` if it was dragged there; to edit it, it is selected. */
  _takeSuggestion({ bbox = null, isEdited = false } = {}) {
    if (!this.suggestion.isOpen) return;
    const key = acceptInto(this.document, this.suggestion.suspect, bbox);
    if (key === null) return this._say("The label was changed since: look at it as it is now.");
    this.suggestion.taken(key, isEdited);
    this.selected = isEdited ? key : null;
    this._changed();
  }

  _edit(key, fields) {
    this.document.edit(key, fields);
    this._changed();
  }

  _select(key, { isRevealed = false } = {}) {
    this.selected = key;
    const index = this._indexOf(key);
    this.canvas.select(index);
    if (isRevealed && index >= 0) this.canvas.reveal(index);
    this.list.select(key);
    this.dataset.selected = key ?? "";
  }

  /** Forget the box that waits for its class; otherwise select nothing. */
  _giveUp() {
    if (!this._pendingBox) return this._select(null);
    this._pendingBox = null;
    return this._show();
  }

  _selectBeside(step) {
    const { boxes } = this.document;
    if (!boxes.length) return;
    const place = this._indexOf(this.selected);
    const next = place < 0 ? (step > 0 ? 0 : boxes.length - 1) : (place + step + boxes.length) % boxes.length;
    this._select(boxes[next].key, { isRevealed: true });
  }

  _delete(key) {
    if (this._indexOf(key) < 0) return;
    this.document.remove(key);
    this._changed();
  }

  _undo() {
    if (this.document.undo()) this._changed();
  }

  _redo() {
    if (this.document.redo()) this._changed();
  }

  /** The class of the next box, and of the selected box if there is one. */
  _chooseClass(id) {
    this.current = id;
    sessionStorage.setItem(this._classKey(), String(id));
    const box = this.document.boxes[this._indexOf(this.selected)];
    if (box && box.category_id !== id) this._edit(box.key, { category_id: id });
    else this._show();
  }

  _chooseClassAt(position) {
    const category = [...this.categories.values()].find((item) => item.position === position);
    if (category) this._chooseClass(category.id);
  }

  _setEmpty(isEmpty) {
    if (this.document.boxes.length) return;
    this.document.change([], isEmpty);
    this._changed();
  }

  /** Move the selected box, or its right and lower edges, by whole pixels. */
  _nudge(dx, dy, isResize) {
    const box = this.document.boxes[this._indexOf(this.selected)];
    if (!box) return;
    const { width, height } = this.document.image;
    const edges = { ...LOW_EDGES, ...(dx && { x: 1 }), ...(dy && { y: 1 }) };
    const moved = isResize
      ? resizedBox(box.bbox, edges, dx, dy, width, height)
      : movedBox(box.bbox, dx, dy, width, height);
    const bbox = committedBox(moved, width, height);
    if (bbox) this._edit(box.key, { bbox });
  }

  /** Copy the selected box, or all boxes of the image when none is selected. */
  _copy() {
    const box = this.document.boxes[this._indexOf(this.selected)];
    const boxes = (box ? [box] : this.document.boxes).map(({ category_id, bbox }) => ({ category_id, bbox }));
    if (!boxes.length) return;
    sessionStorage.setItem(CLIPBOARD, JSON.stringify({ slug: this.slug, image: this.document.id, boxes }));
    this._say(boxes.length === 1 ? "1 box copied." : `${boxes.length} boxes copied.`);
  }

  /** Paste at the same place; on the image they came from a little aside, so that they can be seen. */
  _paste() {
    const copied = JSON.parse(sessionStorage.getItem(CLIPBOARD) ?? "null");
    if (copied?.slug !== this.slug) return;
    const { width, height } = this.document.image;
    const step = copied.image === this.document.id ? PASTE_STEP_PX : 0;
    const pasted = copied.boxes
      .filter(({ category_id }) => this.categories.has(category_id))
      .map(({ category_id, bbox }) => ({ category_id, bbox: committedBox(movedBox(bbox, step, step, width, height), width, height) }))
      .filter(({ bbox }) => bbox);
    if (!pasted.length) return this._say("The copied boxes lie outside this image.");
    const made = this.document.addAll(pasted);
    this.selected = made.length === 1 ? made[0].key : null;
    return this._changed();
  }

  // ---- classes ----------------------------------------------------------------------------------------------------

  async _addClass(name) {
    try {
      const { category } = await sendJSON("POST", projectURL("/categories"), { name });
      await this._classesChanged();
      this._chooseClass(category.id);
      const box = this._pendingBox;
      this._pendingBox = null;
      if (box) this._drawn(box);
      return true;
    } catch (error) {
      notify(error, "error");
      return false;
    }
  }

  async _renameClass(id, name) {
    await this._tell(async () => {
      await sendJSON("PATCH", projectURL(`/categories/${id}`), { name });
      await this._classesChanged();
    });
  }

  async _classesChanged() {
    await this._loadCategories();
    this.bar.showClasses([...this.categories.values()]);
    this._show();
  }
}

customElements.define("anchorage-editor", AnchorageEditor);

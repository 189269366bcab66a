// The same image twice: what each side found over the labels. Zoom and place move together.

import { getParam, notify, projectSlug, setParam } from "./api.js";
import { DetectionCanvas } from "./canvas.js";
import { PairData } from "./compare_data.js";
import { sideHead } from "./compare_differences.js";
import { element } from "./element.js";
import { outcomeColors, outcomeLegend, OUTCOMES } from "./outcomes.js";

const SORT_MS = 250; // the order follows when the slider has rested this long
const LISTED = 200; // images in the list; beyond them the keys go on
const THUMBNAIL_PX = 128;

export class ImagePairs {
  constructor({ answer, figures, pair, query }) {
    Object.assign(this, { answer, figures, pair, query });
    this.best = [figures.first.f1_threshold, figures.second.f1_threshold];
    this.common = null; // one score for both, or each side's own best
    this.names = figures.first.per_class.map((row) => row.name);
    this.shown = new Set(Object.keys(OUTCOMES));
    this.order = [];
    this.image = null;
    this.root = this._build();
  }

  get scores() {
    return this.common === null ? this.best : [this.common, this.common];
  }

  // ---- building ---------------------------------------------------------------------------------------------------

  _build() {
    const button = (text, label, onclick) => element("button", { type: "button", class: "a-button small", "aria-label": label, title: label, onclick }, text);
    this.place = element("span", { class: "place a-muted" });
    this.title = element("span", { class: "title" });
    this.list = element("div", { class: "list", role: "list", "aria-label": "Images, those first on which the sides differ most" });
    this.panes = this.pair.map((place) => this._pane(place));
    return element(
      "div",
      { class: "pairs", "data-loaded": "false" },
      element(
        "div",
        { class: "bar" },
        button("‹", "Previous image (left arrow)", () => this._step(-1)),
        button("›", "Next image (right arrow)", () => this._step(1)),
        this.place,
        this.title,
        element("span", { class: "spacer" }),
        this._scorePick(),
        outcomeLegend(this.shown, () => this._draw()).root,
        button("–", "Zoom out", () => this.panes[0].canvas.zoomBy(1 / 1.5)),
        button("Fit", "Show the whole image", () => this.panes[0].canvas.fit()),
        button("+", "Zoom in", () => this.panes[0].canvas.zoomBy(1.5)),
      ),
      element("div", { class: "body" }, this.list, ...this.panes.map((pane) => pane.root)),
    );
  }

  _pane(place) {
    const counts = element("span", { class: "counts a-muted" });
    const stage = element("div", { class: "stage" });
    return { counts, stage, root: element("section", { class: "pane" }, element("div", { class: "head" }, sideHead(this.answer, place), counts), stage) };
  }

  _scorePick() {
    const mode = element("select", { class: "a-input", "aria-label": "Score threshold" });
    mode.append(element("option", { value: "best" }, "Each at its best F1"), element("option", { value: "common" }, "One score for both"));
    const range = element("input", { type: "range", class: "a-input", min: 0, max: 1, step: 0.01, "aria-label": "Score threshold of both", hidden: true });
    const output = element("output", { hidden: true });
    range.value = Math.min(...this.best);
    const take = () => {
      const isCommon = mode.value === "common";
      range.hidden = output.hidden = !isCommon;
      output.textContent = Number(range.value).toFixed(2);
      this._setCommon(isCommon ? Number(range.value) : null);
    };
    mode.addEventListener("change", take);
    range.addEventListener("input", take);
    return element("span", { class: "slide" }, mode, range, output);
  }

  // ---- life -------------------------------------------------------------------------------------------------------

  onShown() {
    for (const [at, pane] of this.panes.entries()) pane.canvas = new DetectionCanvas(pane.stage, { onView: () => this._onView(at) });
    this.data = new PairData(this.query, () => this._onCounted());
    this.data.load(this.scores).catch((error) => notify(error, "error"));
  }

  destroy() {
    clearTimeout(this._sorting);
    this.data?.stop();
    for (const pane of this.panes) pane.canvas?.destroy();
  }

  retheme() {
    this._draw();
  }

  onKey(event) {
    if (event.target.closest?.("input, select, textarea, [role=tablist]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    this._step(step);
  }

  // ---- images -----------------------------------------------------------------------------------------------------

  _onCounted() {
    if (!this.data.isCounted && this.image) return;
    this._arrange();
    this.root.dataset.loaded = String(this.data.isCounted);
    if (!this.image) this._open(this.order.find((image) => image.id === Number(getParam("image"))) ?? this.order[0]);
  }

  _arrange() {
    this.order = this.data.ordered();
    this.root.dataset.images = this.order.length;
    const items = this.order.slice(0, LISTED).map((image) => this._item(image));
    if (this.order.length > LISTED) items.push(element("p", { class: "a-muted" }, `and ${this.order.length - LISTED} more, by the arrow keys`));
    this.list.replaceChildren(...items);
    this._mark();
  }

  _item(image) {
    const known = (this.items ??= new Map()).get(image.id);
    const item = known ?? this._newItem(image);
    this.items.set(image.id, item);
    item.difference.textContent = image.difference ? String(image.difference) : "same";
    item.difference.title = image.difference ? `${image.onlyOne} objects that only one of them found, and false alarms: they differ by ${image.difference}` : "Both found the same";
    item.root.classList.toggle("same", !image.difference);
    return item.root;
  }

  _newItem(image) {
    const difference = element("span", { class: "a-number" });
    const picture = element("img", { loading: "lazy", alt: "", width: 48, height: 36, src: `/thumb/${encodeURIComponent(projectSlug())}/${image.id}?size=${THUMBNAIL_PX}` });
    const root = element("button", { type: "button", class: "item", "data-image": image.id, title: image.fileName, onclick: () => this._open(image) }, picture, element("span", { class: "name" }, element("bdi", {}, image.fileName)), difference);
    return { root, difference };
  }

  _step(step) {
    const next = this.order[this.order.indexOf(this.image) + step];
    if (next) this._open(next);
  }

  _open(image) {
    if (!image) return;
    const isFirst = !this.image;
    this.image = image;
    setParam("image", image.id);
    image.update(this.scores);
    this._isSyncing = true;
    for (const { canvas } of this.panes) canvas.setImage(null, image.width, image.height, { keepView: false });
    this._isSyncing = false;
    this._draw();
    this._mark(isFirst);
    const picture = new Image();
    picture.addEventListener("load", () => {
      if (this.image !== image) return;
      for (const { canvas } of this.panes) canvas.setImage(picture, image.width, image.height, { keepView: true });
      this.root.dataset.image = image.id;
    });
    picture.src = pictureOf(image);
    const next = this.order[this.order.indexOf(image) + 1];
    if (next) new Image().src = pictureOf(next); // there when the key is pressed
  }

  _mark() {
    const index = this.order.indexOf(this.image);
    this.place.textContent = index < 0 ? "" : `${index + 1} of ${this.order.length}`;
    this.title.textContent = this.image?.fileName ?? "";
    for (const item of this.list.children) item.setAttribute("aria-current", String(Number(item.dataset.image) === this.image?.id));
    this.list.querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest" });
  }

  _setCommon(score) {
    this.common = score;
    if (!this.data) return;
    this.data.setScores(this.scores, this.image);
    this._draw();
    clearTimeout(this._sorting);
    this._sorting = setTimeout(() => this._arrange(), SORT_MS);
  }

  _draw() {
    if (!this.image) return;
    const colors = outcomeColors(this.root);
    this.panes.forEach(({ canvas, counts, root }, at) => {
      const boxes = this.image.boxesOf(at).filter((box) => this.shown.has(box.outcome));
      canvas.setBoxes(
        boxes.map(({ bbox, outcome, label, score }) => ({
          bbox,
          color: colors[outcome],
          dashed: OUTCOMES[outcome].dash.length ? OUTCOMES[outcome].dash : false,
          label: `${this.names[label - 1] ?? `class ${label}`} ${score === undefined ? "missed" : score.toFixed(2)}`,
        })),
      );
      const { tp, fp, fn } = this.image.sides[at].counts;
      counts.textContent = `score ≥ ${this.scores[at].toFixed(2)}: ${tp} found, ${fp} false, ${fn} missed`;
      Object.assign(root.dataset, { tp, fp, fn });
    });
  }

  // ---- zoom and place move together ---------------------------------------------------------------------------------

  _onView(at) {
    if (this._isSyncing) return;
    const source = this.panes[at].canvas;
    const other = this.panes[1 - at].canvas;
    if (!source || !other) return; // not both are made yet
    this._isSyncing = true;
    if (source.isFitted) other.fit();
    else {
      other.zoomTo(source.view.scale);
      other.panBy(source.view.x - other.view.x, source.view.y - other.view.y);
    }
    this._isSyncing = false;
    this.root.dataset.scale = source.view.scale.toFixed(3);
  }
}

const pictureOf = (image) => `/img/${encodeURIComponent(projectSlug())}/${image.id}`;

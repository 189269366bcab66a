// One image large over the grid: zoom, pan, previous and next in the grid's order.

import { projectSlug } from "./api.js";
import { DetectionCanvas } from "./canvas.js";
import { element } from "./element.js";
import { KINDS } from "./error_kinds.js";
import { outcomeColors, OUTCOMES } from "./outcomes.js";
import { SOUGHT } from "./review_drawing.js";

export class ReviewSingle {
  /**
   * @param {HTMLElement} root hidden while closed
   * @param {Object} callbacks onStep(1 | -1), onClose(), onOpened() another image is open, nameOf(label)
   */
  constructor(root, callbacks) {
    this.root = root;
    this.callbacks = callbacks;
    this.image = null;
    this.title = element("span", { class: "title" });
    this.counts = element("span", { class: "a-muted" });
    this.stage = element("div", { class: "stage" });
    this.tools = element("span", { class: "tools" }); // for buttons of other modules
    this.overlay = [];
    const button = (text, label, onclick) =>
      element("button", { type: "button", class: "a-button small", "aria-label": label, title: label, onclick }, text);
    root.append(
      element(
        "div",
        { class: "bar" },
        button("← All images", "Back to all images (Escape)", () => callbacks.onClose()),
        button("‹", "Previous image (left arrow)", () => callbacks.onStep(-1)),
        button("›", "Next image (right arrow)", () => callbacks.onStep(1)),
        this.title,
        this.counts,
        element("span", { class: "spacer" }),
        this.tools,
        element(
          "span",
          { class: "zoom" },
          button("–", "Zoom out", () => this.canvas?.zoomBy(1 / 1.5)),
          button("Fit", "Show the whole image", () => this.canvas?.fit()),
          button("+", "Zoom in", () => this.canvas?.zoomBy(1.5)),
        ),
      ),
      this.stage,
    );
  }

  get isOpen() {
    return this.image !== null;
  }

  /** Open an image; `items` ({box, kind}) are what it is opened for: their boxes are marked, the view goes to the first. */
  open(image, options, items = []) {
    this.root.hidden = false;
    this.canvas ??= new DetectionCanvas(this.stage);
    const isOther = this.image !== image;
    if (isOther) [this.overlay, this.isOverlayAlone] = [[], false];
    this.image = image;
    this.items = items.filter(({ box }) => box);
    this.title.textContent = image.fileName;
    this.canvas.setImage(null, image.width, image.height);
    if (this.items.length) this.canvas.focus(this.items[0].box);
    this.draw(options);
    const picture = new Image();
    picture.addEventListener("load", () => {
      if (this.image !== image) return;
      this.canvas.setImage(picture, image.width, image.height, { keepView: true });
      this.root.dataset.image = image.id;
    });
    picture.src = `/img/${encodeURIComponent(projectSlug())}/${image.id}`;
    if (isOther) this.callbacks.onOpened();
  }

  /**
   * Draw boxes over all others, {bbox, color, dashed, label} each in image pixels, until another image is opened; with
   * `isAlone` in place of the others.
   */
  setOverlay({ boxes, isAlone = false }) {
    this.overlay = boxes;
    this.isOverlayAlone = isAlone;
    if (this.options) this.draw(this.options);
  }

  /** Draw for a View with `shown`, the Set of outcomes to show. */
  draw(options) {
    this.options = options;
    if (!this.image) return;
    const colors = outcomeColors(this.root);
    const boxes = this.isOverlayAlone ? [] : this.image.boxesAt(options).filter((box) => options.shown.has(box.outcome));
    const found = boxes.map((box) => ({
      bbox: box.bbox,
      color: colors[box.outcome],
      dashed: OUTCOMES[box.outcome].dash.length ? OUTCOMES[box.outcome].dash : false,
      mark: OUTCOMES[box.outcome].mark,
      faint: box.isFaint,
      ...this._labelsOf(box),
    }));
    const focus = this.items.map(({ box, kind }) => ({ bbox: box, color: SOUGHT.color, dashed: SOUGHT.dash, label: kind ?? "", isLabelBelow: true }));
    this.canvas.setBoxes([...found, ...this.overlay, ...focus]);
    const { tp, fp, fn } = this.image.counts;
    this.counts.textContent = `${tp} found, ${fp} false, ${fn} missed`;
  }

  /** Class and score; where the pointer is, the kind of an error besides. */
  _labelsOf({ label, score, kind, outcome }) {
    const text = `${this.callbacks.nameOf(label)} ${outcome === "fn" ? "missed" : score.toFixed(2)}`;
    const isFalse = outcome === "fp" && kind >= 0;
    return { label: text, fullLabel: isFalse ? `${text}, ${KINDS[kind].name.toLowerCase()}` : text };
  }

  close() {
    this.root.hidden = true;
    this.image = null;
    delete this.root.dataset.image;
  }

  destroy() {
    this.canvas?.destroy();
  }
}

// The grid of images: tiles are made as the user scrolls, and only those in sight are drawn.

import { projectSlug } from "./api.js";
import { element } from "./element.js";
import { outcomeColors } from "./outcomes.js";
import { drawBoxes, drawSought } from "./review_drawing.js";

const TILES_AT_ONCE = 60;
const THUMBNAIL_PX = 512;

export class ReviewGrid {
  /**
   * @param {HTMLElement} root scrolls
   * @param {Object} callbacks
   * @param {(image: Object) => void} callbacks.onOpen a tile was clicked
   * @param {(imageId: number) => {box?: number[]}[]} callbacks.itemsOf what the image is listed for: its boxes are marked
   */
  constructor(root, { onOpen, itemsOf }) {
    this.root = root;
    this.onOpen = onOpen;
    this.itemsOf = itemsOf;
    this.tiles = new Map(); // image id -> {image, node, canvas, caption, picture}
    this.visible = new Set();
    this.images = [];
    this.size = { width: 0, height: 0 }; // of a picture, in CSS pixels
    this.options = { score: 0, label: 0, shown: new Set() };
    this.grid = element("div", { class: "tiles" });
    this.more = element("div", { class: "more" });
    root.replaceChildren(this.grid, this.more);
    this._seeing = new IntersectionObserver((entries) => this._see(entries), { root, rootMargin: "300px" });
    this._ending = new IntersectionObserver(([entry]) => entry.isIntersecting && this._addTiles(), { root, rootMargin: "600px" });
    this._ending.observe(this.more);
    this._resizing = new ResizeObserver(() => this._measure());
    this._resizing.observe(this.grid);
    this.retheme();
  }

  destroy() {
    this._seeing.disconnect();
    this._ending.disconnect();
    this._resizing.disconnect();
  }

  /** Take the colors of the theme as it is now. */
  retheme() {
    this.colors = outcomeColors(this.root);
  }

  /** All pictures have one size; asking each canvas while others change would lay the page out again and again. */
  _measure() {
    const canvas = this.grid.querySelector("canvas");
    this.size = { width: canvas?.clientWidth ?? 0, height: canvas?.clientHeight ?? 0 };
    this.draw();
  }

  /** Images whose tiles are in sight, or nearly. */
  get imagesInSight() {
    return [...this.visible].map((tile) => tile.image);
  }

  /** Show these images in this order; tiles that stay are moved, not made anew. */
  setImages(images) {
    const count = Math.max(Math.min(this.grid.childElementCount, images.length), Math.min(TILES_AT_ONCE, images.length));
    this.images = images;
    this.grid.replaceChildren(...images.slice(0, count).map((image) => this._tile(image).node));
  }

  /** Draw what is in sight: a View with `shown`, the Set of outcomes to show. */
  draw(options = this.options) {
    this.options = options;
    for (const tile of this.visible) this._draw(tile);
  }

  _addTiles() {
    const start = this.grid.childElementCount;
    const next = this.images.slice(start, start + TILES_AT_ONCE);
    this.grid.append(...next.map((image) => this._tile(image).node));
  }

  _tile(image) {
    const known = this.tiles.get(image.id);
    if (known?.image === image) return known;
    const canvas = element("canvas");
    const caption = element("span", { class: "counts" });
    const name = element("span", { class: "name", title: image.fileName }, image.fileName);
    const node = element(
      "button",
      { type: "button", class: "tile", "data-image": image.id, "aria-label": `Open ${image.fileName}`, onclick: () => this.onOpen(image) },
      element("span", { class: "picture" }, canvas),
      element("span", { class: "caption" }, name, caption),
    );
    const tile = { image, node, canvas, caption, picture: null };
    this.tiles.set(image.id, tile);
    this._seeing.observe(node);
    return tile;
  }

  _see(entries) {
    for (const { target, isIntersecting } of entries) {
      const tile = this.tiles.get(Number(target.dataset.image));
      if (!tile || tile.node !== target) continue;
      if (!isIntersecting) this._forget(tile);
      else {
        this.visible.add(tile);
        this._loadPicture(tile);
        this._draw(tile);
      }
    }
  }

  /** Out of sight: give the memory of its drawing back, which for thousands of tiles would be gigabytes. */
  _forget(tile) {
    this.visible.delete(tile);
    tile.canvas.width = tile.canvas.height = 0;
  }

  _loadPicture(tile) {
    if (tile.picture) return;
    tile.picture = new Image();
    tile.picture.decoding = "async";
    tile.picture.addEventListener("load", () => this.visible.has(tile) && this._draw(tile));
    tile.picture.src = `/thumb/${encodeURIComponent(projectSlug())}/${tile.image.id}?size=${THUMBNAIL_PX}`;
  }

  _draw(tile) {
    const { image, canvas } = tile;
    const { width, height } = this.size;
    if (!width || !image.match) return;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const scale = Math.min(width / image.width, height / image.height);
    const [left, top] = [(width - image.width * scale) / 2, (height - image.height * scale) / 2];
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(ratio, 0, 0, ratio, left * ratio, top * ratio);
    if (tile.picture?.complete && tile.picture.naturalWidth) {
      context.drawImage(tile.picture, 0, 0, image.width * scale, image.height * scale);
    }
    const boxes = image.boxesAt(this.options).filter((box) => this.options.shown.has(box.outcome));
    const sought = this.itemsOf(image.id).flatMap(({ box }) => (box ? [box] : []));
    drawBoxes(context, sought.length ? boxes.map((box) => ({ ...box, isFaint: true })) : boxes, scale, this.colors);
    drawSought(context, sought, scale);
    this._caption(tile);
  }

  _caption({ image, caption }) {
    const { tp, fp, fn } = image.counts;
    const text = `${tp} ${fp} ${fn}`;
    if (caption.dataset.counts === text) return;
    caption.dataset.counts = text;
    caption.replaceChildren(
      element("span", { class: "tp", title: "found" }, String(tp)),
      element("span", { class: "fp", title: "false alarms" }, String(fp)),
      element("span", { class: "fn", title: "missed" }, String(fn)),
    );
  }
}

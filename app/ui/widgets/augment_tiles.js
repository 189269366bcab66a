// The original and its variants side by side, each a canvas with the boxes drawn in class colors.

import { element } from "./element.js";

const GAP_PX = 12;
const CAPTION_PX = 26;
const MIN_TILE_PX = 120;

export class TileGrid {
  /** @param {(label: number) => string} colorOfLabel */
  constructor(colorOfLabel) {
    this.colorOfLabel = colorOfLabel;
    this.root = element("div", { class: "tiles" });
    this.name = ""; // of the image file, shown under the original
    this.items = [];
    this.tiles = [];
    this._resizing = new ResizeObserver(() => this._layout());
    this._resizing.observe(this.root);
  }

  destroy() {
    this._resizing.disconnect();
  }

  /** Show the pictures of a preview answer at once, when all of them are decoded. */
  async show({ original, variants }) {
    const items = [original, ...variants];
    const pictures = await Promise.all(items.map((item) => decoded(item.image)));
    this.items = items.map((item, index) => ({ ...item, picture: pictures[index] }));
    while (this.tiles.length > items.length) this.tiles.pop().figure.remove();
    while (this.tiles.length < items.length) this._addTile();
    this.tiles.forEach((tile, index) => this._caption(tile, index));
    this._layout();
  }

  _addTile() {
    const canvas = element("canvas", { role: "img" });
    const caption = element("figcaption", {});
    const figure = element("figure", {}, canvas, caption);
    this.root.append(figure);
    this.tiles.push({ figure, canvas, caption });
  }

  _caption({ figure, canvas, caption }, index) {
    const { lost, boxes, epoch } = this.items[index];
    const name = index === 0 ? "Original" : `Epoch ${epoch}`;
    figure.dataset.lost = lost;
    canvas.setAttribute("aria-label", `${name}: ${boxes.length} boxes, ${lost} lost`);
    const title = index === 0 ? "The image at the size it is trained at" : `What epoch ${epoch} of a training sees`;
    const parts = [element("span", { title }, name)];
    if (index === 0) parts.push(element("span", { class: "name", title: this.name }, this.name));
    if (lost) {
      const why = "Boxes that were cut off, hidden or became too small; training does not see them";
      parts.push(element("span", { class: "a-chip warn", title: why }, `${lost} lost`));
    }
    caption.replaceChildren(...parts);
  }

  /** Choose the number of columns that makes the tiles largest, then draw. */
  _layout() {
    const { clientWidth: width, clientHeight: height } = this.root;
    if (!this.items.length || !width) return;
    const aspect = this.items[0].width / this.items[0].height;
    let best = { columns: 1, size: 0 };
    for (let columns = 1; columns <= this.items.length; columns += 1) {
      const rows = Math.ceil(this.items.length / columns);
      const across = (width - GAP_PX * (columns - 1)) / columns;
      const down = ((height - GAP_PX * (rows - 1)) / rows - CAPTION_PX) * aspect;
      const size = Math.min(across, down);
      if (size > best.size) best = { columns, size };
    }
    const tileWidth = Math.floor(Math.max(best.size, MIN_TILE_PX));
    this.root.style.gridTemplateColumns = `repeat(${best.columns}, ${tileWidth}px)`;
    this.tiles.forEach((tile, index) => this._draw(tile.canvas, this.items[index], tileWidth));
  }

  _draw(canvas, item, cssWidth) {
    const ratio = window.devicePixelRatio || 1;
    const cssHeight = Math.max(1, Math.round((cssWidth * item.height) / item.width));
    canvas.style.width = `${cssWidth}px`;
    canvas.style.height = `${cssHeight}px`;
    canvas.width = Math.round(cssWidth * ratio);
    canvas.height = Math.round(cssHeight * ratio);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(item.picture, 0, 0, canvas.width, canvas.height);
    const scale = canvas.width / item.width;
    for (const [style, width] of [["rgb(0 0 0 / 65%)", 4 * ratio], [null, 2 * ratio]]) {
      item.boxes.forEach(([x1, y1, x2, y2], index) => {
        context.strokeStyle = style ?? this.colorOfLabel(item.labels[index]);
        context.lineWidth = width;
        context.strokeRect(x1 * scale, y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale);
      });
    }
  }
}

async function decoded(source) {
  const picture = new Image();
  picture.src = source;
  await picture.decode();
  return picture;
}

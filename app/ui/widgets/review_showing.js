// "Showing: …": a list of images, with a place to look at in each, that the page is narrowed to. It stands in the
// address as showing=, so that a reload keeps it; of a very long list only the images do.

import { getParam } from "./api.js";
import { element } from "./element.js";

const MAX_ADDRESS = 8000; // letters; a server takes 64 KiB of headers

export class Showing {
  /** @param {() => void} onRemove the chip's × was pressed */
  constructor(onRemove) {
    this.chip = element("span", { class: "a-chip showing" });
    this.onRemove = onRemove;
    this.follow();
  }

  /** Narrow the page to what the address says. */
  follow() {
    const detail = parsed(getParam("showing"));
    this.items = detail ? new Map() : null;
    for (const item of detail?.items ?? []) this.items.set(item.imageId, [...this.itemsOf(item.imageId), item]);
    this.chip.hidden = !detail;
    if (!detail) return;
    const remove = element("button", { type: "button", "aria-label": `Stop showing only ${detail.title}`, onclick: this.onRemove }, "×");
    this.chip.replaceChildren(element("span", { class: "title", title: detail.title }, `Showing: ${detail.title}`), remove);
  }

  /** Whether the page is narrowed to a list. */
  get isOn() {
    return this.items !== null;
  }

  /** Those of the images that are among them (all when the page is not narrowed), in the order of the list if `isListed`. */
  narrow(images, isListed) {
    if (!this.isOn) return images;
    const among = images.filter((image) => this.items.has(image.id));
    if (!isListed) return among;
    const places = new Map([...this.items.keys()].map((id, place) => [id, place]));
    return among.sort((a, b) => places.get(a.id) - places.get(b.id));
  }

  /** Why the image is shown: its items, none when the page is not narrowed. */
  itemsOf(imageId) {
    return this.items?.get(imageId) ?? [];
  }
}

/** {title, items: {imageId, box?, kind?}[]} for the address, null for none:
 * ["title", [id, kind, x1, y1, x2, y2], …]; boxes to a tenth of a pixel, or none where that gets too long. */
export function writtenList(detail) {
  if (!detail) return null;
  const { title, items } = detail;
  const rows = items.map(({ imageId, box, kind }) => [imageId, kind ?? "", ...(box ?? []).map((value) => Math.round(value * 10) / 10)]);
  const text = JSON.stringify([title, ...rows]);
  if (text.length <= MAX_ADDRESS) return text;
  return JSON.stringify([title, ...[...new Set(items.map((item) => item.imageId))].map((id) => [id])]);
}

function parsed(text) {
  if (!text) return null;
  try {
    const [title, ...rows] = JSON.parse(text);
    const items = rows.map(([imageId, kind, ...box]) => ({ imageId, kind, box: box.length === 4 ? box : null }));
    return { title: String(title), items };
  } catch (error) {
    console.warn("The address names no list of images", error);
    return null;
  }
}

// "Showing: …": a list of images, with a place to look at in each, that the page is narrowed to. It stands in the
// address as showing=. Of a list that is too long for it the address has the images alone, or only the title, and the
// whole list is kept with the place in the history, so that a reload and Back bring it all the same.

import { getParam, notify, setParam } from "./api.js";
import { element } from "./element.js";
import { keepHere, keptHere } from "./places.js";

const MAX_ADDRESS = 12_000; // letters as they are sent; a server takes 64 KiB of headers, and this comes twice (Referer)
const LIST = "list";

export class Showing {
  /** @param {() => void} onRemove the chip's × was pressed */
  constructor(onRemove) {
    this.chip = element("span", { class: "a-chip showing" });
    this.onRemove = onRemove;
    this.follow();
  }

  /** Narrow the page to what the address says. */
  follow() {
    const detail = listOfPlace();
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

/** Narrow this place to a list {title, items: {imageId, box?, kind?}[]}; null to all images. */
export function putList(detail) {
  const [whole, short] = detail ? writtenList(detail) : [null, null];
  setParam("showing", short);
  keepHere(LIST, whole === short ? undefined : { whole, short });
}

/** The whole list as text, and what of it stands in the address:
 * ["title", [id, kind, x1, y1, x2, y2], …], boxes to a tenth of a pixel; or ["title", [id], …]; or ["title"]. */
function writtenList({ title, items }) {
  const rows = items.map(({ imageId, box, kind }) => [imageId, kind ?? "", ...(box ?? []).map((value) => Math.round(value * 10) / 10)]);
  const images = [...new Set(items.map((item) => item.imageId))].map((id) => [id]);
  const texts = [rows, images, []].map((some) => JSON.stringify([title, ...some]));
  return [texts[0], texts.find((text) => encodeURIComponent(text).length <= MAX_ADDRESS) ?? texts[2]];
}

/** The list of this place; of an address that came from elsewhere what stands in it. */
function listOfPlace() {
  const text = getParam("showing");
  const kept = keptHere(LIST);
  const list = parsed(kept?.short === text ? kept.whole : text);
  if (!list || list.items.length) return list;
  setParam("showing", null);
  notify(`The list “${list.title}” was too long for the address: open it anew, from the tabs at the right.`);
  return null;
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

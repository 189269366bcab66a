// How many images have more or fewer predictions than labeled boxes, as bars that open their images.

import { element } from "./element.js";

const MOST = 8; // differences beyond share the last bar of their side
const MAX_NAMES = 13; // of bars; among more, those with an even difference have one

export class ReviewHistogram {
  /** @param {(detail: {title: string, items: {imageId: number}[]}) => void} onImages a bar was pressed */
  constructor(onImages) {
    this.onImages = onImages;
    this.bars = element("div", { class: "bars" });
    this.mean = element("p", { class: "note" });
    this.node = element("div", { class: "histogram" }, this.bars, this.mean);
  }

  /** @param {Map<number, Object[]>} groups images by predictions less labeled boxes */
  show(groups) {
    const bins = new Map();
    let [sum, count] = [0, 0];
    for (const [difference, images] of groups) {
      const bin = Math.min(Math.max(difference, -MOST), MOST);
      bins.set(bin, [...(bins.get(bin) ?? []), ...images]);
      sum += difference * images.length;
      count += images.length;
    }
    const [low, high] = [Math.min(-3, ...bins.keys()), Math.max(3, ...bins.keys())];
    const largest = Math.max(1, ...[...bins.values()].map((images) => images.length));
    const range = Array.from({ length: high - low + 1 }, (_, index) => low + index);
    const isNamed = (bin) => range.length <= MAX_NAMES || bin % 2 === 0;
    this.bars.replaceChildren(...range.map((bin) => this._bar(bin, isNamed(bin), bins.get(bin) ?? [], largest)));
    const mean = count ? sum / count : 0;
    this.mean.textContent = `${mean > 0 ? "+" : mean < 0 ? "−" : ""}${Math.abs(mean).toFixed(2)} boxes in an image on average. Press a bar to see its images.`;
  }

  _bar(bin, isNamed, images, largest) {
    const label = element("span", { class: "bin" }, isNamed ? nameOf(bin) : "\u00a0");
    if (!images.length) return element("span", { class: "column" }, element("span", { class: "room" }), label);
    const title = describe(bin);
    const bar = element("span", { class: "fill" });
    bar.style.height = `${Math.max((100 * images.length) / largest, 3)}%`;
    const text = `${images.length} image${images.length === 1 ? "" : "s"}: ${title}`;
    const items = images.map((image) => ({ imageId: image.id }));
    const side = bin > 0 ? "over" : bin < 0 ? "under" : "even";
    return element("button", { type: "button", class: `column ${side}`, title: text, "aria-label": text, "data-bin": bin, onclick: () => this.onImages({ title, items }) }, element("span", { class: "room" }, bar), label);
  }
}

const nameOf = (bin) => (bin === MOST ? `≥${bin}` : bin === -MOST ? `≤−${MOST}` : bin > 0 ? `+${bin}` : bin < 0 ? `−${-bin}` : "0");

function describe(bin) {
  if (bin === 0) return "as many boxes as labeled";
  const count = Math.abs(bin);
  return `${count}${count === MOST ? " or more" : ""} box${count === 1 ? "" : "es"} too ${bin > 0 ? "many" : "few"}`;
}

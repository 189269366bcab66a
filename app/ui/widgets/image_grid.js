// A grid of cards over a list that comes in pages by key. Only the cards in sight exist, so thousands stay smooth.

const GAP_PX = 12;
const CAPTION_PX = 48;
const THUMB_RATIO = 0.75;
const ROWS_AROUND = 2;
const PAGE = 60;
const FAR_PAGE = 500; // while catching up with a scrollbar that was dragged far down

export class ImageGrid {
  /**
   * @param {HTMLElement} scroller element that scrolls; the grid fills it
   * @param {object} options
   *   load(after, limit, signal): a promise of {images, total, next}
   *   makeCard(image, size): an element for an image; size is {width, height} of its picture in CSS pixels
   *   captionPx: the height of a card below its picture
   *   onChange(): called when the number of known images changes; onError(error)
   */
  constructor(scroller, options) {
    this.scroller = scroller;
    this.options = { captionPx: CAPTION_PX, ...options };
    this.minWidth = 200;
    this.cards = new Map();
    this.field = document.createElement("div");
    this.field.className = "field";
    scroller.append(this.field);
    scroller.addEventListener("scroll", () => this.schedule(), { passive: true });
    new ResizeObserver(() => this.redraw()).observe(scroller);
    this.clear();
  }

  clear() {
    this.abort?.abort();
    this.images = [];
    this.total = 0;
    this.next = 0;
    this.isLoading = false;
    this.dropCards();
  }

  /** Start over: after another filter, or after the list changed. Resolves when the first page is there. */
  async reload() {
    this.clear();
    this.scroller.scrollTop = 0;
    await this.loadMore(PAGE);
  }

  /** Replace one known image and its card. */
  update(image) {
    const index = this.images.findIndex((one) => one.id === image.id);
    if (index < 0) return;
    this.images[index] = image;
    this.cards.get(index)?.remove();
    this.cards.delete(index);
    this.schedule();
  }

  /** Draw all cards again: another size, boxes shown or hidden. */
  redraw() {
    this.dropCards();
    this.schedule();
  }

  dropCards() {
    for (const card of this.cards.values()) card.remove();
    this.cards.clear();
  }

  async loadMore(limit) {
    if (this.isLoading || this.next === null) return;
    this.isLoading = true;
    const abort = (this.abort = new AbortController());
    try {
      const page = await this.options.load(this.next, limit, abort.signal);
      if (abort.signal.aborted) return;
      this.images.push(...page.images);
      this.total = page.total;
      this.next = page.next;
      this.dropPlaceholders();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.next = null;
      this.options.onError(error);
    }
    this.isLoading = false;
    this.options.onChange();
    this.schedule();
  }

  dropPlaceholders() {
    for (const [index, card] of this.cards) {
      if (!card.classList.contains("placeholder") || index >= this.images.length) continue;
      card.remove();
      this.cards.delete(index);
    }
  }

  schedule() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  measure() {
    const width = this.scroller.clientWidth;
    const columns = Math.max(1, Math.floor((width + GAP_PX) / (this.minWidth + GAP_PX)));
    const cardWidth = Math.floor((width - GAP_PX * (columns - 1)) / columns);
    const thumbHeight = Math.round(cardWidth * THUMB_RATIO);
    return { columns, cardWidth, thumbHeight, rowHeight: thumbHeight + this.options.captionPx + GAP_PX };
  }

  draw() {
    if (!this.scroller.clientWidth) return;
    const size = this.measure();
    const rows = Math.ceil(this.total / size.columns);
    this.field.style.height = `${Math.max(0, rows * size.rowHeight - GAP_PX)}px`;
    const top = this.scroller.scrollTop;
    const firstRow = Math.max(0, Math.floor(top / size.rowHeight) - ROWS_AROUND);
    const lastRow = Math.ceil((top + this.scroller.clientHeight) / size.rowHeight) + ROWS_AROUND;
    const first = firstRow * size.columns;
    const end = Math.min(this.total, lastRow * size.columns);
    for (const [index, card] of this.cards) {
      if (index >= first && index < end) continue;
      card.remove();
      this.cards.delete(index);
    }
    for (let index = first; index < end; index += 1) {
      if (!this.cards.has(index)) this.place(index, size);
    }
    const missing = end + PAGE - this.images.length;
    if (missing > 0) this.loadMore(missing > 3 * PAGE ? FAR_PAGE : PAGE);
  }

  place(index, size) {
    const image = this.images[index];
    const card = image
      ? this.options.makeCard(image, { width: size.cardWidth, height: size.thumbHeight })
      : Object.assign(document.createElement("div"), { className: "thumb-card placeholder" });
    const column = index % size.columns;
    const row = Math.floor(index / size.columns);
    card.style.width = `${size.cardWidth}px`;
    card.style.height = `${size.thumbHeight + this.options.captionPx}px`;
    card.style.transform = `translate(${column * (size.cardWidth + GAP_PX)}px, ${row * size.rowHeight}px)`;
    this.cards.set(index, card);
    this.field.append(card);
  }
}

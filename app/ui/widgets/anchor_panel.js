// Anchor recall in the form of a new run: the share of training boxes that the anchors reach, stock beside those chosen
// (or, while stock is chosen, those that KMeans proposes). Asked anew when an option changes that anchors depend on.

import { ApiError, projectURL, sendJSON } from "./api.js";
import { element } from "./element.js";

const ASK_AFTER_MS = 400;
const RELEVANT = ["model", "image_size", "resize", "seed", "anchors", "anchor_sizes", "anchor_ratios", "num_anchor_shapes", "anchor_shapes"];
const SIZES = [["all", "All"], ["small", "Small"], ["medium", "Medium"], ["large", "Large"]];
const SIZE_HELP = { all: "All boxes of the train split", small: "Area below 32 x 32 pixels after resizing", medium: "Area from 32 x 32 to 96 x 96 pixels after resizing", large: "Area from 96 x 96 pixels after resizing" };
const NAMES = { stock: "Stock", custom: "Custom", kmeans: "KMeans" };
const ABOUT = "The share of training boxes whose best anchor overlaps them by at least this IoU, after resizing. The proposal network learns from anchors that overlap by .7, and from the best one of each box.";

export class AnchorPanel {
  /** @param {(kind: string) => void} onChoose asked for other anchors: "kmeans" */
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.asked = 0;
    this.root = element("div", { class: "anchor-panel", "data-state": "waiting" });
    this.scope = element("span", { class: "a-small a-muted" });
    this.head = element("div", { class: "anchor-panel-head" }, element("strong", { title: ABOUT }, "Boxes that anchors reach"), this.scope);
    this.body = element("div", {});
    this.root.append(this.head, this.body);
    this.say("Measuring…");
    // A form is long: nothing is measured before the panel is looked at.
    this.observer = new IntersectionObserver((entries) => {
      this.isSeen = entries.at(-1).isIntersecting;
      this.askSoon(0);
    });
    this.observer.observe(this.root);
  }

  /** The form's values as they stand now. */
  update(values) {
    this.values = Object.fromEntries(RELEVANT.filter((name) => name in values).map((name) => [name, values[name]]));
    this.askSoon(ASK_AFTER_MS);
  }

  askSoon(delay) {
    clearTimeout(this.timer);
    const wanted = JSON.stringify(this.values ?? null);
    if (!this.isSeen || !this.values || wanted === this.shown) return;
    this.timer = setTimeout(() => this.ask(wanted), delay);
  }

  async ask(wanted) {
    const number = ++this.asked;
    this.root.dataset.state = "waiting";
    try {
      const answer = await sendJSON("POST", projectURL("/config/anchors"), { config: this.values });
      if (number !== this.asked) return;
      this.shown = wanted;
      this.show(answer);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (number !== this.asked) return;
      this.shown = error.status === 0 ? null : wanted;
      this.say(error.message);
      this.root.dataset.state = "problem";
    }
  }

  say(text) {
    this.scope.textContent = "";
    this.body.replaceChildren(element("div", { class: "a-small a-muted" }, text));
  }

  show({ problem, stock, other, num_boxes: numBoxes, image_size: imageSize, resize }) {
    this.root.dataset.state = problem ? "problem" : stock ? "ready" : "empty";
    if (!stock) return this.say(problem ? `Not measured: ${problem}` : "There are no boxes in the train split yet.");
    const chosen = this.values.anchors ?? "stock";
    this.scope.textContent = `${numBoxes.toLocaleString()}, ${resize === "as_is" ? "not resized" : `at ${imageSize} px`}`;
    const counts = `${stock.num_per_position} and ${other.num_per_position} shapes at each position`;
    const foot = element("div", { class: "anchor-panel-foot a-small a-muted" }, element("span", {}, counts));
    if (chosen === "stock") {
      foot.append(element("button", { type: "button", class: "anchor-panel-use", "data-action": "use-kmeans", onclick: () => this.onChoose("kmeans") }, "Use KMeans"));
    }
    this.body.replaceChildren(this.table([stock, other], chosen), foot);
    return undefined;
  }

  table(kinds, chosen) {
    const groups = kinds.map(({ kind, shapes }) => element("th", { scope: "colgroup", colspan: 2, class: kind === chosen ? "chosen" : "", title: this.shapesText(shapes) }, NAMES[kind]));
    const levels = kinds.flatMap(() => [".5", ".7"].map((level) => element("th", { scope: "col", title: ABOUT }, `IoU ${level}`)));
    const rows = SIZES.filter(([size]) => kinds[0].recall[size].num_boxes).map(([size, name]) => this.row(size, name, kinds));
    return element("table", {}, element("thead", {}, element("tr", {}, element("td", {}), ...groups), element("tr", {}, element("td", {}), ...levels)), element("tbody", {}, ...rows));
  }

  row(size, name, kinds) {
    const count = kinds[0].recall[size].num_boxes;
    const share = count / kinds[0].recall.all.num_boxes;
    const title = `${SIZE_HELP[size]}: ${count.toLocaleString()} (${percent(share)} %)`;
    const cells = kinds.flatMap(({ kind, recall }) => ["at_50", "at_70"].map((level) => this.cell(recall[size][level], `${kind}-${size}-${level}`)));
    return element("tr", { "data-size": size }, element("th", { scope: "row", title }, name), ...cells);
  }

  cell(share, key) {
    const cell = element("td", { "data-recall": key, title: `${(100 * share).toFixed(1)} %` }, element("span", {}, `${percent(share)} %`));
    cell.style.setProperty("--share", `${100 * share}%`);
    return cell;
  }

  shapesText(levels) {
    return levels.map((level) => level.map(([width, height]) => `${width}×${height}`).join(", ")).join("\n");
  }
}

/** Whole percent; 100 is kept for all, and 0 for none. */
function percent(share) {
  const rounded = Math.round(100 * share);
  if (rounded === 100 && share < 1) return 99;
  return rounded === 0 && share > 0 ? 1 : rounded;
}

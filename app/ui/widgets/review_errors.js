// <anchorage-review-errors>: what each kind of error costs in AP50 (TIDE), with what people do about it. A bar opens the
// images of its errors. Reads the properties setId and view; asks the server once it is seen.
//
// data-state: waiting, loading, empty, ready, failed.

import { getJSON, projectURL } from "./api.js";
import { element } from "./element.js";
import { KINDS } from "./error_kinds.js";
import { count, ErrorPages, whenSeen } from "./review_pages.js";

const TOTALS = [
  { key: "false_positives", name: "All false positives", long: "Every false detection, of any kind; priced as if they came last" },
  { key: "false_negatives", name: "All false negatives", long: "Every object that was not found, mistaken ones too; priced as if none were asked for" },
];
const KIND_OF = Object.fromEntries([...KINDS, ...TOTALS].map((kind) => [kind.key, kind]));
const TOTAL_NAMES = { false_positives: "False", false_negatives: "Not found" }; // of one error
const MISSES = ["missed", "false_negatives"];
const STEPS = [1, 2, 2.5, 5, 10];

class ReviewErrors extends HTMLElement {
  connectedCallback() {
    this.dataset.state = "waiting";
    this.pages = new ErrorPages(this);
    this._seeing = whenSeen(this, () => this._load());
    this._say("");
  }

  disconnectedCallback() {
    this._seeing.disconnect();
  }

  set setId(id) {
    if (id === this._setId) return;
    this._setId = id;
    if (this.isConnected && this.dataset.state !== "waiting") this._load(true);
  }

  get setId() {
    return this._setId;
  }

  async _load(isAnew = false) {
    if (!isAnew && ["loading", "ready"].includes(this.dataset.state)) return;
    const { setId } = this;
    this.dataset.state = "loading";
    this._say("Pricing the errors… This takes seconds for a large set.");
    try {
      const { error_budget: budget, confusion } = await getJSON(projectURL(`/prediction-sets/${setId}/diagnosis`));
      if (setId !== this.setId) return;
      this.names = confusion.labels;
      this._show(budget);
    } catch (error) {
      if (setId === this.setId) this._fail(error);
    }
  }

  _show(budget) {
    if (budget.ap50 < 0) {
      this.dataset.state = "empty";
      return this._say("No object is labeled in these images, so no error has a price. Label some, and train again.");
    }
    const kinds = budget.kinds.slice().sort((a, b) => b.d_ap50 - a.d_ap50);
    const end = niceEnd(Math.max(...budget.kinds.concat(budget.totals).map((row) => row.d_ap50)));
    this.rows = new Map();
    this.replaceChildren(
      element(
        "section",
        {},
        element("h3", {}, "What keeps AP50 down"),
        element("p", { class: "lead" }, element("strong", {}, budget.ap50.toFixed(3)), " AP50 now. A bar is what it would gain if this kind alone were mended. Click one to see its images."),
        scale(end),
        element("ul", { class: "budget" }, ...kinds.map((row) => this._row(row, end))),
      ),
      element(
        "section",
        {},
        element("h3", {}, "All together"),
        scale(end),
        element("ul", { class: "budget" }, ...budget.totals.map((row) => this._row(row, end))),
        element("p", { class: "note" }, "Kinds and prices are those of TIDE: at IoU .50, over all detections whatever their score, since AP counts them all. Mending one kind changes what others cost, so prices do not add up."),
      ),
    );
    this.dataset.state = "ready";
  }

  _row({ kind, d_ap50: price, count: errors, advice }, end) {
    const bar = element("span", { class: MISSES.includes(kind) ? "amount fn" : "amount fp" });
    bar.style.width = `${(100 * Math.max(price, 0)) / end}%`;
    const what = MISSES.includes(kind) ? "object" : "detection";
    const many = `${count(errors)} ${what}${errors === 1 ? "" : "s"}`;
    const button = element(
      "button",
      {
        type: "button",
        class: "kind",
        "data-kind": kind,
        disabled: errors === 0,
        "aria-label": `${KIND_OF[kind].name}: costs ${price.toFixed(3)} AP50, ${many}${errors ? ". Show their images" : ""}`,
        onclick: () => this._open(kind),
      },
      element("span", { class: "name" }, KIND_OF[kind].name),
      element("span", { class: "many" }, many),
      element("span", { class: "track" }, bar),
      element("span", { class: "price" }, price.toFixed(3)),
    );
    const node = element("li", {}, button, element("p", { class: "meaning" }, `${KIND_OF[kind].long}.`), errors && advice ? element("p", { class: "advice" }, advice) : null);
    this.rows.set(kind, { node, button });
    return node;
  }

  async _open(kind) {
    for (const [name, { button }] of this.rows) button.setAttribute("aria-pressed", String(name === kind));
    this.rows.get(kind).button.after(this.pages.node);
    const list = { path: `/prediction-sets/${this.setId}/errors`, query: { kind }, title: KIND_OF[kind].name };
    await this.pages.open({ ...list, describe: (entry) => this._describe(kind, entry) });
  }

  /** "Classification: RBC 0.83, labeled WBC". */
  _describe(kind, { label, score, truth_label: labeled }) {
    const what = kind in TOTAL_NAMES ? TOTAL_NAMES[kind] : KIND_OF[kind].name;
    const other = labeled && labeled !== label ? `, labeled ${this.names[labeled]}` : "";
    return `${what}: ${this.names[label]}${score === null ? "" : ` ${score.toFixed(2)}`}${other}`;
  }

  _say(text) {
    this.replaceChildren(element("section", {}, element("p", { class: "note", role: "status" }, text)));
  }

  _fail(error) {
    this.dataset.state = "failed";
    const again = element("button", { type: "button", class: "a-button small", onclick: () => this._load(true) }, "Try again");
    this.replaceChildren(element("section", {}, element("p", { class: "a-error" }, error.message), element("p", { class: "note" }, error.hint ?? ""), again));
  }
}

/** The end of the scale: 1, 2, 2.5 or 5 times a power of ten, at least .001. */
function niceEnd(largest) {
  const power = 10 ** Math.floor(Math.log10(Math.max(largest, 0.001)));
  return power * STEPS.find((step) => step * power >= largest * 0.999);
}

function scale(end) {
  const marks = [0, end / 2, end].map((value) => element("span", {}, String(Number(value.toPrecision(3)))));
  return element("div", { class: "budget-scale", "aria-hidden": "true" }, element("span", { class: "marks" }, ...marks), element("span", {}, "ΔAP50"));
}

if (!customElements.get("anchorage-review-errors")) customElements.define("anchorage-review-errors", ReviewErrors);

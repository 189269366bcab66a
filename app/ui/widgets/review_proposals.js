// Over an image opened large: what the first stage proposes there, or the best anchor of each labeled box. Asked for by
// buttons in its bar; the model answers once an image, from the checkpoint that is shown.

import { getJSON, projectURL } from "./api.js";
import { element } from "./element.js";

const TOPS = [50, 100];
const REST_MS = 200; // stepping through images asks for none of those in between
const COVERS_IOU = 0.5;
const PROPOSAL_COLOR = "#f0e442"; // none of the outcomes has it
const LABELED_COLOR = "#ffffff";
const ANCHOR_LEVELS = [
  { from: 0.7, color: "#2fc29a", text: "at least .7" },
  { from: 0.5, color: "#f0e442", text: ".5 to .7" },
  { from: 0, color: "#f0803c", text: "below .5" },
];

export class ReviewProposals {
  /**
   * @param {ReviewSingle} single
   * @param {{run_id: number, checkpoint_id: number | null}} set the one shown; an ensemble has no checkpoint
   * @param {string | null} overlay what to begin with, as the address keeps it
   * @param {() => void} onChoice another overlay was chosen
   */
  constructor(single, set, overlay, onChoice) {
    Object.assign(this, { single, set, onChoice });
    this.mode = null; // "proposals", "anchors" or null
    this.text = element("div", { class: "first-stage", role: "status", hidden: true });
    single.stage.before(this.text);
    if (set.checkpoint_id === null) {
      single.tools.append(element("span", { class: "a-muted", title: "An ensemble fuses boxes of several checkpoints: choose one of them to see its proposals" }, "Proposals belong to a checkpoint"));
      return;
    }
    const toggle = (mode, name, title) => element("button", { type: "button", class: "a-button small", "aria-pressed": "false", title, onclick: () => this._choose(mode) }, name);
    this.buttons = {
      proposals: toggle("proposals", "Proposals", "The boxes that the first stage (RPN) hands to the second"),
      anchors: toggle("anchors", "Anchors", "The anchor that fits each labeled box best"),
    };
    this.top = element("select", { class: "a-input", "aria-label": "How many proposals", hidden: true, onchange: () => this._chooseTop() }, ...TOPS.map((top) => element("option", { value: top }, `top ${top}`)));
    single.tools.append(this.buttons.proposals, this.top, this.buttons.anchors);
    const [mode, top] = (overlay ?? "").split("-");
    if (TOPS.includes(Number(top))) this.top.value = top;
    if (Object.hasOwn(this.buttons, mode)) this._press(mode);
  }

  /** The chosen overlay for the address: "anchors", "proposals-50", or null. */
  get overlay() {
    return this.mode === "proposals" ? `proposals-${this.top.value}` : this.mode;
  }

  /** Another image was opened: show the same for it. */
  follow() {
    this.stop();
    this.answer = null;
    if (!this.mode || !this.single.isOpen) return this._say(null);
    this._say("Asking the model…");
    this._resting = setTimeout(() => this._ask(), REST_MS);
  }

  /** Nobody waits for an answer any more. */
  stop() {
    clearTimeout(this._resting);
    this._request?.abort();
  }

  /** The thresholds have changed, and so may what is missed. */
  explain() {
    if (this.answer && this.single.isOpen) this._say(...(this.mode === "anchors" ? this._anchorWords() : this._proposalWords()));
  }

  _choose(mode) {
    this._press(this.mode === mode ? null : mode);
    this.single.setOverlay({ boxes: [] });
    if (this.answer && this.mode) this._show();
    else this.follow();
    this.onChoice();
  }

  _chooseTop() {
    this.follow();
    this.onChoice();
  }

  /** Show which button is on. */
  _press(mode) {
    this.mode = mode;
    for (const [name, button] of Object.entries(this.buttons)) button.setAttribute("aria-pressed", String(name === this.mode));
    this.top.hidden = this.mode !== "proposals";
  }

  async _ask() {
    const { image } = this.single;
    this._request = new AbortController();
    const query = new URLSearchParams({ image: image.id, top: this.top.value });
    const path = `/runs/${this.set.run_id}/checkpoints/${this.set.checkpoint_id}/proposals?${query}`;
    try {
      const answer = await getJSON(projectURL(path), { signal: this._request.signal });
      if (this.single.image !== image || !this.mode) return;
      this.answer = answer;
      this._show();
    } catch (error) {
      if (error.name === "AbortError") return;
      this._say(element("span", { class: "a-error" }, error.message), error.hint ? ` ${error.hint}` : null);
    }
  }

  _show() {
    const isAlone = this.mode === "anchors"; // they are compared with labels, not with predictions
    this.single.setOverlay({ boxes: isAlone ? this._anchorBoxes() : this._proposalBoxes(), isAlone });
    this.explain();
  }

  /**
   * The surest last, so that it lies on top; those that cover no labeled box are faint, and tell their score under the
   * pointer only. Then what none covers. Labels stand below: those of predictions stand above.
   */
  _proposalBoxes() {
    const proposed = this.answer.proposals.map(({ box, score, iou }) => {
      const faint = iou < COVERS_IOU;
      return { bbox: box, color: PROPOSAL_COLOR, dashed: false, faint, label: faint ? "" : score.toFixed(2), fullLabel: `objectness ${score.toFixed(2)}`, isLabelBelow: true };
    });
    const forgotten = this.answer.objects.filter((object) => object.iou_all < COVERS_IOU);
    return [...proposed.reverse(), ...forgotten.map(({ box }) => ({ bbox: box, color: LABELED_COLOR, dashed: false, label: "no proposal", isLabelBelow: true }))];
  }

  /** Every labeled box, and over it its best anchor with IoU and shape: of a label too long for its box the end is cut. */
  _anchorBoxes() {
    const labeled = this.answer.objects.map(({ box }) => ({ bbox: box, color: LABELED_COLOR, dashed: false, label: "" }));
    const anchors = this.answer.objects.map(({ anchor, anchor_iou: iou }) => {
      const [x1, y1, x2, y2] = anchor;
      const [shape, overlap] = [`${Math.round(x2 - x1)}×${Math.round(y2 - y1)}`, (Math.floor(100 * iou) / 100).toFixed(2)];
      return { bbox: anchor, color: levelOf(iou).color, dashed: [5, 4], label: `${overlap} ${shape}`, fullLabel: `anchor ${shape} pixels, IoU ${overlap}` };
    });
    return [...labeled, ...anchors];
  }

  _proposalWords() {
    const { proposals, num_proposals: all, objects, covered, covered_all: coveredByAll } = this.answer;
    const range = proposals.length ? `, objectness ${proposals[0].score.toFixed(2)} to ${proposals.at(-1).score.toFixed(2)}` : "";
    const shown = `${proposals.length} of ${all} proposals${range}. `;
    if (!objects.length) return [shown, "No box is labeled here."];
    const share = (number) => `${number} of ${objects.length} (recall ${(number / objects.length).toFixed(2)})`;
    return [shown, `At IoU .50 they cover ${share(covered)} of the labeled boxes; all ${all} cover ${share(coveredByAll)}. `, element("strong", {}, this._blame())];
  }

  /** Whose fault the objects are that are missed at the page's thresholds. */
  _blame() {
    const missed = this.single.image.boxesAt(this.single.options).filter(({ outcome }) => outcome === "fn");
    if (!missed.length) return "Nothing is missed at these thresholds.";
    const reached = missed.filter(({ bbox }) => this.answer.objects.some((object) => object.iou_all >= COVERS_IOU && object.box.every((value, side) => value === bbox[side])));
    const lost = missed.length - reached.length;
    const faults = [
      lost ? `${lost} that no proposal covers (a fault of the RPN)` : "",
      reached.length ? `${reached.length} that a proposal covers (the box head let ${reached.length === 1 ? "it" : "them"} go)` : "",
    ];
    return `Missed here: ${faults.filter(Boolean).join(", ")}.`;
  }

  _anchorWords() {
    const { objects } = this.answer;
    if (!objects.length) return ["No box is labeled here, so no anchor is looked for."];
    const counts = ANCHOR_LEVELS.map((level) => {
      const mark = element("span", { class: "a-swatch" });
      mark.style.background = level.color;
      const number = objects.filter((object) => levelOf(object.anchor_iou) === level).length;
      return element("span", { class: "level" }, mark, `${level.text}: ${number}`);
    });
    return ["The best anchor (dashed: IoU, width×height in pixels) of each labeled box (white): ", ...counts, "Anchors of .7 or more learn to be an object; a box without one learns from its best anchor alone."];
  }

  _say(...parts) {
    const shown = parts.filter((part) => part !== null);
    this.text.hidden = !shown.length;
    this.text.replaceChildren(...shown);
  }
}

const levelOf = (iou) => ANCHOR_LEVELS.find((level) => iou >= level.from);

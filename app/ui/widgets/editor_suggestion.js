// What an audit suggests for the image in the editor: its line above the canvas, and the box that it would make.
// Which one stands in the address: suspect= (its key) and audit= (the query of the audit that it belongs to).

import { getJSON, getParam, notify, pageURL, projectURL, sendJSON, setParam } from "./api.js";
import { element } from "./element.js";
import { colorOf } from "./palette.js";
import { explain, ignoreBody, KINDS } from "./suspects.js";

const DASHES = [2, 3];
const STATUS = {
  settled: "Here the labels agree with the model by now.",
  accepted: "Accepted. Undo takes it back.",
  edited: "This box is now one of the labels: change it as you like. Undo takes it back.",
  ignored: "Ignored: it does not come up again.",
};

export class Suggestion {
  /**
   * @param {{onAccept: () => void, onEdit: () => void, onShow: (imageId: number) => void, onChange: () => void}} options
   *   onShow: another image is to be opened; onChange: what is drawn changed
   */
  constructor(options) {
    this.options = options;
    this.suspect = null;
    this.next = null;
    this.status = "";
    this.takenKey = null; // of the box that it became
    const button = (text, action, attributes) => element("button", { type: "button", class: "a-button small", onclick: action, ...attributes }, text);
    this.kind = element("span", { class: "a-chip" });
    this.sample = element("span", { class: "a-chip warn", title: "The model was trained on this image: it has learned its faults too" }, "in sample");
    this.text = element("span", { class: "text", role: "status" });
    this.accept = button("Accept", options.onAccept, { class: "a-button small primary", title: "Accept (Enter)", "data-suggestion": "accept" });
    this.edit = button("Edit", options.onEdit, { title: "Take the suggested box and change it", "data-suggestion": "edit" });
    this.ignore = button("Ignore", () => this._ignore(), { title: "The label is right: do not suggest this again", "data-suggestion": "ignore" });
    this.takeBack = button("Take back", () => this._takeBack(), { "data-suggestion": "take-back" });
    this.on = button("Next", () => this._goOn(), { title: "The next suspect of the audit", "data-suggestion": "next" });
    this.back = element("a", { class: "a-button small" }, "Back to the audit");
    this.root = element("div", { class: "suggestion", role: "note", hidden: true }, this.kind, this.sample, this.text, this.accept, this.edit, this.ignore, this.takeBack, this.on, this.back);
  }

  get isOpen() {
    return this.suspect !== null && this.status === "";
  }

  /** Read what the address names; without a suspect there nothing is shown. */
  async load() {
    const key = getParam("suspect");
    this.suspect = this.next = this.takenKey = null;
    this.status = "";
    if (key) {
      try {
        const { suspect, next, left } = await getJSON(projectURL(`/audit/suspects/${encodeURIComponent(key)}?${getParam("audit") ?? ""}`));
        Object.assign(this, { suspect, next, left });
        if (!suspect) this.status = "settled";
      } catch (error) {
        setParam("suspect", null);
        notify(error, "error");
      }
    }
    this._showLine();
    this.options.onChange();
  }

  /** Follow the image that is shown: away from the suspect's there is nothing to suggest; undo opens it again. */
  follow(document) {
    const imageId = Number(getParam("suspect")?.split("-")[0] ?? NaN);
    if (!Number.isNaN(imageId) && imageId !== document.id) {
      setParam("suspect", null);
      setParam("audit", null);
      this.suspect = null;
      this.status = "";
    }
    if (["accepted", "edited"].includes(this.status) && !isTaken(document, this.suspect, this.takenKey)) this.status = "";
    this._showLine();
  }

  /** The box to draw over those of the document, or null. */
  shownBox(categories) {
    if (!this.isOpen) return null;
    const { box, predicted, predicted_id: id, score } = this.suspect;
    return { bbox: box, color: colorOf(categories.get(id)?.position ?? 0), label: `suggested: ${predicted} ${score.toFixed(2)}`, dashed: DASHES, isLabelBelow: true };
  }

  /** It became the box with this key, as it is or to be changed. */
  taken(key, isEdited) {
    this.takenKey = key;
    this.status = isEdited ? "edited" : "accepted";
    this._showLine();
  }

  async _ignore() {
    try {
      this.ignored = (await sendJSON("POST", projectURL("/audit/ignored"), ignoreBody(this.suspect))).ignored;
      this.status = "ignored";
    } catch (error) {
      notify(error, "error");
    }
    this._showLine();
    this.options.onChange();
  }

  async _takeBack() {
    try {
      await sendJSON("DELETE", projectURL(`/audit/ignored/${this.ignored.id}`));
      this.status = "";
    } catch (error) {
      notify(error, "error");
    }
    this._showLine();
    this.options.onChange();
  }

  async _goOn() {
    const { next } = this;
    const audit = getParam("audit");
    await this.options.onShow(next.image_id); // another image ends what the address says about this suspect
    setParam("audit", audit);
    setParam("suspect", next.key);
    await this.load();
  }

  _showLine() {
    const { suspect, status, isOpen } = this;
    const isShown = suspect !== null || status !== "";
    this.root.hidden = !isShown;
    this.root.dataset.status = isOpen ? "open" : status;
    if (!isShown) return;
    this.kind.hidden = !suspect;
    this.kind.textContent = suspect ? KINDS[suspect.kind].title : "";
    this.sample.hidden = !suspect?.in_sample;
    this.text.textContent = isOpen ? explain(suspect) : STATUS[status];
    for (const button of [this.accept, this.edit, this.ignore]) button.hidden = !isOpen;
    this.takeBack.hidden = status !== "ignored";
    this.on.hidden = !this.next;
    this.on.textContent = `Next (${this.left} left)`;
    this.back.href = `${pageURL("/audit")}&${getParam("audit") ?? ""}`;
  }
}

/** Whether the accepted box is still there as it was accepted: moved on by hand counts too, undone does not. */
function isTaken(document, { kind, label_box: label, labeled_id: labeled }, key) {
  const box = document.boxes.find((item) => item.key === key);
  if (!box || kind === "missing_box") return Boolean(box);
  return box.category_id !== labeled || box.bbox.some((value, index) => value !== label[index]);
}

// The model of a new run: a button with what is chosen, and a dialog with all detectors by rising size, the weights that
// are published (and here), seconds an image once measured, and the card of the chosen one, read from a live model.

import { ApiError, getJSON, notify, poll, projectURL, sendJSON } from "./api.js";
import { element } from "./element.js";
import { isLive } from "./job_states.js";
import { modelCard } from "./model_card.js";

const POLL_MS = 700;
const TIMM = "timm/";
const PARTS = { backbone: "Weights of the backbone, from ImageNet", network: "Weights of the whole detector, from COCO" };

export function millions(count) {
  return `${(count / 1e6).toFixed(1)} M`;
}

/** The control of the option "model" (see train_controls.js). */
export function modelPicker(id, { description, values, onChange }) {
  const title = element("span", { class: "model-picker-title" });
  const size = element("span", { class: "a-muted" });
  const node = element("button", { type: "button", id, class: "a-input model-picker", "aria-haspopup": "dialog", "data-action": "choose-model" }, title, size);
  const show = (name) => {
    const model = description.models.find((one) => one.name === name);
    title.textContent = model?.title ?? String(name);
    node.title = model ? `${model.title}: ${model.parameters.toLocaleString()} parameters (${name})` : String(name);
    node.setAttribute("aria-label", `Model: ${title.textContent}`);
    size.textContent = model ? millions(model.parameters) : "";
    node.dataset.model = String(name);
  };
  node.addEventListener("click", () => new ModelDialog(values, (name) => onChange(name, null)).open());
  return { node, show, isWide: true };
}

class ModelDialog {
  /** @param {() => Object} values the form's options now  @param {(name: string) => void} onChoose */
  constructor(values, onChoose) {
    this.values = values;
    this.onChoose = onChoose;
    this.asked = 0;
    this.rows = new Map();
  }

  open() {
    this.body = element("tbody", {});
    this.status = element("span", { class: "a-small a-muted", role: "status" });
    this.cardHost = element("div", { class: "model-picker-card" });
    this.dialog = element("dialog", { class: "a-dialog model-picker-dialog", "aria-label": "Choose a model", "data-state": "loading" },
      element("div", { class: "model-picker-head" },
        element("h2", { class: "a-subtitle" }, "Model"),
        element("span", { class: "a-small a-muted" }, "Start with the fewest parameters; larger ones need more data and time."),
        element("button", { type: "button", class: "a-button small", "data-action": "done", onclick: () => this.dialog.close() }, "Done")),
      element("div", { class: "model-picker-columns" }, element("div", { class: "model-picker-list" }, this.table()), this.cardHost),
      element("div", { class: "model-picker-foot" }, this.other(), element("span", { class: "spacer" }), this.status, this.measureAll()));
    this.dialog.addEventListener("close", () => this.dialog.remove());
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    document.body.append(this.dialog);
    this.dialog.showModal();
    this.load();
    this.showCard();
  }

  table() {
    const timeHelp = "Seconds an image in training, on this device, at the image size it was measured with";
    const heads = [["Model", ""], ["Parameters", "a-number"], ["Weights", ""], [element("span", { title: timeHelp }, "s / image"), "a-number"], ["", ""]];
    return element("table", { class: "a-table" }, element("thead", {}, element("tr", {}, ...heads.map(([text, kind]) => element("th", { class: kind }, text)))), this.body);
  }

  other() {
    this.name = element("input", { class: "a-input", placeholder: "name in timm, such as convnext_tiny", spellcheck: "false", autocomplete: "off", "aria-label": "Name of a timm backbone" });
    const chosen = this.values().model;
    if (String(chosen).startsWith(TIMM)) this.name.value = chosen.slice(TIMM.length);
    const use = () => {
      const name = this.name.value.trim().replace(/^timm\//, "");
      if (name) this.choose(TIMM + name);
    };
    this.name.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      use();
    });
    return element("div", { class: "model-picker-other" }, element("span", { class: "a-small" }, "Any other backbone of timm"), this.name,
      element("button", { type: "button", class: "a-button small", "data-action": "use-timm", onclick: use }, "Use"));
  }

  measureAll() {
    this.all = element("button", { type: "button", class: "a-button small", "data-action": "measure-all", title: "Times every model on this device, one after the other" }, "Measure all");
    this.all.addEventListener("click", () => (this.job ? this.cancel() : this.measure([...this.rows.keys()])));
    return this.all;
  }

  async load() {
    try {
      const answer = await getJSON(projectURL(`/models?channels=${Number(this.values().channels) === 1 ? 1 : 3}`));
      this.folder = answer.folder;
      this.write(answer.models);
      this.dialog.dataset.state = "ready";
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.status.textContent = error.message;
    }
  }

  write(models) {
    this.rows.clear();
    this.body.replaceChildren(...models.map((model) => this.row(model)));
    this.mark();
  }

  row(model) {
    const pick = element("input", { type: "radio", name: "model", value: model.name, "aria-label": model.title });
    const measure = element("button", { type: "button", class: "a-button quiet small", "data-action": "measure", title: `Time ${model.title} on this device` }, model.timing ? "Again" : "Measure");
    measure.addEventListener("click", (event) => {
      event.stopPropagation();
      this.measure([model.name]);
    });
    const row = element("tr", { class: "selectable", "data-model": model.name },
      element("td", {}, element("label", { class: "model-picker-name" }, pick, model.title)),
      element("td", { class: "a-number", title: model.parameters.toLocaleString() }, millions(model.parameters)),
      element("td", { class: "model-picker-weights" }, ...this.weights(model)),
      element("td", { class: "a-number", title: this.timingText(model.timing) }, model.timing ? seconds(model.timing.train_s) : "–"),
      element("td", { class: "model-picker-measure" }, measure));
    row.addEventListener("click", () => this.choose(model.name));
    this.rows.set(model.name, { row, pick });
    return row;
  }

  weights(model) {
    return model.pretrained.flatMap((part) => {
      const isHere = model.cached.includes(part);
      const where = isHere ? "on this machine" : `downloaded when first used, or put into ${this.folder}`;
      return [element("span", { class: `a-chip ${isHere ? "good" : ""}`, title: `${PARTS[part]}: ${where}` }, `${part}${isHere ? " ✓" : ""}`), " "];
    });
  }

  timingText(timing) {
    if (!timing) return "Not measured here yet";
    return `Training ${seconds(timing.train_s)} s, predicting ${seconds(timing.predict_s)} s an image at ${timing.image_size} px on ${timing.device}`;
  }

  choose(name) {
    this.onChoose(name);
    this.mark();
    this.showCard();
  }

  mark() {
    const chosen = this.values().model;
    for (const [name, { row, pick }] of this.rows) {
      pick.checked = name === chosen;
      row.classList.toggle("selected", name === chosen);
    }
    this.rows.get(chosen)?.row.scrollIntoView({ block: "nearest" });
  }

  async showCard() {
    const number = ++this.asked;
    this.cardHost.dataset.state = "loading";
    this.cardHost.replaceChildren(element("p", { class: "a-small a-muted" }, "Building the model to read its card…"));
    try {
      const card = await sendJSON("POST", projectURL("/models/card"), { config: this.values() });
      if (number !== this.asked) return;
      this.cardHost.replaceChildren(modelCard(card));
      this.cardHost.dataset.state = "ready";
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (number !== this.asked) return;
      this.cardHost.replaceChildren(element("p", { class: "a-error a-small" }, error.message), element("p", { class: "a-small a-muted" }, error.hint));
      this.cardHost.dataset.state = "problem";
    }
  }

  async measure(models) {
    if (this.job) return notify("A measurement is under way", "info");
    try {
      const { job } = await sendJSON("POST", projectURL("/models/measure"), { models, config: this.values() });
      this.job = job;
      this.all.textContent = "Stop measuring";
      this.stop = poll(() => this.follow(), POLL_MS, this.dialog);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      notify(error, "error");
    }
  }

  async follow() {
    const { job } = await getJSON(projectURL(`/jobs/${this.job.id}`));
    const { done = 0, total = 0, message = "" } = job.progress;
    this.status.textContent = job.state === "queued" ? "Waiting for its turn…" : total ? `${message} (${Math.min(done + 1, total)} of ${total})` : "Measuring…";
    if (done !== this.done) await this.load();
    this.done = done;
    if (isLive(job)) return;
    this.stop();
    this.job = null;
    this.all.textContent = "Measure all";
    this.status.textContent = job.error ? job.error.split("\n")[0] : "";
    await this.load();
  }

  async cancel() {
    try {
      await sendJSON("POST", projectURL(`/jobs/${this.job.id}/cancel`), {});
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      notify(error, "error");
    }
  }
}

function seconds(value) {
  return value >= 10 ? value.toFixed(0) : value >= 0.1 ? value.toFixed(2) : value.toPrecision(2);
}

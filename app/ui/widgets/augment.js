// <anchorage-augment>: the project's augmentation chain on the left, what training will see on the right.
//
// One preview request is in flight at a time and the newest wish wins. State for tests lies in data-* attributes:
// ready, busy, serial (previews shown so far), steps, lost, saved, image, helper, preview-ms, pace (images a second).

import { getJSON, getParam, notify, pageURL, projectSlug, projectURL, sendJSON, setParam } from "./api.js";
import { CurvePanel } from "./augment_curve.js";
import { StepList } from "./augment_steps.js";
import { TileGrid } from "./augment_tiles.js";
import { element } from "./element.js";
import { emptyState, noProject, wayTo } from "./empty_state.js";
import { colorOf } from "./palette.js";

const SAVE_MS = 400;
const DEFAULT_SEED = 42; // the seed of a run unless the user chooses another: the same dice as training's
const MAX_SEED = 2 ** 31 - 1;
const SIZES = [160, 224, 320, 416, 512, 640, 800, 1024];
const COUNTS = [3, 5, 7, 11];
const RESIZES = [["longest", "Longest"], ["stretch", "Stretched"], ["as_is", "As is"]]; // letterbox: only padding
const SLOW_MS = 600;
const WARMING_TEXT = "Warming up the preview… this takes some seconds after the app has started.";
const BOTTOM_PX = 16; // the padding of the page below it
const MIN_HEIGHT_PX = 420;
// Images worth looking at first: those trained on, with boxes.
const FILTERS = ["split=train&problem=false&min_boxes=1", "problem=false&min_boxes=1", "problem=false"];

class AnchorageAugment extends HTMLElement {
  connectedCallback() {
    if (this._listening) return;
    this._listening = new AbortController();
    this._start().catch((error) => this._showFailure(error));
  }

  disconnectedCallback() {
    this._save({ keepalive: true });
    this._listening?.abort();
    this._listening = null;
    this.tiles?.destroy();
    this.replaceChildren();
  }

  // ---- starting ---------------------------------------------------------------------------------------------------

  async _start() {
    if (!projectSlug()) {
      this.replaceChildren(noProject());
      this.dataset.ready = "1";
      return;
    }
    const [offer, { steps }, curve, { categories }] = await Promise.all([
      getJSON("/api/augment/catalogue"),
      getJSON(projectURL("/augmentation")),
      getJSON(projectURL("/augmentation/curve")),
      getJSON(projectURL("/categories")),
    ]);
    this.presets = offer.presets;
    this.dataset.helper = offer.helper;
    this.categories = new Map(categories.map((category) => [category.id, category]));
    this.seed = DEFAULT_SEED;
    this.serial = 0;
    this.filter = await this._findFilter();
    if (!this.filter) {
      this._showEmpty("This project has no images yet", "Import a dataset or a folder of images first.", "/data", "Import images");
      return;
    }
    this._build(offer.steps, curve);
    this.list.set(steps);
    this._noteSteps();
    this._listen();
    await this._openFirst();
    this.dataset.ready = "1";
  }

  async _findFilter() {
    for (const filter of FILTERS) {
      const { total } = await getJSON(projectURL(`/images?${filter}&limit=1`));
      if (total) return filter;
    }
    return null;
  }

  async _openFirst() {
    const wanted = Number(getParam("image") ?? NaN);
    if (Number.isInteger(wanted)) {
      try {
        return await this._open(`/images/${wanted}`);
      } catch (error) {
        if (error.status !== 404) throw error;
      }
    }
    return this._open("/images/at/1");
  }

  // ---- building ---------------------------------------------------------------------------------------------------

  _build(catalogue, curve) {
    this.list = new StepList(catalogue, { onChange: () => this._changed() });
    this.tiles = new TileGrid((label) => colorOf(this.categories.get(label)?.position ?? 0));
    this.curve = new CurvePanel(curve, { onChange: () => this._refresh() });
    this.status = element("span", { class: "a-muted a-small", role: "status" });
    this.message = element("div", { class: "message", role: "status" });
    this.legend = element("div", { class: "legend" });
    this.frame = element("div", { class: "augment" }, this._chainPanel(), this._previewPanel());
    this.replaceChildren(this.frame);
    this._fitHeight();
    this._showSaved(true);
  }

  _chainPanel() {
    const options = this.presets.map((preset) =>
      element("option", { value: preset.name, title: preset.help }, preset.title),
    );
    const custom = element("option", { value: "", hidden: true }, "Your own");
    this.presetBox = element("select", { class: "a-input", "aria-label": "Preset" }, custom, ...options);
    this.presetBox.addEventListener("change", () => {
      const preset = this.presets.find(({ name }) => name === this.presetBox.value);
      if (preset) this.list.set(preset.steps, { isEdit: true });
    });
    return element(
      "section",
      { class: "chain a-card", "aria-label": "Augmentation steps" },
      element("div", { class: "a-toolbar" }, element("h2", { class: "a-subtitle" }, "Steps"), this.status, spacer(), this.list.undoButton),
      element("label", { class: "preset" }, element("span", { class: "a-muted" }, "Preset"), this.presetBox),
      this.list.list,
      this.list.adder,
      this.curve.root,
    );
  }

  _previewPanel() {
    return element(
      "section",
      { class: "preview", "aria-label": "Preview" },
      this._imageBar(),
      element("div", { class: "stage" }, this.tiles.root, this.message),
      this.legend,
    );
  }

  _imageBar() {
    this.previousButton = iconButton("‹", "Previous image", () => this._step(-1));
    this.nextButton = iconButton("›", "Next image", () => this._step(1));
    this.positionBox = element("input", { class: "a-input position", type: "number", min: 1, "aria-label": "Image number" });
    this.positionBox.addEventListener("change", () => this._go(Number(this.positionBox.value)));
    this.total = element("span", { class: "a-muted" });
    const any = element("button", { class: "a-button small", type: "button", onclick: () => this._goAnywhere() }, "Any image");
    this.countBox = choice("Variants", COUNTS, 5, () => this._refresh());
    this.sizeBox = choice("Size", SIZES, 320, () => this._refresh(), " px");
    this.resizeBox = choice("", RESIZES, "longest", () => this._refresh());
    this.resizeBox.select.setAttribute("aria-label", "Resizing");
    this.resizeBox.select.title = "How the image is brought to that size; the option resize of a run";
    this.seedBox = element("input", { class: "a-input seed", type: "number", min: 0, max: MAX_SEED, value: this.seed });
    this.seedBox.addEventListener("change", () => this._setSeed(Number(this.seedBox.value)));
    const reseed = element(
      "button",
      {
        class: "a-button small reseed",
        type: "button",
        "aria-label": "Reseed",
        title: `Reseed: throw the dice anew. Training uses the seed of its run, ${DEFAULT_SEED} unless you change it.`,
        onclick: () => this._setSeed(Math.floor(Math.random() * MAX_SEED)),
      },
      "↻",
    );
    const seed = element("label", { class: "choice a-muted" }, "Seed", this.seedBox);
    const picker = element("div", { class: "picker" }, this.previousButton, this.positionBox, this.total, this.nextButton, any);
    return element("div", { class: "a-toolbar" }, picker, spacer(), this.countBox.label, this.sizeBox.label, this.resizeBox.label, seed, reseed);
  }

  _listen() {
    const { signal } = this._listening;
    window.addEventListener("resize", () => this._fitHeight(), { signal });
    window.addEventListener("pagehide", () => this._save({ keepalive: true }), { signal });
  }

  /** The widget takes what the window leaves below it, so that steps and preview scroll by themselves. */
  _fitHeight() {
    const top = this.frame.getBoundingClientRect().top + window.scrollY;
    this.frame.style.height = `${Math.max(MIN_HEIGHT_PX, window.innerHeight - top - BOTTOM_PX)}px`;
  }

  // ---- which image ------------------------------------------------------------------------------------------------

  async _open(path) {
    const opened = await getJSON(projectURL(`${path}?${this.filter}`));
    this.opened = opened;
    this.dataset.image = opened.image.id;
    setParam("image", opened.image.id);
    this.positionBox.value = opened.position;
    this.positionBox.max = opened.total;
    this.total.textContent = `of ${opened.total}`;
    this.tiles.name = opened.image.file_name;
    this.previousButton.disabled = opened.previous === null;
    this.nextButton.disabled = opened.next === null;
    this._refresh();
  }

  async _tryOpen(path) {
    try {
      await this._open(path);
    } catch (error) {
      this.positionBox.value = this.opened.position;
      notify(error, "error");
    }
  }

  _step(direction) {
    const id = direction < 0 ? this.opened.previous : this.opened.next;
    if (id !== null) this._tryOpen(`/images/${id}`);
  }

  _go(position) {
    const { total } = this.opened;
    this._tryOpen(`/images/at/${Math.max(1, Math.min(total, Math.round(position) || 1))}`);
  }

  _goAnywhere() {
    const { position, total } = this.opened;
    const jump = 1 + Math.floor(Math.random() * Math.max(1, total - 1)); // never the one that is shown
    this._go(((position - 1 + jump) % total) + 1);
  }

  // ---- the chain --------------------------------------------------------------------------------------------------

  _changed() {
    this._noteSteps();
    this._showSaved(false);
    clearTimeout(this._saveTimer);
    this._saveTimer = setTimeout(() => this._save(), SAVE_MS);
    this._refresh();
  }

  _noteSteps() {
    this.dataset.steps = this.list.steps.length;
    this.curve.setShown(this.list.hasStrong());
    const current = JSON.stringify(this.list.steps);
    const same = this.presets.find(({ steps }) => JSON.stringify(this._completed(steps)) === current);
    this.presetBox.value = same?.name ?? "";
  }

  _completed(steps) {
    return steps.map((step) => this.list.complete(step));
  }

  async _save(options = {}) {
    clearTimeout(this._saveTimer);
    if (this.dataset.saved !== "0" || (this._isSaving && !options.keepalive)) return;
    const sent = JSON.stringify(this.list.steps);
    this._isSaving = true;
    try {
      await sendJSON("PUT", projectURL("/augmentation"), { steps: JSON.parse(sent) }, options);
      if (sent === JSON.stringify(this.list.steps)) this._showSaved(true);
    } catch (error) {
      this.status.textContent = "Not saved";
      notify(error, "error");
      return;
    } finally {
      this._isSaving = false;
    }
    if (this.dataset.saved === "0" && this.isConnected) this._save();
  }

  _showSaved(isSaved) {
    this.dataset.saved = isSaved ? "1" : "0";
    this.status.textContent = isSaved ? "Saved with the project" : "Saving…";
  }

  // ---- the preview ------------------------------------------------------------------------------------------------

  _setSeed(seed) {
    this.seed = Math.max(0, Math.min(MAX_SEED, Math.round(seed) || 0));
    this.seedBox.value = this.seed;
    this._refresh();
  }

  /** Ask for a preview of what is set now; while one is under way, remember to ask again. */
  async _refresh() {
    this._isWanted = true;
    if (this._isBusy) return;
    this._isBusy = true;
    this.dataset.busy = "1";
    const reason = this.dataset.helper === "ready" ? "Computing the preview…" : WARMING_TEXT;
    const slow = setTimeout(() => this._say(reason), SLOW_MS);
    try {
      while (this._isWanted && this.isConnected) {
        this._isWanted = false;
        await this._previewOnce();
      }
    } finally {
      clearTimeout(slow);
      this._isBusy = false;
      this.dataset.busy = "0";
    }
  }

  async _previewOnce() {
    const body = {
      steps: this.list.steps,
      image_id: this.opened.image.id,
      seed: this.seed,
      count: Number(this.countBox.select.value),
      size: Number(this.sizeBox.select.value),
      resize: this.resizeBox.select.value,
      late_of: this.curve.lateOf(),
    };
    const began = performance.now();
    try {
      const made = await sendJSON("POST", projectURL("/augmentation/preview"), body);
      await this.tiles.show(made);
      this._say("");
      this._showLegend(made);
      this.dataset.helper = "ready";
      this.dataset.previewMs = Math.round(performance.now() - began);
      this.dataset.serial = this.serial += 1;
    } catch (error) {
      this._say([error.message, error.hint].filter(Boolean).join(" "), true);
    }
  }

  _say(text, isError = false) {
    this.message.textContent = text;
    this.message.classList.toggle("a-error", isError);
  }

  _showLegend({ original, variants, images_per_s: pace }) {
    const lost = variants.reduce((sum, variant) => sum + variant.lost, 0);
    const all = variants.length * (original.boxes.length + original.lost);
    this.dataset.lost = lost;
    const chips = [...new Set([original, ...variants].flatMap((item) => item.labels))]
      .map((id) => this.categories.get(id))
      .filter(Boolean)
      .sort((a, b) => a.position - b.position)
      .map((category) => {
        const swatch = element("span", { class: "a-swatch", style: `background:${colorOf(category.position)}` });
        return element("span", { class: "a-chip class", title: category.name }, swatch, element("span", {}, category.name));
      });
    const total = lost ? `${lost} of ${all} boxes lost in these variants` : `No box lost in these variants`;
    const small = original.lost ? ` · ${original.lost} too small at this size even without augmentation` : "";
    const note = element("span", { class: lost || original.lost ? "total a-chip warn" : "total a-muted a-small" }, total + small);
    const rounded = pace < 10 ? pace.toFixed(1) : Number(pace.toPrecision(2)).toLocaleString("en");
    const why = "How many images like this one a core of this machine augments in a second, measured just now";
    const speed = element("span", { class: "pace a-muted a-small", title: why }, `${rounded} images/s per core`);
    this.dataset.pace = pace.toFixed(1);
    this.legend.replaceChildren(...chips, spacer(), speed, note);
  }

  // ---- nothing to show --------------------------------------------------------------------------------------------

  _showEmpty(title, text, path, action) {
    this.replaceChildren(emptyState(title, text, wayTo(pageURL(path), action)));
    this.dataset.ready = "1";
  }

  _showFailure(error) {
    const again = element("button", { class: "a-button", type: "button", onclick: () => location.reload() }, "Try again");
    const text = [error.message, error.hint].filter(Boolean).join(" ");
    this.replaceChildren(emptyState("The page could not be loaded", text, again));
    this.dataset.ready = "failed";
  }
}

function spacer() {
  return element("span", { class: "spacer" });
}

function iconButton(sign, label, onclick) {
  return element("button", { class: "a-button small", type: "button", "aria-label": label, title: label, onclick }, sign);
}

/** A labelled select of values, or of [value, title] pairs. */
function choice(name, values, chosen, onchange, unit = "") {
  const pairs = values.map((value) => (Array.isArray(value) ? value : [value, `${value}${unit}`]));
  const options = pairs.map(([value, title]) => element("option", { value, selected: value === chosen }, title));
  const select = element("select", { class: "a-input", onchange }, ...options);
  return { select, label: element("label", { class: "choice a-muted" }, name, select) };
}

customElements.define("anchorage-augment", AnchorageAugment);

// <anchorage-gallery>: the Data page. Images with their boxes and filters, the figures, the import report.
// State on the element: data-ready, data-view, data-count (images known), data-total (images that pass the filters).

import { getJSON, getParam, notify, pageURL, poll, projectSlug, projectURL, sendJSON, setParam } from "./api.js";
import { DataFigures } from "./data_figures.js";
import { element } from "./element.js";
import { emptyState, wayTo } from "./empty_state.js";
import { ImageGrid } from "./image_grid.js";
import { openImport } from "./import_dialog.js";
import { showReports } from "./import_report.js";
import { isLive } from "./job_states.js";
import { enterPlace, onReturn } from "./places.js";
import { askRotation } from "./rotation_dialog.js";
import { drawBoxes, thumbnailURL } from "./thumbnail.js";
import { grayWindowButton } from "./window_dialog.js";

const VIEWS = [["images", "Images"], ["figures", "Classes and charts"], ["report", "Import report"]];
const FILTERS = ["split", "category", "problem", "name", "min_boxes", "max_boxes"];
const SPLITS = ["train", "valid", "test"];
const BOTTOM_PX = 16;
const MIN_HEIGHT_PX = 320;
const TYPING_MS = 250;
const JOB_MS = 1500;
const SOURCE_DELAY_MS = 40; // cards that only fly by while scrolling ask for no picture

class AnchorageGallery extends HTMLElement {
  async connectedCallback() {
    if (this.childElementCount || !projectSlug()) return;
    this.listening = new AbortController();
    this.positions = new Map();
    this.isShowingBoxes = true;
    this.build();
    try {
      await this.loadClasses();
    } catch (error) {
      return this.showEmpty(error.message, error.hint, "Go to the projects", pageURL("/"));
    }
    window.addEventListener("resize", () => this.fitHeight(), { signal: this.listening.signal });
    onReturn(() => this.followAddress(), this.listening.signal);
    // The figures of a large project take longer than its first page of images: neither waits for the other.
    await Promise.all([this.loadCounts().catch((error) => notify(error, "error")), this.showView(getParam("view") ?? "images")]);
    this.dataset.ready = "true";
    await this.offerGrayWindow().catch((error) => notify(error, "error"));
  }

  disconnectedCallback() {
    this.listening?.abort();
  }

  build() {
    this.summary = element("span", { class: "a-muted" });
    this.tabs = element("div", { class: "tabs", role: "tablist" });
    for (const [name, title] of VIEWS) {
      this.tabs.append(element("button", { class: "tab", type: "button", role: "tab", "data-view": name, onclick: () => this.openView(name) }, title));
    }
    this.imagesPanel = element("section", { class: "panel images" });
    this.figuresPanel = element("section", { class: "panel figures", hidden: true });
    this.reportPanel = element("section", { class: "panel reports", hidden: true });
    this.append(
      element(
        "header",
        { class: "head" },
        element("h1", { class: "a-title" }, "Data"), this.summary, this.tabs,
        element("button", { class: "a-button small import", type: "button", onclick: () => this.importMore() }, "Import …"),
      ),
      this.imagesPanel, this.figuresPanel, this.reportPanel,
    );
    this.figures = new DataFigures(this.figuresPanel, () => this.loadClasses());
    this.buildImages();
  }

  buildImages() {
    this.filterBar = element("div", { class: "a-toolbar filters" });
    this.scroller = element("div", { class: "scroller", tabindex: 0, "aria-label": "Images" });
    this.imagesPanel.append(this.filterBar, this.scroller);
    this.grid = new ImageGrid(this.scroller, {
      load: (after, limit, signal) => getJSON(projectURL(`/images?${this.query({ after, limit })}`), { signal }),
      makeCard: (image, size) => this.makeCard(image, size),
      onChange: () => this.showState(),
      onError: (error) => notify(error, "error"),
    });
  }

  async loadClasses() {
    ({ categories: this.categories } = await getJSON(projectURL("/categories")));
    this.positions = new Map(this.categories.map((category) => [category.id, category.position]));
    this.buildFilters();
  }

  async loadCounts() {
    this.stats = await getJSON(projectURL("/stats"));
    const listed = Object.values(this.stats.listed);
    const sum = (name) => listed.reduce((total, split) => total + split[name], 0);
    this.numImages = sum("images");
    const words = [[this.numImages, "image"], [sum("annotations"), "box", "boxes"], [this.categories.length, "class", "classes"]];
    this.filterBar.hidden = !this.numImages;
    this.summary.textContent = words.map(([count, one, many]) => `${count.toLocaleString("en")} ${count === 1 ? one : (many ?? `${one}s`)}`).join(" · ");
    this.buildFilters();
  }

  /** Only projects with gray pictures have something to choose. */
  async offerGrayWindow() {
    const button = await grayWindowButton();
    if (button) this.querySelector(".head .import").before(button);
  }

  async importMore() {
    try {
      const { projects, is_local: isLocal } = await getJSON("/api/projects");
      const project = projects.find((one) => one.slug === projectSlug());
      openImport({ project, isLocal, onChange: () => this.refresh() });
    } catch (error) {
      notify(error, "error");
    }
  }

  /** Everything again: after an import. */
  async refresh() {
    try {
      await this.loadClasses();
      await Promise.all([this.loadCounts(), this.showView(this.dataset.view)]);
    } catch (error) {
      notify(error, "error");
    }
  }

  /** A view is a place: Back returns from it. */
  openView(name) {
    if (name !== this.dataset.view) enterPlace("view", {});
    return this.showView(name);
  }

  /** Back or Forward: the view and the filters are those of the address. */
  followAddress() {
    this.filterBar.querySelector("input[type=search]").value = getParam("name") ?? "";
    this.buildFilters();
    return this.showView(getParam("view") ?? "images");
  }

  async showView(name) {
    const view = VIEWS.some(([known]) => known === name) ? name : "images";
    this.dataset.view = view;
    setParam("view", view === "images" ? null : view);
    for (const tab of this.tabs.children) tab.setAttribute("aria-selected", String(tab.dataset.view === view));
    this.imagesPanel.hidden = view !== "images";
    this.figuresPanel.hidden = view !== "figures";
    this.reportPanel.hidden = view !== "report";
    this.fitHeight();
    try {
      if (view === "figures") await this.figures.show();
      else if (view === "report") await showReports(this.reportPanel);
      else await this.reload();
    } catch (error) {
      notify(error, "error");
    }
  }

  fitHeight() {
    for (const panel of [this.imagesPanel, this.figuresPanel, this.reportPanel]) {
      if (panel.hidden) continue;
      const top = panel.getBoundingClientRect().top + window.scrollY;
      panel.style.height = `${Math.max(window.innerHeight - top - BOTTOM_PX, MIN_HEIGHT_PX)}px`;
    }
  }

  // Filters: they live in the address, so that a page can be linked and the editor walks the same images.

  query(more = {}) {
    const query = new URLSearchParams(more);
    for (const name of FILTERS) if (getParam(name)) query.set(name, getParam(name));
    return query;
  }

  chosen() {
    return Object.fromEntries(FILTERS.filter((name) => getParam(name)).map((name) => [name, getParam(name)]));
  }

  setFilter(name, value) {
    setParam(name, value);
    this.buildFilters();
    this.reload();
  }

  async reload() {
    this.scroller.querySelector(".a-empty")?.remove();
    await this.grid.reload();
  }

  buildFilters() {
    const listed = this.stats?.listed ?? {};
    const split = getParam("split") ?? "";
    const splitButtons = ["", ...SPLITS].map((name) =>
      element(
        "button",
        { class: "a-button small", type: "button", "aria-pressed": String(split === name), "data-split": name || "all", disabled: Boolean(name) && !listed[name], onclick: () => this.setFilter("split", name) },
        name || "All", element("span", { class: "a-muted a-small" }, (name ? (listed[name]?.images ?? 0) : (this.numImages ?? 0)).toLocaleString("en")),
      ),
    );
    const numProblems = this.stats?.num_quarantined ?? 0;
    const isProblem = getParam("problem") === "true";
    const problems = element(
      "button",
      { class: "a-button small problems", type: "button", "aria-pressed": String(isProblem), title: "Images that wait for a decision and are not trained on", hidden: !numProblems && !isProblem, onclick: () => this.setFilter("problem", isProblem ? null : "true") },
      "Set aside", element("span", { class: "a-chip warn" }, numProblems.toLocaleString("en")),
    );
    const boxes = element("label", { class: "check a-small" }, element("input", { type: "checkbox", checked: this.isShowingBoxes, onchange: (event) => this.toggleBoxes(event.target.checked) }), "Show boxes");
    const isFiltered = FILTERS.some((name) => getParam(name));
    const reset = element("button", { class: "a-button small quiet", type: "button", hidden: !isFiltered, onclick: () => this.resetFilters() }, "Clear filters");
    this.shown = element("span", { class: "a-muted a-small" });
    const keep = this.filterBar.querySelector("input[type=search]");
    this.filterBar.replaceChildren(
      element("div", { class: "segmented" }, ...splitButtons), this.classChoice(), this.countFields(), keep ?? this.nameField(), problems, reset,
      element("span", { class: "spacer" }), this.shown, boxes, this.sizeField(),
    );
    this.showState();
  }

  classChoice() {
    const choice = element("select", { class: "a-input", "aria-label": "Class", onchange: () => this.setFilter("category", choice.value) });
    choice.append(new Option("All classes", ""));
    for (const category of this.categories ?? []) choice.append(new Option(category.name, category.id));
    choice.value = getParam("category") ?? "";
    return choice;
  }

  countFields() {
    const field = (name, label) =>
      element("input", { class: "a-input count", type: "number", min: 0, placeholder: label, "aria-label": `${label} boxes`, "data-filter": name, value: getParam(name), onchange: (event) => this.setFilter(name, event.target.value) });
    return element("span", { class: "counts a-small a-muted" }, field("min_boxes", "min"), "–", field("max_boxes", "max"), "boxes");
  }

  nameField() {
    const field = element("input", { class: "a-input", type: "search", placeholder: "File name", "aria-label": "File name contains", value: getParam("name") });
    let timer = null;
    field.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.setFilter("name", field.value.trim()), TYPING_MS);
    });
    return field;
  }

  sizeField() {
    return element("input", {
      class: "a-input size", type: "range", min: 130, max: 420, value: this.grid.minWidth, "aria-label": "Size of thumbnails", title: "Size of thumbnails",
      oninput: (event) => {
        this.grid.minWidth = Number(event.target.value);
        this.grid.redraw();
      },
    });
  }

  toggleBoxes(isShowing) {
    this.isShowingBoxes = isShowing;
    this.grid.redraw();
  }

  resetFilters() {
    for (const name of FILTERS) setParam(name, null);
    this.filterBar.querySelector("input[type=search]").value = "";
    this.buildFilters();
    this.reload();
  }

  // What is shown.

  makeCard(image, size) {
    const canvas = element("canvas");
    const picture = element("img", { alt: "", draggable: "false" });
    picture.decoding = "async";
    picture.addEventListener("error", () => thumb.classList.add("broken"));
    const href = pageURL("/annotate", { image: image.id, ...this.chosen() });
    const thumb = element("a", { class: "thumb", href, style: `height: ${size.height}px`, title: image.file_name }, picture, canvas);
    const card = element(
      "article",
      { class: `thumb-card ${image.problem ? "problem" : ""}`, "data-image": image.id, "data-boxes": image.num_annotations },
      thumb,
      element("div", { class: "file-name" }, image.file_name),
      element("div", { class: "meta a-small" }, this.splitChoice(image), element("span", { class: "a-muted" }, countText(image)), image.problem ? this.decideButton(image) : null),
    );
    setTimeout(() => {
      if (!card.isConnected) return;
      picture.src = thumbnailURL(image, size.width);
      // The boxes of an image that waits for a rotation lie in another frame than its picture.
      if (!this.isShowingBoxes || image.problem) return;
      const category = getParam("category") ? Number(getParam("category")) : null;
      drawBoxes(canvas, image.boxes, image.width, image.height, this.positions, category);
    }, SOURCE_DELAY_MS);
    return card;
  }

  splitChoice(image) {
    const choice = element("select", { class: "split", "aria-label": `Split of ${image.file_name}` }, ...SPLITS.map((name) => new Option(name, name, false, name === image.split)));
    choice.addEventListener("change", async () => {
      try {
        const answer = await sendJSON("PATCH", projectURL(`/images/${image.id}`), { split: choice.value });
        this.grid.update({ ...image, ...answer.image });
        await this.loadCounts();
      } catch (error) {
        choice.value = image.split;
        notify(error, "error");
      }
    });
    return choice;
  }

  decideButton(image) {
    const decide = async () => {
      const changed = await askRotation(image, this.positions);
      if (!changed) return;
      this.grid.update(changed);
      await this.loadCounts();
      notify(`${image.file_name} takes part in training again.`, "done");
    };
    return element("button", { class: "a-chip warn decide", type: "button", title: image.problem, onclick: decide }, "Choose rotation");
  }

  showState() {
    if (!this.grid) return;
    const { total, images } = this.grid;
    this.dataset.total = String(total);
    this.dataset.count = String(images.length);
    if (this.shown) this.shown.textContent = FILTERS.some((name) => getParam(name)) ? `${total.toLocaleString("en")} shown` : "";
    this.scroller.querySelector(".a-empty")?.remove();
    if (this.grid.isLoading || images.length || !this.stats) return;
    if (this.numImages) {
      this.scroller.append(emptyState("No image passes these filters", "Try fewer of them.", element("button", { class: "a-button", type: "button", onclick: () => this.resetFilters() }, "Clear filters")));
    } else {
      this.showNoImages();
    }
  }

  showNoImages() {
    const text = element("p", {}, "Import a COCO export (a zip or a folder), or a folder of bare images to label here.");
    const bar = element("progress", { hidden: true, max: 1 });
    const action = element("button", { class: "a-button primary", type: "button", onclick: () => this.importMore() }, "Import a dataset");
    const state = emptyState("This project has no images yet", text, bar, action);
    this.scroller.append(state);
    poll(() => this.followImport(text, bar), JOB_MS, state);
  }

  /** While an import runs, tell how far it is; when it is done, show what came. */
  async followImport(text, bar) {
    const { jobs } = await getJSON(projectURL("/jobs"));
    const job = jobs.filter((one) => one.kind === "import").sort((a, b) => b.id - a.id)[0];
    if (!job) return;
    bar.hidden = !isLive(job);
    if (isLive(job)) {
      const { done = 0, total = 0 } = job.progress ?? {};
      text.textContent = total ? `Importing: ${done.toLocaleString("en")} of ${total.toLocaleString("en")} images` : "Importing …";
      if (total) bar.value = done / total;
    } else if (job.state === "done" && job.id !== this.shownImport) {
      this.shownImport = job.id;
      await this.refresh();
    } else if (job.error) {
      text.textContent = `The import did not succeed: ${job.error}`;
      text.className = "a-error";
    }
  }

  showEmpty(title, hint, action, href) {
    this.replaceChildren(emptyState(title, hint, wayTo(href, action)));
    this.dataset.ready = "empty";
  }
}

function countText(image) {
  if (image.num_annotations) return `${image.num_annotations.toLocaleString("en")} ${image.num_annotations === 1 ? "box" : "boxes"}`;
  return image.is_empty_on_purpose ? "empty on purpose" : "no boxes";
}

customElements.define("anchorage-gallery", AnchorageGallery);

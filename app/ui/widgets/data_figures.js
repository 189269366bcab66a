// The figures of a dataset: classes to count, rename and add; charts of sizes, shapes, crowds and balance.

import { getJSON, notify, pageURL, projectURL, sendJSON } from "./api.js";
import { countHistogram, histogram, percent, shares } from "./data_charts.js";
import { element } from "./element.js";
import { colorOf } from "./palette.js";

const IMAGE_SIZES = [224, 256, 320, 416, 512, 640, 800, 1024];
const SIZE_KEY = "anchorage-figures-size";
const SPLITS = ["train", "valid", "test"];
const FRACTIONS = new Map([
  [1 / 8, "1:8"], [1 / 4, "1:4"], [1 / 3, "1:3"], [1 / 2, "1:2"], [2 / 3, "2:3"], [4 / 5, "4:5"],
  [5 / 4, "5:4"], [3 / 2, "3:2"], [2, "2:1"], [3, "3:1"], [4, "4:1"], [8, "8:1"],
]);

export class DataFigures {
  /** `root` is filled; `onClasses(categories)` is called after a class was renamed or added. */
  constructor(root, onClasses) {
    this.root = root;
    this.onClasses = onClasses;
    this.imageSize = Number(localStorage.getItem(SIZE_KEY)) || 320;
  }

  async show() {
    const [stats, { categories }] = await Promise.all([
      getJSON(projectURL(`/stats?image_size=${this.imageSize}`)),
      getJSON(projectURL("/categories")),
    ]);
    this.root.replaceChildren(this.classTable(categories, stats), this.charts(categories, stats));
    this.root.dataset.classes = String(categories.length);
  }

  classTable(categories, stats) {
    const ofClass = new Map(stats.classes.map((row) => [row.category_id, row]));
    const largest = Math.max(1, ...stats.classes.map((row) => row.num_boxes));
    const splits = SPLITS.filter((split) => stats.splits[split]);
    const head = ["Class", "Boxes", "Images", ...splits].map((title, index) =>
      element("th", { class: index ? "a-number" : "" }, title),
    );
    const rows = categories.map((category) => {
      const counts = ofClass.get(category.id) ?? { num_boxes: 0, num_images: 0, per_split: {} };
      const color = colorOf(category.position);
      const bar = element("div", { class: "count-bar", style: `width: ${(100 * counts.num_boxes) / largest}%; background: ${color}` });
      return element(
        "tr",
        { "data-category": category.id },
        element("td", {}, element("div", { class: "name" }, element("span", { class: "a-swatch", style: `background: ${color}` }), element("div", {}, this.nameField(category), bar))),
        number(counts.num_boxes),
        number(counts.num_images),
        ...splits.map((split) => number(counts.per_split[split] ?? 0)),
      );
    });
    return element(
      "section",
      { class: "a-card classes" },
      element("h2", { class: "a-subtitle" }, "Classes"),
      element(
        "div",
        { class: "table-scroll" },
        element("table", { class: "a-table" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)),
      ),
      this.addForm(),
    );
  }

  nameField(category) {
    const field = element("input", { class: "a-input name-field", value: category.name, title: category.name, "aria-label": `Name of class ${category.name}`, maxlength: 200 });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") field.blur();
      if (event.key === "Escape") {
        field.value = category.name;
        field.blur();
      }
    });
    field.addEventListener("change", async () => {
      if (field.value.trim() === category.name) return;
      try {
        await sendJSON("PATCH", projectURL(`/categories/${category.id}`), { name: field.value });
        await this.refresh();
      } catch (error) {
        field.value = category.name;
        notify(error, "error");
      }
    });
    return field;
  }

  addForm() {
    const field = element("input", { class: "a-input", placeholder: "New class", "aria-label": "Name of a new class", maxlength: 200 });
    const form = element("form", { class: "a-toolbar add-class" }, field, element("button", { class: "a-button small", type: "submit" }, "Add class"));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (!field.value.trim()) return field.focus();
      try {
        await sendJSON("POST", projectURL("/categories"), { name: field.value });
        await this.refresh();
        this.root.querySelector(".add-class input").focus();
      } catch (error) {
        notify(error, "error");
      }
    });
    return form;
  }

  async refresh() {
    await this.show();
    this.onClasses();
  }

  charts(categories, stats) {
    if (!stats.num_boxes) {
      const annotate = element("a", { class: "a-button primary", href: pageURL("/annotate") }, "Annotate");
      return element("section", { class: "a-empty" }, element("h3", {}, "No boxes yet"), element("p", {}, "The charts show how large, how many and how balanced the labeled objects are."), ...(stats.num_images ? [annotate] : []));
    }
    const { box_size: size, objects_per_image: objects, aspect_ratio: aspect } = stats;
    const sizes = `${percent(size.small, stats.num_boxes)} small (below 32 px), ${percent(size.large, stats.num_boxes)} large (from 96 px)`;
    const tiny = size.below_2_px ? `; ${size.below_2_px.toLocaleString("en")} thinner than 2 px` : "";
    return element(
      "section",
      { class: "charts" },
      chartCard(
        "Box size after resizing", `${sizes}${tiny}`,
        histogram({ edges: size.edges, counts: size.counts, labelOf: (edge) => String(Math.round(edge)), unit: "px" }),
        this.sizeChoice(),
      ),
      chartCard(
        "Aspect ratio of boxes", `median ${aspect.median.toFixed(2)}; width : height`,
        histogram({ edges: aspect.edges, counts: aspect.counts, labelOf: (edge) => FRACTIONS.get(edge) ?? "0" }),
      ),
      chartCard(
        "Objects per image", `${objects.mean.toFixed(1)} on average, ${objects.max} at most; ${stats.num_empty.toLocaleString("en")} without any`,
        countHistogram(objects),
      ),
      chartCard("Class balance", balanceText(categories, stats), balance(categories, stats)),
    );
  }

  sizeChoice() {
    const sizes = [...new Set([...IMAGE_SIZES, this.imageSize])].sort((a, b) => a - b);
    const choice = element("select", { class: "a-input", "aria-label": "Longer side of images after resizing" });
    for (const size of sizes) choice.append(new Option(`${size} px`, size, false, size === this.imageSize));
    choice.addEventListener("change", () => {
      this.imageSize = Number(choice.value);
      localStorage.setItem(SIZE_KEY, choice.value);
      this.show().catch((error) => notify(error, "error"));
    });
    return choice;
  }
}

function number(value) {
  return element("td", { class: "a-number" }, value.toLocaleString("en"));
}

function chartCard(title, note, chart, control = null) {
  return element(
    "div",
    { class: "a-card chart-card" },
    element("div", { class: "chart-head" }, element("h2", { class: "a-subtitle" }, title), control),
    element("p", { class: "a-muted a-small" }, note),
    chart,
  );
}

function balanceText(categories, stats) {
  const counts = stats.classes.map((row) => row.num_boxes);
  const absent = categories.length - counts.length;
  if (!counts.length) return "no boxes yet";
  const ratio = Math.max(...counts) / Math.min(...counts);
  const rarest = counts.length > 1 ? `most to least frequent ${ratio.toFixed(ratio < 10 ? 1 : 0)} : 1` : "one class";
  return absent ? `${rarest}; ${absent} without boxes` : rarest;
}

function balance(categories, stats) {
  const ofClass = new Map(stats.classes.map((row) => [row.category_id, row.per_split]));
  return shares(
    SPLITS.map((split) => ({
      label: split,
      parts: categories.map((category) => ({
        name: category.name, value: ofClass.get(category.id)?.[split] ?? 0, color: colorOf(category.position),
      })),
    })),
  );
}

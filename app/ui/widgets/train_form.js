// The form of a new run, made from what GET /config tells: nothing about an option is written here.

import { AnchorPanel } from "./anchor_panel.js";
import { ApiError, notify, pageURL, projectSlug, projectURL, sendJSON } from "./api.js";
import { LineChart } from "./chart.js";
import { element } from "./element.js";

const CHECK_AFTER_MS = 250;

/** "roi_batch_size" -> "RoI batch size". */
function titleOf(name) {
  const words = name.replaceAll("_", " ").replace(/\b(roi|rpn|nms)\b/g, (word) => ({ roi: "RoI" })[word] ?? word.toUpperCase());
  return words[0].toUpperCase() + words.slice(1);
}

function isSame(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

export class RunForm {
  /** @param {Object} description the answer of GET /config  @param {(run: Object) => void} onStart */
  constructor(description, onStart) {
    this.description = description;
    this.onStart = onStart;
    this.rows = new Map();
    this.base = { ...description.suggested };
    this.values = { ...this.base };
    this.root = this.build();
    this.restore();
    this.refresh();
  }

  build() {
    this.help = element("div", { class: "train-help a-small a-muted" });
    this.name = element("input", { class: "a-input", maxlength: 100, placeholder: "Name", "aria-label": "Name of the run" });
    this.general = element("div", { class: "a-error a-small", role: "alert" });
    this.summary = element("div", { class: "a-small a-muted", "data-summary": "" });
    this.start = element("button", { type: "submit", class: "a-button primary", "data-action": "start" }, "Start training");
    const form = element("form", { class: "a-card train-form", novalidate: true, onsubmit: (event) => this.submit(event) });
    form.append(
      element("div", { class: "train-form-head" }, element("h2", { class: "a-subtitle" }, "New run"), this.presetPicker()),
      element("div", { class: "train-form-body" }, ...this.description.groups.map((group) => this.section(group))),
      element("div", { class: "train-form-foot" }, this.help, this.general, element("div", { class: "train-start" }, this.name, this.start), this.summary),
    );
    this.showHelp(null);
    return form;
  }

  presetPicker() {
    this.preset = element("select", { class: "a-input", "aria-label": "Preset", onchange: () => this.applyPreset() });
    for (const preset of this.description.presets) this.preset.append(element("option", { value: preset.name }, preset.title));
    this.preset.addEventListener("mouseenter", () => this.showHelp(this.chosenPreset()?.help));
    return this.preset;
  }

  chosenPreset() {
    return this.description.presets.find((preset) => preset.name === this.preset.value);
  }

  applyPreset() {
    const preset = this.chosenPreset();
    this.base = { ...this.description.suggested, ...(preset?.values ?? {}) };
    this.values = { ...this.base };
    this.showHelp(preset?.help);
    this.refresh();
  }

  section(group) {
    const section = element("section", {}, element("h3", {}, group.title));
    const more = element("details", {}, element("summary", {}, "More"));
    for (const field of group.fields) (field.is_basic ? section : more).append(this.row(field));
    if (more.childElementCount > 1) {
      const isAll = more.childElementCount === group.fields.length + 1;
      more.firstChild.textContent = isAll ? `All ${group.fields.length} options` : "More";
      section.append(more);
    }
    if (group.fields.some((field) => field.name === "anchors")) section.append(this.anchorPanel());
    if (group.fields.some((field) => field.name === "learning_rate")) section.append(this.schedulePlot());
    return section;
  }

  anchorPanel() {
    this.anchors = new AnchorPanel((kind) => this.set("anchors", kind));
    return this.anchors.root;
  }

  schedulePlot() {
    const host = element("div", { class: "train-schedule", title: "The learning rate over the run" });
    this.schedule = new LineChart(host, { hasLegend: false });
    return host;
  }

  row(field) {
    const control = this.control(field);
    const reset = element("button", { type: "button", class: "train-reset", title: "Back to the starting value", "aria-label": `Reset ${titleOf(field.name)}` }, "↺");
    reset.addEventListener("click", () => this.set(field.name, this.base[field.name]));
    const problem = element("div", { class: "a-error a-small", role: "alert" });
    const label = element("label", { for: `option-${field.name}` }, titleOf(field.name));
    const row = element("div", { class: "train-row", "data-option": field.name }, label, reset, control, problem);
    for (const event of ["mouseenter", "focusin"]) row.addEventListener(event, () => this.showHelp(this.helpOf(field)));
    this.rows.set(field.name, { row, control, problem, field });
    return row;
  }

  control(field) {
    const id = `option-${field.name}`;
    const onchange = () => this.set(field.name, this.read(field, control));
    let control;
    if (field.type === "array") return element("a", { id, class: "train-chain", href: pageURL("/augment") });
    if (field.enum) {
      control = element("select", { id, class: "a-input", onchange });
      for (const value of field.enum) control.append(element("option", { value }, this.nameOf(field, value)));
    } else if (field.type === "boolean") {
      control = element("input", { id, type: "checkbox", onchange });
    } else {
      const isNumber = field.type !== "string";
      control = element("input", { id, class: "a-input", inputmode: isNumber ? "decimal" : "text", spellcheck: "false", autocomplete: "off" });
      control.addEventListener("input", () => this.set(field.name, this.read(field, control), control));
    }
    return control;
  }

  nameOf(field, value) {
    const model = field.name === "model" && this.description.models.find((one) => one.name === value);
    return model ? `${model.title} (${model.num_parameters_m} M)` : value;
  }

  helpOf(field) {
    const low = field.minimum ?? field.exclusiveMinimum;
    const high = field.maximum ?? field.exclusiveMaximum;
    const range = low !== undefined && high !== undefined ? ` From ${low} to ${high}.` : "";
    return `${field.description}${range}`;
  }

  showHelp(text) {
    this.help.textContent = text ?? "Chosen for this dataset and machine. Point at an option to read about it.";
  }

  /** What stands in a control: a number when it is one, else the text as it is, for the server to refuse. */
  read(field, control) {
    if (field.type === "boolean") return control.checked;
    if (field.type === "string" || field.enum) return control.value;
    const number = Number(control.value.trim().replace(",", "."));
    return control.value.trim() && Number.isFinite(number) ? number : control.value;
  }

  set(name, value, typedInto = null) {
    this.values[name] = value;
    this.refresh(typedInto);
  }

  refresh(typedInto = null) {
    for (const { row, control, field } of this.rows.values()) {
      const value = this.values[field.name];
      row.classList.toggle("changed", !isSame(value, this.base[field.name]));
      if (control === typedInto) continue;
      if (field.type === "boolean") control.checked = value;
      else if (field.type === "array") control.textContent = this.chainText(value);
      else control.value = String(value ?? "");
    }
    this.rows.get("weights_file")?.row.toggleAttribute("hidden", this.values.pretrained !== "file");
    this.anchors?.update(this.values);
    this.remember();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.check(), CHECK_AFTER_MS);
  }

  chainText(steps) {
    const names = steps.filter((step) => step.is_enabled !== false).map((step) => step.name);
    return names.length ? `${names.slice(0, 2).join(", ")}${names.length > 2 ? ` and ${names.length - 2} more` : ""} ›` : "None ›";
  }

  async check() {
    try {
      const answer = await sendJSON("POST", projectURL("/config/check"), { config: this.values });
      this.showProblems(answer.problems);
      if (!answer.schedule) return;
      this.summary.textContent = `${answer.num_steps.toLocaleString()} steps · ${answer.num_images.toLocaleString()} images`;
      const [x, y] = [answer.schedule.map((point) => point[0]), answer.schedule.map((point) => point[1])];
      const color = getComputedStyle(this.root).getPropertyValue("--a-accent").trim();
      this.schedule.setLines([{ key: "schedule", label: "learning rate", color, x, y }]);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.general.textContent = error.message;
    }
  }

  showProblems(problems) {
    this.general.textContent = problems[""] ?? "";
    for (const [name, { row, control, problem }] of this.rows) {
      problem.textContent = problems[name] ?? "";
      control.setAttribute("aria-invalid", String(name in problems));
      if (name in problems) row.closest("details")?.setAttribute("open", "");
    }
    this.root.dataset.problems = String(Object.keys(problems).length);
  }

  async submit(event) {
    event.preventDefault();
    if (this.start.disabled) return;
    this.start.disabled = true;
    try {
      const { run } = await sendJSON("POST", projectURL("/runs"), { config: this.values, name: this.name.value.trim() });
      this.name.value = "";
      notify(`${run.name} is queued`, "done");
      this.onStart(run);
    } catch (error) {
      if (error.body?.fields) this.showProblems(error.body.fields);
      else this.general.textContent = [error.message, error.hint].filter(Boolean).join(" ");
    } finally {
      this.start.disabled = false;
    }
  }

  /** What was changed outlives a visit to another page (the chain itself is kept by the Augment page). */
  remember() {
    const changed = Object.entries(this.values).filter(([name, value]) => name !== "augmentation" && !isSame(value, this.base[name]));
    sessionStorage.setItem(this.storageKey(), JSON.stringify({ preset: this.preset.value, changed: Object.fromEntries(changed) }));
  }

  restore() {
    const kept = JSON.parse(sessionStorage.getItem(this.storageKey()) ?? "null");
    if (!kept) return;
    if (this.description.presets.some((preset) => preset.name === kept.preset)) this.preset.value = kept.preset;
    this.applyPreset();
    for (const [name, value] of Object.entries(kept.changed)) if (this.rows.has(name)) this.values[name] = value;
  }

  storageKey() {
    return `anchorage-train-${projectSlug()}`;
  }
}

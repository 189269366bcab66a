// The form of a new run, made from what GET /config tells: nothing about an option is written here.

import { AnchorPanel } from "./anchor_panel.js";
import { ApiError, notify, projectSlug, projectURL, sendJSON } from "./api.js";
import { LineChart } from "./chart.js";
import { element } from "./element.js";
import { roughDuration } from "./number_words.js";
import { titleOf, valueText } from "./option_words.js";
import { makeControl } from "./train_controls.js";
import { Preflight } from "./train_preflight.js";

const CHECK_AFTER_MS = 250;

/** How long it takes and how fast that is, from what was measured here. */
function paceText(pace) {
  if (!pace) return "";
  const speedup = pace.speedup ? `, ${pace.speedup.toFixed(1)} × plain torchvision` : "";
  return `, about ${roughDuration(pace.seconds)} at ${pace.images_per_s.toPrecision(2)} images/s${speedup}`;
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
    this.sections = []; // {fields, label, title} of what can be folded
    this.problems = {};
    this.fitting = {}; // option name -> what is suggested for the chosen model alone
    this.suggestedForAll = description.suggested;
    this.base = { ...description.suggested };
    this.values = { ...this.base };
    this.preflight = new Preflight({
      values: () => this.values,
      apply: (fix) => this.lay(fix),
      titleOf,
      textOf: (name, value) => valueText(name, value, this.description.models),
      onRefused: (fields) => this.showProblems(fields),
    });
    this.root = this.build();
    this.restore();
    this.refresh();
  }

  build() {
    this.help = element("div", { class: "train-help a-small a-muted" });
    this.name = element("input", { class: "a-input", maxlength: 100, placeholder: "Name", "aria-label": "Name of the run", oninput: () => this.remember() });
    this.general = element("div", { class: "a-error a-small", role: "alert" });
    this.summary = element("div", { class: "a-small a-muted", "data-summary": "" });
    this.start = element("button", { type: "submit", class: "a-button primary", "data-action": "start" }, "Start training");
    const form = element("form", { class: "a-card train-form", novalidate: true, onsubmit: (event) => this.submit(event) });
    form.append(
      element("div", { class: "train-form-head" }, element("h2", { class: "a-subtitle" }, "New run"), this.presetPicker(), this.presetNotes()),
      element("div", { class: "train-form-body" }, ...this.description.groups.map((group) => this.section(group))),
      element("div", { class: "train-form-foot" }, this.help, this.general, element("div", { class: "train-start" }, this.name, this.start), element("div", { class: "train-start" }, this.summary, this.preflight.button)),
    );
    this.showHelp(null);
    return form;
  }

  presetPicker() {
    this.preset = element("select", { class: "a-input", "aria-label": "Preset", onchange: () => this.applyPreset() });
    const groups = new Map();
    for (const preset of this.description.presets) {
      if (!groups.has(preset.source)) groups.set(preset.source, element("optgroup", { label: preset.source }));
      groups.get(preset.source).append(element("option", { value: preset.name, title: preset.help }, preset.title));
    }
    this.preset.append(...groups.values());
    this.preset.addEventListener("mouseenter", () => this.showHelp(this.chosenPreset()?.help));
    return this.preset;
  }

  /** Below the preset: what it needs that is not here, and what differs from the suggested values. */
  presetNotes() {
    this.needs = element("div", { class: "train-needs a-small" });
    this.differencesTitle = element("summary", {});
    this.differencesList = element("div", { class: "train-differences-list" });
    this.differences = element("details", { class: "train-differences a-small" }, this.differencesTitle, this.differencesList);
    return element("div", { class: "train-preset-notes" }, this.needs, this.differences);
  }

  writePresetNotes() {
    const preset = this.chosenPreset();
    const isNeeded = preset?.needs && ["model", "pretrained"].every((name) => this.values[name] === preset.values[name]);
    this.needs.hidden = !isNeeded;
    const scratch = element("button", { type: "button", class: "train-link", "data-action": "from-scratch", onclick: () => this.set("pretrained", "none") }, "Start from scratch");
    this.needs.replaceChildren(...(isNeeded ? [preset.needs, " ", scratch] : []));
    const different = [...this.rows.values()].map((row) => row.field).filter((field) => this.isDifferent(field.name));
    const count = different.length;
    this.differences.hidden = count === 0;
    this.differencesTitle.textContent = `${count} option${count === 1 ? " differs" : "s differ"} from the suggested`;
    this.differencesList.replaceChildren(...different.map((field) => this.difference(field)));
    this.root.dataset.differences = String(count);
  }

  difference({ name }) {
    const [before, now] = [this.description.suggested[name], this.values[name]].map((value) => valueText(name, value, this.description.models));
    const text = element("span", { class: "train-difference-values" }, element("s", {}, before), " ", now);
    return element("button", { type: "button", class: "train-difference", title: `${before} → ${now}`, onclick: () => this.reveal(name) }, element("span", {}, titleOf(name)), text);
  }

  isDifferent(name) {
    return !isSame(this.values[name], this.description.suggested[name]);
  }

  /** Open what hides an option, and go there. */
  reveal(name) {
    const { row, control } = this.rows.get(name);
    row.closest("details")?.setAttribute("open", "");
    row.scrollIntoView({ block: "center" });
    control.node.focus({ preventScroll: true });
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

  /** What a newcomer meets stands open; the rest of a group, or a group without such options, is folded. */
  section(group) {
    const fields = group.fields.filter((field) => !field.readOnly);
    const isBasic = fields.some((field) => field.is_basic);
    const section = element("section", { "data-group": group.title });
    const summary = element("summary", {});
    const more = element("details", { class: isBasic ? "" : "train-group" }, summary);
    if (isBasic) section.append(element("h3", {}, group.title));
    for (const field of fields) (field.is_basic ? section : more).append(this.row(field));
    const panel = this.panelOf(group);
    if (isBasic && panel) section.append(panel);
    else if (panel) more.append(panel);
    if (more.childElementCount > 1) section.append(more);
    this.sections.push({ fields: fields.filter((field) => !field.is_basic), label: summary, title: isBasic ? "More" : group.title });
    return section;
  }

  /** A group's own picture, below its options: anchor recall, the schedule. */
  panelOf(group) {
    const has = (name) => group.fields.some((field) => field.name === name);
    if (has("anchors")) return this.anchorPanel();
    return has("learning_rate") ? this.schedulePlot() : null;
  }

  writeSections() {
    for (const { fields, label, title } of this.sections) {
      const count = fields.filter((field) => this.isDifferent(field.name)).length;
      label.replaceChildren(title, ...(count ? [element("span", { class: "train-count" }, ` · ${count} changed`)] : []));
    }
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
    const control = makeControl(field, `option-${field.name}`, {
      description: this.description,
      values: () => this.values,
      onChange: (value, node) => this.set(field.name, value, node),
    });
    const reset = element("button", { type: "button", class: "train-reset", title: "Back to the starting value", "aria-label": `Reset ${titleOf(field.name)}` }, "↺");
    reset.addEventListener("click", () => this.set(field.name, this.base[field.name]));
    const problem = element("div", { class: "a-error a-small", role: "alert" });
    const warning = element("div", { class: "a-warning a-small", role: "status" });
    const label = element("label", { for: `option-${field.name}` }, titleOf(field.name));
    const row = element("div", { class: `train-row${control.isWide ? " wide" : ""}`, "data-option": field.name }, label, reset, control.node, problem, warning);
    for (const event of ["mouseenter", "focusin"]) row.addEventListener(event, () => this.showHelp(this.helpOf(field)));
    this.rows.set(field.name, { row, control, problem, warning, field });
    return row;
  }

  helpOf(field) {
    const limits = field.limits ? ` ${field.limits[0].toUpperCase()}${field.limits.slice(1)}.` : "";
    return `${field.description}${limits}${field.use ? ` ${field.use}` : ""}`;
  }

  showHelp(text) {
    this.help.textContent = text ?? "Chosen for this dataset and machine. Point at an option to read about it.";
    this.help.title = this.help.textContent;
  }

  /** Lay several values over the form at once, and show the first. */
  lay(values) {
    Object.assign(this.values, values);
    this.refresh();
    const [name] = Object.keys(values);
    if (this.rows.has(name)) this.reveal(name);
  }

  set(name, value, typedInto = null) {
    this.values[name] = value;
    const epochs = name === "phases" ? value.reduce((sum, phase) => sum + phase.epochs, 0) : 0;
    if (Number.isInteger(epochs) && epochs > 0) this.values.epochs = epochs; // those of the phases add up to them
    this.refresh(typedInto);
  }

  /** Whether an option has an effect beside the others. */
  isUsed(field) {
    return Object.entries(field.used_when).every(([name, wanted]) => {
      const value = this.values[name];
      const isSet = Array.isArray(value) ? value.length > 0 : Boolean(value);
      return Array.isArray(wanted) ? wanted.includes(value) : isSet === (wanted === "set");
    });
  }

  refresh(typedInto = null) {
    for (const { row, control, field } of this.rows.values()) {
      const value = this.values[field.name];
      row.classList.toggle("changed", !isSame(value, this.base[field.name]));
      if (control.node !== typedInto) control.show(value);
    }
    this.writeUse();
    this.writeSections();
    this.writePresetNotes();
    this.anchors?.update(this.values);
    this.preflight.show();
    this.remember();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.check(), CHECK_AFTER_MS);
  }

  /** Options without effect are hidden, the numbers everybody meets only grayed; one with a problem is always seen. */
  writeUse() {
    for (const { row, control, field } of this.rows.values()) {
      const isIdle = !this.isUsed(field) && !(field.name in this.problems);
      const isGrayed = isIdle && field.is_basic && field.type !== "string";
      row.toggleAttribute("hidden", isIdle && !isGrayed);
      row.classList.toggle("idle", isGrayed);
      if (field.is_basic) control.node.disabled = isGrayed;
    }
  }

  async check() {
    try {
      const answer = await sendJSON("POST", projectURL("/config/check"), { config: this.values });
      this.showProblems(answer.problems, answer.warnings);
      this.takeFitting(answer.fitting);
      if (!answer.schedule) return;
      this.root.dataset.steps = String(answer.num_steps);
      this.summary.textContent = `${answer.num_steps.toLocaleString()} steps · ${answer.num_images.toLocaleString()} images${paceText(answer.pace)}`;
      this.summary.title = answer.pace ? `Measured at ${answer.pace.image_size} px on ${answer.pace.device}` : "How long it takes is told once this model was measured here: by a check, or by Measure beside the model";
      const [x, y] = [answer.schedule.map((point) => point[0]), answer.schedule.map((point) => point[1])];
      const color = getComputedStyle(this.root).getPropertyValue("--a-accent").trim();
      this.schedule.setLines([{ key: "schedule", label: "learning rate", color, x, y }]);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.general.textContent = error.message;
    }
  }

  /** Problems keep the run from starting, warnings do not; both stand at their option, what has none in the foot. */
  showProblems(problems, warnings = {}) {
    this.problems = problems;
    this.general.textContent = Object.entries(problems).filter(([name]) => !this.rows.has(name)).map(([name, reason]) => (name ? `${titleOf(name)}: ${reason}` : reason)).join(" ");
    for (const [name, { row, control, problem, warning }] of this.rows) {
      problem.textContent = problems[name] ?? "";
      warning.textContent = warnings[name] ?? "";
      control.node.setAttribute("aria-invalid", String(name in problems));
      if (name in problems || name in warnings) row.closest("details")?.setAttribute("open", "");
    }
    this.writeUse();
    this.root.dataset.problems = String(Object.keys(problems).length);
    this.root.dataset.warnings = String(Object.keys(warnings).length);
  }

  /** Values suggested for the chosen model: they replace what was neither changed by hand nor set by the preset. */
  takeFitting(fitting) {
    this.fitting = fitting;
    const suggested = { ...this.suggestedForAll, ...fitting };
    const moved = Object.keys(suggested).filter((name) => !isSame(suggested[name], this.description.suggested[name]));
    if (!moved.length) return;
    this.description.suggested = suggested;
    for (const name of moved) {
      if (name in (this.chosenPreset()?.values ?? {})) continue;
      if (isSame(this.values[name], this.base[name])) this.values[name] = suggested[name];
      this.base[name] = suggested[name];
    }
    this.refresh();
  }

  async submit(event) {
    event.preventDefault();
    if (this.start.disabled) return;
    this.start.disabled = true;
    try {
      const { run } = await sendJSON("POST", projectURL("/runs"), { config: this.values, name: this.name.value.trim() });
      this.name.value = "";
      this.remember();
      notify(`${run.name} is queued`, "done");
      this.onStart(run);
    } catch (error) {
      if (error.body?.fields) this.showProblems(error.body.fields);
      else this.general.textContent = [error.message, error.hint].filter(Boolean).join(" ");
    } finally {
      this.start.disabled = false;
    }
  }

  /** What was typed and changed outlives a visit to another page (the chain itself is kept by the Augment page). */
  remember() {
    const changed = Object.entries(this.values).filter(([name, value]) => name !== "augmentation" && !isSame(value, this.base[name]));
    sessionStorage.setItem(this.storageKey(), JSON.stringify({ name: this.name.value, preset: this.preset.value, fitting: this.fitting, changed: Object.fromEntries(changed) }));
  }

  restore() {
    const kept = JSON.parse(sessionStorage.getItem(this.storageKey()) ?? "null");
    if (!kept) return;
    this.name.value = kept.name ?? "";
    if (this.description.presets.some((preset) => preset.name === kept.preset)) this.preset.value = kept.preset;
    this.applyPreset();
    this.takeFitting(kept.fitting ?? {});
    for (const [name, value] of Object.entries(kept.changed)) if (this.rows.has(name)) this.values[name] = value;
  }

  storageKey() {
    return `anchorage-train-${projectSlug()}`;
  }
}

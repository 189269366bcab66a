// <anchorage-projects>: the first page. Projects as cards, and the ways to begin one.

import { getJSON, notify, poll, sendJSON } from "./api.js";
import { element } from "./element.js";
import { openImport } from "./import_dialog.js";

const REFRESH_MS = 5000;
const PREVIEW_PX = 128;

const ICONS = {
  import:
    '<svg viewBox="0 0 24 24" width="28" height="28" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" ' +
    'stroke-linejoin="round" aria-hidden="true"><path d="M4 15v3.5A1.5 1.5 0 0 0 5.5 20h13a1.5 1.5 0 0 0 1.5-1.5V15M12 4v11M8 11l4 4 4-4"/></svg>',
  demo:
    '<svg viewBox="0 0 24 24" width="28" height="28" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" ' +
    'stroke-linejoin="round" aria-hidden="true"><circle cx="12" cy="12" r="9"/><path d="M10 8.5v7l5.5-3.5z"/></svg>',
};

class AnchorageProjects extends HTMLElement {
  connectedCallback() {
    if (this.isBuilt) return;
    this.isBuilt = true;
    this.classList.add("a-projects");
    this.place = element("span", { class: "a-muted a-small place" });
    this.actions = element(
      "div",
      { class: "a-toolbar" },
      button("New empty project", () => this.create()),
      button("Import a dataset", () => this.import(null), { primary: true, "data-action": "import" }),
    );
    this.list = element("div", { class: "list" });
    const title = element("div", { class: "title" }, element("h1", { class: "a-title" }, "Projects"), this.place);
    this.append(element("header", {}, title, this.actions), this.list);
    poll(() => this.load(), REFRESH_MS, this);
  }

  async load() {
    try {
      const answer = await getJSON("/api/projects");
      this.isLocal = answer.is_local;
      this.place.textContent = `kept in ${answer.workspace}`;
      this.show(answer.projects);
    } catch (error) {
      if (!this.dataset.ready) notify(error, "error");
    }
    this.dataset.ready = "true";
  }

  show(projects) {
    const text = JSON.stringify(projects);
    if (text === this.shown || this.querySelector("details[open]")) return;
    this.shown = text;
    this.dataset.count = String(projects.length);
    this.actions.hidden = !projects.length;
    if (!projects.length) this.list.replaceChildren(this.welcome());
    else this.list.replaceChildren(element("div", { class: "cards" }, ...projects.map((project) => this.card(project))), this.more(projects));
  }

  /** What a newcomer sees: two things to click, and where they lead. */
  welcome() {
    const steps = ["Import", "Check labels", "Augment", "Train", "Review", "Ensemble", "Export"];
    return element(
      "div",
      { class: "welcome" },
      element("h2", {}, "Label, train and judge object detectors"),
      element("p", { class: "a-muted" }, "All on this machine: nothing is sent anywhere. Begin with one of these."),
      element("div", { class: "choices" }, this.choice("import"), this.choice("demo")),
      element("p", { class: "a-muted" }, "Or ", link("start an empty project", () => this.create()), " and bring pictures later."),
      element("ol", { class: "steps", "aria-label": "The way through" }, ...steps.map((step) => element("li", {}, step))),
    );
  }

  choice(kind) {
    const texts = {
      import: ["Import a Roboflow COCO export", "A zip or a folder with train, valid and test. A folder of bare pictures works too.", () => this.import(null)],
      demo: ["Try the demo", "A few hundred small pictures and a short training that you can watch right away.", () => this.demo()],
    };
    const [title, text, act] = texts[kind];
    const icon = element("span", { class: "icon" });
    icon.innerHTML = ICONS[kind];
    return element(
      "button",
      { type: "button", class: `a-card choice ${kind}`, "data-action": kind, onclick: act },
      icon,
      element("strong", {}, title),
      element("span", { class: "a-muted" }, text),
    );
  }

  /** Below the cards: the demo, while there is none. */
  more(projects) {
    if (projects.some((project) => project.slug.startsWith("demo"))) return "";
    return element("p", { class: "a-muted more" }, "New here? ", link("Try the demo", () => this.demo()), ": a short training that you can watch right away.");
  }

  card(project) {
    const open = () => this.open(project);
    const body = project.problem ? this.problem(project) : this.summary(project, open);
    return element("article", { class: "a-card project", "data-slug": project.slug }, ...body);
  }

  summary(project, open) {
    const isEmpty = project.num_images === 0;
    const counts = [
      [project.num_images, "image", "images"], [project.num_annotations, "box", "boxes"],
      [project.num_categories, "class", "classes"], [project.num_runs, "run", "runs"],
    ];
    return [
      element("button", { type: "button", class: "strip", onclick: open, "aria-label": `Open ${project.name}`, tabindex: "-1" }, ...this.strip(project)),
      element("div", { class: "head" }, element("h2", { title: project.name }, link(project.name, open)), this.menu(project)),
      element("p", { class: "counts" }, ...counts.map(([number, one, many]) => element("span", {}, element("b", {}, number.toLocaleString("en")), ` ${number === 1 ? one : many}`))),
      element(
        "div",
        { class: "foot" },
        element("span", { class: "a-muted a-small" }, `${size(project.size_bytes)} · opened ${ago(project.opened_at)}`),
        isEmpty ? button("Import", () => this.import(project), { class: "small primary" }) : button("Open", open, { class: "small primary" }),
      ),
    ];
  }

  strip(project) {
    if (!project.previews.length) return [element("span", { class: "a-muted none" }, "No pictures yet")];
    return project.previews.map((image) => {
      const version = `${image.sha256.slice(0, 16)}-${image.rotation}`;
      const source = `/thumb/${encodeURIComponent(project.slug)}/${image.id}?size=${PREVIEW_PX}&v=${version}`;
      return element("img", { src: source, alt: "", loading: "lazy", width: 96, height: 76 });
    });
  }

  problem(project) {
    return [
      element("div", { class: "head" }, element("h2", {}, project.name), this.menu(project)),
      element("p", { class: "a-error" }, "This project cannot be opened."),
      element("p", { class: "a-small problem" }, project.problem),
      element(
        "div",
        { class: "foot" },
        element("span", { class: "a-muted a-small" }, size(project.size_bytes)),
        project.has_backup ? button("Restore the newest backup", () => this.restore(project), { class: "small" }) : "",
      ),
    ];
  }

  menu(project) {
    const items = project.problem
      ? [["Delete …", () => this.remove(project), "danger"]]
      : [
          ["Import into it …", () => this.import(project)], ["Rename …", () => this.rename(project)],
          ["Duplicate", () => this.duplicate(project)], ["Delete …", () => this.remove(project), "danger"],
        ];
    const details = element("details", { class: "menu" }, element("summary", { "aria-label": `More for ${project.name}`, title: "More" }, "⋯"));
    const pick = (act) => () => {
      details.open = false;
      act();
    };
    const list = items.map(([text, act, tone = ""]) => element("button", { type: "button", class: tone, onclick: pick(act) }, text));
    details.append(element("div", { class: "a-card" }, ...list));
    details.addEventListener("focusout", (event) => {
      if (!details.contains(event.relatedTarget)) details.open = false;
    });
    details.addEventListener("keydown", (event) => {
      if (event.key === "Escape") details.open = false;
    });
    return details;
  }

  open(project) {
    location.href = `/data?project=${encodeURIComponent(project.slug)}`;
  }

  import(project) {
    openImport({ project, isLocal: this.isLocal, onChange: () => this.changed() });
  }

  async create() {
    const name = await askText("New project", "Name", "", "Create");
    if (name) await this.attempt(async () => this.open((await sendJSON("POST", "/api/projects", { name })).project));
  }

  async rename(project) {
    const name = await askText("Rename project", "Name", project.name, "Rename");
    if (name) await this.attempt(() => sendJSON("PATCH", this.url(project), { name }));
  }

  async duplicate(project) {
    await this.attempt(async () => {
      const answer = await sendJSON("POST", `${this.url(project)}/duplicate`, {});
      notify(`Made “${answer.project.name}”.`, "done");
    });
  }

  async remove(project) {
    const text = `“${project.name}” with its images, labels and runs moves to the folder .trash of the workspace. Nothing is erased.`;
    if (await askConfirm("Delete this project?", text, "Delete")) {
      await this.attempt(() => sendJSON("DELETE", this.url(project)));
    }
  }

  async restore(project) {
    const text = "The damaged database is kept beside it. What was changed after the backup is lost.";
    if (await askConfirm("Restore the newest backup?", text, "Restore")) {
      await this.attempt(() => sendJSON("POST", `${this.url(project)}/restore`));
    }
  }

  async demo() {
    const buttons = this.querySelectorAll("[data-action=demo]");
    for (const one of buttons) one.disabled = true;
    notify("Making the demo: this takes a few seconds.");
    await this.attempt(async () => {
      location.href = (await sendJSON("POST", "/api/demo")).page;
    });
    for (const one of buttons) one.disabled = false;
  }

  url(project) {
    return `/api/projects/${encodeURIComponent(project.slug)}`;
  }

  /** Do something, tell its error, and show what is there now. */
  async attempt(act) {
    try {
      await act();
    } catch (error) {
      notify(error, "error");
    }
    await this.changed();
  }

  async changed() {
    window.dispatchEvent(new CustomEvent("anchorage:projects"));
    await this.load();
  }
}

function button(text, onclick, { primary = false, class: names = "", ...attributes } = {}) {
  return element("button", { type: "button", class: `a-button ${primary ? "primary" : ""} ${names}`, onclick, ...attributes }, text);
}

function link(text, onclick) {
  return element("button", { type: "button", class: "link", onclick }, text);
}

/** Ask for one line; resolves with the text, or null. */
function askText(title, label, value, action) {
  const input = element("input", { class: "a-input", type: "text", maxlength: 100, required: true, value });
  const limit = element("span", { class: "a-small" });
  input.addEventListener("input", () => (limit.textContent = input.value.length > 60 ? `${input.value.length} of at most ${input.maxLength} characters` : ""));
  return ask(title, element("label", { class: "a-field" }, label, input, limit), action, "primary", () => input.value.trim());
}

/** Ask yes or no; resolves with true, or null. */
function askConfirm(title, text, action) {
  return ask(title, element("p", {}, text), action, action === "Delete" ? "danger" : "primary", () => true);
}

function ask(title, content, action, tone, read) {
  return new Promise((resolve) => {
    let answer = null;
    const form = element(
      "form",
      { method: "dialog", onsubmit: () => (answer = read() || null) },
      element("h3", { class: "a-subtitle" }, title),
      content,
      element("div", { class: "actions" }, button("Cancel", () => dialog.close()), element("button", { class: `a-button ${tone}` }, action)),
    );
    const dialog = element("dialog", { class: "a-dialog", "aria-label": title }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("input")?.select();
  });
}

/** Bytes for people. */
export function size(bytes) {
  const units = ["bytes", "KB", "MB", "GB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

function ago(seconds) {
  const passed = Date.now() / 1000 - seconds;
  if (passed < 90) return "just now";
  const format = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (passed >= length) return format.format(-Math.floor(passed / length), unit);
  }
  return "just now";
}

customElements.define("anchorage-projects", AnchorageProjects);

// The import dialog: where the dataset is, what would come in, then progress until it is there.

import { ApiError, getJSON, notify, poll, sendJSON } from "./api.js";
import { element } from "./element.js";
import { summarize } from "./import_report.js";
import { endingText } from "./job_states.js";

const POLL_MS = 500;

/**
 * Ask for a dataset and import it into `project`, or into a new one when that is null.
 * `isLocal`: paths on the machine of the app may be given. `onChange` is called when projects changed.
 */
export function openImport({ project, isLocal, onChange }) {
  new ImportDialog(project, isLocal, onChange).open();
}

class ImportDialog {
  constructor(project, isLocal, onChange) {
    this.project = project;
    this.isLocal = isLocal;
    this.onChange = onChange;
    this.source = isLocal ? "path" : "upload";
    this.mapping = {};
    this.merge = false;
    this.uploadId = "";
  }

  open() {
    const title = this.project ? `Import into “${this.project.name}”` : "Import a dataset";
    this.content = element("div");
    this.dialog = element("dialog", { class: "a-dialog import-dialog", "aria-label": title }, element("h3", { class: "a-subtitle" }, title), this.content);
    this.dialog.addEventListener("close", () => this.leave());
    this.dialog.addEventListener("cancel", (event) => {
      if (this.job || this.request) event.preventDefault();
    });
    document.body.append(this.dialog);
    this.askSource();
    this.dialog.showModal();
    this.content.querySelector("input[type=text]")?.focus();
  }

  leave() {
    if (this.uploadId && !this.isStarted) sendJSON("DELETE", `/api/uploads/${this.uploadId}`).catch(() => null);
    this.dialog.remove();
    this.onChange();
  }

  show(step, ...children) {
    this.dialog.dataset.step = step;
    this.content.replaceChildren(...children);
  }

  askSource() {
    const path = element("input", { class: "a-input", type: "text", spellcheck: "false", placeholder: "/home/me/Downloads/export.zip", value: this.path ?? "", name: "path" });
    const file = element("input", { class: "a-input", type: "file", accept: ".zip,application/zip", name: "file" });
    const name = element("input", { class: "a-input", type: "text", maxlength: 100, placeholder: "Taken from the file's name", value: this.name ?? "", name: "name" });
    const pathField = element("label", { class: "a-field" }, "Zip file or folder", path, element("span", { class: "a-small" }, "A Roboflow COCO export, zipped or unpacked, or a folder of pictures. It is read where it lies."));
    const fileField = element("label", { class: "a-field" }, "Zip file", file, element("span", { class: "a-small" }, "Drop it on the field, or choose it: a Roboflow COCO export, or a zip of pictures."));
    const tab = (source, text) =>
      element("button", { type: "button", class: "a-button small", "data-source": source, onclick: () => choose(source) }, text);
    const tabs = element("div", { class: "tabs" }, tab("path", "On this machine"), tab("upload", "Upload a zip"));
    const choose = (source) => {
      this.source = source;
      pathField.hidden = source !== "path";
      fileField.hidden = source === "path";
      for (const one of tabs.children) one.setAttribute("aria-pressed", String(one.dataset.source === source));
    };
    this.problem = element("div", { class: "problem", role: "alert" });
    const submit = (event) => {
      event.preventDefault();
      this.path = path.value.trim();
      this.file = file.files[0] ?? null;
      this.name = name.value.trim();
      this.look();
    };
    this.next = element("button", { class: "a-button primary", "data-action": "look" }, "Continue");
    this.show(
      "source",
      element(
        "form",
        { onsubmit: submit },
        this.isLocal ? tabs : "",
        pathField,
        fileField,
        this.project ? "" : element("label", { class: "a-field" }, "Project name", name),
        this.problem,
        element("div", { class: "actions" }, this.cancelButton("Cancel"), this.next),
      ),
    );
    choose(this.source);
  }

  cancelButton(text) {
    return element("button", { type: "button", class: "a-button", onclick: () => this.dialog.close() }, text);
  }

  /** Upload if need be, then ask the app what the import would do. */
  async look() {
    if (this.source === "path" ? !this.path : !this.file && !this.uploadId) {
      return this.tell(new ApiError(400, this.source === "path" ? "Give the path of a zip or a folder." : "Choose a zip file."));
    }
    this.next.disabled = true;
    this.next.textContent = "Reading …";
    try {
      if (this.source === "upload" && this.file) await this.upload();
      this.showPlan((await sendJSON("POST", "/api/import-plan", { ...this.body(), project: this.project?.slug ?? "" })).plan);
    } catch (error) {
      if (this.dialog.dataset.step === "upload") this.askSource();
      this.next.disabled = false;
      this.next.textContent = "Continue";
      this.tell(error);
    }
  }

  body() {
    const source = this.source === "path" ? { path: this.path } : { upload_id: this.uploadId };
    return { ...source, mapping: this.mapping, merge: this.merge, allow_bare: true };
  }

  /** An error where it happened; classes of one name can be merged from here. */
  tell(error) {
    this.problem.replaceChildren(element("p", { class: "a-error" }, error.message), error.hint ? element("p", { class: "a-muted a-small" }, error.hint) : "");
    if (error.body?.code !== "same_name") return;
    const box = element("input", { type: "checkbox", name: "merge" });
    box.addEventListener("change", () => (this.merge = box.checked));
    this.problem.append(element("label", { class: "check" }, box, "They are one class: merge them"));
  }

  async upload() {
    if (this.uploadId) await sendJSON("DELETE", `/api/uploads/${this.uploadId}`).catch(() => null);
    this.uploadId = "";
    const bar = progressBar();
    this.show("upload", element("p", {}, `Uploading ${this.file.name}`), bar, element("div", { class: "actions" }, element("button", { type: "button", class: "a-button", onclick: () => this.request?.abort() }, "Cancel")));
    const answer = await this.send(this.file, (share) => bar.set(share));
    this.uploadId = answer.upload_id;
    this.uploadName = this.file.name;
    this.file = null;
  }

  /** fetch() does not tell how far an upload is; XMLHttpRequest does. */
  send(file, onShare) {
    return new Promise((resolve, reject) => {
      const request = (this.request = new XMLHttpRequest());
      request.open("POST", `/api/uploads?name=${encodeURIComponent(file.name)}`);
      request.responseType = "json";
      request.upload.addEventListener("progress", (event) => event.lengthComputable && onShare(event.loaded / event.total));
      request.addEventListener("load", () => {
        this.request = null;
        const answer = request.response;
        if (request.status < 300) resolve(answer);
        else reject(new ApiError(request.status, answer?.error ?? "The upload failed.", answer?.hint ?? "", answer));
      });
      for (const [event, text] of [["error", "The upload broke off."], ["abort", "The upload was stopped."]]) {
        request.addEventListener(event, () => {
          this.request = null;
          reject(new ApiError(0, text, "Try again."));
        });
      }
      request.send(file);
    });
  }

  showPlan(plan) {
    const splits = Object.entries(plan.splits).map(([name, count]) => `${name} ${count.toLocaleString("en")}`).join(", ");
    const lines = [`${count(plan.images, "image", "images")}, ${count(plan.annotations, "box", "boxes")}`, splits ? `Splits: ${splits}` : ""];
    if (!plan.splits.valid) lines.push("It has no validation split: one is made, copies of one source kept together.");
    if (!plan.classes.length) lines.push("There are no labels in it: the pictures come in bare, to be labeled here.");
    if (plan.missing) lines.push(`${count(plan.missing, "listed image is", "listed images are")} missing and will be left out.`);
    if (plan.project_images) lines.push(`They are added to the ${count(plan.project_images, "image", "images")} there; pictures that are there already are skipped.`);
    this.problem = element("div", { class: "problem", role: "alert" });
    this.next = element("button", { type: "button", class: "a-button primary", "data-action": "start", onclick: () => this.start(plan) }, "Import");
    this.show(
      "plan",
      element("p", { class: "source a-mono" }, this.uploadName && this.source === "upload" ? this.uploadName : plan.source),
      element("ul", { class: "facts" }, ...lines.filter(Boolean).map((line) => element("li", {}, line))),
      plan.classes.length ? this.classTable(plan) : "",
      this.problem,
      element(
        "div",
        { class: "actions" },
        element("button", { type: "button", class: "a-button", onclick: () => this.askSource() }, "Back"),
        this.next,
      ),
    );
  }

  /** Classes and where they go; into a project that has classes, the target can be changed. */
  classTable(plan) {
    const hasTargets = plan.project_classes.length > 0;
    const rows = plan.classes.map((one) =>
      element(
        "tr",
        {},
        element("td", { class: "name" }, one.name),
        element("td", { class: "a-number" }, one.boxes.toLocaleString("en")),
        hasTargets ? element("td", {}, this.targetPicker(one, plan.project_classes)) : "",
      ),
    );
    const heads = ["Class", "Boxes", ...(hasTargets ? ["becomes"] : [])];
    const head = heads.map((text, index) => element("th", { class: index === 1 ? "a-number" : "" }, text));
    return element("div", { class: "classes" }, element("div", {}, element("table", { class: "a-table" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows))));
  }

  targetPicker(one, existing) {
    const picker = element("select", { class: "a-input", "aria-label": `What ${one.name} becomes` });
    if (!existing.includes(one.name)) picker.append(element("option", { value: one.name }, `new class “${one.name}”`));
    for (const name of existing) picker.append(element("option", { value: name }, name));
    picker.value = one.target;
    picker.addEventListener("change", () => (this.mapping = { ...this.mapping, [one.name]: picker.value }));
    return picker;
  }

  async start(plan) {
    this.next.disabled = true;
    try {
      if (!this.project) {
        const name = this.name || nameFrom(this.source === "upload" ? this.uploadName : plan.source);
        this.project = (await sendJSON("POST", "/api/projects", { name })).project;
        this.isNewProject = true;
      }
      this.job = (await sendJSON("POST", this.url("/import"), this.body())).job;
      this.isStarted = true;
      this.showProgress(plan);
    } catch (error) {
      this.next.disabled = false;
      this.tell(error);
    }
  }

  url(path) {
    return `/api/projects/${encodeURIComponent(this.project.slug)}${path}`;
  }

  showProgress(plan) {
    const text = element("p", {}, "Starting …");
    const bar = progressBar();
    const cancel = element("button", { type: "button", class: "a-button", onclick: () => this.cancel(cancel) }, "Cancel");
    this.show("progress", text, bar, element("div", { class: "actions" }, cancel));
    const stop = poll(async () => {
      const { job } = await getJSON(this.url(`/jobs/${this.job.id}`));
      const { done = 0, total = plan.images } = job.progress;
      bar.set(total ? done / total : 0);
      if (job.state === "running") text.textContent = done ? `Checking pictures: ${done.toLocaleString("en")} of ${total.toLocaleString("en")}` : "Reading …";
      if (!job.is_finished) return;
      stop();
      await this.end(job);
    }, POLL_MS, this.dialog);
  }

  async cancel(button) {
    button.disabled = true;
    button.textContent = "Stopping …";
    await sendJSON("POST", this.url(`/jobs/${this.job.id}/cancel`)).catch((error) => notify(error, "error"));
  }

  async end(job) {
    this.job = null;
    if (job.state === "done") return this.showResult(job.result);
    if (this.isNewProject) {
      await sendJSON("DELETE", this.url("")).catch(() => null); // it was made for this import and holds nothing
      this.project = null;
      this.isNewProject = false;
    }
    this.isStarted = false;
    if (job.state === "cancelled") {
      notify("The import was stopped; nothing was imported.");
      return this.dialog.close();
    }
    this.askSource();
    this.tell(new ApiError(0, endingText(job, "The import")));
  }

  showResult(report) {
    const facts = [
      `${count(report.images, "image", "images")}, ${count(report.annotations, "box", "boxes")}, ${count(report.categories, "class", "classes")}`,
      ...summarize(report, "fixed"),
      report.quarantined ? `${count(report.quarantined, "image", "images")} set aside: choose their rotation` : "",
      ...summarize(report, "skipped"),
      report.leakage.sources ? `${count(report.leakage.sources, "source has", "sources have")} copies in more than one split` : "",
    ];
    const go = (query) => {
      location.href = `/data?project=${encodeURIComponent(this.project.slug)}${query}`;
    };
    this.show(
      "done",
      element("p", {}, "The import is done."),
      element("ul", { class: "facts" }, ...facts.filter(Boolean).map((fact) => element("li", {}, fact))),
      element("p", { class: "a-muted a-small" }, "The whole report is kept on the Data page."),
      element(
        "div",
        { class: "actions" },
        this.cancelButton("Close"),
        element("button", { type: "button", class: "a-button primary", "data-action": "open", onclick: () => go("") }, "Look at the images"),
      ),
    );
    this.onChange();
  }
}

function progressBar() {
  const fill = element("span", { style: "width: 0%" });
  const bar = element("div", { class: "a-progress", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, fill);
  bar.set = (share) => {
    const percent = Math.round(100 * Math.min(1, share));
    fill.style.width = `${percent}%`;
    bar.setAttribute("aria-valuenow", String(percent));
  };
  return bar;
}

function count(number, one, many) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

function nameFrom(source) {
  const name = source.split(/[\\/]/).filter(Boolean).at(-1) ?? "";
  return name.replace(/\.zip$/i, "").replace(/[_]+/g, " ").trim().slice(0, 100) || "Dataset";
}

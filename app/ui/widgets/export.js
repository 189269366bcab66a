// The Export page: make files of weights, predictions and labels, watch them being made, download and delete them.

import { dateText, getJSON, getParam, notify, pageURL, poll, projectSlug, projectURL, sendJSON, setParam } from "./api.js";
import { element } from "./element.js";
import { emptyState } from "./empty_state.js";
import { endingText, isLive } from "./job_states.js";
import { checkpointTitle, setTitle } from "./run_words.js";

const POLL_MS = 1000;

class AnchorageExport extends HTMLElement {
  connectedCallback() {
    if (this.isBuilt) return;
    this.isBuilt = true;
    this.classList.add("a-export");
    this.runs = [];
    this.watched = new Set();
    this.build();
    this.load();
    poll(() => this.refresh(), POLL_MS, this);
  }

  build() {
    this.choice = element("div", { class: "a-toolbar" });
    this.jobs = element("div", { class: "jobs", "aria-live": "polite" });
    this.files = element("div");
    this.append(
      element("h1", { class: "a-title" }, "Export"),
      element("p", { class: "a-muted" }, "Files are kept in the project's exports folder until you delete them."),
      element(
        "div",
        { class: "offers" },
        (this.weights = card("Weights", "A state dict with torchvision's own keys, classes.json and the five lines that load them.")),
        (this.results = card("Predictions", "COCO results JSON with all scores, under the ids of the exported labels.")),
        (this.labels = card("Labels", "A COCO zip in Roboflow's layout, images included. It imports again unchanged.")),
      ),
      this.jobs,
      element("h2", { class: "a-subtitle" }, "Files"),
      this.files,
    );
    this.labels.append(
      actions(button("Make labels zip", () => this.make({ what: "labels" }), "labels")),
    );
  }

  async load() {
    if (!projectSlug()) return;
    try {
      this.runs = (await getJSON(projectURL("/review"))).runs;
      this.showRuns();
    } catch (error) {
      notify(error, "error");
    }
    await this.refresh();
    this.dataset.ready = "true";
  }

  showRuns() {
    const weights = this.weights.body;
    const results = this.results.body;
    if (!this.runs.length) {
      const hint = () =>
        element("p", { class: "a-muted" }, "No weights yet. ", element("a", { href: pageURL("/train") }, "Train a model"), " first.");
      weights.replaceChildren(hint());
      results.replaceChildren(hint());
      return;
    }
    const wanted = Number(getParam("run"));
    const run = select("Run", this.runs.map((item) => [item.id, item.name]));
    if (this.runs.some((item) => item.id === wanted)) run.input.value = String(wanted);
    const checkpoint = select("Checkpoint", []);
    weights.replaceChildren(
      run,
      checkpoint,
      actions(
        button("Make .pth", () => this.makeWeights(checkpoint, "pth"), "pth", true),
        button("Make .safetensors", () => this.makeWeights(checkpoint, "safetensors"), "safetensors"),
      ),
    );
    const sets = select("Predictions of", []);
    const none = element("p", { class: "a-muted" }, "No stored predictions of this run yet: open it in Review.");
    const make = button("Make results JSON", () => this.make({ what: "results", set_id: Number(sets.input.value) }), "results");
    results.replaceChildren(sets, none, actions(make));
    const show = () => {
      const chosen = this.runs.find((item) => item.id === Number(run.input.value));
      setParam("run", chosen.id);
      fill(checkpoint, chosen.checkpoints.map((item) => [item.id, checkpointTitle(item)]));
      fill(sets, chosen.sets.map((item) => [item.id, `${setTitle(item, chosen)} on ${item.split}`]));
      sets.hidden = make.hidden = !chosen.sets.length;
      none.hidden = Boolean(chosen.sets.length);
    };
    run.input.addEventListener("change", show);
    show();
  }

  makeWeights(checkpoint, format) {
    return this.make({ what: "weights", checkpoint_id: Number(checkpoint.input.value), format });
  }

  async make(body) {
    try {
      const { job } = await sendJSON("POST", projectURL("/exports"), body);
      this.watched.add(job.id);
      await this.refresh();
    } catch (error) {
      notify(error, "error");
    }
  }

  async refresh() {
    if (!projectSlug()) return;
    const [{ exports }, { jobs }] = await Promise.all([getJSON(projectURL("/exports")), getJSON(projectURL("/jobs"))]);
    const active = jobs.filter((job) => job.kind === "export" && isLive(job));
    for (const job of jobs) {
      if (!this.watched.has(job.id) || active.includes(job)) continue;
      this.watched.delete(job.id);
      if (job.state === "done") notify(`Made ${job.result.files.join(", ")}.`, "done");
      else if (job.state !== "cancelled") notify(endingText(job, "The export"), "error");
    }
    this.dataset.active = String(active.length);
    this.jobs.replaceChildren(...active.map((job) => this.jobRow(job)));
    const shown = JSON.stringify(exports);
    if (shown === this.shown) return;
    this.shown = shown;
    this.dataset.count = String(exports.length);
    this.files.replaceChildren(exports.length ? this.table(exports) : emptyState("Nothing exported yet", "Make a file above; it appears here for download."));
  }

  jobRow(job) {
    const { done = 0, total = 0, message = "" } = job.progress;
    const share = total ? Math.round((100 * done) / total) : 0;
    const bar = element("div", { class: "a-progress" }, element("span", { style: `width: ${share}%` }));
    const stop = button("Stop", () => sendJSON("POST", projectURL(`/jobs/${job.id}/cancel`)).catch((e) => notify(e, "error")), "");
    return element("div", { class: "a-card job" }, element("span", {}, `Making ${job.payload.name} ${message}`), bar, stop);
  }

  table(exports) {
    const rows = exports.map((item) =>
      element(
        "tr",
        {},
        element("td", { class: "name" }, item.name),
        element("td", { class: "a-number" }, size(item.size_bytes)),
        element("td", {}, dateText(item.modified_at)),
        element(
          "td",
          { class: "a-number" },
          element("a", { class: "a-button small", href: this.fileURL(item.name), download: item.name }, "Download"),
          " ",
          button("Delete", () => this.remove(item.name), "", false, "small danger"),
        ),
      ),
    );
    const head = ["File", "Size", "Made", ""].map((text, i) => element("th", { class: i === 1 ? "a-number" : null }, text));
    return element("table", { class: "a-table" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  }

  fileURL(name) {
    return projectURL(`/exports/${encodeURIComponent(name)}`);
  }

  async remove(name) {
    if (!confirm(`Delete ${name}? It can be made again.`)) return;
    try {
      await sendJSON("DELETE", this.fileURL(name));
      await this.refresh();
    } catch (error) {
      notify(error, "error");
    }
  }
}

function card(title, text) {
  const node = element("section", { class: "a-card offer" }, element("h2", { class: "a-subtitle" }, title), element("p", { class: "a-muted" }, text));
  node.body = element("div", { class: "body" });
  node.append(node.body);
  return node;
}

function actions(...buttons) {
  return element("div", { class: "a-toolbar" }, ...buttons);
}

function button(text, onclick, action, isPrimary = false, extra = "") {
  return element("button", { type: "button", class: `a-button ${isPrimary ? "primary" : ""} ${extra}`, onclick, "data-action": action || null }, text);
}

function select(label, options) {
  const input = element("select", { class: "a-input" });
  const field = element("label", { class: "a-field" }, label, input);
  field.input = input;
  fill(field, options);
  return field;
}

function fill(field, options) {
  field.input.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
}

function size(bytes) {
  const units = ["B", "KB", "MB", "GB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toFixed(unit && value < 100 ? 1 : 0)} ${units[unit]}`;
}

customElements.define("anchorage-export", AnchorageExport);

// The ensemble lab on the Ensemble page: choose members and views, run it, read what it found, keep a row. The lab shown,
// or the one that runs, stands in the address (lab=).
//
// State for tests and styles lies in data-* attributes of the root: lab-state (ready, running), lab, outcome.

import { ApiError, dateText, getJSON, getParam, notify, projectURL, sendJSON, setParam } from "./api.js";
import { element } from "./element.js";
import { emptyState } from "./empty_state.js";
import { outcomeChip } from "./ensemble_comparison.js";
import { LabMembers } from "./ensemble_lab_members.js";
import { labResult } from "./ensemble_lab_result.js";
import { JobProgress } from "./job_progress.js";
import { endingText, isLive } from "./job_states.js";
import { enterPlace } from "./places.js";

const KIND = "ensemble_lab";
const MAX_LISTED = 12;

export class EnsembleLab {
  /** @param {Object[]} runs as GET /review gives them @param {number[]} checkpoints chosen at first @param {(job: Object) => void} onKept follows the job that makes an ensemble of a row */
  constructor(runs, checkpoints, onKept) {
    this.onKept = onKept;
    this.labs = [];
    this.go = element("button", { type: "button", class: "a-button", "data-action": "run-lab", onclick: () => this.run() }, "Run the lab");
    this.why = element("p", { class: "note", role: "status" });
    this.members = new LabMembers(runs, checkpoints, null);
    this.members.onChange = () => this.explain();
    this.outcome = element("div", { class: "outcome" });
    this.root = element(
      "section",
      { class: "a-card lab", "aria-label": "Ensemble lab", "data-lab-state": "ready" },
      element("h2", { class: "a-subtitle" }, "Lab"),
      element("p", { class: "note" }, "Finds the best way to fuse: tunes four methods on one half of the images, judges them on the other half, and tells what each member is good for. It works on stored predictions; what is missing is predicted first, once."),
      element("div", { class: "ensemble" }, element("div", { class: "choice" }, this.members.root, this.go, this.why), this.outcome),
    );
    this.explain();
  }

  /** Show the lab of the address, follow the one that runs, or show the newest. */
  async start() {
    const [{ jobs }] = await Promise.all([getJSON(projectURL("/jobs")), this.loadLabs()]);
    const wanted = Number(getParam("lab"));
    const live = jobs.filter((job) => job.kind === KIND && isLive(job));
    const job = live.find((item) => item.id === wanted) ?? (wanted ? null : live[0]);
    if (job) return this.follow(job);
    const known = this.labs.find((lab) => lab.id === wanted);
    if (wanted && !known) this.sayGone(jobs.find((item) => item.id === wanted), wanted);
    else if (known ?? this.labs[0]) await this.show((known ?? this.labs[0]).id);
    else this.showNone();
  }

  /** Back or Forward: the lab follows the address; one that runs stays in sight. */
  comeBack() {
    if (this.root.dataset.labState === "running" || Number(getParam("lab")) === this.asked) return;
    this.start().catch((error) => notify(error, "error"));
  }

  close() {
    this.progress?.end();
  }

  setRuns(runs) {
    this.members.setRuns(runs);
  }

  /** The run that is open on the page: its members come first. */
  openRun(id) {
    this.members.open(id);
  }

  async loadLabs() {
    this.labs = (await getJSON(projectURL("/ensemble-labs"))).labs;
  }

  // ---- before ---------------------------------------------------------------------------------------------------------

  explain() {
    const problem = this.members.problem();
    const [count, text] = this.members.missing();
    this.go.disabled = Boolean(problem) || this.root.dataset.labState === "running";
    this.why.className = "note";
    if (problem) this.why.textContent = problem;
    else if (count) this.why.textContent = `Not predicted yet: ${text}. The lab does that first, and keeps it.`;
    else this.why.textContent = "Everything is predicted already: a matter of seconds.";
  }

  async run() {
    this.go.disabled = true;
    try {
      const { job } = await sendJSON("POST", projectURL("/ensemble-labs"), this.members.body());
      this.follow(job);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.explain();
      this.why.className = "note a-error";
      this.why.textContent = [error.message, error.hint].filter(Boolean).join(" ");
    }
  }

  // ---- while it runs --------------------------------------------------------------------------------------------------

  follow(job) {
    setParam("lab", job.id);
    this.root.dataset.labState = "running";
    this.explain();
    this.progress?.end();
    this.progress = new JobProgress([job], { title: "Running the lab", onEnd: (ended) => this.ended(ended) });
    this.outcome.replaceChildren(this.progress.root);
  }

  async ended(job) {
    this.root.dataset.labState = "ready";
    const [{ runs }] = await Promise.all([getJSON(projectURL("/review")), this.loadLabs()]);
    this.setRuns(runs);
    if (job.state === "done") return this.show(job.id);
    if (this.labs.length) await this.show(this.labs[0].id, false);
    else this.showNone();
  }

  // ---- what it found --------------------------------------------------------------------------------------------------

  async show(id, isChosenToo = true) {
    setParam("lab", id);
    this.asked = id;
    try {
      const { lab } = await getJSON(projectURL(`/ensemble-labs/${id}`));
      if (this.asked !== id || this.root.dataset.labState === "running") return; // another was asked for meanwhile
      if (isChosenToo) this.members.choose(lab);
      this.outcome.replaceChildren(labResult(lab, { onUse: (row) => this.keep(id, row), onMeasure: () => this.measure(id) }), ...this.earlier(id));
      this.root.dataset.lab = id;
      this.root.dataset.outcome = lab.outcome ?? "";
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      notify(error, "error");
    }
  }

  /** An earlier lab is a place to come back from. */
  open(id) {
    enterPlace("lab", {});
    this.show(id);
  }

  async keep(id, row) {
    try {
      const { job } = await sendJSON("POST", projectURL(`/ensemble-labs/${id}/ensembles`), { row });
      this.onKept(job);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      notify(error, "error");
    }
  }

  /** Time the models that the costs wait for, and show the lab again. */
  async measure(id) {
    try {
      const { job } = await sendJSON("POST", projectURL(`/ensemble-labs/${id}/measurements`));
      this.progress = new JobProgress([job], { title: "Measuring the time of the models", onEnd: () => this.show(id, false) });
      this.outcome.prepend(this.progress.root);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      notify(error, "error");
    }
  }

  showNone() {
    setParam("lab", null);
    this.asked = null;
    delete this.root.dataset.lab;
    this.outcome.replaceChildren(emptyState("No lab yet", "Choose members and views at the left, then run the lab. What it finds is kept."));
  }

  sayGone(job, id) {
    this.asked = null;
    delete this.root.dataset.lab;
    const text = job?.kind === KIND ? endingText(job, "This lab") : `There is no lab ${id} in this project.`;
    this.outcome.replaceChildren(emptyState("Nothing of this lab is kept", text), ...this.earlier(id));
  }

  earlier(shownId) {
    const others = this.labs.filter((lab) => lab.id !== shownId).slice(0, MAX_LISTED);
    if (!others.length) return [];
    const rows = others.map((lab) =>
      element(
        "li",
        {},
        element("button", { type: "button", class: "a-button small", "data-open-lab": lab.id, onclick: () => this.open(lab.id) }, dateText(lab.created_at)),
        outcomeChip(lab.verdict, lab.outcome),
        element("span", { class: "note" }, `${lab.names.join(", ")} on ${lab.split}${lab.views.length > 1 ? `, ${lab.views.length} kinds of views` : ""}`),
      ),
    );
    return [element("section", {}, element("h3", {}, "Earlier labs"), element("ul", { class: "lab-earlier" }, ...rows))];
  }
}

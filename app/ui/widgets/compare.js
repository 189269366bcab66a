// <anchorage-compare>: runs, checkpoints and ensembles beside each other. All choices stand in the address: sides=
// (run-1,set-7,…), pair= (whose differences are shown, by their places), split=, tab= and image=.
//
// State for tests and styles lies in data-* attributes: state (loading, empty, failed, single, missing, predicting,
// working, stopped, refused, ready: that of the two sides), sides (how many), tab.

import { getJSON, getParam, notify, poll, projectURL, sendJSON, setParam } from "./api.js";
import { ClassTable } from "./compare_classes.js";
import { CurveCharts } from "./compare_curves.js";
import { DifferenceView } from "./compare_differences.js";
import { ImagePairs } from "./compare_images.js";
import { NoteSheets } from "./compare_notes.js";
import { MAX_SIDES, SidePicker, colorOfSide, existingSides, suggestedSides } from "./compare_sides.js";
import { waitingFor } from "./compare_waiting.js";
import { element } from "./element.js";
import { JobProgress, ProgressCard } from "./job_progress.js";
import { enterPlace, onReturn } from "./places.js";
import { SPLITS } from "./run_words.js";
import { openWithWeights } from "./weights_page.js";

const TABS = {
  differences: { title: "Differences", View: DifferenceView },
  curves: { title: "Curves", View: CurveCharts, isForAll: true },
  classes: { title: "Classes", View: ClassTable },
  images: { title: "Images", View: ImagePairs },
  notes: { title: "Notes", View: NoteSheets, isForAll: true },
};
const POLL_MS = 700;

class AnchorageCompare extends HTMLElement {
  connectedCallback() {
    if (this._keys) return;
    this._keys = new AbortController();
    document.addEventListener("keydown", (event) => this.view?.onKey?.(event), { signal: this._keys.signal });
    onReturn(() => this._return(), this._keys.signal);
    this._themeWatch = new MutationObserver(() => this._retheme());
    this._themeWatch.observe(document.documentElement, { attributeFilter: ["class"] });
    this._start();
  }

  disconnectedCallback() {
    this._keys?.abort();
    this._keys = null;
    this._themeWatch?.disconnect();
    this._endFollowing();
    this._closeView();
    this.replaceChildren();
  }

  _start() {
    return openWithWeights(this, {
      nothing: "Nothing to compare yet",
      first: "Train two detectors with different options: this page says which one is better, and by how much.",
      open: (runs) => this._begin(runs),
    });
  }

  async _begin(runs) {
    this.runs = runs;
    this._choose();
    this._build();
    await this._open();
  }

  _retheme() {
    for (const mark of this.querySelectorAll(".side-mark")) mark.style.setProperty("--side", colorOfSide(Number(mark.dataset.place)));
    this.view?.retheme?.();
  }

  // ---- choosing ---------------------------------------------------------------------------------------------------

  /** Sides, pair and split: from the address as far as they exist, else the newest two runs on the validation images. */
  _choose() {
    const named = new Set((getParam("sides") ?? "").split(",").filter(Boolean));
    const wanted = existingSides(this.runs, named);
    if (wanted.length < named.size) notify("Something that the address names is not in this project any more.", "error");
    this.sides = wanted.length ? wanted.slice(0, MAX_SIDES) : suggestedSides(this.runs);
    if (this.sides.length === 1) this.sides = [...this.sides, ...suggestedSides(this.runs).filter((side) => !this.sides.includes(side))].slice(0, 2);
    this.split = SPLITS.includes(getParam("split")) ? getParam("split") : (this.runs.flatMap((run) => run.sets).find((set) => this.sides.includes(`set-${set.id}`))?.split ?? "valid");
    const pair = (getParam("pair") ?? "").split("-").map(Number);
    this.pair = pair.length === 2 && pair.every((place) => place in this.sides) && pair[0] !== pair[1] ? pair : [0, 1];
    this.tab = getParam("tab") in TABS ? getParam("tab") : "differences";
  }

  _build() {
    this.picker = new SidePicker((change) => this._change(change));
    this.reports = ["html", "md"].map((format) =>
      element("a", { class: "a-button small", "data-report": format, download: "", hidden: true, title: "One file with everything inside, to read or to send" }, format === "html" ? "Report (HTML)" : "Report (Markdown)"),
    );
    this.tabs = Object.entries(TABS).map(([name, { title }]) =>
      element("button", { type: "button", role: "tab", id: `compare-tab-${name}`, "data-tab": name, "aria-controls": "compare-panel", onclick: () => this._openTab(name) }, title),
    );
    const list = element("div", { class: "tabs", role: "tablist", "aria-label": "What to compare", onkeydown: (event) => this._onTabKey(event) }, ...this.tabs);
    this.panel = element("div", { class: "panel", id: "compare-panel", role: "tabpanel" });
    this.replaceChildren(
      element("div", { class: "compare" }, this.picker.root, element("div", { class: "tab-row" }, list, element("span", { class: "spacer" }), ...this.reports), this.panel),
    );
  }

  _change(change) {
    Object.assign(this, change);
    if (change.split) {
      // A stored set is of one split: its run stands in for it on another.
      const sets = this.runs.flatMap((run) => run.sets);
      this.sides = this.sides.map((side) => {
        const set = sets.find((one) => `set-${one.id}` === side);
        return set && set.split !== this.split ? `run-${set.run_id}` : side;
      });
    }
    if (this.pair.some((place) => !(place in this.sides))) this.pair = [0, 1];
    this._open();
  }

  // ---- opening ----------------------------------------------------------------------------------------------------

  /** What is chosen, anew: the sides at once, the figures of the pair when they are there. */
  async _open() {
    this._endFollowing();
    const turn = this._turn;
    setParam("sides", this.sides.join(","));
    setParam("pair", this.sides.length > 2 ? this.pair.join("-") : null);
    setParam("split", this.split);
    this.dataset.sides = String(this.sides.length);
    this.picker.show({ runs: this.runs, sides: this.sides, pair: this.pair, split: this.split });
    this.answer = this.figures = null;
    this._setState({ kind: "loading" });
    try {
      const answer = await getJSON(projectURL(`/compare?${new URLSearchParams({ sides: this.sides.join(","), split: this.split })}`));
      if (turn !== this._turn) return;
      this.answer = answer;
      this._afterOpening();
    } catch (error) {
      if (turn === this._turn) this._setState({ kind: "refused", error });
    }
  }

  get two() {
    return this.pair.map((place) => this.answer.sides[place]);
  }

  _afterOpening() {
    if (this.sides.length < 2) return this._setState({ kind: "single" });
    const missing = this.two.filter((side) => side.set === null);
    const jobs = missing.filter((side) => side.job !== null);
    if (jobs.length) return this._follow(jobs.map((side) => ({ id: side.job, name: side.name, state: "queued" })));
    if (missing.length) return this._setState({ kind: "missing", missing });
    this._askFigures();
  }

  _query() {
    const [first, second] = this.pair.map((place) => this.sides[place]);
    return new URLSearchParams({ first, second, split: this.split });
  }

  // ---- predicting -------------------------------------------------------------------------------------------------

  async _predict(missing) {
    try {
      const jobs = [];
      for (const { checkpoint_id, name } of missing) {
        const { job } = await sendJSON("POST", projectURL("/prediction-sets"), { checkpoint_id, split: this.split });
        if (job) jobs.push({ ...job, name });
      }
      if (jobs.length) this._follow(jobs);
      else this._open();
    } catch (error) {
      notify(error, "error");
    }
  }

  _follow(jobs) {
    const card = new JobProgress(jobs, { title: "Predicting", onEnd: () => this._open(), owner: this });
    this.endFollowing = () => card.end();
    this._setState({ kind: "predicting", card });
  }

  /** Look no longer at what goes on: other sides are chosen, or the page is left. */
  _endFollowing() {
    this.endFollowing?.();
    this.endFollowing = null;
    this._turn = {}; // answers to earlier questions are dropped
  }

  // ---- figures ----------------------------------------------------------------------------------------------------

  _askFigures() {
    const turn = this._turn;
    const card = new ProgressCard({ title: "Comparing", onStop: () => this._stopFigures() });
    const show = (progress) => card.show([{ state: "running", progress }]);
    show({ message: "Judging both" });
    this._setState({ kind: "working", card });
    this.endFollowing = poll(async () => {
      let answer;
      try {
        answer = await getJSON(projectURL(`/compare/figures?${this._query()}`));
      } catch (error) {
        if (turn !== this._turn) return null;
        if (error.status === 0) return show({ message: error.message }); // the app may come back
        this._endFollowing();
        return this._setState({ kind: "refused", error });
      }
      if (turn !== this._turn) return null;
      if (answer.state !== "ready") return show(answer.progress);
      this._endFollowing();
      this.figures = answer.figures;
      return this._setState({ kind: "ready" });
    }, POLL_MS, this);
  }

  async _stopFigures() {
    this._endFollowing();
    try {
      await sendJSON("DELETE", projectURL(`/compare/figures?${this._query()}`));
    } catch (error) {
      notify(error, "error");
    }
    this._setState({ kind: "stopped" });
  }

  // ---- showing ----------------------------------------------------------------------------------------------------

  _setState(state) {
    this.state = state;
    this.dataset.state = state.kind;
    for (const link of this.reports) {
      link.hidden = state.kind !== "ready";
      if (state.kind === "ready") link.href = projectURL(`/compare/report?${this._query()}&sides=${this.sides.join(",")}&format=${link.dataset.report}`);
    }
    this._showTab();
  }

  /** A tab is a view of the whole page: Back returns from it. */
  _openTab(name) {
    if (name !== this.tab) enterPlace("tab", {});
    this.tab = name;
    this._showTab();
  }

  /** Back or Forward: the tab follows the address, other sides are opened as they stand there. */
  _return() {
    if (!this.picker) return;
    const before = this._chosen();
    this._choose();
    if (this._chosen() === before) this._showTab();
    else this._open();
  }

  _chosen() {
    return [this.sides, this.pair, this.split].join(" ");
  }

  _onTabKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const names = Object.keys(TABS);
    this.tab = names[(names.indexOf(this.tab) + step + names.length) % names.length]; // passed through: no place of its own
    this._showTab();
    this.tabs[names.indexOf(this.tab)].focus();
  }

  _showTab() {
    setParam("tab", this.tab === "differences" ? null : this.tab);
    this.dataset.tab = this.tab;
    for (const tab of this.tabs) {
      tab.setAttribute("aria-selected", String(tab.dataset.tab === this.tab));
      tab.tabIndex = tab.dataset.tab === this.tab ? 0 : -1;
    }
    this.panel.setAttribute("aria-labelledby", `compare-tab-${this.tab}`);
    const { View, isForAll } = TABS[this.tab];
    if (this.view instanceof View && isForAll && this.view.answer === this.answer) return; // nothing of it has changed
    this._closeView();
    this.wait = this.state.kind === "ready" || (isForAll && this.answer) ? null : this._waiting();
    if (!this.answer || (this.wait && this.tab !== "differences")) return this.panel.replaceChildren(this.wait);
    this.view = new View({ answer: this.answer, figures: this.figures, pair: this.pair, query: this._query(), wait: this.wait });
    this.panel.replaceChildren(this.view.root);
    this.view.onShown?.();
  }

  _closeView() {
    this.view?.destroy?.();
    this.view = null;
  }

  _waiting() {
    return waitingFor(this.state, { onPredict: (missing) => this._predict(missing), onAgain: () => this._open(), split: this.split });
  }
}

if (!customElements.get("anchorage-compare")) customElements.define("anchorage-compare", AnchorageCompare);

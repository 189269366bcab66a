// The list of runs: which are drawn, which one is looked at, stop, rename, delete.

import { notify, pageURL, projectURL, sendJSON } from "./api.js";
import { MAX_SIDES } from "./compare_sides.js";
import { element } from "./element.js";
import { isLive } from "./job_states.js";
import { formatFigure, ordinal } from "./number_words.js";
import { lineColor } from "./palette.js";

const CAN_GO_ON = { paused: "resume", failed: "retry", cancelled: "retry", interrupted: "resume" };
const CHIP_OF = { done: "good", failed: "danger", interrupted: "warn", paused: "warn", cancelled: "", running: "live", stopping: "warn", queued: "" };

export class RunTable {
  /** @param {{onFocus, onShow, onChange}} handlers called with a run's id (onShow also with true or false) */
  constructor(handlers) {
    this.handlers = handlers;
    this.body = element("tbody");
    const head = element("tr", {}, ...["", "Run", "State", "Epochs", "mAP50", "F1", ""].map((title) => element("th", { class: /mAP|F1/.test(title) ? "a-number" : null }, title)));
    this.root = element("div", { class: "a-card train-runs" }, element("table", { class: "a-table" }, element("thead", {}, head), this.body));
  }

  /** Draw the rows; `shown` are the ids whose curves are drawn, `focus` the id that is looked at. */
  update(allRuns, shown, focus) {
    const waiting = allRuns.filter((run) => run.state === "queued").sort((a, b) => a.rank - b.rank || a.id - b.id);
    const runs = allRuns.map((run) => ({ ...run, turn: waiting.length > 1 ? waiting.indexOf(run) + 1 : 0 }));
    const state = JSON.stringify([runs, [...shown], focus, lineColor(0)]);
    if (state === this.state) return;
    this.state = state;
    const active = document.activeElement?.closest?.("[data-run]")?.dataset.run;
    const action = document.activeElement?.dataset?.action;
    const position = this.root.scrollTop;
    this.body.replaceChildren(...runs.map((run) => this.row(run, shown.has(run.id), run.id === focus)));
    this.root.scrollTop = position;
    if (focus !== this.focus) this.body.querySelector(".selected")?.scrollIntoView({ block: "nearest" });
    this.focus = focus;
    if (active && action) this.refocus(active, action);
  }

  /** Back on the same button of a row; where it is gone, such as that of moving the first, on the name. */
  refocus(id, action) {
    const row = this.body.querySelector(`[data-run="${id}"]`);
    (row?.querySelector(`[data-action="${action}"]:enabled`) ?? row?.querySelector("[data-action=focus]"))?.focus();
  }

  row(run, isShown, isFocus) {
    const swatch = element("span", { class: "a-swatch" });
    swatch.style.background = isShown ? lineColor(run.id - 1) : "transparent";
    const box = element("input", { type: "checkbox", "aria-label": `Draw ${run.name}`, title: "Draw its curves", "data-action": "show" });
    box.checked = isShown;
    box.addEventListener("click", (event) => event.stopPropagation());
    box.addEventListener("change", () => this.handlers.onShow(run.id, box.checked));
    const name = element("button", { type: "button", class: "train-name", "data-action": "focus", title: run.name }, run.name);
    const row = element(
      "tr",
      { class: `selectable ${isFocus ? "selected" : ""}`, "data-run": run.id, "data-state": run.state, onclick: () => this.handlers.onFocus(run.id) },
      element("td", { class: "train-pick" }, box, swatch),
      element("td", { class: "train-name-cell" }, name),
      element("td", {}, this.chip(run)),
      element("td", { class: "train-epochs" }, this.progress(run)),
      element("td", { class: "a-number" }, formatFigure(run.best.map50)),
      element("td", { class: "a-number" }, formatFigure(run.best.f1)),
      element("td", { class: "train-actions" }, ...this.actions(run)),
    );
    return row;
  }

  chip(run) {
    const text = run.hung ? "hung" : run.turn ? `queued, ${ordinal(run.turn)}` : run.state === "cancelled" ? "stopped" : run.state;
    const title = run.turn ? "Its place among the runs of this project that wait" : null;
    return element("span", { class: `a-chip ${run.hung ? "warn" : CHIP_OF[run.state]}`, title }, text);
  }

  progress(run) {
    const bar = element("span");
    const { done = 0, total = 0 } = run.progress;
    bar.style.width = `${total ? (100 * done) / total : run.state === "done" ? 100 : 0}%`;
    return element("div", {}, element("span", {}, `${run.epoch} / ${run.epochs}`), element("div", { class: "a-progress" }, bar));
  }

  actions(run) {
    const button = (action, title, text, fn) =>
      element("button", { type: "button", class: "a-button quiet small", "data-action": action, title, "aria-label": `${title}: ${run.name}`, onclick: (event) => { event.stopPropagation(); fn(); } }, text);
    const rename = button("rename", "Rename", "✎", () => this.rename(run));
    const go = (action, title, text, body) => button(action, title, text, () => this.act("POST", `/runs/${run.id}/${action.split("-")[0]}`, body));
    if (run.state === "stopping") {
      const isPausing = run.stop_as === "paused";
      const waiting = button("stop", isPausing ? "Stop instead" : "Stop", isPausing ? "Pausing…" : "Stopping…", () => this.stop(run));
      waiting.disabled = !isPausing;
      return [rename, waiting];
    }
    if (isLive(run)) {
      const moves = run.turn > 1 ? [go("move-up", "Earlier by one", "↑", { to: "up" }), go("move-front", "Next in the queue", "⇈", { to: "front" })] : [];
      return [...moves, rename, go("pause", "Pause: save and go on later", "Pause"), button("stop", "Stop", "Stop", () => this.stop(run))];
    }
    const action = CAN_GO_ON[run.state];
    const again = action ? [action === "resume" ? go("resume", "Go on from the last checkpoint", "Resume") : go("retry", "Go on from the last checkpoint, or from the start without one", "Retry")] : [];
    return [...again, rename, button("delete", "Delete", "✕", () => this.remove(run))];
  }

  async stop(run) {
    const isSure = run.state === "queued" || (await ask(`Stop ${run.name}?`, "What it has made so far is kept. Retry lets it go on from there.", "Stop"));
    if (isSure) await this.act("POST", `/runs/${run.id}/stop`);
  }

  async rename(run) {
    const name = await ask("Rename the run", "", "Rename", run.name);
    if (name && name !== run.name) await this.act("PATCH", `/runs/${run.id}`, { name });
  }

  async remove(run) {
    const text = "Its curves, checkpoints and predictions go with it. This cannot be undone.";
    if (await ask(`Delete ${run.name}?`, text, "Delete")) await this.act("DELETE", `/runs/${run.id}`);
  }

  async act(method, path, body) {
    try {
      await sendJSON(method, projectURL(path), body);
    } catch (error) {
      notify(error, "error");
    }
    this.handlers.onChange();
  }
}

/** Ask in a dialog: resolves to true, or to the text when `value` is given; null when the user turns away. */
function ask(title, text, action, value = null) {
  return new Promise((resolve) => {
    const input = value === null ? null : element("input", { class: "a-input", maxlength: 100, "aria-label": title });
    if (input) input.value = value;
    const isGrave = action === "Delete" || action === "Stop";
    const form = element(
      "form",
      { method: "dialog" },
      element("h2", { class: "a-subtitle" }, title),
      ...(text ? [element("p", { class: "a-muted" }, text)] : []),
      ...(input ? [input] : []),
      element("div", { class: "actions" },
        element("button", { type: "button", class: "a-button", onclick: () => dialog.close("") }, "Cancel"),
        element("button", { value: "yes", class: `a-button ${isGrave ? "danger" : "primary"}`, "data-action": "confirm" }, action)),
    );
    const dialog = element("dialog", { class: "a-dialog train-dialog" }, form);
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes" ? (input ? input.value.trim() : true) : null);
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
    input?.select();
  });
}

/** What to do next with a run, as links. @param {Object[]} compared it and those to compare it with, as comparedRuns gives them */
export function nextSteps(run, compared) {
  if (run.best.score === undefined) return [];
  const sides = compared.map(({ id }) => `run-${id}`).join(",");
  const names = compared.length > 1 ? compared.map(({ name }) => name).join(", ") : `${run.name}, with another of its checkpoints`;
  return [
    element("a", { class: "a-button small", href: pageURL("/review", { run: run.id }) }, "Review predictions"),
    element("a", { class: "a-button small", href: pageURL("/compare", { sides }), title: `Compare ${names}` }, compared.length > 2 ? `Compare ${compared.length} runs` : "Compare"),
    element("a", { class: "a-button small", href: pageURL("/ensemble", { run: run.id }) }, "Ensemble"),
    element("a", { class: "a-button small", href: pageURL("/export", { run: run.id }) }, "Export"),
  ];
}

/**
 * The runs to compare one with, the oldest first: those whose curves are drawn beside it, else the one before it.
 * @param {Object[]} runs newest first @param {Object[]} drawn those of them with curves
 */
export function comparedRuns(run, runs, drawn) {
  const hasWeights = ({ best }) => best.score !== undefined;
  const beside = drawn.filter((one) => one !== run && hasWeights(one));
  const others = runs.filter((one) => one !== run && hasWeights(one));
  const before = others.find((one) => one.id < run.id) ?? others[0];
  const chosen = beside.length ? beside.slice(0, MAX_SIDES - 1) : before ? [before] : [];
  return [...chosen, run].sort((a, b) => a.id - b.id);
}

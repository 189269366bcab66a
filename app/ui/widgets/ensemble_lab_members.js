// Who takes part in a lab: checkpoints of any runs on the same images, stored predictions, the views, and the images.

import { element } from "./element.js";
import { formatFigure } from "./number_words.js";
import { setTitle, splitsOf } from "./run_words.js";

const MAX_MEMBERS = 20;
export const VIEWS = [
  ["off", "One view", "The image as the detector learned it"],
  ["flip", "Flip", "The image and its mirror image: twice the time"],
  ["flip_scales", "Flip + scales", "Both at three sizes: some six times the time"],
];

export class LabMembers {
  /** @param {Object[]} runs as GET /review gives them @param {number[]} checkpoints ids that are chosen at first */
  constructor(runs, checkpoints, onChange) {
    this.onChange = onChange;
    this.chosen = { checkpoints: new Set(checkpoints), sets: new Set() };
    this.views = new Set(["off"]);
    this.list = element("div", { class: "lab-list", role: "group", "aria-label": "Members of the lab" });
    this.splitPick = element("select", { class: "a-input", "data-pick": "lab-split", onchange: () => this.draw() });
    this.viewBoxes = VIEWS.map(([value, name, help]) => {
      const box = element("input", { type: "checkbox", "data-views": value, onchange: () => this.changeView(value, box.checked) });
      return { box, label: element("label", { class: "member", title: help }, box, name) };
    });
    this.root = element(
      "div",
      { class: "lab-members" },
      element("div", { class: "a-field" }, "Members", this.list),
      element("div", { class: "a-field", role: "group", "aria-label": "Views" }, "Views to compare (test-time augmentation)", element("div", { class: "lab-views" }, ...this.viewBoxes.map(({ label }) => label))),
      element("label", { class: "a-field" }, "Images of", this.splitPick),
    );
    this.setRuns(runs);
  }

  /** The runs anew: predictions may have been added. */
  setRuns(runs) {
    this.runs = runs;
    const known = { checkpoints: new Set(runs.flatMap((run) => run.checkpoints.map((item) => item.id))), sets: new Set(runs.flatMap((run) => run.sets.map((item) => item.id))) };
    for (const [kind, ids] of Object.entries(known)) this.chosen[kind] = new Set([...this.chosen[kind]].filter((id) => ids.has(id)));
    this.order();
  }

  /** The run that is open on the page. */
  open(id) {
    this.openId = id;
    this.order();
  }

  /** The open run comes first, then those of which something is chosen; while they are chosen from, they stay in place. */
  order() {
    const rank = (run) => (run.id === this.openId ? 0 : this.owns(run) ? 1 : 2);
    this.listed = [...this.runs].sort((a, b) => rank(a) - rank(b));
    this.list.scrollTop = 0;
    this.draw();
  }

  /** Choose what a lab had, as far as it is still there. */
  choose({ members, sets, views, split }) {
    const stored = members.flatMap((member, index) => (member.stored_views ? [Object.values(sets)[0][index]] : []));
    this.chosen = { checkpoints: new Set(members.filter((member) => !member.stored_views).map((member) => member.checkpoint_id)), sets: new Set(stored) };
    const known = views.filter((name) => VIEWS.some(([value]) => value === name));
    this.views = new Set(known.length ? known : ["off"]);
    this.wantedSplit = split;
    this.setRuns(this.runs);
  }

  /** What is sent to start a lab. */
  body() {
    const views = VIEWS.map(([value]) => value).filter((value) => this.views.has(value));
    return { checkpoint_ids: [...this.chosen.checkpoints], set_ids: [...this.chosen.sets], split: this.split, views };
  }

  get split() {
    return this.splitPick.value;
  }

  get count() {
    return this.chosen.checkpoints.size + this.chosen.sets.size;
  }

  /** Why no lab can be run, or "". */
  problem() {
    const possible = this.runs.flatMap((run) => run.checkpoints).length;
    if (possible < 2) return "There is one checkpoint only. Train longer, or a second run on the same data, to have something to fuse it with.";
    if (this.count < 2) return "Choose two members or more.";
    if (this.count > MAX_MEMBERS) return `A lab has ${MAX_MEMBERS} members at most; ${this.count} are chosen.`;
    if (this.chosen.checkpoints.size && !this.views.size) return "Choose a view or more.";
    const foreign = this.runs.find((run) => this.owns(run) && this.isForeign(run));
    if (foreign) return `${foreign.name} has other classes, or other images of ${this.split}, than ${this.base.name}: take the members of one of them out, or choose other images.`;
    return "";
  }

  /** How many predictions have to be made first: [count, by views in words]. */
  missing() {
    const { split } = this;
    const counts = VIEWS.filter(([value]) => this.views.has(value)).map(([value, name]) => {
      const chosen = this.runs.flatMap((run) => run.checkpoints.filter((item) => this.chosen.checkpoints.has(item.id)).map((item) => [run, item]));
      return [name.toLowerCase(), chosen.filter(([run, item]) => !run.sets.some((set) => set.checkpoint_id === item.id && set.split === split && viewsOf(set) === value)).length];
    });
    const some = counts.filter(([, count]) => count);
    return [some.reduce((sum, [, count]) => sum + count, 0), some.map(([name, count]) => `${count} × ${name}`).join(", ")];
  }

  changeView(value, isOn) {
    if (isOn) this.views.add(value);
    else this.views.delete(value);
    this.onChange?.();
  }

  draw() {
    const { base } = this;
    const wanted = this.wantedSplit ?? this.split;
    this.wantedSplit = null;
    const splits = splitsOf(base);
    this.splitPick.replaceChildren(...splits.map((split) => element("option", { value: split }, `${split} (${base.splits[split]} images)`)));
    this.splitPick.value = splits.includes(wanted) ? wanted : splits[0];
    for (const run of this.runs) for (const set of run.sets) if (set.split !== this.split) this.chosen.sets.delete(set.id);
    this.list.replaceChildren(...this.listed.map((run) => this.runTable(run, this.isForeign(run))));
    for (const { box } of this.viewBoxes) {
      box.checked = this.views.has(box.dataset.views);
      box.disabled = this.count > 0 && !this.chosen.checkpoints.size;
    }
    this.onChange?.();
  }

  owns(run) {
    return run.checkpoints.some((item) => this.chosen.checkpoints.has(item.id)) || run.sets.some((item) => this.chosen.sets.has(item.id));
  }

  /** The run that others are measured by: the first of which something is chosen. */
  get base() {
    return this.runs.find((run) => this.owns(run)) ?? this.runs[0];
  }

  /** Whether a run's predictions cannot be fused with what is chosen. Labels may differ. */
  isForeign(run) {
    return this.count > 0 && run.dataset[this.split] !== this.base.dataset[this.split];
  }

  runTable(run, isForeign) {
    const stored = run.sets.filter((set) => set.split === this.split && (set.kind === "ensemble" || !set.is_main));
    const place = (set) => run.checkpoints.findIndex((item) => item.id === set.checkpoint_id);
    stored.sort((a, b) => place(a) - place(b) || a.id - b.id); // ensembles first
    const figures = (item) => [item.map50, item.f1].map(formatFigure);
    const rows = run.checkpoints.map((item) => this.row("checkpoints", item.id, item.name, figures(item), isForeign));
    rows.push(...stored.map((set) => this.row("sets", set.id, storedName(run, set), [], isForeign)));
    const head = [run.name, "mAP50", "F1"].map((text, index) => element("th", { class: index ? "a-number" : null, title: index ? null : text }, text));
    const reason = `Other classes, or other images of ${this.split}, than the chosen ones have: their predictions cannot be fused.`;
    if (isForeign) rows.unshift(element("tr", { class: "reason" }, element("td", { colspan: head.length }, reason)));
    return element("table", { class: "a-table members", "data-run": run.id }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  }

  row(kind, id, name, figures, isForeign) {
    const isChosen = this.chosen[kind].has(id); // of a foreign run, too, once other images are looked at: it can be taken out
    const box = element("input", { type: "checkbox", [`data-${kind}`]: id, disabled: isForeign && !isChosen, onchange: () => this.toggle(kind, id, box.checked) });
    box.checked = isChosen;
    return element(
      "tr",
      { class: isForeign ? "foreign" : null },
      element("td", { colspan: 3 - figures.length }, element("label", { class: "member" }, box, name)),
      ...figures.map((text) => element("td", { class: "a-number" }, text)),
    );
  }

  toggle(kind, id, isOn) {
    if (isOn) this.chosen[kind].add(id);
    else this.chosen[kind].delete(id);
    const top = this.list.scrollTop;
    this.draw();
    this.list.scrollTop = top;
    this.list.querySelector(`[data-${kind}="${id}"]`)?.focus();
  }
}

function viewsOf(set) {
  return set.options.test_time_augmentation ?? "off";
}

function storedName(run, set) {
  return set.kind === "ensemble" ? `Ensemble ${setTitle(set, run)}` : setTitle(set, run);
}

// What a lab found: the verdict, one table of methods and views, what each member brings, and how few are enough.

import { pageURL } from "./api.js";
import { element } from "./element.js";
import { costNote, FIGURES, optionsText, truthNote, verdictLine } from "./ensemble_comparison.js";
import { VIEWS } from "./ensemble_lab_members.js";
import { formatFigure, imageCost, signed } from "./number_words.js";

/** @param {{onUse: (row: number) => void, onMeasure: () => void}} actions keep a row as an ensemble, measure the models */
export function labResult(lab, { onUse, onMeasure }) {
  const parts = [verdictLine(lab.verdict, lab.outcome), advice(lab), truthNote(lab.truth)];
  const halves = `${lab.num_tuning_images} images of ${lab.split} to tune on, the other ${lab.num_judging_images} to judge on; images of one source stay together.`;
  parts.push(
    element("p", { class: "note", "data-halves": `${lab.num_tuning_images}/${lab.num_judging_images}` }, `${halves} Weights, IoU, thresholds and the best row were chosen on the first half; the figures are those of the second.`),
    methodTable(lab, onUse),
    tableNote(lab, onMeasure),
    contributions(lab),
    smallest(lab),
  );
  return element("div", { class: "lab-result" }, ...parts.filter(Boolean));
}

/** What to do where fusing is no clear gain. */
function advice({ outcome, members, sets, alone, best_alone: place }) {
  const { views, member } = alone[place];
  const link = element("a", { href: pageURL("/review", { set: sets[views][member] }) }, members[member].name);
  const say = (...content) => element("p", { class: "no-gain" }, ...content);
  if (outcome === "worse") return say("Fusing does harm here: use ", link, " by itself.");
  if (outcome === "noise") return say("These images do not tell the two apart, and ", link, " by itself takes less time. More labeled images would tell more.");
  return outcome ? null : say("This lab did not measure whether the difference is more than chance: run it again to learn that.");
}

// ---- methods and views --------------------------------------------------------------------------------------------

function methodTable(lab, onUse) {
  const hasViews = lab.views.length > 1;
  const head = [
    ["Method"],
    ...(hasViews ? [["Views"]] : []),
    ...FIGURES.map(([, name, help]) => [name, name === "F1" ? "F1 at IoU .50, at the threshold that was best on the tuning half" : help]),
    ["Score", `${lab.metric_title}, the run's selection metric`],
    ["Tuned", "The score on the tuning half, by which the best row is chosen. It always flatters."],
    ["Threshold", "Score threshold of the best F1 on the tuning half"],
    ["ms/image", "Milliseconds an image takes through all members and the fusing; “3 ×”: as long as a member in one view takes three times"],
    [""],
  ];
  const body = lab.views.flatMap((views) => [aloneRow(lab, views, hasViews), ...lab.methods.flatMap((row, index) => (row.views === views ? [methodRow(lab, row, index, hasViews, onUse)] : []))]);
  const isNumber = (index) => index > (hasViews ? 1 : 0);
  return element(
    "div",
    { class: "lab-scroll" },
    element(
      "table",
      { class: "a-table judged lab-methods" },
      element("thead", {}, element("tr", {}, ...head.map(([name, help], index) => element("th", { class: isNumber(index) ? "a-number" : null, title: help }, name)))),
      element("tbody", {}, ...body),
    ),
  );
}

/** The member that is best by itself in some views, to compare with. */
function aloneRow(lab, views, hasViews) {
  const rows = lab.alone.filter((row) => row.views === views);
  const row = rows.reduce((best, item) => (item.tuned.score > best.tuned.score ? item : best));
  const name = element("td", {}, "Best member alone", element("div", { class: "note" }, lab.members[row.member].name));
  return element("tr", { class: "alone-row" }, name, ...cells(row, views, hasViews), costCell(row), element("td", {}));
}

function methodRow(lab, row, index, hasViews, onUse) {
  const isBest = index === lab.best;
  const { name } = row;
  const title = element("span", { class: "lab-name" }, name, isBest ? element("span", { class: "a-chip", title: "Best on the tuning half" }, "Best") : null);
  const use = element("button", { type: "button", class: "a-button small", "data-use": index, "aria-label": `Use ${name}${hasViews ? `, ${viewsName(row.views)}` : ""}`, onclick: () => onUse(index) }, "Use this");
  return element(
    "tr",
    { class: isBest ? "ensemble-row" : null, "data-method": row.method, "data-of-views": row.views, "data-best": String(isBest) },
    element("td", {}, title, element("div", { class: "note" }, optionsText(row.options))),
    ...cells(row, row.views, hasViews),
    costCell(row),
    element("td", { class: "a-number" }, use),
  );
}

function cells(row, views, hasViews) {
  const { judged, tuned } = row;
  return [
    ...(hasViews ? [element("td", {}, viewsName(views))] : []),
    ...[...FIGURES.map(([key]) => judged[key]), judged.score].map((value) => element("td", { class: "a-number" }, formatFigure(value))),
    element("td", { class: "a-number a-muted" }, formatFigure(tuned.score)),
    element("td", { class: "a-number" }, judged.threshold.toFixed(2)),
  ];
}

function viewsName(views) {
  return VIEWS.find(([value]) => value === views)?.[1] ?? "As stored";
}

/** Milliseconds where they are known, else multiples of one member in one view. */
function costCell({ cost_ms: ms, num_passes: passes, fuse_ms: fusing }) {
  const text = ms === null && passes !== null ? `${Number(passes.toFixed(1))} ×` : imageCost(ms);
  const title = fusing === undefined ? null : `of it ${fusing.toFixed(2)} ms for the fusing`;
  return element("td", { class: "a-number", title }, text);
}

function tableNote(lab, onMeasure) {
  const note = element("p", { class: "note" }, "Another row may stand higher on the judging half by chance: on a few dozen images some thousandths are noise.");
  if (lab.costs.how === "predicting") note.append(` ${costNote(lab.costs.devices)}`);
  if (lab.costs.how === "alone") note.append(" ms/image: through all members and the fusing; each model was measured alone on this machine.");
  if (lab.methods.every((row) => row.cost_ms !== null || row.num_passes === null)) return note;
  const button = element("button", { type: "button", class: "a-button small", "data-action": "measure", onclick: onMeasure }, "Measure it");
  note.append(" How many milliseconds an image takes is not known: these predictions were made by an older version of Anchorage, which did not time them. ", button);
  return note;
}

// ---- members --------------------------------------------------------------------------------------------------------

function contributions(lab) {
  const best = lab.methods[lab.best];
  const most = Math.max(...lab.contributions.map((row) => Math.abs(row.score)), 1e-9);
  const rows = lab.contributions.map((row, index) => {
    const isHarm = row.score < 0;
    const isNoise = row.noise && !row.noise.is_clear; // labs of earlier versions did not measure it
    const bar = element("span", { class: `lab-bar ${isHarm ? "harm" : "help"} ${isNoise ? "noise" : ""}` });
    bar.style.width = `${(50 * Math.abs(row.score)) / most}%`;
    return element(
      "tr",
      { "data-contribution": row.score.toFixed(4), "data-outcome": row.noise?.outcome ?? null, title: row.noise ? `95 % interval ${signed(row.noise.low)} to ${signed(row.noise.high)}` : null },
      element("td", { title: lab.members[index].name }, lab.members[index].name),
      element("td", { class: "lab-track", "aria-hidden": "true" }, element("span", { class: "lab-zero" }), bar),
      element("td", { class: `a-number ${isNoise ? "a-muted" : ""}` }, signed(row.score)),
      element("td", { class: "a-number a-muted" }, signed(row.map)),
      element("td", { class: "a-muted" }, wordFor(row)),
    );
  });
  const { name } = best;
  const head = ["Member", "", "Score", "mAP", ""].map((text, index) => element("th", { class: index === 2 || index === 3 ? "a-number" : null }, text));
  return element(
    "section",
    {},
    element("h3", {}, "What each member brings"),
    element("p", { class: "note" }, `${name} with all members less ${name} without it, on the judging half. Gray is within the noise; that of mAP is not measured.`),
    element("div", { class: "lab-scroll" }, element("table", { class: "a-table lab-contributions" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows))),
  );
}

function wordFor({ score, noise }) {
  if (noise ? noise.detectable === 0 : Math.abs(score) < 0.0005) return "makes no difference";
  if (noise && !noise.is_clear) return noise.words.toLowerCase();
  return score > 0 ? "helps" : "does harm";
}

function smallest(lab) {
  const { members, judged, num_tried: tried } = lab.smallest;
  const names = members.map((index) => lab.members[index].name);
  const all = members.length === lab.members.length;
  const text = all
    ? `${lab.outcome === "gain" ? "All" : "To fuse all the same, all"} ${members.length} members are needed: with fewer, mAP on the tuning half falls by more than ${100 * lab.near_best} points of 100.`
    : `${names.join(" + ")} ${members.length === 1 ? "is" : "are"} enough: mAP on the tuning half is within ${100 * lab.near_best} points of 100 of the best of ${tried} subsets. Judged: mAP ${formatFigure(judged.map)}, score ${formatFigure(judged.score)}.`;
  return element("section", {}, element("h3", {}, "Fewest members"), element("p", { class: "smallest", "data-members": members.length }, text));
}

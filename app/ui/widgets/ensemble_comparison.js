// An ensemble beside its members: the verdict and one table.

import { pageURL } from "./api.js";
import { element } from "./element.js";
import { formatFigure, imageCost, withMinus } from "./number_words.js";

export const METHODS = [
  ["wbf", "Weighted boxes fusion", "Averages overlapping boxes, weighted by their scores; a box that few members found gets a low score."],
  ["nms", "Non-maximum suppression", "Keeps the surest of overlapping boxes as it is."],
  ["soft_nms", "Soft-NMS", "Keeps all boxes and lowers the scores of those that overlap a surer one."],
  ["nmw", "Non-maximum weighted", "Averages overlapping boxes around the surest one and keeps its score."],
];
export const FIGURES = [
  ["map", "mAP", "COCO's AP over IoU .50 to .95"],
  ["map50", "mAP50", "AP at IoU .50"],
  ["map75", "mAP75", "AP at IoU .75"],
  ["f1", "F1", "Best F1 at IoU .50"],
];

/** Whether a method asks how far boxes overlap; soft-NMS lowers scores by any overlap. */
export const hasIoU = (method) => method !== "soft_nms";

const CHIP_OF = { gain: "good", noise: "", worse: "warn" };

/**
 * The outcome as a chip: the words before the verdict's colon, which the server chose. null where it is not known.
 * @param {string} verdict @param {string | null} outcome gain, noise or worse
 */
export function outcomeChip(verdict, outcome) {
  return outcome && element("span", { class: `a-chip ${CHIP_OF[outcome]}`, "data-outcome": outcome }, verdict.split(": ", 1)[0]);
}

/** The outcome as a chip, and the rest of the verdict. */
export function verdictLine(verdict, outcome) {
  const text = withMinus(outcome ? verdict.slice(verdict.indexOf(": ") + 2) : verdict);
  return element("p", { class: "verdict" }, outcomeChip(verdict, outcome), element("span", {}, text.charAt(0).toUpperCase() + text.slice(1)));
}

/** On whose labels it was judged, where that needs saying; `truth` as the server gives it, null of old labs. */
export function truthNote(truth) {
  return truth?.words.length ? element("p", { class: "note truth", "data-labels-of": truth.run }, truth.words.join(" ")) : null;
}

/** The options of a fusion in words: "IoU 0.55 · from score 0.01 · weights 1 : 0.5". */
export function optionsText({ method, iou_threshold: iou, skip_threshold: skip, weights = [] }) {
  const parts = hasIoU(method) ? [`IoU ${iou}`] : [];
  if (skip) parts.push(`from score ${skip}`);
  if (new Set(weights).size > 1) parts.push(`weights ${weights.map((weight) => Number(weight.toPrecision(3))).join(" : ")}`);
  return parts.join(" · ");
}

/** What a column of costs means; "" where none is known. */
export function costNote(devices) {
  return devices.length ? `ms/image: through all members and the fusing, measured while predicting on ${devices.join(" and ")}.` : "";
}

/** The card of GET /ensembles/{id}; `noise` stands below the verdict while it is being measured. */
export function comparisonCard(table, noise = null) {
  const thresholds = table.rows.map((row) => row.threshold.toFixed(2));
  const notes = [];
  const kept = table.options.score_threshold;
  if (kept !== undefined) notes.push(`Made from a lab's row: Review opens it at the lab's score threshold, ${kept.toFixed(2)}. Its options were tuned on half of these images, so the lab's own figures are the fairer ones.`);
  else if (!thresholds.slice(0, -1).includes(thresholds.at(-1))) notes.push("The best threshold differs from the members': fusing changes what a score means.");
  if (table.num_missing_members) notes.push(`${table.num_missing_members} of its members were replaced since and are not listed.`);
  const costs = table.rows.map((row) => row.cost_ms);
  if (costs.at(-1) !== null) notes.push(costNote(table.rows.at(-1).devices));
  else if (costs.some((cost) => cost !== null)) notes.push("ms/image is not known of the ensemble: some of its members were predicted by an older version of Anchorage, which did not time it.");
  const name = METHODS.find(([value]) => value === table.options.method)[1];
  const how = [name, optionsText(table.options), `on ${table.split}`].filter(Boolean).join(", ");
  return element(
    "div",
    { class: "a-card" },
    element("div", { class: "a-toolbar" }, element("h3", { class: "a-subtitle" }, "Ensemble beside its members"), element("span", { class: "spacer" }), ...links(table)),
    element("p", { class: "note" }, how),
    verdictLine(table.verdict, table.outcome),
    noise,
    truthNote(table.truth),
    judgedTable(table.rows),
    element("p", { class: "note" }, notes.filter(Boolean).join(" ")),
  );
}

function links(table) {
  const link = (path, params, text) => element("a", { class: "a-button small", href: pageURL(path, params) }, text);
  const review = link("/review", { set: table.set }, "Review the ensemble");
  if (table.best === null) return [review];
  const sides = [table.rows[table.best].side, table.rows.at(-1).side].join(",");
  return [link("/compare", { sides, split: table.split }, "Compare with its best member"), review];
}

function judgedTable(rows) {
  // The best of each column as it is shown; where all show the same, none is.
  const best = Object.fromEntries(
    FIGURES.map(([key]) => {
      const isSame = new Set(rows.map((row) => formatFigure(row[key]))).size === 1;
      return [key, isSame ? null : formatFigure(Math.max(...rows.map((row) => row[key])))];
    }),
  );
  const hasCost = rows.some((row) => row.cost_ms !== null);
  const cost = hasCost ? [["cost", "ms/image", "Milliseconds an image takes, of the ensemble through all members and the fusing"]] : [];
  const head = [["", "Detector"], ...FIGURES, ["threshold", "Best threshold", "Score threshold of the best F1"], ...cost];
  const cells = (row) => [
    ...FIGURES.map(([key]) => element("td", { class: `a-number${formatFigure(row[key]) === best[key] ? " best" : ""}`, "data-figure": key }, formatFigure(row[key]))),
    element("td", { class: "a-number" }, row.threshold.toFixed(2)),
    ...(hasCost ? [element("td", { class: "a-number", "data-figure": "cost" }, imageCost(row.cost_ms))] : []),
  ];
  return element(
    "table",
    { class: "a-table judged" },
    element("thead", {}, element("tr", {}, ...head.map(([, name, help], index) => element("th", { class: index ? "a-number" : null, title: help }, name)))),
    element("tbody", {}, ...rows.map((row) => element("tr", { class: row.is_ensemble ? "ensemble-row" : null }, element("td", {}, row.is_ensemble ? `Ensemble: ${row.name}` : row.name), ...cells(row)))),
  );
}

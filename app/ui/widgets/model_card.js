// A model's card as the server read it from a live model: levels with their anchors, heads, parameters by part.

import { ApiError, getJSON, notify, projectURL } from "./api.js";
import { element } from "./element.js";

const COUNT = (number) => number.toLocaleString();

/** @param {Object} card see pipeline/models/card.py */
export function modelCard(card) {
  const frozen = card.parameters - card.trainable;
  return element("div", { class: "model-card", "data-model": card.model, "data-parameters": String(card.parameters) },
    element("h3", {}, card.title),
    element("p", { class: "a-small a-muted" }, `${COUNT(card.parameters)} parameters, ${frozen ? `${COUNT(card.trainable)} of them trained` : "all trained"} · ${card.num_classes - 1} ${card.num_classes === 2 ? "class" : "classes"} and background`),
    parts(card),
    levels(card),
    facts(card));
}

function parts(card) {
  const rows = card.parts.map((part) => element("tr", {}, element("td", {}, part.part), element("td", { class: "a-number" }, COUNT(part.parameters)), element("td", { class: "a-number" }, COUNT(part.trainable))));
  return table(["Part", "Parameters", "Trained"], rows);
}

function levels(card) {
  const rows = card.levels.map((level) => element("tr", {},
    element("td", { title: level.is_pooled ? "Regions are pooled from this map too" : "Proposals only" }, `${level.name}${level.is_pooled ? "" : " *"}`),
    element("td", { class: "a-number" }, String(level.stride)),
    element("td", { class: "a-number" }, String(level.channels)),
    element("td", { class: "model-card-anchors", title: shapes(level) }, anchorText(level))));
  return table(["Level", "Stride", "Channels", `Anchors${card.are_anchors_known === false ? " (KMeans finds them at the start)" : ""}`], rows);
}

const ALIKE = 1.12; // torchvision rounds anchors to whole pixels, so that sizes of one kind differ by a few percent
const NICE = [0.25, 1 / 3, 0.5, 0.75, 1, 1.5, 2, 3, 4];

/** "32, 64 · ratio 0.5, 1, 2" when every size comes with every ratio, else the shapes. */
function anchorText(level) {
  const sizes = groups(level.anchors, (anchor) => anchor.size);
  const ratios = groups(level.anchors, (anchor) => anchor.ratio);
  if (level.anchors.length !== level.num_anchors || sizes.length * ratios.length !== level.num_anchors) return shapes(level);
  const squarest = (group) => group.reduce((best, one) => (Math.abs(Math.log(one.ratio)) < Math.abs(Math.log(best.ratio)) ? one : best));
  const nice = (ratio) => NICE.find((one) => Math.abs(ratio / one - 1) < 0.07) ?? ratio;
  const ratioTexts = ratios.map((group) => Number(nice(group[0].ratio).toPrecision(2)));
  return `${sizes.map((group) => Math.round(squarest(group).size)).join(", ")} · ratio ${ratioTexts.join(", ")}`;
}

/** Anchors in groups of nearly the same `valueOf`, by rising value. */
function groups(anchors, valueOf) {
  const found = [];
  for (const anchor of [...anchors].sort((one, other) => valueOf(one) - valueOf(other))) {
    const last = found.at(-1);
    if (last && valueOf(anchor) / valueOf(last[0]) < ALIKE) last.push(anchor);
    else found.push([anchor]);
  }
  return found;
}

function shapes(level) {
  const more = level.num_anchors > level.anchors.length ? ", …" : "";
  return level.anchors.map((anchor) => `${Math.round(anchor.width)}×${Math.round(anchor.height)}`).join(", ") + more;
}

function facts({ backbone, library, channels, norm, pooler, heads }) {
  const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const entries = [
    ["Backbone", `${backbone} of ${library}, ${channels === 1 ? "1 channel" : "3 channels"}, norm: ${norm}`],
    ["RPN", `${plural(heads.rpn_convolutions, "convolution")}; samples ${heads.rpn_batch_size}, ${heads.rpn_positive_fraction} positive; NMS ${heads.rpn_nms_threshold}`],
    ["Pooler", `${pooler.size} × ${pooler.size} from ${pooler.levels.join(", ")}`],
    ["Box head", `${heads.box_convolutions ? `${plural(heads.box_convolutions, "convolution")}, ` : ""}${heads.box_linear} linear, ${heads.box_features} features; samples ${heads.roi_batch_size}, ${heads.roi_positive_fraction} positive`],
    ["Predictions", `NMS ${heads.nms_threshold}, at most ${heads.max_detections}${heads.score_threshold ? `, scores from ${heads.score_threshold}` : ""}`],
  ];
  return element("dl", { class: "model-card-facts a-small" }, ...entries.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
}

function table(heads, rows) {
  const cells = heads.map((head, index) => element("th", { class: index && !head.startsWith("Anchors") ? "a-number" : "" }, head));
  return element("table", { class: "a-table" }, element("thead", {}, element("tr", {}, ...cells)), element("tbody", {}, ...rows));
}

/** Show the card that a run wrote at its start. */
export async function openRunCard(run) {
  try {
    const card = await getJSON(projectURL(`/runs/${run.id}/model`));
    const close = element("button", { type: "button", class: "a-button", "data-action": "close" }, "Close");
    const dialog = element("dialog", { class: "a-dialog model-card-dialog", "aria-label": "Model of the run" }, modelCard(card), element("div", { class: "actions" }, close));
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    notify(error, error.status === 404 ? "info" : "error");
  }
}

// How options of a run are called on the screen, and how their values read.

/** "roi_batch_size" -> "RoI batch size". */
export function titleOf(name) {
  const words = name.replaceAll("_", " ").replace(/\b(roi|rpn|nms|ema)\b/g, (word) => ({ roi: "RoI" })[word] ?? word.toUpperCase());
  return words[0].toUpperCase() + words.slice(1);
}

/** A value in words; `models` are those of GET /config. */
export function valueText(name, value, models) {
  if (name === "model") return models.find((model) => model.name === value)?.title ?? value;
  if (name === "augmentation") return chainText(value);
  if (name === "phases" && Array.isArray(value)) return value.length ? value.map((phase) => `${phase.train} ${phase.epochs}`).join(", ") : "none";
  if (Array.isArray(value)) return value.length ? value.join(", ") : "none";
  return value === "" ? "none" : String(value);
}

/** An augmentation chain by the names of its steps. */
export function chainText(steps) {
  const names = steps.filter((step) => step.is_enabled !== false).map((step) => step.name);
  return names.length ? `${names.slice(0, 2).join(", ")}${names.length > 2 ? ` and ${names.length - 2} more` : ""}` : "None";
}

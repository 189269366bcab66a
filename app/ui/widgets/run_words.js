// How the splits, checkpoints and stored predictions of a run are called, where one of them is chosen.

import { formatFigure } from "./number_words.js";

export const SPLITS = ["valid", "test", "train"]; // what was not trained on comes first

/** The splits of a run that have images; `run` as GET /review gives it. */
export function splitsOf(run) {
  return SPLITS.filter((split) => run.splits[split] > 0);
}

/** Of a checkpoint its name and, where it was judged, how good it is. */
export function checkpointTitle({ name, map50 }) {
  return map50 === null ? name : `${name}, mAP50 ${formatFigure(map50)}`;
}

/** Of stored predictions: an ensemble, or a checkpoint of the run looking in other views than the run's own. */
export function setTitle(set, run) {
  if (set.kind === "ensemble") return set.title;
  const name = run.checkpoints.find((item) => item.id === set.checkpoint_id)?.name ?? set.name;
  return set.is_main ? name : `${name}, ${set.views}`;
}

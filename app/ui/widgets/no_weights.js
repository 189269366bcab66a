// What to say where a project has no weights to look at: nothing trained yet, or a run that has kept none, and where to go.

import { getJSON, pageURL, projectURL } from "./api.js";

const ENDED = { failed: "failed", cancelled: "was stopped", interrupted: "was interrupted", done: "ended" };

/** {text, href, action}; `first` says what training would bring to the page. */
export async function explainNoWeights(first) {
  const [run] = (await getJSON(projectURL("/runs"))).runs;
  if (!run) return { text: first, href: pageURL("/train"), action: "Train" };
  const text = run.state in ENDED
    ? `The run “${run.name}” ${ENDED[run.state]} before it kept any weights. The Train page says why.`
    : `The run “${run.name}” is ${run.state}. Its first weights come at the end of its first epoch.`;
  return { text, href: pageURL("/train", { run: run.id }), action: "Open the run" };
}

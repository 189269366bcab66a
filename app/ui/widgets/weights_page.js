// How a page begins that looks at trained weights: with the runs that have some, or with words on what is missing.

import { getJSON, getParam, pageURL, projectSlug, projectURL } from "./api.js";
import { emptyState, failure, noProject, wayTo } from "./empty_state.js";
import { ENDINGS } from "./job_states.js";

/**
 * Call `open` with the runs that have weights, as GET /review gives them; otherwise the page says what is missing: any
 * weights, or the run that the address names. `data-state` of the page is loading, empty, missing or failed meanwhile.
 * @param {HTMLElement} page
 * @param {{nothing: string, first: string, open: (runs: Object[]) => Promise}} options nothing: the heading without
 *   weights; first: what training would bring to this page
 */
export async function openWithWeights(page, { nothing, first, open }) {
  page.dataset.state = "loading";
  try {
    const { runs } = projectSlug() ? await getJSON(projectURL("/review")) : { runs: [] };
    if (runs.length && isNamedRunThere(runs)) return await open(runs);
    if (runs.length) return showMissingRun(page, runs);
    page.replaceChildren(projectSlug() ? await noWeights(nothing, first) : noProject());
    page.dataset.state = "empty";
  } catch (error) {
    showFailure(page, error, () => openWithWeights(page, { nothing, first, open }));
  }
  return null;
}

/** Whether the address names no run, or one of these, or predictions of one. */
function isNamedRunThere(runs) {
  const [run, set] = [getParam("run"), Number(getParam("set"))];
  return run === null || runs.some(({ id, sets }) => id === Number(run) || sets.some((one) => one.id === set));
}

/** In the place of the page: the run of the address is not here; the newest one is. */
function showMissingRun(page, [newest]) {
  const open = wayTo(pageURL(location.pathname, { run: newest.id }), `Open ${newest.name}`);
  page.replaceChildren(emptyState(`There is no run ${getParam("run")} with weights here`, "It may have been deleted, or has kept no checkpoint yet.", open));
  page.dataset.state = "missing";
}

/** In the place of the page: what went wrong. */
export function showFailure(page, error, onAgain) {
  page.dataset.state = "failed";
  page.replaceChildren(failure(error, onAgain));
}

/** Nothing is trained yet, or the newest run has kept no weights. */
async function noWeights(title, first) {
  const [run] = (await getJSON(projectURL("/runs"))).runs;
  if (!run) return emptyState(title, first, wayTo(pageURL("/train"), "Train"));
  const text = run.state in ENDINGS
    ? `The run “${run.name}” ${ENDINGS[run.state]} before it kept any weights. The Train page says why.`
    : `The run “${run.name}” is ${run.state}. Its first weights come at the end of its first epoch.`;
  return emptyState(title, text, wayTo(pageURL("/train", { run: run.id }), "Open the run"));
}

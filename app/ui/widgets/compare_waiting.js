// What stands in the place of figures while there are none: what is missing, or why they cannot be.

import { pageURL } from "./api.js";
import { element } from "./element.js";
import { emptyState, failure, noPredictions, wayTo } from "./empty_state.js";

/**
 * @param {Object} state kind, and what belongs to it: missing, card (of what goes on) or error
 * @param {Object} doing onPredict(missing), onAgain(), split
 */
export function waitingFor(state, doing) {
  return element("div", { class: "wait" }, content(state, doing));
}

function content(state, { onPredict, onAgain, split }) {
  switch (state.kind) {
    case "single":
      return emptyState("One checkpoint is there, and a comparison needs two", "Train another run with other options, or train this one for longer: from its second kept checkpoint on, two of them can be compared.", wayTo(pageURL("/train"), "Train"));
    case "missing": {
      const names = state.missing.map((side) => side.name).join(" and ");
      const count = state.missing[0].images;
      const each = `${count} image${count === 1 ? "" : "s"}${state.missing.length > 1 ? " each" : ""}`;
      return noPredictions(split, `${names}: the detector looks at ${each}; it goes on in the background if you leave the page.`, () => onPredict(state.missing));
    }
    case "predicting":
    case "working":
      return state.card.root;
    case "stopped":
      return emptyState("Comparing was stopped", "", element("button", { type: "button", class: "a-button primary", onclick: onAgain }, "Go on"));
    case "refused":
      return failure(state.error, onAgain);
    default:
      return element("p", { class: "a-muted loading", role: "status" }, "Loading…");
  }
}

// A card of words in the middle of a page, in the place of what is not there: what is missing, why, and what to do.

import { pageURL } from "./api.js";
import { element } from "./element.js";

/** @param {string} title @param {string | Node} text "" for none @param {...Node} content links and buttons below it */
export function emptyState(title, text, ...content) {
  const words = typeof text === "string" ? element("p", {}, text) : text;
  return element("div", { class: "a-empty" }, element("h3", {}, title), text ? words : null, ...content);
}

/** The way out of an empty state: a link to the page where the missing thing is made. */
export function wayTo(href, action) {
  return element("a", { class: "a-button primary", href }, action);
}

export function noProject() {
  return emptyState("No project is open", "Choose a project, or import a dataset to make one.", wayTo(pageURL("/"), "Projects"));
}

/** Predictions on a split have to be made first. */
export function noPredictions(split, text, onPredict) {
  const go = element("button", { type: "button", class: "a-button primary", onclick: onPredict }, `Predict ${split} images`);
  return emptyState(`No predictions on ${split} yet`, text, go);
}

/** What went wrong, and another try. */
export function failure(error, onAgain) {
  return emptyState(error.message, error.hint ?? "", element("button", { type: "button", class: "a-button", onclick: onAgain }, "Try again"));
}

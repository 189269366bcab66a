// Places of a page that the browser's Back returns from, such as a large image or a list of images. Each is an entry of
// the history; what is set in it (sliders, filters, the next image) only replaces its address, by setParam.

import { setParam } from "./api.js";

const KIND = "anchorage:place"; // in the state of an entry: which kind of place it was made for

/** Go to a place: an entry is added, and `changes` ({name: value}, null to remove) are made in its address. */
export function enterPlace(kind, changes) {
  history.pushState({ ...history.state, [KIND]: kind }, "", location.href);
  setParams(changes);
}

/** Make several changes in the address of this place. */
export function setParams(changes) {
  for (const [name, value] of Object.entries(changes)) setParam(name, value);
}

/** Keep something with this place that its address has no room for: a reload and Back bring it again, another tab does not. */
export function keepHere(name, value) {
  history.replaceState({ ...history.state, [`${KIND}:${name}`]: value }, "", location.href);
}

/** What was kept with this place, or undefined. */
export function keptHere(name) {
  return history.state?.[`${KIND}:${name}`];
}

/**
 * Leave a place as Back does, so that the way in and the way out are not two entries. One that was opened by its address
 * has none to go back to: then only `changes` are made.
 */
export function leavePlace(kind, changes) {
  if (history.state?.[KIND] === kind) history.back();
  else setParams(changes);
}

/** Call `follow` when Back or Forward has brought another address of this page, until `signal` ends it. */
export function onReturn(follow, signal) {
  window.addEventListener("popstate", follow, { signal });
}

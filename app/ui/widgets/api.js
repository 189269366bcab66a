// What every widget shares: ids in the address, calls to our own routes, notices, polling.

/** The current project's short name from ?project=, or "" when none is open. */
export function projectSlug() {
  return getParam("project") ?? "";
}

/** A query parameter of this page's address, or null. */
export function getParam(name) {
  return new URLSearchParams(location.search).get(name);
}

/** Set a query parameter without loading the page or adding to the history; null or "" removes it. */
export function setParam(name, value) {
  const url = new URL(location.href);
  if (value === null || value === undefined || value === "") url.searchParams.delete(name);
  else url.searchParams.set(name, String(value));
  history.replaceState(history.state, "", url);
  window.dispatchEvent(new CustomEvent("anchorage:param", { detail: { name, value } }));
}

/** The address of a page of the app that keeps the current project: pageURL("/train", {run: 3}). */
export function pageURL(path, params = {}) {
  const query = new URLSearchParams();
  if (projectSlug()) query.set("project", projectSlug());
  for (const [name, value] of Object.entries(params)) query.set(name, String(value));
  return query.size ? `${path}?${query}` : path;
}

/** The address of a route of the current project: projectURL("/images"). */
export function projectURL(path = "") {
  return `/api/projects/${encodeURIComponent(projectSlug())}${path}`;
}

/** A moment (seconds since 1970) as people read it: "Nov 21, 2026, 1:16 PM". */
export function dateText(seconds) {
  return new Date(seconds * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}

/** A refused or failed call. `status` is 0 when the app could not be reached; `body` is the parsed answer or null. */
export class ApiError extends Error {
  constructor(status, message, hint = "", body = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.hint = hint;
    this.body = body;
  }
}

/** GET a route and parse its JSON; throws ApiError. `options` goes to fetch (signal, …). */
export function getJSON(path, options = {}) {
  return request("GET", path, undefined, options);
}

/** Send JSON to a route and parse the answer (null when there is none); throws ApiError. */
export function sendJSON(method, path, body, options = {}) {
  return request(method, path, body, options);
}

async function request(method, path, body, options) {
  const init = { method, credentials: "same-origin", ...options };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "Content-Type": "application/json", ...options.headers };
  }
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "Anchorage does not answer.", "Is launch.py still running? Nothing here is lost by waiting.");
  }
  const answer = await parsed(response);
  if (response.ok) return answer;
  throw new ApiError(response.status, answer?.error ?? `The app answered ${response.status}.`, answer?.hint ?? "", answer);
}

async function parsed(response) {
  const text = await response.text();
  if (!text) return null;
  try {
    return JSON.parse(text);
  } catch (error) {
    if (response.ok) throw new ApiError(response.status, "The app's answer could not be read.", String(error));
    return null;
  }
}

const NOTICE_MS = { info: 4000, done: 4000, error: 12000 };

/** Show a short notice at the bottom, away from the buttons at the right; kind is "info", "done" or "error". An ApiError brings its hint along. */
export function notify(text, kind = "info") {
  const notice = document.createElement("div");
  notice.className = `a-notice ${kind}`;
  notice.setAttribute("role", kind === "error" ? "alert" : "status");
  const message = document.createElement("div");
  message.textContent = text instanceof Error ? text.message : String(text);
  notice.append(message);
  if (text?.hint) {
    const hint = document.createElement("div");
    hint.className = "hint";
    hint.textContent = text.hint;
    notice.append(hint);
  }
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "×";
  close.setAttribute("aria-label", "Dismiss");
  close.addEventListener("click", () => notice.remove());
  notice.append(close);
  notices().append(notice);
  setTimeout(() => notice.remove(), NOTICE_MS[kind] ?? NOTICE_MS.info);
  return notice;
}

function notices() {
  let corner = document.querySelector("body > .a-notices");
  if (!corner) {
    corner = document.createElement("div");
    corner.className = "a-notices";
    document.body.append(corner);
  }
  return corner;
}

/**
 * Call `fn` now and then every `ms`, one call at a time, pausing while the tab is hidden and ending when `owner`
 * (an element) leaves the page. Errors of `fn` are left to `fn`; one that escapes is logged and polling goes on.
 * Returns a function that stops it.
 */
export function poll(fn, ms, owner = null) {
  let timer = null;
  let isStopped = false;
  let isBusy = false;
  const stop = () => {
    isStopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", onVisible);
  };
  const tick = async () => {
    clearTimeout(timer);
    if (isStopped || isBusy) return;
    if (owner && !owner.isConnected) return stop();
    if (document.hidden) return;
    isBusy = true;
    try {
      await fn();
    } catch (error) {
      console.error(error);
    }
    isBusy = false;
    if (!isStopped) timer = setTimeout(tick, ms);
  };
  const onVisible = () => {
    if (!document.hidden) tick();
  };
  document.addEventListener("visibilitychange", onVisible);
  tick();
  return stop;
}

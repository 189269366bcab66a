// <anchorage-nav>: the bar on top of every page. It puts itself there, before Gradio has drawn anything.
// Pages come from the shell as JSON in <meta name="anchorage-pages">; the project from ?project=.

import { getJSON, getParam, notify, pageURL, poll, projectSlug, projectURL, sendJSON, setParam } from "./api.js";
import { isLive } from "./job_states.js";

const ANCHOR =
  '<svg viewBox="0 0 24 24" width="22" height="22" fill="none" stroke="currentColor" stroke-width="2" ' +
  'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><circle cx="12" cy="5" r="2.4"/>' +
  '<path d="M12 7.4V21M8 11h8M4 13.5c.4 4.3 3.5 7.5 8 7.5s7.6-3.2 8-7.5M4 13.5l-1.6 2M4 13.5l2.2 1.4' +
  'M20 13.5l1.6 2M20 13.5l-2.2 1.4"/></svg>';
const SUN =
  '<svg viewBox="0 0 24 24" width="18" height="18" fill="none" stroke="currentColor" stroke-width="2" ' +
  'stroke-linecap="round" aria-hidden="true"><circle cx="12" cy="12" r="4"/><path d="M12 2v2M12 20v2M2 12h2M20 12h2' +
  'M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4"/></svg>';
const MOON =
  '<svg viewBox="0 0 24 24" width="18" height="18" fill="none" stroke="currentColor" stroke-width="2" ' +
  'stroke-linejoin="round" aria-hidden="true"><path d="M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z"/></svg>';

const MODE_KEY = "anchorage-mode"; // "light" or "dark"; the system's choice while it is not set
const JOBS_MS = 2000;
const JOB_PAGES = { train: "/train", predict: "/review", ensemble: "/ensemble", ensemble_lab: "/ensemble", sweep: "/ensemble", import: "/data", export: "/export" };
const JOB_NAMES = { train: "Training", predict: "Predicting", ensemble: "Ensembling", ensemble_lab: "Ensemble lab", sweep: "Sweeping", import: "Importing", export: "Exporting", preflight: "Checking", measure: "Measuring" };

const systemDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = localStorage.getItem(MODE_KEY);
  return chosen ? chosen === "dark" : systemDark.matches;
}

/** Keep the class on <html> and <body>; Gradio sets it from the system's choice when it starts. */
function applyMode() {
  for (const element of [document.documentElement, document.body]) {
    if (element.classList.contains("dark") !== isDark()) element.classList.toggle("dark", isDark());
  }
}

class AnchorageNav extends HTMLElement {
  connectedCallback() {
    if (this.childElementCount) return;
    this.pages = JSON.parse(document.querySelector('meta[name="anchorage-pages"]')?.content ?? "[]");
    this.append(this.brand(), this.projectPicker(), this.links(), this.jobLink(), this.modeButton());
    this.markCurrent();
    window.addEventListener("anchorage:projects", () => this.loadProjects());
    this.loadProjects();
    if (projectSlug()) {
      // However the project was reached, it is the last opened one now; what is wrong with it the page itself says.
      sendJSON("POST", projectURL("/open")).catch(() => null);
      poll(() => this.loadJobs(), JOBS_MS, this);
    }
    this.sayMissing();
  }

  brand() {
    const link = document.createElement("a");
    link.className = "brand";
    link.href = pageURL("/");
    link.setAttribute("aria-label", "Anchorage");
    link.innerHTML = `${ANCHOR}<span>Anchorage</span>`;
    return link;
  }

  projectPicker() {
    this.picker = document.createElement("select");
    this.picker.className = "a-input";
    this.picker.setAttribute("aria-label", "Project");
    this.picker.hidden = true;
    this.picker.addEventListener("change", () => this.openProject(this.picker.value));
    return this.picker;
  }

  /** Go to the same page of another project. */
  openProject(slug) {
    const page = location.pathname === "/" ? "/data" : location.pathname;
    location.href = `${page}?project=${encodeURIComponent(slug)}`;
  }

  links() {
    const list = document.createElement("nav");
    list.setAttribute("aria-label", "Pages");
    for (const page of this.pages) {
      const link = document.createElement("a");
      link.href = pageURL(page.path);
      link.textContent = page.title;
      link.dataset.path = page.path;
      list.append(link);
    }
    return list;
  }

  jobLink() {
    this.job = document.createElement("a");
    this.job.className = "job";
    this.job.hidden = true;
    this.jobText = document.createElement("span");
    this.jobBar = document.createElement("progress");
    this.jobBar.max = 1;
    this.job.append(this.jobText, this.jobBar);
    return this.job;
  }

  modeButton() {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "a-button quiet mode";
    const draw = () => {
      button.innerHTML = isDark() ? SUN : MOON;
      button.title = isDark() ? "Switch to light" : "Switch to dark";
      button.setAttribute("aria-label", button.title);
      this.dataset.mode = isDark() ? "dark" : "light";
      applyMode();
    };
    button.addEventListener("click", () => {
      const next = isDark() ? "light" : "dark";
      // Following the system again once both agree, so that an evening's switch does not stick for ever.
      if ((next === "dark") === systemDark.matches) localStorage.removeItem(MODE_KEY);
      else localStorage.setItem(MODE_KEY, next);
      draw();
      window.dispatchEvent(new CustomEvent("anchorage:mode", { detail: { mode: next } }));
    });
    systemDark.addEventListener("change", draw);
    new MutationObserver(applyMode).observe(document.body, { attributeFilter: ["class"] });
    draw();
    return button;
  }

  markCurrent() {
    const path = location.pathname.replace(/\/+$/, "") || "/";
    for (const link of this.querySelectorAll("nav a")) {
      if (link.dataset.path !== path) continue;
      link.setAttribute("aria-current", "page");
      const title = `${link.textContent} · Anchorage`;
      // Gradio gives all pages one title, some time after it has started.
      const write = () => document.title === title || (document.title = title);
      new MutationObserver(write).observe(document.head, { childList: true, subtree: true, characterData: true });
      write();
    }
  }

  async loadProjects() {
    try {
      const { projects } = await getJSON("/api/projects?sizes=false");
      this.showProjects(projects);
    } catch (error) {
      notify(error, "error");
    }
    // Now that all else has its width: where the pages do not fit, the open one is in sight.
    this.querySelector("nav a[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
    this.dataset.ready = "true";
  }

  showProjects(projects) {
    this.picker.replaceChildren();
    // Where the address names none, the links open the one that was opened last: the first of the list.
    const usual = projects.find((project) => !project.problem)?.slug;
    const current = projectSlug() || usual;
    if (!projects.some((project) => project.slug === current)) {
      const none = new Option("Choose a project", "", true, true);
      none.disabled = true;
      this.picker.append(none);
    }
    for (const project of projects) {
      const isCurrent = project.slug === current;
      this.picker.append(new Option(project.name, project.slug, isCurrent, isCurrent));
    }
    this.picker.hidden = projects.length === 0;
    for (const link of this.querySelectorAll("nav a")) {
      const isUsable = link.dataset.path === "/" || projects.length > 0;
      link.toggleAttribute("data-disabled", !isUsable);
      link.title = isUsable ? "" : "Create or import a project first";
      if (!projectSlug() && usual && link.dataset.path !== "/") link.href = `${link.dataset.path}?project=${encodeURIComponent(usual)}`;
    }
  }

  async loadJobs() {
    let jobs;
    try {
      ({ jobs } = await getJSON(projectURL("/jobs")));
    } catch (error) {
      // The page itself says what does not work; the bar only stops showing a job it knows nothing about.
      this.job.hidden = true;
      return;
    }
    const live = jobs.filter(isLive);
    const job = live.find((one) => one.state !== "queued") ?? live[0];
    this.dataset.jobs = String(live.length);
    this.job.hidden = !job;
    if (job) this.showJob(job, live.length);
  }

  showJob(job, count) {
    const { done = 0, total = 0, message = "" } = job.progress ?? {};
    const name = JOB_NAMES[job.kind] ?? job.kind;
    const percent = total > 0 ? Math.min(done / total, 1) : null;
    const state = job.state === "queued" ? "queued" : job.state === "stopping" ? "stopping" : "";
    const amount = state || (percent === null ? "" : `${Math.floor(percent * 100)} %`);
    this.jobText.textContent = [name, amount, count > 1 ? `+${count - 1}` : ""].filter(Boolean).join(" ");
    this.job.title = message || name;
    this.job.href = pageURL(JOB_PAGES[job.kind] ?? "/train", job.payload?.run_id ? { run: job.payload.run_id } : {});
    if (percent === null) this.jobBar.removeAttribute("value");
    else this.jobBar.value = percent;
  }

  /** The server sends the address of a project that is gone to the front page with ?missing=. */
  sayMissing() {
    const missing = getParam("missing");
    if (missing === null) return;
    notify(`There is no project “${missing}” here any more.`, "error");
    setParam("missing", null);
  }
}

customElements.define("anchorage-nav", AnchorageNav);
applyMode();
if (!document.querySelector("anchorage-nav")) document.body.prepend(document.createElement("anchorage-nav"));

// The states of jobs and runs, and how one that is over is told.

const LIVE = ["queued", "running", "stopping"];

/** How a job or a run ended, to go after its name; a paused one goes on some day. */
export const ENDINGS = { done: "ended", failed: "failed", cancelled: "was stopped", interrupted: "was interrupted" };

/** Whether a job or a run waits or works; in any other state nothing more happens by itself. */
export function isLive({ state }) {
  return LIVE.includes(state);
}

/** What to say of a job that did not end well; `what` it was, as a sentence begins. */
export function endingText(job, what) {
  return job.error || `${what} ${ENDINGS[job.state]}.`;
}

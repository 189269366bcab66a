// In the place of a checkpoint's predictions on a split while there are none: an offer to make them, then how far they
// are. A job that is under way is found again after a reload.

import { getJSON, notify, projectURL, sendJSON } from "./api.js";
import { noPredictions } from "./empty_state.js";
import { JobProgress } from "./job_progress.js";
import { isLive } from "./job_states.js";

export class Predicting {
  /**
   * @param {HTMLElement} page its `data-state` becomes missing or predicting
   * @param {HTMLElement} body filled
   * @param {{checkpointId: number, split: string, text: string, onEnd: () => void}} options text: said with the offer
   */
  constructor(page, body, options) {
    Object.assign(this, { page, body, ...options });
  }

  /** Follow the job that makes them, or offer to begin one. */
  async open() {
    this.page.dataset.state = "loading";
    const { jobs } = await getJSON(projectURL("/jobs"));
    const isOurs = ({ kind, payload }) => kind === "predict" && payload.checkpoint_id === this.checkpointId && payload.split === this.split;
    const job = jobs.find((item) => isLive(item) && isOurs(item));
    if (this.isOver) return;
    if (job) this._follow(job);
    else this._offer();
  }

  /** Leave the page to others. */
  end() {
    this.isOver = true;
    this.progress?.end();
  }

  _offer() {
    this.page.dataset.state = "missing";
    this.body.replaceChildren(noPredictions(this.split, this.text, () => this._begin()));
  }

  async _begin() {
    try {
      const { job } = await sendJSON("POST", projectURL("/prediction-sets"), { checkpoint_id: this.checkpointId, split: this.split });
      if (this.isOver) return;
      if (job) this._follow(job);
      else this.onEnd();
    } catch (error) {
      notify(error, "error");
    }
  }

  _follow(job) {
    this.page.dataset.state = "predicting";
    this.progress = new JobProgress([job], { title: `Predicting ${this.split} images`, onEnd: this.onEnd });
    this.body.replaceChildren(this.progress.root);
  }
}

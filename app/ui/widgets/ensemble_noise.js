// How far the measuring of an ensemble's noise is, in place of the outcome that comes of it. Small sets are measured
// before anything is seen of it.

import { getJSON, notify, poll, sendJSON } from "./api.js";
import { element } from "./element.js";
import { ProgressCard } from "./job_progress.js";

const POLL_MS = 700;

export class MeasuringNoise {
  /**
   * @param {string} address of the route that begins it and tells of it
   * @param {Element} owner ends the following when it leaves the page
   * @param {(table: Object) => void} onReady gets the ensemble's table with its noise
   */
  constructor(address, owner, onReady) {
    Object.assign(this, { address, owner, onReady });
    this.root = element("div", { class: "noise", role: "status" }, element("span", { class: "note" }, "Measuring whether the difference is more than chance…"));
    this.go();
  }

  go() {
    const card = new ProgressCard({ title: "Is the difference more than chance?", onStop: () => this.stop() });
    this.isStopped = false;
    const end = poll(async () => {
      let answer;
      try {
        answer = await getJSON(this.address);
      } catch (error) {
        if (error.status === 0 || this.isStopped) return null; // the app may come back
        end();
        return this.offer(error.message);
      }
      if (this.isStopped) return end();
      if (answer.state === "ready") {
        end();
        return this.onReady(answer.table);
      }
      if (!card.root.isConnected) this.root.replaceChildren(card.root);
      return card.show([{ state: "running", progress: answer.progress }]);
    }, POLL_MS, this.owner);
  }

  async stop() {
    this.isStopped = true;
    try {
      await sendJSON("DELETE", this.address);
    } catch (error) {
      notify(error, "error");
    }
    this.offer("It is not known whether the difference is more than chance.");
  }

  offer(text) {
    const again = element("button", { type: "button", class: "a-button small", "data-action": "measure-noise", onclick: () => this.go() }, "Measure it");
    this.root.replaceChildren(element("span", { class: "note" }, text), " ", again);
  }
}

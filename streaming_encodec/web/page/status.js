// The quality of the connection in words, with the figures behind them.

import { part } from "./view.js";

/** @typedef {import("../client/quality.js").QualityReport} QualityReport */

/** @type {Record<string, string>} */
const WORDS = { good: "Good connection", fair: "Fair connection", poor: "Poor connection", lost: "Reconnecting…" };

export class Status {
  /** @param {"good" | "fair" | "poor" | "lost" | "none"} level */
  show(level) {
    const status = part("status");
    status.hidden = level === "none";
    status.dataset.level = level === "lost" ? "poor" : level;
    part("status-text").textContent = WORDS[level] ?? "";
  }

  /**
   * @param {QualityReport} quality
   * @param {number} underruns
   */
  figures(quality, underruns) {
    const { concealed, delayMs, sentConcealed, sentQueueMs, sentKbps } = quality;
    this.show(levelOf(quality));
    const rows = [
      ["You hear", `${percent(concealed)} made up, ${Math.round(delayMs)} ms of buffer`],
      ["Others hear you with", sentConcealed === null ? "no report yet" : `${percent(sentConcealed)} made up, ${Math.round(sentQueueMs)} ms of queue`],
      ["You send", `${sentKbps.toFixed(1)} kbps of voice`],
      ["Gaps of this device", `${underruns}`],
    ];
    part("figures").replaceChildren(...rows.flatMap(([name, value]) => {
      const term = document.createElement("dt"), definition = document.createElement("dd");
      term.textContent = name;
      definition.textContent = value;
      return [term, definition];
    }));
  }
}

/**
 * @param {QualityReport} quality
 * @returns {"good" | "fair" | "poor"}
 */
export function levelOf({ concealed, delayMs, sentConcealed, sentQueueMs }) {
  const lost = Math.max(concealed, sentConcealed ?? 0), lateMs = Math.max(delayMs, sentQueueMs);
  if (lost < 0.03 && lateMs < 150) return "good";
  return lost < 0.12 && lateMs < 350 ? "fair" : "poor";
}

/** @param {number} share */
const percent = (share) => `${(100 * share).toFixed(1)} %`;

// How a call goes, second by second: what was lost on the way in, and what listeners say of the way out.

/** @typedef {import("../voice/statistics.js").Report} Report */
/** @typedef {import("../voice/statistics.js").ReceiverStatistics} ReceiverStatistics */

/**
 * concealed: frames made up of all played, in the last seconds, 0 to 1, of the worst speaker. delayMs: of the largest
 * jitter buffer. sentConcealed, sentQueueMs: what the worst listener says. sentKbps: payload that was sent. way: by
 * which voice comes and goes. datagrams: packets that went so. played, madeUp: samples of those who are here, since the first packet of each.
 * @typedef {object} QualityReport
 * @property {number} concealed
 * @property {number} delayMs
 * @property {number | null} sentConcealed
 * @property {number} sentQueueMs
 * @property {number} sentKbps
 * @property {"datagrams" | "websocket"} way
 * @property {{sent: number, received: number}} datagrams
 * @property {number} played
 * @property {number} madeUp
 */

const FRESH_S = 4;
const SMOOTH = 0.5;

export class Quality {
  /** @type {Map<ReceiverStatistics, {played: number, concealed: number}>} */
  #seen = new Map();
  #concealed = 0;
  /** @type {Map<number, {report: Report, atS: number}>} */
  #reports = new Map();
  #bytes = 0;
  #thenS = 0;

  /**
   * @param {Report} report
   * @param {number} nowS
   */
  onReport(report, nowS) {
    this.#reports.set(report.listener ?? 0, { report, atS: nowS });
  }

  /**
   * @param {{bytesSent: number, way: QualityReport["way"], datagramCounts: QualityReport["datagrams"]}} link
   * @param {{statistics: Map<number, ReceiverStatistics>, targetMs: Map<number, number>}} mixer
   * @param {number} nowS
   * @returns {QualityReport}
   */
  look(link, mixer, nowS) {
    let worst = 0, played = 0, madeUp = 0;
    const seen = new Map();
    for (const statistics of mixer.statistics.values()) {
      const now = {
        played: statistics.totalSamplesReceived,
        concealed: statistics.concealedSamples - statistics.silentConcealedSamples,
      };
      const before = this.#seen.get(statistics) ?? { played: 0, concealed: 0 };
      if (now.played > before.played) worst = Math.max(worst, (now.concealed - before.concealed) / (now.played - before.played));
      seen.set(statistics, now);
      played += now.played;
      madeUp += now.concealed;
    }
    this.#seen = seen;
    this.#concealed += SMOOTH * (worst - this.#concealed);
    for (const [listener, { atS }] of this.#reports) if (nowS - atS > FRESH_S) this.#reports.delete(listener);
    const reports = [...this.#reports.values()].map(({ report }) => report);
    const kbps = (8 * (link.bytesSent - this.#bytes)) / 1000 / Math.max(0.1, nowS - this.#thenS);
    this.#bytes = link.bytesSent;
    this.#thenS = nowS;
    return {
      concealed: this.#concealed,
      delayMs: Math.max(0, ...mixer.targetMs.values()),
      sentConcealed: reports.length ? Math.max(...reports.map((report) => report.fraction_concealed)) : null,
      sentQueueMs: Math.max(0, ...reports.map((report) => report.queue_ms ?? 0)),
      sentKbps: kbps,
      way: link.way,
      datagrams: link.datagramCounts,
      played,
      madeUp,
    };
  }
}

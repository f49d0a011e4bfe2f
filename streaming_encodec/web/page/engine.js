// The page's end of the Worker: messages as types, and events.

/** @typedef {import("../client/session.js").Ticket} Ticket */
/** @typedef {import("../client/quality.js").QualityReport} QualityReport */

/**
 * @typedef {{url: string, room: string, role: "both" | "subscribe" | "publish", name: string | null, token: string | null,
 *   ticket: Ticket | null, kbps: number, codebooks: number | null}} JoinOptions
 *
 * @typedef {{type: "load", files: {kernel: string, weights: string, config: string, bytes: number, format: unknown}}
 *   | {type: "audio", capture: MessagePort, playback: MessagePort, contextRate: number}
 *   | {type: "test"} | {type: "join", options: JoinOptions} | {type: "mute", muted: boolean}
 *   | {type: "kbps", kbps: number} | {type: "codebooks", codebooks: number} | {type: "hurry"} | {type: "leave"}} ToWorker
 *
 * @typedef {{type: "loading", share: number}
 *   | {type: "ready", bandwidths: number[], codebooks: number[], rate: number, frameSamples: number, loadMs: number, startMs: number}
 *   | {type: "failed", unsupported: boolean, detail: string}
 *   | {type: "level", peak: number, speaking: boolean, mutedSpeech: boolean}
 *   | {type: "test", state: "recording" | "playing" | "none"}
 *   | {type: "state", state: "connected" | "reconnecting"} | {type: "over", code: number, reason: string}
 *   | {type: "people", others: {sender: number, name: string | null}[]} | {type: "ticket", ticket: Ticket | null}
 *   | {type: "speakers", levels: [number, number][]}
 *   | {type: "quality", quality: QualityReport, underruns: number}} FromWorker
 */

/** @typedef {{[Kind in FromWorker["type"]]: (message: Extract<FromWorker, {type: Kind}>) => void}} Handlers */

export class Engine {
  #worker;
  /** @type {Partial<Handlers>} */
  #handlers = {};

  constructor() {
    this.#worker = new Worker(new URL("../worker.js", import.meta.url), { type: "module", name: "call" });
    this.#worker.onmessage = ({ data }) => {
      const message = /** @type {FromWorker} */ (data);
      /** @type {((message: FromWorker) => void) | undefined} */ (this.#handlers[message.type])?.(message);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#handlers.failed?.({ type: "failed", unsupported: false, detail: event.message });
    };
  }

  /**
   * @template {FromWorker["type"]} Kind
   * @param {Kind} type
   * @param {Handlers[Kind]} handler
   */
  on(type, handler) {
    this.#handlers[type] = handler;
  }

  /**
   * @param {ToWorker} message
   * @param {Transferable[]} [transfer]
   */
  tell(message, transfer = []) {
    this.#worker.postMessage(message, transfer);
  }
}

// A connection to a relay that is restored when it breaks, as docs/protocol.md asks: hello, welcome, signs of life,
// the ticket. Over a WebSocket, and voice over datagrams where they get through. Time and sockets are the browser's; a test hands in its own.

import { Datagrams } from "./datagrams.js";
import { FLAG_END } from "../wire/header.js";
import { SUBPROTOCOL, readMessage } from "./messages.js";

/** @typedef {import("./messages.js").RelayMessage} RelayMessage */
/** @typedef {import("./messages.js").Welcome} Welcome */

/** After these another attempt fails as well. */
const FINAL = new Set([1000, 1002, 1007, 1009, 4001, 4400, 4403, 4409, 4426]);
const FIRST_TRY_S = 10;
/** A control message in a datagram begins so, and no packet does. */
const BRACE = 0x7b;
/** How long an attempt to come back may take: short ones first, since a lost network swallows the beginning of each. */
const TRIES_S = [1, 1, 2, 4];
const GIVE_UP_S = 120;
const MAX_UNSENT_BYTES = 2048;
/** Nothing was heard for so long where something should be: the network is lost, though the socket does not say so. */
const SILENT_MS = { voice: 1200, reports: 3000 };
/** Before that the relay is asked for a sign of life, where a stream's end may have been lost on the way. */
const ASK_MS = 600;

/**
 * How long to wait before an attempt (0, 1, …).
 * @param {number} attempt
 * @param {number} chance 0 to 1, spreads a crowd over time
 */
export function reconnectDelayS(attempt, chance) {
  return Math.min(1.2, 0.05 * 2 ** Math.min(attempt, 10)) * (0.5 + 0.5 * chance);
}

export class Link {
  connected = false;
  packetsDropped = 0;
  bytesSent = 0;
  /** Whether the last packet came by a way that keeps order. */
  hearsOrdered = true;
  /** What of the relay's is expected at present. */
  expects = () => ({ voice: false, reports: false });
  #url;
  #hello;
  #on;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {string | null} */
  #ticket;
  #welcomed = false;
  #over = false;
  #attempt = 0;
  #lostMs = 0;
  /** When voice last came, by either way, and when anything came over the WebSocket. */
  #voiceMs = 0;
  #heardMs = 0;
  #lastSaidMs = 0;
  #lastAskedMs = 0;
  #heartbeatMs = 5000;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #watch;
  /** @type {Datagrams | null} */
  #datagrams = null;
  #port;

  /**
   * hello: all but the ticket. onPacket: bytes and when they came, in ms of `performance.now()`. onLost: an outage began. onOver: the call has ended,
   * with the close code (1006 for a relay that could not be reached).
   * @param {string} url
   * @param {Record<string, unknown>} hello
   * @param {{onPacket: (bytes: Uint8Array, nowMs: number) => void, onMessage: (message: RelayMessage) => void,
   *   onTicket: (ticket: string | null) => void, onLost: () => void, onOver: (code: number, reason: string) => void}} on
   * @param {string | null} ticket of a call before, in the same room
   */
  constructor(url, hello, on, ticket = null) {
    this.#url = url;
    this.#hello = hello;
    this.#on = on;
    this.#ticket = ticket;
    const { hostname, port, protocol } = new URL(url);
    this.#port = Number(port) || (protocol === "wss:" ? 443 : 80);
    if (Datagrams.isPossible) {
      this.#datagrams = new Datagrams(hostname, {
        ask: () => this.say({ type: "datagrams" }),
        onPacket: (bytes, nowMs) => {
          if (bytes[0] === BRACE) { // who has left: the WebSocket, which may stand still, says the same
            const message = this.#welcomed ? readMessage(new TextDecoder().decode(bytes)) : null;
            if (message?.type === "left") on.onMessage(message);
            return;
          }
          this.#voiceMs = nowMs;
          this.hearsOrdered = false;
          if (this.#welcomed) on.onPacket(bytes, nowMs);
        },
      });
    }
  }

  /** Whether packets that are sent now arrive in order, and all of them. */
  get sendsOrdered() {
    return !this.#datagrams?.isCertain;
  }

  /** The way that voice goes at present. @returns {"datagrams" | "websocket"} */
  get way() {
    return this.#datagrams?.isUsed ? "datagrams" : "websocket";
  }

  /** Packets that went over datagrams, and that came so. */
  get datagramCounts() {
    return { sent: this.#datagrams?.sent ?? 0, received: this.#datagrams?.received ?? 0 };
  }

  open() {
    this.#connect(FIRST_TRY_S);
    this.#watch = setInterval(() => this.#look(), 200);
  }

  /** Leave for good. */
  close() {
    if (this.#over) return;
    this.say({ type: "bye" });
    this.#socket?.close(1000);
    this.#end(1000, "");
  }

  /** The browser says that the network is back. */
  hurry() {
    if (!this.connected && this.#welcomed && !this.#over) this.#connect(TRIES_S[1]);
  }

  /** @param {Uint8Array} bytes */
  send(bytes) {
    const socket = this.#socket, datagrams = this.#datagrams;
    let arrives = false;
    if (datagrams?.isOpen) {
      const sent = datagrams.sent;
      arrives = datagrams.send(bytes);
      if (datagrams.sent > sent) this.bytesSent += bytes.length;
      // The end goes both ways: without it, listeners would make up what is no more said.
      if (arrives && !(bytes[1] & FLAG_END)) return;
    }
    if (!this.connected || socket === null || socket.bufferedAmount > MAX_UNSENT_BYTES) {
      this.packetsDropped += Number(!arrives); // voice that comes late is of no use
      return;
    }
    socket.send(/** @type {Uint8Array<ArrayBuffer>} */ (bytes));
    if (!datagrams?.isOpen) this.bytesSent += bytes.length;
    this.#lastSaidMs = performance.now();
  }

  /** @param {Record<string, unknown>} message */
  say(message) {
    if (!this.connected || this.#socket === null) return;
    this.#socket.send(JSON.stringify(message));
    this.#lastSaidMs = performance.now();
  }

  /**
   * Have the relay cut what is heard to so many codebooks, also after an outage.
   * @param {number} codebooks
   */
  setLayers(codebooks) {
    this.#hello.max_codebooks = codebooks;
    this.say({ type: "layers", max_codebooks: codebooks });
  }

  /** @param {number} tryS */
  #connect(tryS) {
    clearTimeout(this.#timer);
    this.#forget();
    /** @type {WebSocket} */
    let socket;
    try {
      socket = new WebSocket(this.#url, SUBPROTOCOL);
    } catch {
      this.#end(1006, "");
      return;
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    this.#timer = setTimeout(() => this.#lost(1006, ""), 1000 * tryS);
    socket.onopen = () => socket.send(JSON.stringify({ ...this.#hello, resume: this.#ticket ?? undefined }));
    socket.onmessage = ({ data }) => this.#take(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
  }

  /** @param {string | ArrayBuffer} data */
  #take(data) {
    this.#heardMs = performance.now();
    if (typeof data !== "string") {
      const bytes = new Uint8Array(data);
      this.#voiceMs = this.#heardMs;
      if (!(bytes[1] & FLAG_END)) { // that one comes this way too, whatever way the others take
        this.hearsOrdered = true;
        this.#datagrams?.heardElsewhere(this.#heardMs);
      }
      if (this.connected) this.#on.onPacket(bytes, this.#heardMs);
      return;
    }
    const message = readMessage(data);
    if (message === null) return;
    if (message.type === "welcome") {
      clearTimeout(this.#timer);
      this.connected = this.#welcomed = true;
      this.#attempt = 0;
      this.#ticket = message.resume;
      this.#heartbeatMs = 1000 * message.heartbeatS;
      this.#lastSaidMs = this.#voiceMs = this.#heardMs;
      this.#on.onTicket(this.#ticket);
      this.#offered(message.datagrams, !message.resumed);
    } else if (message.type === "offer") {
      this.#offered(message.datagrams);
      return;
    }
    this.#on.onMessage(message);
  }

  /**
   * A relay behind a proxy offers a port that is not the page's: going around the proxy is not the page's to do, and
   * its policy forbids it.
   * @param {import("./messages.js").DatagramOffer | null} offer
   * @param {boolean} [fresh]
   */
  #offered(offer, fresh) {
    this.#datagrams?.offered(offer?.port === this.#port ? offer : null, fresh);
  }

  #look() {
    if (!this.connected) return;
    const nowMs = performance.now(), expected = this.expects();
    if (nowMs - this.#lastSaidMs >= this.#heartbeatMs) this.say({ type: "layers", max_codebooks: this.#hello.max_codebooks ?? 32 });
    const silentMs = nowMs - Math.max(this.#voiceMs, this.#heardMs);
    if (expected.voice && silentMs > ASK_MS && this.#datagrams?.isOpen && nowMs - this.#lastAskedMs > ASK_MS) {
      this.#lastAskedMs = nowMs;
      this.say({ type: "datagrams" }); // it answers with an offer
    }
    const lost = (expected.voice && silentMs > SILENT_MS.voice)
      || (expected.reports && nowMs - this.#heardMs > SILENT_MS.reports);
    if (lost) this.#lost(1006, "nothing was heard");
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #lost(code, reason) {
    clearTimeout(this.#timer);
    this.#forget();
    if (this.#over) return;
    const nowMs = performance.now();
    if (this.connected) this.#lostMs = nowMs;
    const was = this.connected;
    this.connected = false;
    if (FINAL.has(code) || !this.#welcomed || nowMs - this.#lostMs > 1000 * GIVE_UP_S) {
      this.#end(code, reason);
      return;
    }
    if (was) this.#on.onLost();
    const attempt = this.#attempt++;
    const tryS = TRIES_S[Math.min(attempt, TRIES_S.length - 1)];
    this.#timer = setTimeout(() => this.#connect(tryS), 1000 * reconnectDelayS(attempt, Math.random()));
  }

  #forget() {
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #end(code, reason) {
    if (this.#over) return;
    this.#over = true;
    this.connected = false;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    this.#datagrams?.close();
    this.#on.onOver(code, reason);
  }
}

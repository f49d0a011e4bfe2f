// One call: the link, one's own voice on its way out, everybody's on their way in, and who is there.

import { IncomingVoices, OutgoingVoice } from "../call/index.js";
import { LIVE_PLAYOUT } from "../voice/index.js";
import { Link } from "./link.js";
import { Quality } from "./quality.js";
import { Streams } from "./streams.js";

/** @typedef {import("../codec/codec.js").Codec} Codec */
/** @typedef {import("../wire/streamFormat.js").StreamFormat} StreamFormat */
/** @typedef {import("./messages.js").RelayMessage} RelayMessage */
/** @typedef {import("./quality.js").QualityReport} QualityReport */

/** What `talk` sends, so that both ends sound alike. */
const FRAMES_PER_PACKET = 2;
/** Numbers that a page may have used after it last said where it was. */
const NUMBERS_SPARE = 512;
/** Who speaks for so long has had a report of a listener, if the line works. */
const REPORTED_S = 3;

/**
 * What a page must know to come back after it was loaded again.
 * @typedef {object} Ticket
 * @property {string} ticket
 * @property {number} sequence the next packet's
 * @property {number} timestamp
 * @property {number} atMs Unix time
 */

/**
 * @typedef {object} Events
 * @property {(state: "connected" | "reconnecting") => void} onState
 * @property {(code: number, reason: string) => void} onOver
 * @property {(others: {sender: number, name: string | null}[]) => void} onPeople
 * @property {(ticket: Ticket | null) => void} onTicket
 * @property {(quality: QualityReport) => void} onQuality
 */

export class Session {
  #on;
  #link;
  #voice;
  #voices;
  #muted = false;
  /** @type {Map<number, string | null>} */
  #others = new Map();
  #sequence;
  #timestamp;
  /** @type {string | null} */
  #ticket = null;
  #quality = new Quality();
  #streams = new Streams();
  /** Somebody here reports, and did not leave since. */
  #isReportedOn = false;
  /** When this page was silent last. */
  #silentS = performance.now() / 1000;
  #looked = 0;

  /**
   * @param {Codec} codec
   * @param {StreamFormat} format
   * @param {{url: string, room: string, role: "both" | "subscribe" | "publish", name: string | null, token: string | null,
   *   ticket: Ticket | null, kbps: number, codebooks: number | null, nowS: number}} options
   * @param {Events} on
   */
  constructor(codec, format, { url, room, role, name, token, ticket, kbps, codebooks, nowS }, on) {
    this.#on = on;
    const passed = ticket ? Math.max(0, Date.now() - ticket.atMs) / 1000 / format.frameSeconds : 0;
    this.#sequence = ticket ? (ticket.sequence + NUMBERS_SPARE) % 2 ** 16 : random(2 ** 16);
    this.#timestamp = ticket ? (ticket.timestamp + NUMBERS_SPARE + Math.round(passed)) % 2 ** 32 : random(2 ** 32);
    this.#voice = role === "subscribe" ? null : new OutgoingVoice(codec, format, {
      kbps, settings: { framesPerPacket: FRAMES_PER_PACKET }, dtx: true,
      firstSequence: this.#sequence, firstTimestamp: this.#timestamp,
    });
    this.#voices = new IncomingVoices(codec, format, {
      settings: LIVE_PLAYOUT, nowS, onReports: (reports) => {
        for (const report of reports) this.#link.say({ type: "report", ...report, ordered: this.#link.hearsOrdered });
      },
    });
    const hello = {
      type: "hello", protocol: 1, room, role, format: format.toJSON(), token: token ?? undefined, name: name ?? undefined,
      max_codebooks: codebooks ?? undefined,
    };
    this.#link = new Link(url, hello, {
      onPacket: (bytes, nowMs) => {
        this.#streams.onPacket(bytes, nowMs / 1000);
        this.#voices.onPacket(bytes, nowMs / 1000);
      },
      onMessage: (message) => this.#take(message),
      onTicket: (value) => {
        this.#ticket = value;
        this.#tellTicket();
      },
      onLost: () => on.onState("reconnecting"),
      onOver: (code, reason) => this.#end(code, reason),
    }, ticket?.ticket ?? null);
    this.#link.expects = () => this.#expected();
    this.#link.open();
  }

  /** What is sent nobody hears while this is set. */
  set muted(/** @type {boolean} */ muted) {
    if (muted && !this.#muted) this.#send(this.#voice?.finish() ?? []);
    this.#muted = muted;
  }

  set kbps(/** @type {number} */ kbps) {
    if (this.#voice) this.#voice.kbps = kbps;
  }

  /** At most so many codebooks are received. */
  set codebooks(/** @type {number} */ codebooks) {
    this.#link.setLayers(codebooks);
  }

  /** Whether the VAD hears nobody here. */
  get isSilent() {
    return this.#muted || (this.#voice?.isSilent ?? true);
  }

  /** Mean squares of what is heard of each speaker. */
  get levels() {
    return this.#voices.mixer.levels;
  }

  get statistics() {
    return this.#voices.mixer.statistics;
  }

  /**
   * Samples of the microphone that end at `nowS`.
   * @param {Float32Array} pcm
   * @param {number} nowS
   */
  hear(pcm, nowS) {
    if (this.#voice && !this.#muted) this.#send(this.#voice.push(pcm, nowS));
  }

  /**
   * About `count` samples of everybody, never fewer; `nowS` is when the first will be heard.
   * @param {number} count
   * @param {number} nowS
   */
  read(count, nowS) {
    return /** @type {Float32Array} */ (this.#voices.readWhole(count, nowS, { certain: false }));
  }

  /** The network is said to be back. */
  hurry() {
    this.#link.hurry();
  }

  /** Leave for good. */
  leave() {
    this.#send(this.#voice?.finish() ?? []);
    this.#link.close();
  }

  /**
   * To be called about once a second.
   * @param {number} nowS
   */
  look(nowS) {
    this.#on.onQuality(this.#quality.look(this.#link, this.#voices.mixer, nowS));
    if (this.#looked++ % 2 === 0) this.#tellTicket();
  }

  /** @param {RelayMessage} message */
  #take(message) {
    switch (message.type) {
      case "welcome":
        this.#streams.clear();
        if (!message.resumed) {
          this.#others.clear();
          this.#isReportedOn = false;
        }
        for (const sender of this.#others.keys()) {
          if (!message.speakers.some((other) => other.sender === sender)) this.#others.delete(sender);
        }
        for (const { sender, name } of message.speakers) this.#others.set(sender, name ?? this.#others.get(sender) ?? null);
        this.#voices.onWelcome({ resumed: message.resumed, speakers: message.speakers.map(({ sender }) => sender) });
        this.#on.onState("connected");
        break;
      case "joined":
        this.#others.set(message.sender, message.name ?? this.#others.get(message.sender) ?? null);
        this.#voices.onJoined(message.sender);
        break;
      case "left":
        this.#others.delete(message.sender);
        this.#streams.onLeft(message.sender);
        this.#voices.onLeft(message.sender);
        this.#isReportedOn = false; // until one who is left does
        break;
      case "report": {
        const nowS = performance.now() / 1000;
        this.#isReportedOn = true;
        this.#quality.onReport(message.report, nowS);
        this.#voice?.onReport(message.report, nowS, { ordered: this.#link.sendsOrdered });
        return;
      }
      default:
        return;
    }
    this.#on.onPeople([...this.#others].map(([sender, name]) => ({ sender, name })));
  }

  /** @param {Uint8Array[]} packets */
  #send(packets) {
    for (const bytes of packets) {
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      this.#sequence = (view.getUint16(6, true) + 1) % 2 ** 16;
      this.#timestamp = (view.getUint32(8, true) + (bytes[2] & 7) + 1) % 2 ** 32;
      this.#link.send(bytes);
    }
  }

  /** Who listens reports once a second on whom they hear: also on somebody who speaks into a line that died before. */
  #expected() {
    const nowS = performance.now() / 1000;
    if (this.isSilent) this.#silentS = nowS;
    return { voice: this.#streams.isVoiceDue(nowS), reports: this.#isReportedOn && nowS - this.#silentS > REPORTED_S };
  }

  #tellTicket() {
    this.#on.onTicket(this.#ticket === null ? null : {
      ticket: this.#ticket, sequence: this.#sequence, timestamp: this.#timestamp, atMs: Date.now(),
    });
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #end(code, reason) {
    this.#voice?.close();
    for (const sender of this.#voices.mixer.speakers) this.#voices.mixer.forget(sender);
    this.#on.onTicket(null);
    this.#on.onOver(code, reason);
  }
}

/** @param {number} below */
function random(below) {
  return Math.floor((crypto.getRandomValues(new Uint32Array(1))[0] / 2 ** 32) * below);
}

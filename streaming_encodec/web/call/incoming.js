// Mirrors call/incoming.py: everybody's voices on their way in.

import { Mixer } from "./mixer.js";

/** @typedef {import("./mixer.js").SpeakerCodec} SpeakerCodec */
/** @typedef {import("../voice/receiver.js").ReceiverSettings} ReceiverSettings */
/** @typedef {import("../voice/statistics.js").Report} Report */
/** @typedef {import("../wire/streamFormat.js").StreamFormat} StreamFormat */

const REPORT_S = 1;
const SOON_S = 0.2, AGAIN_S = 0.5; // between two reports where a queue grows on the way, and after such a report

/** A mixer that follows the relay's messages and gives a report of each speaker about once a second. */
export class IncomingVoices {
  packetsArrived = 0;
  #onReports;
  #reportAtS;
  #soonS = SOON_S;
  /** Those who have left, until the relay gives their numbers to others. @type {Set<number>} */
  #gone = new Set();

  /**
   * @param {SpeakerCodec} codec
   * @param {StreamFormat} format
   * @param {{settings?: Readonly<ReceiverSettings>, nowS: number, onReports: (reports: Report[]) => void}} options
   */
  constructor(codec, format, { settings, nowS, onReports }) {
    this.mixer = new Mixer(format, codec, { settings });
    this.#onReports = onReports;
    this.#reportAtS = nowS + REPORT_S;
  }

  /**
   * A packet arrived.
   * @param {Uint8Array} data
   * @param {number} nowS
   */
  onPacket(data, nowS) {
    this.packetsArrived++;
    if (data.length < 6) return; // no packet, and no sender to count it for
    const sender = data[4] | (data[5] << 8);
    // `left` can arrive before packets that were queued; such packets must not re-create the speaker.
    if (!this.#gone.has(sender) || this.mixer.speakers.includes(sender)) this.mixer.receive(sender, data, nowS);
  }

  /**
   * The relay's answer to a hello.
   * @param {{resumed?: boolean, speakers?: readonly number[]}} welcome
   */
  onWelcome({ resumed = false, speakers = [] }) {
    if (!resumed) { // another relay, or the same one restarted: from now on numbers mean other people
      this.#gone.clear();
      for (const sender of this.mixer.speakers) this.mixer.forget(sender);
      return;
    }
    // After an outage: the relay has not said who left during it.
    for (const sender of speakers) this.#gone.delete(sender);
    for (const sender of this.mixer.speakers) if (!speakers.includes(sender)) this.onLeft(sender);
  }

  /** @param {number} sender */
  onJoined(sender) {
    this.#gone.delete(sender);
  }

  /** @param {number} sender */
  onLeft(sender) {
    this.#gone.add(sender);
    this.mixer.leave(sender);
  }

  /**
   * The next `count` samples of everybody; `nowS` is when the first will be heard.
   * @param {number} count
   * @param {number} nowS
   */
  read(count, nowS) {
    this.#report(nowS);
    return this.mixer.read(count, nowS);
  }

  /**
   * See `Mixer.readWhole`.
   * @param {number} count
   * @param {number} nowS
   * @param {{certain: boolean}} options
   */
  readWhole(count, nowS, options) {
    this.#report(nowS);
    return this.mixer.readWhole(count, nowS, options);
  }

  /** @param {number} nowS */
  #report(nowS) {
    const waitS = this.#reportAtS - nowS;
    if (waitS > 0 && !(waitS <= REPORT_S - this.#soonS && this.mixer.reportsAreDue)) return;
    this.#reportAtS = nowS + REPORT_S;
    this.#soonS = waitS <= 0 ? SOON_S : AGAIN_S;
    this.#onReports(this.mixer.reports());
  }
}

// Whether voice must keep coming: who is in the middle of a stream. Also who is silent sends something every 0.4 s.

import { FLAG_END, HEADER_BYTES } from "../wire/header.js";
import { SEQUENCE_BITS, serialDifference } from "../wire/serial.js";

/** So long after a stream's last packet nothing more is expected: its end was lost, or its speaker is. */
const FORGET_S = 3;

export class Streams {
  /** Each speaker's newest packet. @type {Map<number, {sequence: number, isEnd: boolean, atS: number}>} */
  #newest = new Map();

  /**
   * @param {Uint8Array} bytes
   * @param {number} nowS
   */
  onPacket(bytes, nowS) {
    if (bytes.length < HEADER_BYTES) return;
    const view = new DataView(bytes.buffer, bytes.byteOffset), sender = view.getUint16(4, true);
    const sequence = view.getUint16(6, true), before = this.#newest.get(sender);
    if (before && serialDifference(sequence, before.sequence, SEQUENCE_BITS) < 0 && nowS - before.atS < FORGET_S) return;
    this.#newest.set(sender, { sequence, isEnd: (bytes[1] & FLAG_END) !== 0, atS: nowS });
  }

  /** @param {number} sender */
  onLeft(sender) {
    this.#newest.delete(sender);
  }

  /** After an outage nobody's voice is expected before it came again. */
  clear() {
    this.#newest.clear();
  }

  /** @param {number} nowS */
  isVoiceDue(nowS) {
    return [...this.#newest.values()].some(({ isEnd, atS }) => !isEnd && nowS - atS < FORGET_S);
  }
}

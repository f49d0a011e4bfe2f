// Mirrors voice/buffer.py: frames that wait to be played: order, duplicates, redundancy, numbers that wrap, restarts.

import { framesIn } from "../wire/packet.js";
import { SEQUENCE_BITS, TIMESTAMP_BITS, Unwrapper } from "../wire/serial.js";

/** @typedef {import("../wire/packet.js").Packet} Packet */
/** @typedef {import("../wire/packet.js").Frame} Frame */

const REMEMBERED_PACKETS = 512;
const REPLAY_CONFIRMATIONS = 25;
// How far timestamps may be ahead where a stream continues after a gap: so many frames for each sequence number, or the
// most frames of two minutes, for a sender that stood still.
const FRAMES_A_NUMBER = 64;
const LONGEST_STALL_FRAMES = 24_000;
/** A start that lies further back than this many frames is a new stream, not an old packet that arrives late. */
const RESTART_FRAMES = 25;

/**
 * One frame that waits: codes, or the noise levels that a pause begins with.
 * @typedef {object} BufferedFrame
 * @property {Frame | null} codes
 * @property {readonly number[] | null} noise
 * @property {boolean} reset
 * @property {boolean} end
 * @property {boolean} redundant
 */

/**
 * What became of a packet. timestamp: unwrapped; null if the packet is not accepted yet. repaired: first frame that
 * redundancy brought late, for a packet that was lost. afterOutage: the stream continues after a gap longer than the
 * buffer. recalled: packets before this one that were not accepted, and are now.
 * @typedef {object} Insertion
 * @property {number | null} timestamp
 * @property {boolean} duplicate
 * @property {boolean} late
 * @property {boolean} restarted
 * @property {number | null} repaired
 * @property {boolean} afterOutage
 * @property {number} recalled
 */

/**
 * @param {number | null} timestamp
 * @param {Partial<Insertion>} [more]
 * @returns {Insertion}
 */
function insertion(timestamp, more = {}) {
  return { timestamp, duplicate: false, late: false, restarted: false, repaired: null, afterOutage: false, recalled: 0, ...more };
}

/**
 * Frames by their unwrapped timestamps, at most `capacity` of them from `floor` on.
 *
 * A packet far from all others (a flipped bit, a new stream) is accepted once a second one confirms it.
 */
export class FrameBuffer {
  /** Frames below this are too late. */
  floor = 0;
  /** Packets missing by sequence number, since the start. */
  lost = 0;
  /** Runs of packets that were missing when a later one came, and their frames. */
  holes = 0;
  missingFrames = 0;
  /** @type {Map<number, BufferedFrame>} */
  #frames = new Map();
  /** @type {Packet | null} */
  #doubtful = null;
  #confirmations = 0;
  #expected = 0;
  #received = 0;
  #sequence = new Unwrapper(SEQUENCE_BITS);
  #timestamp = new Unwrapper(TIMESTAMP_BITS);
  /** By sequence number, the oldest entry first: timestamp after it, is noise. @type {Map<number, [number, boolean]>} */
  #seen = new Map();
  /** @type {number | null} */
  #firstSequence = null;
  #highestSequence = 0;
  #highest = 0;

  /** @param {number} capacity */
  constructor(capacity) {
    this.capacity = capacity;
  }

  get length() {
    return this.#frames.size;
  }

  /** The earliest frame that waits. */
  first() {
    let least = null;
    for (const frame of this.#frames.keys()) if (least === null || frame < least) least = frame;
    return least;
  }

  /**
   * The frame with this number, if it is here; it stays.
   * @param {number} frame
   */
  peek(frame) {
    return this.#frames.get(frame);
  }

  /**
   * The frame with this number, if it is here; this frame and all before it are then too late.
   * @param {number} frame
   */
  take(frame) {
    const found = this.#frames.get(frame);
    this.#frames.delete(frame);
    this.dropBefore(frame + 1);
    return found;
  }

  /**
   * Frames below `frame` are too late from now on.
   * @param {number} frame
   */
  dropBefore(frame) {
    if (frame <= this.floor) return;
    for (const waiting of this.#frames.keys()) if (waiting < frame) this.#frames.delete(waiting);
    this.floor = frame;
  }

  /**
   * Put a packet's frames in their places.
   * @param {Packet} packet
   * @returns {Insertion}
   */
  insert(packet) {
    if (this.#firstSequence === null) {
      this.#begin(packet);
      return this.#place(packet, false);
    }
    const timestamp = this.#timestamp.peek(packet.timestamp), sequence = this.#sequence.peek(packet.sequence);
    const seen = this.#seen.get(sequence);
    if (seen) {
      if (seen[0] === timestamp + framesIn(packet)) return insertion(timestamp, { duplicate: true });
      // The number is known and the content is not: a sender that restarted, or damage.
      return this.#doubt(packet);
    }
    const restarts = packet.start && timestamp < this.#highest - RESTART_FRAMES;
    const jump = Math.max(Math.abs(timestamp - this.#highest), Math.abs(sequence - this.#highestSequence));
    if (restarts || jump > this.capacity) return this.#doubt(packet);
    this.#doubtful = null;
    this.#confirmations = 0;
    return this.#place(packet, false);
  }

  /** @param {Packet} packet */
  #begin(packet) {
    this.#firstSequence = this.#highestSequence = this.#sequence.next(packet.sequence);
    this.#highest = this.#timestamp.next(packet.timestamp);
    // Reordered packets from just before the first are accepted until playout has passed them.
    this.floor = this.#highest - Math.floor(this.capacity / 2);
  }

  /**
   * @param {Packet[]} packets
   * @returns {Insertion}
   */
  #restart(packets) {
    this.#expected = this.#expectedSoFar();
    this.#frames.clear();
    this.#doubtful = null;
    this.#confirmations = 0;
    this.#sequence = new Unwrapper(SEQUENCE_BITS);
    this.#timestamp = new Unwrapper(TIMESTAMP_BITS);
    this.#seen.clear();
    this.#firstSequence = null;
    this.#highestSequence = this.#highest = 0;
    this.#begin(packets[0]);
    const results = packets.map((packet) => this.#place(packet, true));
    return { ...results[0], recalled: packets.length - 1 };
  }

  /**
   * Whether a packet that leaps ahead belongs to the running stream, after an outage: both numbers must fit.
   * @param {Packet} packet
   */
  #goesOn(packet) {
    const numbers = this.#sequence.peek(packet.sequence) - this.#highestSequence;
    const frames = this.#timestamp.peek(packet.timestamp) - this.#highest;
    return 0 < numbers && numbers <= frames && frames <= Math.max(FRAMES_A_NUMBER * numbers, LONGEST_STALL_FRAMES);
  }

  /**
   * Accept a new place in the stream once enough packets in a row agree on it.
   *
   * Two are enough where the stream continues after an outage, leaps ahead or has the start flag. A leap back without
   * the flag may be a replay of old packets: it takes more, with no packet of the running stream between them.
   * @param {Packet} packet
   * @returns {Insertion}
   */
  #doubt(packet) {
    const other = this.#doubtful;
    this.#doubtful = packet;
    if (!other) return insertion(null, { late: true });
    const ahead = (packet.sequence - other.sequence) & 0xffff, later = (packet.timestamp - other.timestamp) >>> 0;
    if (!(0 < ahead && ahead <= 8 && 0 < later && later <= this.capacity)) {
      this.#confirmations = 0;
      return insertion(null, { late: true });
    }
    this.#confirmations++;
    if (this.#goesOn(other)) {
      this.#doubtful = null;
      this.#confirmations = 0;
      this.#place(other, false);
      return { ...this.#place(packet, false), afterOutage: true, recalled: 1 };
    }
    const leapAhead = this.#timestamp.peek(packet.timestamp) > this.#highest;
    if (other.start || leapAhead || this.#confirmations >= REPLAY_CONFIRMATIONS) return this.#restart([other, packet]);
    return insertion(null, { late: true });
  }

  /**
   * @param {Packet} packet
   * @param {boolean} restarted
   * @returns {Insertion}
   */
  #place(packet, restarted) {
    const timestamp = this.#timestamp.next(packet.timestamp), sequence = this.#sequence.next(packet.sequence);
    // The unwrappers follow the newest packet, or one old packet would pull the line back.
    if (sequence < this.#highestSequence) this.#sequence.next(this.#highestSequence & 0xffff);
    if (timestamp < this.#highest) this.#timestamp.next(modulo32(this.#highest));
    const after = timestamp + framesIn(packet);
    const repaired = this.#repair(packet, timestamp, sequence);
    this.#seen.set(sequence, [after, packet.noise !== null]);
    if (this.#seen.size > REMEMBERED_PACKETS) {
      for (const oldest of this.#seen.keys()) {
        this.#seen.delete(oldest);
        break;
      }
    }
    this.#received++;
    if (sequence > this.#highestSequence + 1) {
      this.holes++;
      this.missingFrames += Math.min((sequence - this.#highestSequence - 1) * framesIn(packet), this.capacity);
    }
    this.#highestSequence = Math.max(this.#highestSequence, sequence);
    if (this.#firstSequence !== null) this.#firstSequence = Math.min(this.#firstSequence, sequence);
    this.#highest = Math.max(this.#highest, after - 1);
    this.lost = Math.max(0, this.#expectedSoFar() - this.#received);
    this.dropBefore(this.#highest + 1 - this.capacity);
    splitPacket(packet).forEach((frame, i) => {
      // The real frame takes the place of a redundant one.
      if (timestamp + i >= this.floor) this.#frames.set(timestamp + i, frame);
    });
    return insertion(timestamp, { late: after <= this.floor, restarted, repaired });
  }

  #expectedSoFar() {
    if (this.#firstSequence === null) return this.#expected;
    return this.#expected + this.#highestSequence - this.#firstSequence + 1;
  }

  /**
   * Fill the gap of packets lost just before this one from its redundancy, and no other gap.
   *
   * A sender goes on encoding while it sends nothing (DTX), so redundancy after a silence holds frames that must not be
   * played; the sequence numbers tell the two apart. Returns the first frame that redundancy covers, even if it is too
   * late by now.
   * @param {Packet} packet
   * @param {number} timestamp
   * @param {number} sequence
   */
  #repair(packet, timestamp, sequence) {
    const past = packet.redundancy;
    if (!past || this.#seen.has(sequence - 1)) return null;
    let before = null;
    for (const seen of this.#seen.keys()) if (seen < sequence && (before === null || seen > before)) before = seen;
    if (before === null) return null;
    const [afterIt, wasNoise] = /** @type {[number, boolean]} */ (this.#seen.get(before));
    let begin = Math.max(afterIt, timestamp - past.length);
    if (wasNoise) begin = Math.max(begin, timestamp - (sequence - before - 1) * framesIn(packet));
    for (let frame = Math.max(begin, this.floor); frame < timestamp; frame++) {
      if (this.#frames.has(frame)) continue;
      const codes = past[frame - timestamp + past.length];
      this.#frames.set(frame, { codes, noise: null, reset: false, end: false, redundant: true });
    }
    return begin < timestamp ? begin : null;
  }
}

/** @param {number} x */
function modulo32(x) {
  return ((x % 2 ** 32) + 2 ** 32) % 2 ** 32;
}

/**
 * The packet's frames one by one; a noise packet is one.
 * @param {Packet} packet
 * @returns {BufferedFrame[]}
 */
export function splitPacket({ codes, noise, start, end }) {
  if (!codes) return [{ codes: null, noise, reset: start, end, redundant: false }];
  const last = codes.length - 1;
  return codes.map((frame, i) => ({ codes: frame, noise: null, reset: start && i === 0, end: end && i === last, redundant: false }));
}

// Mirrors voice/sender.py: the packetiser: frames of codes in, packets out.

import { StreamError } from "../errors.js";
import { MAX_FRAMES, MAX_REDUNDANT_CODEBOOKS, MAX_REDUNDANT_FRAMES } from "../wire/header.js";
import { makePacket, packetSize, serializePacket } from "../wire/packet.js";

/** @typedef {import("../wire/packet.js").Frame} Frame */
/** @typedef {import("../wire/streamFormat.js").StreamFormat} StreamFormat */

/** More than that behind is past: no listener's buffer holds more. In seconds. */
export const LATE_S = 0.4;

/**
 * What a packet holds; see the Python class.
 * @typedef {object} SenderSettings
 * @property {number} numCodebooks
 * @property {number} framesPerPacket
 * @property {number} redundantCodebooks
 * @property {number} redundantFrames
 * @property {number} noiseEveryFrames
 */

/**
 * Throws StreamError for a value out of range.
 * @param {Partial<SenderSettings>} [given]
 * @returns {Readonly<SenderSettings>}
 */
export function senderSettings(given = {}) {
  const s = { numCodebooks: 8, framesPerPacket: 3, redundantCodebooks: 0, redundantFrames: 0, noiseEveryFrames: 30, ...given };
  if (!(s.numCodebooks >= 1 && s.framesPerPacket >= 1 && s.framesPerPacket <= MAX_FRAMES && s.noiseEveryFrames >= 1)) {
    throw new StreamError(`a packet has at least one codebook and 1..${MAX_FRAMES} frames`);
  }
  const few = s.redundantCodebooks >= 0 && s.redundantCodebooks <= MAX_REDUNDANT_CODEBOOKS;
  if (!(few && s.redundantFrames >= 0 && s.redundantFrames <= MAX_REDUNDANT_FRAMES)) {
    throw new StreamError(`redundancy is at most ${MAX_REDUNDANT_CODEBOOKS} codebooks of ${MAX_REDUNDANT_FRAMES} frames`);
  }
  return Object.freeze(s);
}

/**
 * Whether packets carry redundancy.
 * @param {SenderSettings} s
 */
export function hasRedundancy(s) {
  return s.redundantCodebooks > 0 && s.redundantFrames > 0;
}

/**
 * Bitrate of the packets, with `overheadBytes` each for lower layers.
 * @param {SenderSettings} s
 * @param {StreamFormat} format
 * @param {number} overheadBytes
 */
export function wireKbps(s, format, overheadBytes) {
  const redundant = hasRedundancy(s);
  const size = overheadBytes + packetSize(s.framesPerPacket, s.numCodebooks, {
    bitsPerCode: format.bitsPerCode, redundantCodebooks: redundant ? s.redundantCodebooks : 0, redundantFrames: redundant ? s.redundantFrames : 0,
  });
  return (size * 8) / (s.framesPerPacket * format.frameSeconds) / 1000;
}

/** Makes one stream's packets. */
export class VoiceSender {
  #sequence;
  #timestamp; // of the first frame that waits, or of the next one
  /** @type {Frame[]} */
  #waiting = [];
  /** @type {Frame[]} */
  #past = [];
  #start = true;
  /** @type {number | null} */
  #silentFrames = null;
  #restingFrames = 0; // just before the next one, that have no codes

  /**
   * @param {StreamFormat} format
   * @param {Readonly<SenderSettings>} [settings]
   * @param {{firstSequence?: number, firstTimestamp?: number}} [first] random in a real call
   */
  constructor(format, settings = senderSettings(), { firstSequence = 0, firstTimestamp = 0 } = {}) {
    this.format = format;
    this.settings = settings;
    this.#sequence = firstSequence;
    this.#timestamp = firstTimestamp;
  }

  /**
   * Use new settings from the next packet on, for the frames that wait too.
   * @param {Readonly<SenderSettings>} settings
   */
  configure(settings) {
    this.settings = settings;
  }

  /** The encoder was reset: the next packet says so. Frames that wait are dropped; numbers go on. */
  restart() {
    this.#timestamp += this.#waiting.length;
    this.#waiting = [];
    this.#past = [];
    this.#start = true;
    this.#restingFrames = 0;
  }

  /**
   * Take frames of codes. Returns the packets that are complete.
   * @param {Frame[]} frames
   * @param {readonly number[] | null} [noise] levels while nobody speaks: the frames are then counted and not sent
   */
  push(frames, noise = null) {
    return frames.flatMap((frame) => {
      if (!(frame.length >= 1 && frame.length <= this.format.maxCodebooks)) {
        throw new StreamError(`a frame has 1..${this.format.maxCodebooks} codebooks`);
      }
      return noise ? this.#beSilent(frame, noise) : this.#speak(frame);
    });
  }

  /** Whether the next silent frame makes a noise packet, and so its levels matter. */
  get noiseIsDue() {
    return this.#silentFrames === null || this.#silentFrames % this.settings.noiseEveryFrames === 0;
  }

  /**
   * A frame of silence that was not encoded.
   * @param {readonly number[]} noise
   */
  rest(noise) {
    const packets = this.#beSilent(null, noise);
    this.#restingFrames++;
    return packets;
  }

  /**
   * Codes of the last frames that rested, made after all; see the Python method.
   * @param {Frame[]} frames
   */
  recall(frames) {
    if (!this.#restingFrames) return;
    const unknown = Math.min(this.#restingFrames - frames.length, MAX_REDUNDANT_FRAMES);
    for (let n = 0; n < unknown; n++) this.#remember(frames[0]);
    for (const frame of frames) this.#remember(frame);
    this.#restingFrames = 0;
  }

  /**
   * Send the frames that wait, though they fill no packet.
   * @param {{end?: boolean}} [options] end: the last of these packets bears the end flag
   */
  sendWaiting({ end = false } = {}) {
    /** @type {Uint8Array[]} */
    const packets = [];
    while (this.#waiting.length) {
      const frames = this.#waiting.splice(0, this.settings.framesPerPacket);
      const kept = Math.min(this.settings.numCodebooks, ...frames.map((frame) => frame.length));
      packets.push(this.#packet({ codes: frames.map((frame) => frame.subarray(0, kept)), end: end && !this.#waiting.length }));
      this.#timestamp += frames.length;
      for (const frame of frames) this.#remember(frame);
    }
    return packets;
  }

  /**
   * Leave out so many frames: what follows lies later. Returns the packets of the frames that waited.
   * @param {number} frames
   */
  skip(frames) {
    const packets = this.sendWaiting();
    this.#timestamp += frames;
    this.#past = []; // redundancy means the frames just before a packet, and these are no more
    return packets;
  }

  /**
   * Nothing follows: send the frames that wait, then a noise packet with the end flag.
   * @param {readonly number[]} noise
   */
  end(noise) {
    const packets = [...this.sendWaiting(), this.#packet({ noise, end: true })];
    // That packet is played at its timestamp: speech with the same one would come too late.
    this.#timestamp++;
    this.#past = [];
    return packets;
  }

  /** @param {Frame} frame */
  #speak(frame) {
    this.#silentFrames = null;
    this.#waiting.push(frame);
    return this.#waiting.length >= this.settings.framesPerPacket ? this.sendWaiting() : [];
  }

  /**
   * @param {Frame | null} frame
   * @param {readonly number[]} noise
   */
  #beSilent(frame, noise) {
    const packets = this.#silentFrames === null ? this.sendWaiting() : [];
    this.#silentFrames ??= 0;
    if (this.noiseIsDue) packets.push(this.#packet({ noise }));
    this.#silentFrames++;
    if (frame) this.#remember(frame);
    this.#timestamp++;
    return packets;
  }

  /** @param {Frame} frame */
  #remember(frame) {
    this.#past.push(frame);
    if (this.#past.length > MAX_REDUNDANT_FRAMES) this.#past.shift();
  }

  /** @param {{codes?: Frame[], noise?: readonly number[], end?: boolean}} content */
  #packet(content) {
    const packet = makePacket({
      sequence: this.#sequence & 0xffff, timestamp: this.#timestamp % 2 ** 32, redundancy: this.#redundancy(), start: this.#start,
      bitsPerCode: this.format.bitsPerCode, ...content,
    });
    this.#sequence = (this.#sequence + 1) & 0xffff;
    this.#start = false;
    return serializePacket(packet);
  }

  /**
   * The coarse codebooks of the frames before; zeros before the stream began, never played. In a silence there are none.
   *
   * As many codebooks as all of these frames have: a code that is not there would be heard as another one.
   */
  #redundancy() {
    const { settings } = this;
    if (!hasRedundancy(settings) || this.#restingFrames) return null;
    const past = this.#past.slice(-settings.redundantFrames);
    const codebooks = Math.min(settings.redundantCodebooks, MAX_REDUNDANT_CODEBOOKS, ...past.map((frame) => frame.length));
    const missing = Array.from({ length: settings.redundantFrames - past.length }, () => new Uint16Array(codebooks));
    return [...missing, ...past.map((frame) => frame.subarray(0, codebooks))];
  }
}

/** Notices when the caller, who hands sound over as it is spoken, paused without ending the stream. */
export class StallMeter {
  #rate;
  /** @type {number | null} */
  #endS = null;

  /** @param {number} sampleRate */
  constructor(sampleRate) {
    this.#rate = sampleRate;
  }

  /**
   * Seconds that are missing before these samples, which end now; 0 unless they are more than `LATE_S`.
   * @param {number} samples
   * @param {number} nowS
   */
  gapS(samples, nowS) {
    const lengthS = samples / this.#rate, endS = this.#endS;
    this.#endS = nowS;
    if (endS === null) return 0;
    // What was handed over faster than it can have been spoken ends later than it came.
    this.#endS = Math.max(nowS, endS + lengthS);
    const gapS = nowS - lengthS - endS;
    return gapS > LATE_S ? gapS : 0;
  }

  /** Forget what was handed over before. */
  restart() {
    this.#endS = null;
  }
}

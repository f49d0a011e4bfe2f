// Mirrors StreamFormat of wire/packet.py: what the codes of a stream mean.

import { PacketError, StreamError } from "../errors.js";
import { codebooksIn } from "./packet.js";

/** @typedef {import("./packet.js").Packet} Packet */

/** Most speakers in one room. */
export const MAX_SPEAKERS = 64;

/** @type {[name: "sampleRate" | "channels" | "frameSamples" | "maxCodebooks" | "codebookSize", low: number, high: number][]} */
const RANGES = [
  ["sampleRate", 1000, 192_000], ["channels", 1, 2], ["frameSamples", 1, 48_000], ["maxCodebooks", 1, 32],
  ["codebookSize", 2, 65_536],
];

/** What the codes of a stream mean; both ends of a call must have the same. */
export class StreamFormat {
  /**
   * @param {object} values
   * @param {string} values.model fingerprint, 32 hexadecimal digits
   * @param {number} [values.sampleRate]
   * @param {number} [values.channels]
   * @param {number} [values.frameSamples] samples of each channel in a frame
   * @param {number} [values.maxCodebooks] that the model has
   * @param {number} [values.codebookSize]
   */
  constructor({ model, sampleRate = 24_000, channels = 1, frameSamples = 320, maxCodebooks = 32, codebookSize = 1024 }) {
    this.model = model;
    this.sampleRate = sampleRate;
    this.channels = channels;
    this.frameSamples = frameSamples;
    this.maxCodebooks = maxCodebooks;
    this.codebookSize = codebookSize;
    if (!/^[0-9a-f]{32}$/.test(model)) throw new StreamError("a model's fingerprint is 32 lower-case hex digits");
    for (const [name, low, high] of RANGES) {
      const value = this[name];
      if (!(Number.isInteger(value) && value >= low && value <= high)) {
        throw new StreamError(`${name} lies in ${low}..${high}, not ${value}`);
      }
    }
    /** Bits of a code on the wire. */
    this.bitsPerCode = Math.max(1, 32 - Math.clz32(codebookSize - 1));
    /** Length of one frame. */
    this.frameSeconds = frameSamples / sampleRate;
    Object.freeze(this);
  }

  /**
   * Throw PacketError if the packet, code values included, can't belong to the stream.
   * @param {Packet} packet
   */
  checkPacket(packet) {
    const redundant = packet.redundancy ? packet.redundancy[0].length : 0;
    if (packet.bitsPerCode !== this.bitsPerCode || Math.max(codebooksIn(packet), redundant) > this.maxCodebooks) {
      throw new PacketError(`the stream has up to ${this.maxCodebooks} codebooks of ${this.bitsPerCode} bits`);
    }
    if (this.codebookSize === 1 << this.bitsPerCode) return; // no code that fits its bits lies past it
    for (const frame of [...(packet.codes ?? []), ...(packet.redundancy ?? [])]) {
      if (frame.some((code) => code >= this.codebookSize)) {
        throw new PacketError(`a code lies past the codebook's ${this.codebookSize} entries`);
      }
    }
  }

  /** As a hello says it. */
  toJSON() {
    return {
      model: this.model, sample_rate: this.sampleRate, channels: this.channels, frame_samples: this.frameSamples,
      max_codebooks: this.maxCodebooks, codebook_size: this.codebookSize,
    };
  }
}

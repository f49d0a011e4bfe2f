// Mirrors call/resting_encoder.py: an encoder that rests while nothing of it is sent: silence costs no codec step.

import { concatenated } from "../voice/playout.js";

/** @typedef {import("../codec/encoder.js").Encoder} Encoder */
/** @typedef {import("../wire/packet.js").Frame} Frame */

const WARM_UP_FRAMES = 8;

/** Codes of a voice, a step at a time, each asked for or not; see the Python class. */
export class RestingEncoder {
  #encoder;
  #framesPerStep;
  #mostOwed;
  /** @type {Float32Array[]} */
  #owed = []; // steps that were not encoded, the latest ones
  #lost = false; // there were earlier ones
  #taken = 0; // samples of the next step that the encoder has

  /**
   * @param {Encoder} encoder of one channel, at the begin of a stream
   * @param {number} framesPerStep
   * @param {number} frameSamples
   */
  constructor(encoder, framesPerStep, frameSamples) {
    this.#encoder = encoder;
    this.#framesPerStep = framesPerStep;
    this.#mostOwed = Math.ceil(WARM_UP_FRAMES / framesPerStep);
    this.stepSamples = framesPerStep * frameSamples;
    /** Of the next step, which a model that looks ahead needs too. */
    this.aheadSamples = encoder.startSamples - frameSamples;
  }

  /**
   * A step, `stepSamples` and `aheadSamples`, whose codes nobody needs.
   * @param {Float32Array} sound
   */
  rest(sound) {
    if (this.#owed.length === this.#mostOwed) {
      this.#owed.shift();
      this.#lost = true;
    }
    this.#owed.push(sound.slice(0, this.stepSamples));
  }

  /**
   * A step as in `rest`: the codes of the frames just before it that were not asked for, and its own.
   * @param {Float32Array} sound
   * @returns {[before: Frame[], own: Frame[]]}
   */
  encode(sound) {
    if (this.#lost) {
      this.#encoder.reset();
      this.#taken = 0;
    }
    const frames = this.#codes(concatenated([...this.#owed, sound]).subarray(this.#taken));
    this.#owed = [];
    this.#lost = false;
    this.#taken = this.aheadSamples;
    const own = frames.length - this.#framesPerStep;
    return [frames.slice(0, own), frames.slice(own)];
  }

  /**
   * The codes of what is left, less than a step; none after a rest. A new stream begins.
   * @param {Float32Array} sound
   */
  finish(sound) {
    const resting = this.#owed.length > 0, { codebooks } = this.#encoder;
    const frames = [...this.#codes(sound.subarray(this.#taken)), ...split(this.#encoder.flush(), codebooks)];
    this.#owed = [];
    this.#lost = false;
    this.#taken = 0;
    return resting ? [] : frames;
  }

  /** @param {Float32Array} sound */
  #codes(sound) {
    return split(this.#encoder.encode(sound), this.#encoder.codebooks);
  }
}

/**
 * Codes of an encoder, frame by frame.
 * @param {Uint16Array} codes
 * @param {number} codebooks
 * @returns {Frame[]}
 */
export function split(codes, codebooks) {
  return Array.from({ length: codes.length / codebooks }, (_, f) => codes.subarray(f * codebooks, (f + 1) * codebooks));
}

// Mirrors streaming/decoder.py and streaming/conceal.py: codes in, samples out, and what stands for lost frames.

import { StreamError } from "../errors.js";
import { FLUSH, MOST_FRAMES, MOST_ROWS, STEP } from "./kernel.js";

/** @typedef {import("./codec.js").Codec} Codec */
/** @typedef {import("./codec.js").HalfState} HalfState */

/** What each lost frame leaves of the last latent. */
export const LATENT_DECAY = 0.8;
/** Lost frames before any came: nothing is left of a latent. */
const NOTHING = 1000;

/** Decodes a stream as if the codes of silence had gone before it: a frame's sound the moment its codes are there. */
export class Decoder {
  #codec;
  #states;
  #begun = false;
  #skip = 0;
  #last = new Uint16Array(1);
  #lost = NOTHING;

  /**
   * See `Codec.createDecoder`.
   * @param {Codec} codec
   */
  constructor(codec) {
    this.#codec = codec;
    this.#states = codec.openState(1);
  }

  /**
   * The sound of so many frames: `frames * hop` samples, fewer at the start of a model that looks ahead.
   *
   * Throws StreamError for codes out of range. The stream is then as it was before.
   * @param {Uint16Array} codes frame by frame, K of each; K may be another one in each call
   * @param {number} frames
   */
  decode(codes, frames) {
    const codebooks = checked(this.#codec, codes, frames);
    this.#begin(codebooks);
    this.#last = codes.slice((frames - 1) * codebooks);
    this.#lost = 0;
    if (frames <= MOST_FRAMES) return this.#frames(codes, 0, frames, codebooks);
    /** @type {Float32Array[]} */
    const pieces = [];
    for (let at = 0, count; at < frames; at += count) {
      count = Math.min(MOST_FRAMES, frames - at);
      pieces.push(this.#frames(codes, at, count, codebooks));
    }
    return joined(pieces);
  }

  /** A frame in place of a lost one: the decoder steps on the last latent that came, softer for each frame since. */
  conceal() {
    this.#lost++;
    this.#begin(this.#last.length);
    this.#enterLatent(0);
    return this.#step(STEP, 1);
  }

  /**
   * See `Codec.decodeTogether`.
   * @param {Codec} codec
   * @param {Decoder[]} decoders
   * @param {(Uint16Array | null)[]} frames
   */
  static together(codec, decoders, frames) {
    if (new Set(decoders).size !== frames.length || decoders.some((one) => one.#codec !== codec)) {
      throw new StreamError("decode together a frame of each of several decoders of one codec");
    }
    for (const codes of frames) if (codes) checked(codec, codes, 1);
    decoders.forEach((one, i) => {
      const codes = frames[i];
      one.#lost = codes ? 0 : one.#lost + 1;
      if (codes) one.#last = codes.slice();
      one.#begin(one.#last.length); // computes with the memory that the latents will lie in
    });
    /** @type {Float32Array[]} */
    const sounds = [];
    for (let at = 0; at < decoders.length; at += MOST_ROWS) {
      const some = decoders.slice(at, at + MOST_ROWS);
      some.forEach((one, row) => one.#enterLatent(row));
      const made = codec.decodeStepTogether(some.map((one) => one.#open()));
      sounds.push(...some.map((one, row) => one.#finish(made[row])));
    }
    return sounds;
  }

  /** End the stream: the samples still owed. A new stream begins after it. */
  flush() {
    const sound = this.#begun ? this.#step(FLUSH, 0) : new Float32Array(0);
    this.reset();
    return sound;
  }

  /** Start a new stream. What was heard last still stands for frames that are lost before the first. */
  reset() {
    this.#begun = false;
  }

  /**
   * Everything that the stream remembers, as a value. The pending inputs of a decoder are the last codes.
   * @returns {HalfState & {last: Uint16Array, lost: number}}
   */
  state() {
    const layers = this.#begun ? this.#codec.readState(1, this.#states[0]) : null;
    return { pending: new Float32Array(0), layers, skip: this.#skip, last: this.#last.slice(), lost: this.#lost };
  }

  /**
   * Go on from a state of a decoder of the same model.
   * @param {HalfState & {last: Uint16Array, lost: number}} state
   */
  restore(state) {
    if (state.layers) this.#enter(state);
    this.#begun = state.layers !== null;
    this.#skip = state.skip;
    this.#last = state.last.slice();
    this.#lost = state.lost;
  }

  /** Give the stream's memory back. It must not be used after that. */
  close() {
    this.#codec.closeState(1, this.#states);
    this.#states = [];
  }

  /** @param {number} codebooks of the first frame: which silence went before shows with it */
  #begin(codebooks) {
    if (this.#begun) return;
    this.#enter(this.#codec.decoderAfterSilence(codebooks));
    this.#begun = true;
  }

  /** @param {HalfState} state */
  #enter({ layers, skip }) {
    if (layers?.length !== this.#codec.stateFloats(1)) throw new StreamError("this is no state of such a decoder");
    this.#codec.writeState(this.#states[0], layers);
    this.#skip = skip;
  }

  /**
   * @param {Uint16Array} codes
   * @param {number} at
   * @param {number} count
   * @param {number} codebooks
   */
  #frames(codes, at, count, codebooks) {
    this.#codec.lookup(codes, at, count, codebooks);
    return this.#step(STEP, count);
  }

  /** The last frame's latent, softer for each lost one since. @param {number} place */
  #enterLatent(place) {
    this.#codec.lookup(this.#last, 0, 1, this.#last.length, place);
    if (this.#lost) this.#codec.scaleLatent(Math.fround(LATENT_DECAY ** this.#lost), place);
  }

  /** @returns {[before: number, after: number]} */
  #open() {
    const [before, after] = this.#states;
    if (before === undefined) throw new StreamError("this decoder was closed");
    return [before, after];
  }

  /**
   * @param {number} phase
   * @param {number} frames
   */
  #step(phase, frames) {
    const [before, after] = this.#open();
    return this.#finish(this.#codec.decodeStep(phase, frames, before, after));
  }

  /** A step is done. @param {Float32Array} sound */
  #finish(sound) {
    const [before, after] = this.#states, { channels } = this.#codec;
    this.#states = [after, before];
    const skipped = Math.min(this.#skip, sound.length / channels);
    this.#skip -= skipped;
    return skipped ? sound.slice(skipped * channels) : sound;
  }
}

/**
 * The number of codebooks. Throws StreamError for codes out of range.
 * @param {Codec} codec
 * @param {Uint16Array} codes
 * @param {number} frames
 */
function checked({ maxCodebooks, codebookSize }, codes, frames) {
  const codebooks = codes.length / frames;
  if (!(Number.isInteger(frames) && frames >= 1 && Number.isInteger(codebooks) && codebooks >= 1 && codebooks <= maxCodebooks)) {
    throw new StreamError(`${codes.length} codes are no ${frames} frames of 1..${maxCodebooks} codebooks`);
  }
  for (let i = 0; i < codes.length; i++) {
    if (codes[i] >= codebookSize) throw new StreamError(`code ${codes[i]} lies past the codebook's ${codebookSize} entries`);
  }
  return codebooks;
}

/** @param {Float32Array[]} pieces */
function joined(pieces) {
  const whole = new Float32Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

// Mirrors streaming/encoder.py: samples in, codes out, a frame the moment it is complete.

import { StreamError } from "../errors.js";
import { FLUSH, MOST_FRAMES, STEP } from "./kernel.js";

/** @typedef {import("./codec.js").Codec} Codec */
/** @typedef {import("./codec.js").HalfState} HalfState */

/** 40 dB above full scale: more would stay in the state for ever. */
const LOUDEST = 100;

/** Encodes a stream as if a second of silence had gone before it: the first code after one frame. */
export class Encoder {
  #codec;
  #codebooks = 1;
  #states;
  #pending = new Float32Array(0);
  #skip = 0;

  /**
   * See `Codec.createEncoder`.
   * @param {Codec} codec
   * @param {number} codebooks
   */
  constructor(codec, codebooks) {
    this.#codec = codec;
    this.codebooks = codebooks;
    this.#states = codec.openState(0);
    this.reset();
  }

  /** Codebooks of each frame; takes effect at the next one. */
  get codebooks() {
    return this.#codebooks;
  }
  set codebooks(count) {
    const most = this.#codec.maxCodebooks;
    if (!(Number.isInteger(count) && count >= 1 && count <= most)) throw new StreamError(`codebooks are 1..${most}, not ${count}`);
    this.#codebooks = count;
  }

  /** Samples before the first code of a new stream. */
  get startSamples() {
    const { pending, skip } = this.#codec.encoderAfterSilence(), { hop, channels } = this.#codec;
    return (skip + 1) * hop - pending.length / channels;
  }

  /**
   * Take samples, any number of them; returns the codes of the frames that they complete, frame by frame, in a frame the
   * coarsest first: `codes[frame * codebooks + codebook]`.
   *
   * Throws StreamError for a sample that is no number or beyond ±100. The stream is then as it was before.
   * @param {Float32Array} pcm full scale 1; interleaved where the model has two channels
   */
  encode(pcm) {
    const { hop, channels } = this.#codec;
    if (pcm.length % channels) throw new StreamError(`samples of ${channels} channels, not ${pcm.length}`);
    checkSamples(pcm);
    let sound = pcm;
    if (this.#pending.length) {
      sound = new Float32Array(this.#pending.length + pcm.length);
      sound.set(this.#pending);
      sound.set(pcm, this.#pending.length);
    }
    const frames = Math.floor(sound.length / (hop * channels));
    /** @type {Uint16Array[]} */
    const pieces = [];
    for (let at = 0, count; at < frames; at += count) {
      count = Math.min(MOST_FRAMES, frames - at);
      pieces.push(this.#step(STEP, sound, at * hop, count * hop));
    }
    this.#pending = sound.slice(frames * hop * channels);
    return joined(pieces);
  }

  /** End the stream: the codes still owed, of the samples that fill no frame. A new stream begins after it. */
  flush() {
    const codes = this.#step(FLUSH, this.#pending, 0, this.#pending.length / this.#codec.channels);
    this.reset();
    return codes;
  }

  /** Start a new stream. */
  reset() {
    this.restore({ ...this.#codec.encoderAfterSilence() });
  }

  /**
   * Everything that the stream remembers, as a value.
   * @returns {HalfState}
   */
  state() {
    return { pending: this.#pending.slice(), layers: this.#codec.readState(0, this.#states[0]), skip: this.#skip };
  }

  /**
   * Go on from a state of an encoder of the same model.
   * @param {HalfState} state
   */
  restore(state) {
    if (state.layers?.length !== this.#codec.stateFloats(0)) throw new StreamError("this is no state of such an encoder");
    this.#codec.writeState(this.#states[0], state.layers);
    this.#pending = state.pending.slice();
    this.#skip = state.skip;
  }

  /** Give the stream's memory back. It must not be used after that. */
  close() {
    this.#codec.closeState(0, this.#states);
    this.#states = [];
  }

  /**
   * @param {number} phase
   * @param {Float32Array} sound
   * @param {number} begin
   * @param {number} count
   */
  #step(phase, sound, begin, count) {
    const [before, after] = this.#states;
    if (before === undefined) throw new StreamError("this encoder was closed");
    const rows = this.#codec.encodeStep(phase, sound, begin, count, before, after);
    this.#states = [after, before];
    const skipped = Math.min(this.#skip, rows);
    this.#skip -= skipped;
    const codes = rows ? this.#codec.search(rows, this.#codebooks) : new Uint16Array(0);
    return skipped ? codes.slice(skipped * this.#codebooks) : codes;
  }
}

/**
 * Throws StreamError for a sample that is no number or beyond ±100.
 * @param {Float32Array} pcm
 */
export function checkSamples(pcm) {
  for (let i = 0; i < pcm.length; i++) {
    if (!(Math.abs(pcm[i]) <= LOUDEST)) throw new StreamError(`sample ${i} is ${pcm[i]}: samples lie in -1..1`);
  }
}

/** @param {Uint16Array[]} pieces */
function joined(pieces) {
  if (pieces.length === 1) return pieces[0];
  const whole = new Uint16Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

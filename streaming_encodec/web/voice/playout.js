// Mirrors voice/playout.py: from a receiver's instructions to samples, driven by the sound card.

import { StreamError } from "../errors.js";
import { linspace, roundHalfEven } from "../numbers.js";
import { BackgroundEstimator, ComfortNoise } from "./noise.js";
import { Stretcher } from "./stretch.js";

/** @typedef {import("./ladder.js").PlayoutInstruction} PlayoutInstruction */
/** @typedef {import("./receiver.js").Receiver} Receiver */
/** @typedef {import("../wire/packet.js").Frame} Frame */

/**
 * One frame to decode: its codes; null is a lost frame. reset: the sender's encoder was reset before it.
 * @typedef {object} DecodeRequest
 * @property {Frame | null} codes
 * @property {boolean} reset
 */

const DECLICK_MS = 3;
/** Frames from one look at the background to the next. */
const BACKGROUND_EVERY = 3;
/** How long to wait for a quiet or periodic place before the pace changes at the best place there is. */
const PATIENCE_S = 2;
const NOTHING = new Float32Array(0);

/**
 * Yields what is to be decoded, is given its sound, returns samples.
 * @typedef {Generator<DecodeRequest, Float32Array, Float32Array>} DecodeSteps
 */

/** Pulls one receiver and one decoder; `read` any number of samples. */
export class PcmPlayout {
  #decode;
  #observe;
  #frame;
  #rate;
  #stretcher;
  #noise;
  #background;
  /** @type {Float32Array} */
  #past;
  /** @type {Float32Array} */
  #ready = new Float32Array(0);
  #patienceSpent = 0;
  #decoded = 0;
  #voiceGain = 0;
  #noiseGain = 0;
  #declick;

  /**
   * @param {Receiver} receiver
   * @param {(request: DecodeRequest) => Float32Array} decode one frame; it may give fewer or more samples than a frame
   * @param {{seed?: number, observe?: (instruction: PlayoutInstruction, heardS: number) => void}} [options]
   */
  constructor(receiver, decode, { seed = 0, observe } = {}) {
    const { channels, frameSamples, sampleRate } = receiver.format;
    if (channels !== 1) throw new StreamError("calls are mono: use a model of one channel");
    this.receiver = receiver;
    this.#decode = decode;
    this.#observe = observe;
    this.#frame = frameSamples;
    this.#rate = sampleRate;
    this.#stretcher = new Stretcher(sampleRate);
    this.#noise = new ComfortNoise(sampleRate, 2 * frameSamples, seed);
    this.#background = new BackgroundEstimator(sampleRate, frameSamples);
    this.#past = new Float32Array(this.#stretcher.historySamples);
    this.#declick = Math.max(1, roundHalfEven((DECLICK_MS * sampleRate) / 1000));
  }

  /** Samples made and not yet read. */
  get queuedSamples() {
    return this.#ready.length;
  }

  /** Whether nothing is to be heard any more unless another frame comes. */
  get isSilent() {
    return !this.#voiceGain && !this.#noiseGain && this.#ready.every((sample) => sample === 0);
  }

  /**
   * Whether `read` would decode nothing but frames that are here (see `Receiver.isCertain`).
   * @param {number} count
   * @param {number} nowS
   */
  isCertain(count, nowS) {
    const frames = Math.ceil((count - this.#ready.length) / this.#frame);
    return frames <= 0 || this.receiver.isCertain(frames, nowS, this.#ready.length / this.#rate);
  }

  /**
   * The next `count` samples; `nowS` is when the first of them will be heard.
   * @param {number} count
   * @param {number} nowS
   */
  read(count, nowS) {
    const steps = this.reading(count, nowS);
    let step = steps.next(NOTHING);
    while (!step.done) step = steps.next(this.#decode(step.value));
    return step.value;
  }

  /**
   * `read` for a caller that decodes several streams at once: yields requests instead of calling `decode`.
   * @param {number} count
   * @param {number} nowS
   * @returns {DecodeSteps}
   */
  *reading(count, nowS) {
    if (!(Number.isInteger(count) && count >= 0)) throw new StreamError("read a whole number of samples that is not negative");
    while (this.#ready.length < count) {
      const queuedS = this.#ready.length / this.#rate;
      const instructions = this.receiver.pull(nowS, queuedS);
      if (this.#observe) for (const instruction of instructions) this.#observe(instruction, nowS + queuedS);
      const made = yield* this.#make(instructions), kept = this.#past.length;
      const joined = made.length >= kept ? made : concatenated([this.#past, made]);
      this.#past = joined.slice(joined.length - kept);
      this.#ready = this.#ready.length ? concatenated([this.#ready, made]) : made;
    }
    const out = this.#ready.slice(0, count);
    this.#ready = this.#ready.subarray(count);
    return out;
  }

  /**
   * @param {PlayoutInstruction[]} instructions
   * @returns {DecodeSteps}
   */
  *#make(instructions) {
    /** @type {Float32Array[]} */
    const frames = [];
    for (const instruction of instructions) frames.push(yield* this.#frameOf(instruction));
    let sound = frames.length === 1 ? frames[0] : concatenated(frames);
    const [{ pace, spareSamples }] = instructions;
    if (pace === "keep") {
      this.#patienceSpent = 0;
      return sound;
    }
    const before = sound.length, force = this.#patienceSpent > PATIENCE_S * this.#rate;
    if (pace === "shorten") sound = this.#stretcher.shorten(sound, { force, most: spareSamples });
    else if (pace === "shorten fast") sound = this.#stretcher.shorten(sound, { force: true, times: 3 });
    else sound = this.#stretcher.stretch(this.#past, sound, { force });
    this.#patienceSpent = sound.length !== before ? 0 : this.#patienceSpent + before;
    this.receiver.statistics.countStretch(sound.length - before);
    return sound;
  }

  /**
   * @param {PlayoutInstruction} instruction
   * @returns {DecodeSteps}
   */
  *#frameOf({ kind, codes, reset, noise, noiseGain }) {
    if (kind === "decode") {
      const pcm = yield { codes, reset };
      this.#decoded++;
      if (pcm.length === this.#frame && this.#decoded % BACKGROUND_EVERY === 0) this.#background.update(pcm);
      return this.#mix(pcm, 1, 0, null, reset);
    }
    const lost = { codes: null, reset: false };
    // The latent decays, and the sound with it.
    if (kind === "repeat") return this.#mix(yield lost, 1, 0, null);
    // The voice fades within this frame, not before it: one more step gives the sound that fades.
    const ringing = this.#voiceGain ? yield lost : null;
    return this.#mix(ringing, 0, kind === "noise" ? noiseGain : 0, noise);
  }

  /**
   * One frame, gliding from the gains of the frame before to these. Rounded to float32 after each operation.
   * @param {Float32Array | null} voice
   * @param {number} voiceGain
   * @param {number} noiseGain
   * @param {readonly number[] | null} levels
   * @param {boolean} [join]
   */
  #mix(voice, voiceGain, noiseGain, levels, join = false) {
    if (voice && !join && this.#isPlain(voiceGain, noiseGain)) {
      this.#voiceGain = voiceGain;
      return voice;
    }
    const count = voice ? voice.length : this.#frame, f = Math.fround;
    const glide = linspace(0, 1, count + 1).subarray(1), out = new Float32Array(count);
    if (voice) {
      const begin = join ? voiceGain : this.#voiceGain;
      for (let i = 0; i < count; i++) out[i] += f(voice[i] * f(begin + f((voiceGain - begin) * glide[i]))); // += : no -0
    }
    if (this.#noiseGain || noiseGain) {
      const noise = this.#noise.make(count, levels ?? this.#background.levels());
      const begin = this.#noiseGain, gain = f(noiseGain);
      for (let i = 0; i < count; i++) out[i] += f(noise[i] * f(begin + f(f(gain - begin) * glide[i])));
    }
    if (count && (join || (!voice && this.#voiceGain))) this.#smooth(out);
    this.#voiceGain = voiceGain;
    this.#noiseGain = f(noiseGain);
    return out;
  }

  /**
   * Whether the decoder's output needs no gain: it joins the frame before, and begins whole where none was.
   * @param {number} voiceGain
   * @param {number} noiseGain
   */
  #isPlain(voiceGain, noiseGain) {
    if (voiceGain !== 1 || noiseGain || this.#noiseGain) return false;
    return this.#voiceGain === 0 || this.#voiceGain === 1;
  }

  /**
   * Fade from the last sample played into this frame, where the two do not join by themselves.
   * @param {Float32Array} out
   */
  #smooth(out) {
    const count = Math.min(this.#declick, out.length), f = Math.fround;
    const step = f(this.#past[this.#past.length - 1] - out[0]);
    for (let i = 0; i < count; i++) out[i] += f(step * f(0.5 + 0.5 * Math.cos((Math.PI * i) / count)));
  }
}

/** @param {Float32Array[]} parts */
export function concatenated(parts) {
  const whole = new Float32Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

// Mirrors voice/noise.py: comfort noise: measured in six bands, sent as six bytes, made again from white noise.

import { roundHalfEven } from "../numbers.js";
import { NOISE_BANDS, NOISE_FLOOR_DB, NO_NOISE } from "../wire/header.js";
import { Fourier } from "./fourier.js";

const EDGES_HZ = [500, 1000, 2000, 4000, 8000];
/** Steps of the noise in full scale: 120 dB below it. */
const GRID = 2 ** 20;

/**
 * The band of each frequency of a real transform.
 * @param {number} size
 * @param {number} sampleRate
 */
function bandsOf(size, sampleRate) {
  const unit = 1 / (size * (1 / sampleRate));
  return Uint8Array.from({ length: Math.floor(size / 2) + 1 }, (_, k) => EDGES_HZ.filter((edge) => edge <= k * unit).length);
}

/** Levels of the six bands of one frame, in whole decibels below full scale. */
export class NoiseMeter {
  #window;
  #bands;
  #toPower;
  #fourier;

  /**
   * @param {number} sampleRate
   * @param {number} frameSamples
   */
  constructor(sampleRate, frameSamples) {
    // Hann's.
    this.#window = Float64Array.from({ length: frameSamples }, (_, i) => (
      frameSamples === 1 ? 1 : 0.5 + 0.5 * Math.cos((Math.PI * (1 - frameSamples + 2 * i)) / (frameSamples - 1))));
    this.#bands = bandsOf(frameSamples, sampleRate);
    // One-sided spectrum to mean square: twice, over the window's energy and the length (Parseval).
    this.#toPower = 2 / (this.#window.reduce((sum, w) => sum + w * w, 0) * frameSamples);
    this.#fourier = new Fourier(frameSamples);
  }

  /**
   * Six levels of one frame, 0 (full scale) to 127 (nothing).
   * @param {Float32Array} pcm
   */
  measure(pcm) {
    return levelsOf(this.bandPowers(pcm));
  }

  /**
   * Mean square of each of the six bands.
   * @param {Float32Array} pcm
   */
  bandPowers(pcm) {
    const fourier = this.#fourier;
    for (let i = 0; i < pcm.length; i++) fourier.re[i] = pcm[i] * this.#window[i];
    fourier.im.fill(0);
    fourier.transform();
    const powers = new Float64Array(NOISE_BANDS), { re, im } = fourier;
    this.#bands.forEach((band, k) => (powers[band] += (re[k] * re[k] + im[k] * im[k]) * this.#toPower));
    return powers;
  }
}

/**
 * Mean squares as whole decibels below full scale.
 * @param {Float64Array} powers
 */
export function levelsOf(powers) {
  return Array.from(powers, (power) => {
    const level = roundHalfEven(-10 * Math.log10(Math.max(power, 1e-13)));
    return Math.min(Math.max(level, 0), NOISE_FLOOR_DB);
  });
}

/** An endless stream of noise whose colour may change at any time; seeded, so that a replay sounds the same. */
export class ComfortNoise {
  #hop;
  #seed;
  #drawn = 0;
  #window;
  #bands;
  /** What each band has of white noise. @type {number[]} */
  #share;
  #overlap;
  #ready;
  #fourier;

  /**
   * @param {number} sampleRate
   * @param {number} blockSamples
   * @param {number} seed
   */
  constructor(sampleRate, blockSamples, seed) {
    const hop = (this.#hop = Math.max(16, Math.floor(blockSamples / 2))), size = 2 * hop;
    this.#seed = mixed((seed + 1) | 0);
    this.#window = Float64Array.from({ length: size }, (_, i) => Math.sin((Math.PI * (i + 0.5)) / size));
    const bands = (this.#bands = bandsOf(size, sampleRate));
    this.#share = Array.from({ length: NOISE_BANDS }, (_, band) => Math.max(1, bands.filter((b) => b === band).length) / bands.length);
    this.#overlap = new Float64Array(hop);
    this.#ready = new Float32Array(0);
    this.#fourier = new Fourier(size);
  }

  /**
   * The next `count` samples with these six levels (decibels below full scale).
   * @param {number} count
   * @param {readonly number[]} levels
   */
  make(count, levels) {
    while (this.#ready.length < count) {
      const more = this.#nextHop(levels), joined = new Float32Array(this.#ready.length + more.length);
      joined.set(this.#ready);
      joined.set(more, this.#ready.length);
      this.#ready = joined;
    }
    const out = this.#ready.slice(0, count);
    this.#ready = this.#ready.slice(count);
    return out;
  }

  /** @param {readonly number[]} levels */
  #nextHop(levels) {
    const gains = levels.map((v, band) => Math.sqrt((v >= NOISE_FLOOR_DB ? 0 : 10 ** (-v / 10)) / this.#share[band]));
    const hop = this.#hop, size = 2 * hop, fourier = this.#fourier, scale = Math.sqrt(12);
    for (let i = 0; i < size; i++) {
      const bits = mixed(mixed(this.#drawn + i) ^ this.#seed) >>> 0;
      fourier.re[i] = (bits / 2 ** 32 - 0.5) * scale;
    }
    fourier.im.fill(0);
    this.#drawn = (this.#drawn + size) & 0x7fffffff;
    fourier.transform();
    for (let k = 0; k < size; k++) {
      const gain = gains[this.#bands[Math.min(k, size - k)]];
      fourier.re[k] *= gain;
      fourier.im[k] *= gain;
    }
    fourier.transform(true);
    const out = new Float32Array(hop), block = fourier.re, window = this.#window;
    // sin² windows of two neighbours sum to one in power, as the blocks are independent.
    for (let i = 0; i < hop; i++) {
      out[i] = roundHalfEven((this.#overlap[i] + (block[i] / size) * window[i]) * GRID) / GRID;
      this.#overlap[i] = (block[hop + i] / size) * window[hop + i];
    }
    return out;
  }
}

/**
 * The finaliser of MurmurHash3 (Austin Appleby, public domain).
 * @param {number} bits
 */
function mixed(bits) {
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return bits ^ (bits >>> 16);
}

/** Of a look, how much the room's level may rise: for one look in three at 75 frames a second, 3.2 dB a second. */
const RISE_PER_LOOK = 1.03;
const FLOOR = 1e-13;
const CEILING = 10 ** (-50 / 10); // a room louder than this is a voice that has not paused yet

/** The room behind the voice, from decoded frames: follows quieter frames fast, louder ones slowly. */
export class BackgroundEstimator {
  #meter;
  /** @type {Float64Array | null} */
  #powers = null;

  /**
   * @param {number} sampleRate
   * @param {number} frameSamples
   */
  constructor(sampleRate, frameSamples) {
    this.#meter = new NoiseMeter(sampleRate, frameSamples);
  }

  /**
   * Learn from one decoded frame.
   * @param {Float32Array} pcm
   */
  update(pcm) {
    const now = this.#meter.bandPowers(pcm).map((power) => Math.max(power, FLOOR)), before = this.#powers;
    this.#powers = before ? now.map((power, i) => Math.min(before[i] * RISE_PER_LOOK, 0.8 * before[i] + 0.2 * power)) : now;
  }

  /** Six levels for `ComfortNoise.make`; silence before the first frame. */
  levels() {
    return this.#powers ? levelsOf(this.#powers.map((power) => Math.min(power, CEILING))) : NO_NOISE;
  }
}

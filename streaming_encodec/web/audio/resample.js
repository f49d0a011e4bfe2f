// From one sample rate to another, as the sound comes: a polyphase filter whose low pass is a windowed sinc.

/** Zero crossings of the sinc on each side, at the lower rate. */
const CROSSINGS = 16;
/** Of the lower rate's band: the rest is the filter's slope. */
const PASSED = 0.92;
const KAISER_BETA = 8; // about 80 dB below in the stopped band

/** A stream of samples at `from` Hz, given back at `to` Hz. Delay: `delayS`. */
export class Resampler {
  #up;
  #down;
  #taps;
  /** One filter for each phase: [up][taps]. @type {Float32Array[]} */
  #phases;
  #history;
  #phase = 0;

  /**
   * @param {number} from
   * @param {number} to
   */
  constructor(from, to) {
    const common = divisor(from, to);
    this.#up = to / common;
    this.#down = from / common;
    const cutoff = PASSED * Math.min(1, this.#up / this.#down); // relative to the input's half rate
    this.#taps = 2 * Math.ceil(CROSSINGS / Math.min(1, this.#up / this.#down));
    this.#phases = Array.from({ length: this.#up }, (_, phase) => filter(this.#taps, phase / this.#up, cutoff));
    this.#history = new Float32Array(this.#taps - 1);
    this.delayS = this.#taps / 2 / from;
  }

  /**
   * The samples that `pcm` completes.
   * @param {Float32Array} pcm
   */
  push(pcm) {
    if (this.#up === this.#down) return pcm;
    const taps = this.#taps, input = new Float32Array(this.#history.length + pcm.length);
    input.set(this.#history);
    input.set(pcm, this.#history.length);
    const out = new Float32Array(Math.max(0, Math.ceil((pcm.length * this.#up - this.#phase) / this.#down)));
    let at = Math.floor(this.#phase / this.#up), phase = this.#phase % this.#up;
    for (let n = 0; n < out.length; n++) {
      const weights = this.#phases[phase];
      let sum = 0;
      for (let i = 0; i < taps; i++) sum += weights[i] * input[at + i];
      out[n] = sum;
      phase += this.#down;
      at += Math.floor(phase / this.#up);
      phase %= this.#up;
    }
    this.#phase = at * this.#up + phase - pcm.length * this.#up;
    this.#history = input.slice(pcm.length);
    return out;
  }
}

/**
 * Weights for the inputs around a point that lies `fraction` of a sample after the middle.
 * @param {number} taps
 * @param {number} fraction
 * @param {number} cutoff
 */
function filter(taps, fraction, cutoff) {
  const weights = new Float32Array(taps), half = taps / 2;
  let sum = 0;
  for (let i = 0; i < taps; i++) {
    const x = i - (half - 1) - fraction;
    const inside = Math.max(0, 1 - (x / half) ** 2);
    weights[i] = (x === 0 ? cutoff : Math.sin(Math.PI * cutoff * x) / (Math.PI * x)) * bessel(KAISER_BETA * Math.sqrt(inside));
    sum += weights[i];
  }
  return weights.map((weight) => weight / sum);
}

/**
 * The modified Bessel function of order 0.
 * @param {number} x
 */
function bessel(x) {
  let sum = 1, term = 1;
  for (let k = 1; k < 40; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

/**
 * @param {number} a
 * @param {number} b
 * @returns {number}
 */
function divisor(a, b) {
  return b ? divisor(b, a % b) : a;
}

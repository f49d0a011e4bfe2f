// Mirrors voice/stretch.py: more or fewer samples of the same sound, without clicks and at the same pitch (WSOLA).

import { linspace, roundHalfEven } from "../numbers.js";

const SHORTEST_MS = 2.5, LONGEST_MS = 13, OVERLAP_MS = 4;
/** Normalised correlation above which a join is inaudible. */
const SIMILAR = 0.85;
/** Mean square below which any join is. */
const QUIET_POWER = 10 ** (-45 / 10);
const FULL_SCALE = 32_768;

/** Shortens and stretches blocks of sound. Holds no sound: the past is handed in. */
export class Stretcher {
  #shortest;
  #longest;
  #overlap;
  #fadeIn;

  /** @param {number} sampleRate */
  constructor(sampleRate) {
    this.#shortest = Math.max(1, roundHalfEven((SHORTEST_MS * sampleRate) / 1000));
    this.#longest = Math.max(this.#shortest + 1, roundHalfEven((LONGEST_MS * sampleRate) / 1000));
    this.#overlap = Math.max(2, roundHalfEven((OVERLAP_MS * sampleRate) / 1000));
    this.#fadeIn = linspace(0, 1, this.#overlap + 2).subarray(1, -1);
  }

  /** Past samples that `stretch` needs. */
  get historySamples() {
    return this.#longest;
  }

  /**
   * `sound` less up to `times` pieces of one period each, none longer than `most`.
   *
   * Without `force` a piece is left out only where the join is inaudible. The first and the last sample stay.
   * @param {Float32Array} sound
   * @param {{force?: boolean, times?: number, most?: number}} [options]
   */
  shorten(sound, { force = false, times = 1, most = this.#longest } = {}) {
    most = Math.min(most, this.#longest);
    for (let i = 0, at = 0; i < times; i++, at += this.#overlap) {
      const longest = Math.min(most, sound.length - at - this.#overlap);
      if (longest < this.#shortest) break;
      const [lag, similar] = this.#bestLag(sound.subarray(at), longest);
      if (!(force || similar)) break;
      sound = this.#without(sound, at, lag);
    }
    return sound;
  }

  /**
   * `sound` with one period more in front, of itself and of the `past` before it.
   * @param {Float32Array} past
   * @param {Float32Array} sound
   * @param {{force?: boolean}} [options]
   */
  stretch(past, sound, { force = false } = {}) {
    const longest = Math.min(this.#longest, past.length), w = this.#overlap;
    if (longest < this.#shortest || sound.length < w) return sound;
    const joined = new Float32Array(longest + sound.length);
    joined.set(past.subarray(past.length - longest));
    joined.set(sound, longest);
    // To go back by `lag` from the border is to leave out a negative piece: the same search, backwards.
    const [lag, similar] = this.#bestLagBack(joined, longest);
    if (!(force || similar)) return sound;
    const again = joined.slice(longest - lag); // starts a period earlier
    this.#crossfade(again, 0, sound, 0, again, 0, w);
    return again;
  }

  /**
   * @param {Float32Array} sound
   * @param {number} at
   * @param {number} lag
   */
  #without(sound, at, lag) {
    const w = this.#overlap, out = new Float32Array(sound.length - lag);
    out.set(sound.subarray(0, at));
    this.#crossfade(out, at, sound, at, sound, at + lag, w);
    out.set(sound.subarray(at + lag + w), at + w);
    return out;
  }

  /**
   * From `a` to `b`, rounded to float32 after each operation.
   * @param {Float32Array} to
   * @param {number} at
   * @param {Float32Array} a
   * @param {number} aAt
   * @param {Float32Array} b
   * @param {number} bAt
   * @param {number} count
   */
  #crossfade(to, at, a, aAt, b, bAt, count) {
    const f = Math.fround;
    for (let i = 0; i < count; i++) {
      const fade = this.#fadeIn[i];
      to[at + i] = f(a[aAt + i] * f(1 - fade)) + f(b[bAt + i] * fade);
    }
  }

  /**
   * @param {Float32Array} sound
   * @param {number} longest
   * @returns {[lag: number, similar: boolean]}
   */
  #bestLag(sound, longest) {
    return this.#search(sound.subarray(0, this.#overlap), sound.subarray(this.#shortest, longest + this.#overlap), this.#shortest);
  }

  /**
   * @param {Float32Array} joined
   * @param {number} border
   * @returns {[lag: number, similar: boolean]}
   */
  #bestLagBack(joined, border) {
    const reference = joined.subarray(border, border + this.#overlap);
    const [start, similar] = this.#search(reference, joined.subarray(0, border - this.#shortest + this.#overlap), 0);
    return [border - start, similar];
  }

  /**
   * Where in `window` the reference fits best (plus `first`), and whether a join there is inaudible. In whole numbers of
   * 16 bits, whose sums are exact in any order.
   * @param {Float32Array} reference
   * @param {Float32Array} window
   * @param {number} first
   * @returns {[number, boolean]}
   */
  #search(reference, window, first) {
    const w = reference.length, sought = in16Bits(reference), place = in16Bits(window);
    let own = 0, energy = 0;
    for (let i = 0; i < w; i++) {
      own += sought[i] * sought[i];
      energy += place[i] * place[i];
    }
    let best = 0, likeness = -Infinity, loudest = own;
    for (let at = 0; at + w <= place.length; at++) {
      if (at) energy += place[at + w - 1] * place[at + w - 1] - place[at - 1] * place[at - 1];
      let product = 0;
      for (let i = 0; i < w; i++) product += place[at + i] * sought[i];
      const here = product / Math.sqrt(Math.max(energy * own, 1));
      if (here > likeness) {
        best = at;
        likeness = here;
      }
      loudest = Math.max(loudest, energy);
    }
    return [first + best, likeness >= SIMILAR || loudest / w / FULL_SCALE ** 2 <= QUIET_POWER];
  }
}

/** @param {Float32Array} sound */
function in16Bits(sound) {
  return Float64Array.from(sound, (sample) => roundHalfEven(sample * FULL_SCALE));
}

// Mirrors voice/vad.py without its detector of speech, which is a library: little is sent while nobody speaks (DTX).

import { roundHalfEven } from "../numbers.js";

/** How far speech is above the room, at least. */
const MARGIN_DB = 9;
/** Anything below this is silence. */
const FLOOR_DB = -65;
const HANGOVER_S = 0.3;
const RISE_DB_PER_S = 3;

/** Follows the room's level by its quietest frames, and tells frames of speech from frames of the room alone. */
export class VoiceActivityDetector {
  #rise;
  #hangover;
  /** @type {number | null} */
  #roomDb = null;
  #left;

  /** @param {number} frameSeconds */
  constructor(frameSeconds) {
    this.#rise = RISE_DB_PER_S * frameSeconds;
    this.#hangover = this.#left = roundHalfEven(HANGOVER_S / frameSeconds);
  }

  /**
   * One frame, full scale 1. The first frames count as speech.
   * @param {Float32Array} pcm
   */
  isSilent(pcm) {
    let energy = 0;
    for (let i = 0; i < pcm.length; i++) energy += pcm[i] * pcm[i];
    const level = 10 * Math.log10(Math.max(pcm.length ? energy / pcm.length : 0, 1e-12));
    this.#roomDb ??= Math.min(level, FLOOR_DB + 20);
    // Digital silence is no room: after it, the estimate must reach a microphone's level within seconds.
    this.#roomDb = Math.max(Math.min(level, this.#roomDb + this.#rise), FLOOR_DB - 20);
    const loud = level > Math.max(this.#roomDb + MARGIN_DB, FLOOR_DB);
    if (loud) this.#left = this.#hangover;
    else if (this.#left) this.#left--;
    return !loud && this.#left === 0;
  }
}

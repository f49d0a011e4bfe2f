/// <reference path="./worklet.d.ts" />
// Plays what it pulls through a small ring. It asks for what is missing when less is left than it needs to be safe; how
// much that is it learns from what was left over: as little as this machine allows. `process` allocates nothing.

const RING_S = 0.25;
/** Left over in the ring where all goes well: half a render quantum. */
const SPARE = 64;
/** What was left over is watched for so long, so many times, before less is kept. */
const WATCH_S = 4, WATCHES = 3;
/** After it was made to keep more: a machine that stops for a moment is often late again, which says nothing new. */
const PATIENCE_S = 1;
const MOST_S = 0.12;

class Playback extends AudioWorkletProcessor {
  /** @type {MessagePort | null} */
  #source = null;
  #ring = new Float32Array(Math.round(RING_S * sampleRate));
  #read = 0;
  #queued = 0;
  #asked = false;
  #starved = false;
  /** Less than this makes it ask. */
  #low = 4 * 128;
  #least = Infinity;
  /** Of the watches before. */
  #leasts = new Int32Array(WATCHES);
  #watch = 0;
  #watched = 0;
  #sinceMore = Infinity;
  #underruns = 0;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      this.#source = data;
      data.onmessage = (/** @type {MessageEvent<Float32Array>} */ event) => this.#take(event.data);
    };
  }

  /** @param {Float32Array} block */
  #take(block) {
    this.#asked = false;
    const { length } = this.#ring;
    const count = Math.min(block.length, length - this.#queued), at = (this.#read + this.#queued) % length;
    const first = Math.min(count, length - at);
    this.#ring.set(block.subarray(0, first), at);
    if (count > first) this.#ring.set(block.subarray(first, count), 0);
    this.#queued += count;
  }

  /**
   * @param {Float32Array[][]} _
   * @param {Float32Array[][]} outputs
   */
  process(_, outputs) {
    const out = outputs[0][0], { length } = this.#ring;
    const count = Math.min(out.length, this.#queued);
    for (let i = 0; i < count; i++) {
      out[i] = this.#ring[this.#read];
      this.#read = this.#read + 1 === length ? 0 : this.#read + 1;
    }
    this.#queued -= count;
    for (let channel = 1; channel < outputs[0].length; channel++) outputs[0][channel].set(out);
    this.#adapt(count < out.length, out.length);
    if (this.#source !== null && !this.#asked && this.#queued < this.#low) {
      this.#asked = true;
      this.#source.postMessage(this.#low - this.#queued + this.#underruns * 65536);
    }
    return true;
  }

  /**
   * @param {boolean} starved
   * @param {number} played
   */
  #adapt(starved, played) {
    if (this.#source === null) return;
    if (starved && !this.#starved) {
      this.#underruns = (this.#underruns + 1) % 65536;
      if (this.#sinceMore > PATIENCE_S * sampleRate) {
        this.#low = Math.min(this.#low + 128, MOST_S * sampleRate);
        this.#sinceMore = 0;
      }
    }
    this.#sinceMore += played;
    this.#starved = starved;
    this.#least = Math.min(this.#least, this.#queued);
    this.#watched += played;
    if (this.#watched < WATCH_S * sampleRate) return;
    this.#leasts[this.#watch] = this.#least;
    this.#watch = (this.#watch + 1) % WATCHES;
    this.#watched = 0;
    this.#least = Infinity;
    let least = this.#leasts[0];
    for (let i = 1; i < WATCHES; i++) least = Math.min(least, this.#leasts[i]);
    const less = Math.min(this.#low - 128, Math.ceil((least - SPARE) / 2));
    if (less <= 0) return;
    this.#low -= less;
    for (let i = 0; i < WATCHES; i++) this.#leasts[i] -= less;
  }
}

registerProcessor("playback", Playback);

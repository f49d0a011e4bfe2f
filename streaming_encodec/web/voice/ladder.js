// Mirrors voice/ladder.py: what is played for one frame, from the best to the least, and how it is counted.

/** @typedef {import("./buffer.js").BufferedFrame} BufferedFrame */
/** @typedef {import("./statistics.js").ReceiverStatistics} ReceiverStatistics */
/** @typedef {import("../wire/packet.js").Frame} Frame */
/** @typedef {import("../wire/streamFormat.js").StreamFormat} StreamFormat */

/** What a frame of output is made from. @typedef {"decode" | "repeat" | "noise" | "silence"} Kind */
/** Whether the frames of one pull become fewer or more samples. @typedef {"keep" | "shorten" | "shorten fast" | "stretch"} Pace */

/**
 * One frame to make; see the Python class.
 * @typedef {object} PlayoutInstruction
 * @property {Kind} kind
 * @property {number} frame
 * @property {Frame | null} codes
 * @property {readonly number[] | null} noise
 * @property {number} lostFrames
 * @property {number} noiseGain
 * @property {boolean} redundant
 * @property {boolean} reset
 * @property {Pace} pace
 * @property {number} spareSamples
 * @property {Frame[]} following
 */

/**
 * @param {Kind} kind
 * @param {Partial<PlayoutInstruction>} [more]
 * @returns {PlayoutInstruction}
 */
function instruction(kind, more = {}) {
  return {
    kind, frame: 0, codes: null, noise: null, lostFrames: 0, noiseGain: 1, redundant: false, reset: false, pace: "keep",
    spareSamples: 0, following: [], ...more,
  };
}

/** Makes one stream's instructions and counts its samples. */
export class ConcealmentLadder {
  #frameSamples;
  #statistics;
  #repeatFrames;
  #noiseFrames;
  #lostFrames = 0; // made up in a row
  /** The sender's noise levels, while it pauses. @type {readonly number[] | null} */
  #pause = null;

  /**
   * @param {StreamFormat} format
   * @param {ReceiverStatistics} statistics
   * @param {number} repeatFrames repeats in a row before comfort noise takes over
   * @param {number} noiseFrames how long that takes to fade
   */
  constructor(format, statistics, repeatFrames, noiseFrames) {
    this.#frameSamples = format.frameSamples;
    this.#statistics = statistics;
    this.#repeatFrames = repeatFrames;
    this.#noiseFrames = noiseFrames;
  }

  /**
   * A frame of codes that is here.
   * @param {BufferedFrame} entry
   * @param {number} frame
   */
  play(entry, frame) {
    this.#lostFrames = 0;
    this.#pause = null;
    this.#statistics.totalSamplesReceived += this.#frameSamples;
    this.#statistics.redundantFramesUsed += Number(entry.redundant);
    return instruction("decode", { frame, codes: entry.codes, redundant: entry.redundant, reset: entry.reset });
  }

  /**
   * The sender pauses with this noise, or ends with it. null: it begins a new stream, and is silent till then.
   * @param {BufferedFrame | null} entry
   */
  pause(entry) {
    this.#lostFrames = 0;
    this.#pause = entry === null || entry.end ? null : entry.noise;
  }

  /**
   * A frame that is lost, or late: repeat, then comfort noise that fades, then silence.
   * @param {number} frame
   */
  conceal(frame) {
    this.#lostFrames++;
    const lostFrames = this.#lostFrames, noise = lostFrames - this.#repeatFrames; // frames of it so far
    this.#statistics.countConcealed(this.#frameSamples, lostFrames === 1, noise > 0);
    if (noise <= 0) return instruction("repeat", { frame, lostFrames });
    if (noise > this.#noiseFrames) return instruction("silence", { frame, lostFrames });
    return instruction("noise", { frame, lostFrames, noiseGain: 1 - noise / this.#noiseFrames });
  }

  /**
   * Of the frames made up last in a row, so many stood for no voice: they do not count as concealed.
   * @param {number} [frames]
   */
  takeBack(frames = this.#lostFrames) {
    const taken = Math.min(frames, this.#lostFrames);
    if (taken <= 0) return;
    const silent = Math.min(taken, Math.max(0, this.#lostFrames - this.#repeatFrames));
    this.#statistics.takeBackConcealed(taken * this.#frameSamples, silent * this.#frameSamples, taken === this.#lostFrames);
    this.#lostFrames -= taken;
  }

  /** Nothing is due: the noise of the sender's pause, or silence. */
  rest() {
    if (this.#pause === null) return instruction("silence");
    this.#statistics.comfortNoiseSamples += this.#frameSamples;
    return instruction("noise", { noise: this.#pause });
  }
}

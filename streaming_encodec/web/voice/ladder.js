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
    kind, frame: 0, codes: null, noise: null, lostFrames: 0, redundant: false, reset: false, pace: "keep", spareSamples: 0,
    following: [], ...more,
  };
}

/** Makes one stream's instructions and counts its samples. */
export class ConcealmentLadder {
  #frameSamples;
  #statistics;
  #repeatFrames;
  #lostFrames = 0; // made up in a row
  /** The sender's noise levels, while it pauses. @type {readonly number[] | null} */
  #pause = null;

  /**
   * @param {StreamFormat} format
   * @param {ReceiverStatistics} statistics
   * @param {number} repeatFrames repeats in a row before comfort noise takes over
   */
  constructor(format, statistics, repeatFrames) {
    this.#frameSamples = format.frameSamples;
    this.#statistics = statistics;
    this.#repeatFrames = repeatFrames;
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
   * A frame that is lost, or late: repeat, then comfort noise.
   * @param {number} frame
   */
  conceal(frame) {
    this.#lostFrames++;
    const repeats = this.#lostFrames <= this.#repeatFrames;
    this.#statistics.countConcealed(this.#frameSamples, this.#lostFrames === 1, !repeats);
    return instruction(repeats ? "repeat" : "noise", { frame, lostFrames: this.#lostFrames });
  }

  /** Nothing is due: the noise of the sender's pause, or silence. */
  rest() {
    if (this.#pause === null) return instruction("silence");
    this.#statistics.comfortNoiseSamples += this.#frameSamples;
    return instruction("noise", { noise: this.#pause });
  }
}

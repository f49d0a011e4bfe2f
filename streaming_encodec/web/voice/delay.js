// Mirrors voice/delay.py: how long to hold packets back, and what a queue on the way adds.

import { StreamError } from "../errors.js";

/** Reports go out about once a second. */
const REMEMBERED_INTERVALS = 30;

/**
 * Settings of the target, in frames unless said otherwise; see the Python class.
 * @typedef {object} DelaySettings
 * @property {number} minimumFrames
 * @property {number} maximumFrames
 * @property {number} initialFrames
 * @property {boolean} reliable packets come over TCP: none is lost, some come in bursts
 * @property {number} windowS
 * @property {number} bucketS
 * @property {number} memoryBuckets
 * @property {number} peakMemoryS
 * @property {number} trialBuckets
 * @property {number} binsPerFrame
 * @property {number} spareFrames
 */

/**
 * @param {Partial<DelaySettings>} [given]
 * @returns {Readonly<DelaySettings>}
 */
export function delaySettings(given = {}) {
  const s = {
    minimumFrames: 2, maximumFrames: 30, initialFrames: 3, reliable: true, windowS: 2, bucketS: 0.5, memoryBuckets: 50,
    peakMemoryS: 30, trialBuckets: 1, binsPerFrame: 1, spareFrames: 1, ...given,
  };
  if (!(0 < s.minimumFrames && s.minimumFrames <= s.initialFrames && s.initialFrames <= s.maximumFrames && s.maximumFrames <= 500)) {
    throw new StreamError("delays in frames: 0 < minimum <= initial <= maximum <= 500");
  }
  if (!(Math.min(s.windowS, s.bucketS, s.peakMemoryS) > 0 && s.memoryBuckets >= 2)) {
    throw new StreamError("the windows of the delay target are positive, its memory at least 2 buckets");
  }
  if (!(s.binsPerFrame >= 1 && s.binsPerFrame <= 16 && s.spareFrames >= 0 && s.spareFrames <= 10)) {
    throw new StreamError("the delay target has 1 to 16 bins a frame, and 0 to 10 frames to spare");
  }
  return Object.freeze(s);
}

/** Learns from arrivals what playout follows: `base` and `targetFrames`. All times are in frames. */
export class DelayEstimator {
  #window;
  #bucket;
  #peakMemory;
  /** Arrival and offset of packets, offsets rising. @type {[number, number][]} */
  #fastest = [];
  #weights;
  #buckets = 0;
  #bucketEnds = NaN;
  #bucketMax = 0;
  /** Arrival and height. @type {[number, number][]} */
  #peaks = [];
  #learned;
  #target;

  /**
   * @param {number} frameSeconds
   * @param {DelaySettings} settings
   */
  constructor(frameSeconds, settings) {
    this.settings = settings;
    this.#window = settings.windowS / frameSeconds;
    this.#bucket = settings.bucketS / frameSeconds;
    this.#peakMemory = settings.peakMemoryS / frameSeconds;
    this.#weights = new Float64Array(settings.maximumFrames * settings.binsPerFrame + 1);
    this.#learned = this.#target = settings.initialFrames;
  }

  /** Arrival less timestamp of the fastest recent packet, in frames; 0 before any packet. */
  get base() {
    return this.#fastest.length ? this.#fastest[0][1] : 0;
  }

  /** How long after the fastest packet's moment a frame is to be played. */
  get targetFrames() {
    return this.#target;
  }

  /** A new stream begins, with other timestamps. What was learned about the network stays. */
  restart() {
    this.#fastest = [];
    this.#bucketEnds = NaN;
    this.#bucketMax = 0;
  }

  /**
   * A packet with the first frame `timestamp` arrived.
   * @param {number} timestamp
   * @param {number} clockFrames
   */
  onPacket(timestamp, clockFrames) {
    const offset = clockFrames - timestamp, fastest = this.#fastest;
    while (fastest.length && fastest[fastest.length - 1][1] >= offset) fastest.pop();
    fastest.push([clockFrames, offset]);
    while (fastest[0][0] < clockFrames - this.#window) fastest.shift();
    const delay = offset - fastest[0][1];
    this.#bucketMax = Math.max(this.#bucketMax, delay);
    if (Number.isNaN(this.#bucketEnds)) this.#bucketEnds = clockFrames + this.#bucket;
    else if (clockFrames >= this.#bucketEnds) {
      this.#closeBucket(clockFrames);
      this.#bucketEnds = clockFrames + this.#bucket;
      this.#bucketMax = 0;
    }
  }

  /** @param {number} clockFrames */
  #closeBucket(clockFrames) {
    const { settings } = this, peaks = this.#peaks;
    let height = this.#bucketMax;
    while (peaks.length && peaks[0][0] < clockFrames - this.#peakMemory) peaks.shift();
    // A stall is told from jitter by its size: twice the target and 80 ms more at 75 frames a second.
    if (height > 2 * this.#learned && height > this.#learned + 6) {
      // One stall can end one half second and fill the next with what it held back.
      const last = peaks[peaks.length - 1];
      if (last && clockFrames - last[0] < 3 * this.#bucket) {
        peaks.pop();
        height = Math.max(height, last[1]);
      }
      peaks.push([clockFrames, height]);
    } else this.#learn(height);
    const held = peaks.length >= 2 ? Math.max(...peaks.map(([, h]) => h)) : 0;
    const wanted = Math.max(this.#learned, held ? Math.ceil(held) + 1 : 0);
    this.#target = Math.min(Math.max(wanted, settings.minimumFrames), settings.maximumFrames);
  }

  /** @param {number} height */
  #learn(height) {
    const { settings } = this, weights = this.#weights;
    this.#buckets++;
    const keep = 1 - 1 / Math.min(this.#buckets, settings.memoryBuckets);
    for (let i = 0; i < weights.length; i++) weights[i] *= keep;
    const at = Math.ceil((height - 0.05) * settings.binsPerFrame);
    weights[Math.min(Math.max(at, 0), weights.length - 1)] += 1 - keep;
    const total = weights.reduce((sum, weight) => sum + weight, 0), enough = (settings.reliable ? 0.99 : 0.95) * total - 1e-9;
    let bins = 0;
    for (let sum = weights[0]; sum < enough; sum += weights[bins]) bins++;
    this.#learned = bins / settings.binsPerFrame + settings.spareFrames;
    if (this.#buckets < settings.trialBuckets) this.#learned = Math.max(this.#learned, settings.initialFrames);
  }
}

/** What a queue on the way adds to the one-way delay: the least delay of an interval above the least lately. */
export class QueueMeter {
  /** The least offset of each interval, in frames. @type {number[]} */
  #past = [];
  #least = Infinity;
  #frames = 0;

  /** Timestamps begin anew. */
  restart() {
    this.#past = [];
    this.#least = Infinity;
    this.#frames = 0;
  }

  /**
   * A packet with the first frame `timestamp` arrived.
   * @param {number} timestamp
   * @param {number} clockFrames
   */
  onPacket(timestamp, clockFrames) {
    this.#least = Math.min(this.#least, clockFrames - timestamp);
  }

  /** The interval's queue in frames; the next interval begins. Where no packet came, what was last known. */
  close() {
    if (this.#least < Infinity) {
      this.#past.push(this.#least);
      if (this.#past.length > REMEMBERED_INTERVALS) this.#past.shift();
      this.#frames = this.#least - Math.min(...this.#past);
      this.#least = Infinity;
    }
    return this.#frames;
  }
}

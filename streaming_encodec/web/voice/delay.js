// Mirrors voice/delay.py: how long to hold packets back, and what a queue on the way adds.

import { StreamError } from "../errors.js";

/** Reports go out about once a second. */
const REMEMBERED_INTERVALS = 30;
const RECENT_S = 0.15, RECENT_PACKETS = 4; // a queue is the least delay of so long, and of no fewer packets
const MORE_S = 0.05; // a queue that is longer by so much is news
/** Frames that a packet may be later than a bin's edge. */
const ON_TIME = 0.05;
const LATELY_BUCKETS = 30, SUPPOSED_BUCKETS = 2; // at first of those that there were and so many without holes
const SOME = 0.47, MANY = 0.55; // between these shares of half seconds with holes redundancy is waited for ever longer,
const LONGER = 1.45; // up to so many times
const GROWN_S = 0.04; // where the last packets of half a second are later by more than this, a queue grows
const DRAINED_S = 0.025; // where the last packet of a half second is earlier than its first one by more than this, it drains

/**
 * Settings of the target, in frames unless said otherwise; see the Python class.
 * @typedef {object} DelaySettings
 * @property {number} minimumFrames
 * @property {number} maximumFrames
 * @property {number} freeQueueFrames
 * @property {number} initialFrames
 * @property {number} quantile
 * @property {number} repairFrames
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
    minimumFrames: 2, maximumFrames: 30, freeQueueFrames: 10, initialFrames: 3, quantile: 0.99, repairFrames: 12, windowS: 2, bucketS: 0.5, memoryBuckets: 50,
    peakMemoryS: 30, trialBuckets: 1, binsPerFrame: 4, spareFrames: 0.5, ...given,
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
  if (!(s.quantile > 0 && s.quantile < 1)) throw new StreamError(`the quantile of the delay target lies between 0 and 1, not at ${s.quantile}`);
  return Object.freeze(s);
}

/** Learns from arrivals what playout follows: `base` and `targetFrames`. All times are in frames. */
export class DelayEstimator {
  #rate;
  #window;
  #bucket;
  #peakMemory;
  /** Arrival and offset of packets' ends, offsets rising. @type {[number, number][]} */
  #fastest = [];
  /** Offsets of the last packets. @type {number[]} */
  #recent = [];
  /** Of the last two packets of speech: the last one before a pause may be short. */
  #lengths = [1, 1];
  #weights;
  #buckets = 0;
  #bucketEnds = NaN;
  #bucketMax = 0;
  #bucketLeast = Infinity;
  #bucketMost = -Infinity;
  /** Offsets of its first and last packet. @type {[number, number]} */
  #bucketSides = [NaN, NaN];
  #bucketRepair = 0;
  /** The least offset of each bucket. @type {number[]} */
  #leasts = [];
  /** Height of the last bucket. @type {number | null} */
  #unlearned = null;
  #drained = -Infinity;
  #refilled = -Infinity;
  #holed = 0; // share of buckets in which redundancy filled a hole
  #lately = SUPPOSED_BUCKETS; // of so many
  /** Waits for redundancy of the last buckets. @type {number[]} */
  #repairs = [];
  /** Heights of the last buckets in which a queue grew. @type {number[]} */
  #growths = [];
  /** Since when, and height. @type {[number, number][]} */
  #peaks = [];
  #learned;
  #target;

  /**
   * @param {number} frameSeconds
   * @param {DelaySettings} settings
   */
  constructor(frameSeconds, settings) {
    this.settings = settings;
    this.#rate = 1 / frameSeconds;
    this.#window = settings.windowS / frameSeconds;
    this.#bucket = settings.bucketS / frameSeconds;
    this.#peakMemory = settings.peakMemoryS / frameSeconds;
    this.#weights = new Float64Array(settings.maximumFrames * settings.binsPerFrame + 1);
    this.#learned = this.#target = settings.initialFrames;
  }

  /**
   * Arrival less timestamp of the fastest recent packet, in frames; 0 before any packet. It is that of a packet as long
   * as they are at present: a longer one leaves later after its first frame.
   */
  get base() {
    return this.#fastest.length ? this.#fastest[0][1] + Math.max(...this.#lengths) : 0;
  }

  /** How long after the fastest packet's moment a frame is to be played. */
  get targetFrames() {
    return this.#target;
  }

  /** A new stream begins, with other timestamps. What was learned about the network stays. */
  restart() {
    this.#fastest = [];
    this.#recent = [];
    this.#unlearned = null;
    this.#leasts = [];
    this.#growths = [];
    this.#repairs = [];
    this.#bucketEnds = NaN;
    this.#beginBucket();
  }

  #beginBucket() {
    this.#bucketMax = this.#bucketRepair = 0;
    this.#bucketLeast = Infinity;
    this.#bucketMost = -Infinity;
    this.#bucketSides = [NaN, NaN];
  }

  /**
   * A packet with so many frames from `timestamp` on arrived.
   * @param {number} timestamp
   * @param {number} clockFrames
   * @param {number} frames
   * @param {boolean} noise
   */
  onPacket(timestamp, clockFrames, frames, noise) {
    const offset = clockFrames - timestamp - frames, fastest = this.#fastest;
    if (!noise) this.#lengths = [this.#lengths[1], frames];
    while (fastest.length && fastest[fastest.length - 1][1] >= offset) fastest.pop();
    fastest.push([clockFrames, offset]);
    while (fastest[0][0] < clockFrames - this.#window) fastest.shift();
    this.#recent.push(offset);
    if (this.#recent.length > RECENT_PACKETS) this.#recent.shift();
    const delay = offset - fastest[0][1];
    this.#bucketMax = Math.max(this.#bucketMax, delay);
    const [first] = this.#bucketSides;
    this.#bucketSides = [Number.isNaN(first) ? offset : first, offset];
    this.#bucketLeast = Math.min(this.#bucketLeast, offset);
    this.#bucketMost = Math.max(this.#bucketMost, offset);
    if (Number.isNaN(this.#bucketEnds)) this.#bucketEnds = clockFrames + this.#bucket;
    else if (clockFrames >= this.#bucketEnds) {
      this.#closeBucket(clockFrames);
      this.#bucketEnds = clockFrames + this.#bucket;
      this.#beginBucket();
    } else if (!this.#buckets) this.#guess();
  }

  /**
   * Redundancy brought the frame `timestamp`, and those after it up to the packet that came. No stall, however long.
   * @param {number} timestamp
   * @param {number} clockFrames
   */
  onRepair(timestamp, clockFrames) {
    this.#bucketRepair = Math.max(this.#bucketRepair, clockFrames - timestamp - this.base);
    this.#raiseTarget(this.#waitFor(this.#bucketRepair));
  }

  /** Until the half second ends, and all that is known decides. @param {number} wanted */
  #raiseTarget(wanted) {
    this.#target = Math.max(this.#target, Math.min(wanted, this.settings.maximumFrames));
  }

  /** How long playout waits for what redundancy brings, in frames; 0 if it brought nothing. @param {number} repair */
  #waitFor(repair) {
    const { repairFrames, spareFrames } = this.settings;
    const often = Math.min(Math.max((this.#holed - SOME) / (MANY - SOME), 0), 1);
    return repair ? Math.min(repair, (1 + often * (LONGER - 1)) * repairFrames) + spareFrames : 0;
  }

  /** A stall is told from jitter by its size: twice the target and 80 ms more at 75 frames a second. @param {number} height */
  #isHigh(height) {
    return height > 2 * this.#learned && height > this.#learned + 6;
  }

  /**
   * Until a half second has taught something the target covers all that came. Who sends several packets at once, as the
   * microphone's blocks come, is so known from the first block on.
   */
  #guess() {
    const height = this.#bucketMost - this.#fastest[0][1], { settings } = this;
    if (this.#isHigh(height)) return;
    this.#raiseTarget(this.#bins(height) / settings.binsPerFrame + settings.spareFrames);
  }

  /** @param {number} clockFrames */
  #closeBucket(clockFrames) {
    const { settings } = this, peaks = this.#peaks, growths = this.#growths, height = this.#bucketMax;
    this.#leasts.push(this.#bucketLeast);
    if (this.#leasts.length > Math.ceil(settings.peakMemoryS / settings.bucketS)) this.#leasts.shift();
    while (peaks.length && peaks[0][0] < clockFrames - this.#peakMemory) peaks.shift();
    const isHigh = this.#isHigh(height);
    const grows = Math.min(...this.#recent) - this.#fastest[0][1] > GROWN_S * this.#rate || (isHigh && growths.some((one) => one > 0));
    const [firstOffset, lastOffset] = this.#bucketSides;
    const falls = lastOffset < firstOffset - DRAINED_S * this.#rate;
    if (grows && falls && clockFrames - this.#refilled > this.#peakMemory) {
      // The queue drains: what comes next is no later than the last packet.
      growths.splice(0, growths.length, lastOffset - this.#fastest[0][1]);
      this.#drained = clockFrames;
    } else {
      growths.push(grows ? height : 0);
      // A download's: it falls by a third, and grows again.
      if (grows && !falls && clockFrames - this.#drained < this.#peakMemory) this.#refilled = clockFrames;
    }
    if (growths.length > 2) growths.shift();
    const last = peaks[peaks.length - 1], isLately = last !== undefined && clockFrames - last[0] < 3 * this.#bucket;
    if (grows && isLately) peaks.pop(); // so it has begun
    // One stall can end one half second and fill the next with what it held back.
    else if (isHigh && !grows && isLately) last[1] = Math.max(height, last[1]);
    else if (isHigh && !grows) peaks.push([clockFrames, height]);
    this.#lately = Math.min(this.#lately + 1, LATELY_BUCKETS);
    this.#holed += ((this.#bucketRepair > 0 ? 1 : 0) - this.#holed) / this.#lately;
    const repair = this.#waitFor(this.#bucketRepair);
    this.#repairs.push(repair);
    if (this.#repairs.length > 2) this.#repairs.shift();
    // A queue is known half a second after it began to grow: what came before is learned when none grew after it.
    if (!grows && this.#unlearned !== null) this.#learn(this.#unlearned);
    this.#unlearned = grows || isHigh ? null : Math.max(height, repair - settings.spareFrames);
    if (this.#unlearned !== null && !this.#buckets) {
      this.#learn(this.#unlearned); // better than nothing
      this.#unlearned = null;
    }
    const stalls = peaks.length >= 2 ? Math.max(...peaks.map(([, h]) => h)) : 0, held = Math.max(stalls, ...growths);
    const wanted = Math.max(this.#learned, held ? Math.ceil(held) + 1 : 0, ...this.#repairs), queue = this.#fastest[0][1] - Math.min(...this.#leasts);
    const most = settings.maximumFrames - Math.max(0, queue - settings.freeQueueFrames);
    this.#target = Math.max(Math.min(wanted, most), settings.minimumFrames);
  }

  /** @param {number} height */
  #bins(height) {
    return Math.ceil((height - ON_TIME) * this.settings.binsPerFrame);
  }

  /** @param {number} height */
  #learn(height) {
    const { settings } = this, weights = this.#weights;
    this.#buckets++;
    const keep = 1 - 1 / Math.min(this.#buckets, settings.memoryBuckets);
    for (let i = 0; i < weights.length; i++) weights[i] *= keep;
    weights[Math.min(Math.max(this.#bins(height), 0), weights.length - 1)] += 1 - keep;
    const total = weights.reduce((sum, weight) => sum + weight, 0), enough = settings.quantile * total - 1e-9;
    let bins = 0;
    for (let sum = weights[0]; sum < enough; sum += weights[bins]) bins++;
    this.#learned = bins / settings.binsPerFrame + settings.spareFrames;
    if (this.#buckets < settings.trialBuckets) this.#learned = Math.max(this.#learned, settings.initialFrames);
  }
}

/** What a queue on the way adds to the one-way delay: its least of late above the least of the last half minute. */
export class QueueMeter {
  #recent;
  #more;
  /** Arrival and offset, offsets rising. @type {[number, number][]} */
  #recently = [];
  /** @type {number[]} */
  #arrivals = [];
  /** The least offset of each interval, in frames. @type {number[]} */
  #past = [];
  #least = Infinity;
  #closed = 0;

  /** @param {number} frameSeconds */
  constructor(frameSeconds) {
    this.#recent = RECENT_S / frameSeconds;
    this.#more = MORE_S / frameSeconds;
  }

  /** Timestamps begin anew. */
  restart() {
    this.#recently = [];
    this.#arrivals = [];
    this.#past = [];
    this.#least = Infinity;
    this.#closed = 0;
  }

  /**
   * A packet that ends before the frame `timestamp` arrived.
   * @param {number} timestamp
   * @param {number} clockFrames
   */
  onPacket(timestamp, clockFrames) {
    const offset = clockFrames - timestamp, recently = this.#recently;
    this.#least = Math.min(this.#least, offset);
    while (recently.length && recently[recently.length - 1][1] >= offset) recently.pop();
    recently.push([clockFrames, offset]);
    this.#arrivals.push(clockFrames);
    if (this.#arrivals.length > RECENT_PACKETS) this.#arrivals.shift();
    while (recently[0][0] < Math.min(clockFrames - this.#recent, this.#arrivals[0])) recently.shift();
  }

  /** The queue at present, in frames; where no packet came lately, what was last known. */
  get frames() {
    return this.#recently.length ? this.#recently[0][1] - Math.min(this.#least, ...this.#past) : 0;
  }

  /** Whether it is much longer than when the last interval ended. */
  get hasGrown() {
    // The first packet after a stall stands alone here, until those that were held up with it are in.
    return this.#recently.length > 1 && this.frames > this.#closed + this.#more;
  }

  /** The queue in frames; the next interval begins. */
  close() {
    this.#closed = this.frames;
    if (this.#least < Infinity) {
      this.#past.push(this.#least);
      if (this.#past.length > REMEMBERED_INTERVALS) this.#past.shift();
      this.#least = Infinity;
    }
    return this.#closed;
  }
}

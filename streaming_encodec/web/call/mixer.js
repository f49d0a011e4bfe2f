// Mirrors call/mixer.py and call/decoders.py: every speaker's jitter buffer and decoder, added up.

import { PacketError } from "../errors.js";
import { linspace } from "../numbers.js";
import { PcmPlayout, concatenated } from "../voice/playout.js";
import { Receiver } from "../voice/receiver.js";
import { MAX_SPEAKERS } from "../wire/streamFormat.js";

/** @typedef {import("../voice/ladder.js").PlayoutInstruction} PlayoutInstruction */
/** @typedef {import("../codec/decoder.js").Decoder} Decoder */
/** @typedef {import("../voice/playout.js").DecodeRequest} DecodeRequest */
/** @typedef {import("../voice/playout.js").DecodeSteps} DecodeSteps */
/** @typedef {import("../voice/receiver.js").ReceiverSettings} ReceiverSettings */
/** @typedef {import("../voice/statistics.js").ReceiverStatistics} ReceiverStatistics */
/** @typedef {import("../voice/statistics.js").Report} Report */
/** @typedef {import("../wire/streamFormat.js").StreamFormat} StreamFormat */

/**
 * What a mixer takes of a codec.
 * @typedef {Pick<import("../codec/codec.js").Codec, "createDecoder" | "decodeTogether">} SpeakerCodec
 */

/** @typedef {{sender: number, decoder: Decoder, steps: DecodeSteps, request: DecodeRequest}} Wanted */

const NOTHING = new Float32Array(0);
/** After a peak the gain comes back in about so long. */
const RELEASE_S = 0.5;

/** Speakers by number. `receive` their packets, `read` the sum of their voices. */
export class Mixer {
  /** Bytes that were no packet of this stream. */
  badPackets = 0;
  /** Mean square of each speaker's part of the last `read`. @type {Map<number, number>} */
  levels = new Map();
  #format;
  #codec;
  #settings;
  #observe;
  /** @type {Map<number, {playout: PcmPlayout, decoder: Decoder}>} */
  #voices = new Map();
  /** @type {Set<number>} */
  #leaving = new Set();
  #limiter;

  /**
   * @param {StreamFormat} format
   * @param {SpeakerCodec} codec
   * @param {{settings?: Readonly<ReceiverSettings>,
   *   observe?: (sender: number, instruction: PlayoutInstruction, heardS: number) => void}} [options]
   */
  constructor(format, codec, { settings, observe } = {}) {
    this.#format = format;
    this.#codec = codec;
    this.#settings = settings;
    this.#observe = observe;
    this.#limiter = new Limiter(RELEASE_S * format.sampleRate);
  }

  /** Who is being heard: until the last frame of a speaker who left is played. */
  get speakers() {
    return [...this.#voices.keys()];
  }

  /**
   * Take a packet of `sender` that arrived at `nowS`. Bad packets are counted; they throw nothing.
   * @param {number} sender
   * @param {Uint8Array} data
   * @param {number} nowS
   */
  receive(sender, data, nowS) {
    const voice = this.#voices.get(sender);
    if (!voice && this.#voices.size >= MAX_SPEAKERS) return;
    const receiver = voice ? voice.playout.receiver : new Receiver(this.#format, this.#settings);
    try {
      receiver.receive(data, nowS);
    } catch (error) {
      if (!(error instanceof PacketError)) throw error;
      this.badPackets++;
      return;
    }
    if (!voice) this.#voices.set(sender, this.#open(sender, receiver));
  }

  /**
   * @param {number} sender
   * @param {Receiver} receiver
   */
  #open(sender, receiver) {
    const decoder = this.#codec.createDecoder(), observe = this.#observe;
    const options = observe && { observe: (/** @type {PlayoutInstruction} */ made, /** @type {number} */ heardS) => observe(sender, made, heardS) };
    return { playout: new PcmPlayout(receiver, never, { seed: sender, ...options }), decoder };
  }

  /**
   * A speaker has left: the frames that wait are played, then the speaker is forgotten.
   * @param {number} sender
   */
  leave(sender) {
    const voice = this.#voices.get(sender);
    if (!voice) return;
    this.#leaving.add(sender);
    voice.playout.receiver.leave();
  }

  /**
   * Drop a speaker at once.
   * @param {number} sender
   */
  forget(sender) {
    this.#leaving.delete(sender);
    this.#voices.get(sender)?.decoder.close();
    this.#voices.delete(sender);
  }

  /**
   * The next `count` samples of everybody; `nowS` is when the first will be heard.
   *
   * One speaker alone comes through bit for bit; a sum beyond full scale is turned down.
   * @param {number} count
   * @param {number} nowS
   */
  read(count, nowS) {
    const parts = this.#readAll(count, nowS);
    for (const sender of [...this.#leaving]) {
      const playout = this.#voices.get(sender)?.playout;
      if (!playout || (!playout.receiver.bufferedFrames && playout.isSilent)) this.forget(sender); // it fades first
    }
    for (const sender of this.levels.keys()) if (!this.#voices.has(sender)) this.levels.delete(sender);
    if (!parts.length) return new Float32Array(count);
    if (parts.length === 1) {
      this.#limiter.reset();
      return parts[0];
    }
    const sum = parts[0].slice();
    for (const part of parts.slice(1)) for (let i = 0; i < count; i++) sum[i] += part[i];
    return this.#limiter.process(sum);
  }

  /**
   * `read`, plus the samples that every voice has left over after a change of pace.
   *
   * If they stayed, the next frame would be needed earlier by as much.
   * @param {number} count
   * @param {number} nowS
   * @param {{certain: boolean}} options certain: give null if a later packet could change any of it
   */
  readWhole(count, nowS, { certain }) {
    const voices = [...this.#voices.values()];
    if (certain && !voices.every(({ playout }) => playout.isCertain(count, nowS))) return null;
    const pcm = this.read(count, nowS), left = [...this.#voices.values()].map(({ playout }) => playout.queuedSamples);
    const more = left.length ? Math.min(...left) : 0;
    return more ? concatenated([pcm, this.read(more, nowS)]) : pcm;
  }

  /**
   * All voices advance together, so that frames needed at the same time are decoded in one step.
   * @param {number} count
   * @param {number} nowS
   */
  #readAll(count, nowS) {
    /** @type {Map<number, Float32Array>} */
    const done = new Map();
    /** @type {Wanted[]} */
    let wanted = [];
    /**
     * @param {{sender: number, decoder: Decoder, steps: DecodeSteps}} voice
     * @param {Float32Array} sound
     */
    const advance = (voice, sound) => {
      const step = voice.steps.next(sound);
      if (step.done) done.set(voice.sender, step.value);
      else wanted.push({ ...voice, request: step.value });
    };
    for (const [sender, { playout, decoder }] of this.#voices) {
      advance({ sender, decoder, steps: playout.reading(count, nowS) }, NOTHING);
    }
    while (wanted.length) {
      const asked = wanted, sounds = this.#decode(asked);
      wanted = [];
      asked.forEach(({ sender, decoder, steps }, i) => advance({ sender, decoder, steps }, sounds[i]));
    }
    return [...this.#voices.keys()].map((sender) => {
      const part = /** @type {Float32Array} */ (done.get(sender));
      this.levels.set(sender, meanSquare(part));
      return part;
    });
  }

  /**
   * @param {Wanted[]} wanted
   * @returns {Float32Array[]}
   */
  #decode(wanted) {
    for (const { decoder, request } of wanted) if (request.reset) decoder.reset();
    const [{ decoder, request: { codes } }] = wanted;
    if (wanted.length === 1) return [codes ? decoder.decode(codes, 1) : decoder.conceal()]; // no state is moved about
    return this.#codec.decodeTogether(wanted.map((one) => one.decoder), wanted.map(({ request }) => request.codes));
  }

  /** Whether a report has news that should not wait. */
  get reportsAreDue() {
    return [...this.#voices.values()].some(({ playout }) => playout.receiver.reportIsDue);
  }

  /** How each speaker's packets arrived since the last call. @returns {Report[]} */
  reports() {
    return [...this.#voices].map(([sender, { playout }]) => playout.receiver.report(sender));
  }

  /** By speaker. @returns {Map<number, ReceiverStatistics>} */
  get statistics() {
    return new Map([...this.#voices].map(([sender, { playout }]) => [sender, playout.receiver.statistics]));
  }

  /** The delay each speaker's buffer aims at. @returns {Map<number, number>} */
  get targetMs() {
    return new Map([...this.#voices].map(([sender, { playout }]) => [sender, playout.receiver.targetMs]));
  }
}

/** Turns a sum of voices down where it would clip, within one block, and up again slowly. */
export class Limiter {
  #release;
  #gain = 1;

  /** @param {number} releaseSamples */
  constructor(releaseSamples) {
    this.#release = releaseSamples;
  }

  /** Full gain at once. */
  reset() {
    this.#gain = 1;
  }

  /**
   * In place, to within -1 … 1.
   * @param {Float32Array} pcm
   */
  process(pcm) {
    const count = pcm.length;
    if (!count) return pcm;
    let peak = 0;
    for (let i = 0; i < count; i++) peak = Math.max(peak, Math.abs(pcm[i]));
    const least = peak > 0 ? Math.min(1, 1 / peak) : 1;
    const end = Math.min(least, this.#gain + count / this.#release);
    // A ramp downwards would still clip at its beginning; the jump is no louder than the clipping.
    const begin = end < this.#gain ? Math.min(this.#gain, end) : this.#gain;
    const ramp = linspace(begin, end, count);
    this.#gain = end;
    for (let i = 0; i < count; i++) pcm[i] = Math.min(Math.max(Math.fround(pcm[i] * ramp[i]), -1), 1);
    return pcm;
  }
}

/** @returns {never} */
function never() {
  throw new TypeError("the mixer decodes for all voices together");
}

/** @param {Float32Array} pcm */
function meanSquare(pcm) {
  let sum = 0;
  for (let i = 0; i < pcm.length; i++) sum += pcm[i] * pcm[i];
  return pcm.length ? sum / pcm.length : 0;
}

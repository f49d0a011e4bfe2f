// Mirrors voice/receiver.py: the receiver with a jitter buffer, as a pure object: packets in, decisions out.

import { roundHalfEven } from "../numbers.js";
import { codebooksIn, framesIn, parsePacket } from "../wire/packet.js";
import { FrameBuffer } from "./buffer.js";
import { DelayEstimator, QueueMeter, delaySettings } from "./delay.js";
import { ConcealmentLadder } from "./ladder.js";
import { ReceiverStatistics, ReportInterval } from "./statistics.js";

/** @typedef {import("./buffer.js").BufferedFrame} BufferedFrame */
/** @typedef {import("./delay.js").DelaySettings} DelaySettings */
/** @typedef {import("./ladder.js").Pace} Pace */
/** @typedef {import("./ladder.js").PlayoutInstruction} PlayoutInstruction */
/** @typedef {import("../wire/packet.js").Frame} Frame */
/** @typedef {import("../wire/streamFormat.js").StreamFormat} StreamFormat */

/**
 * Settings of a receiver; frames are the stream's. See the Python class.
 * @typedef {object} ReceiverSettings
 * @property {Readonly<DelaySettings>} delay
 * @property {number} repeatFrames
 * @property {number} noiseFrames
 * @property {number} capacityFrames
 * @property {number} hurryFrames
 * @property {number} shortenAboveFrames
 * @property {number} stretchBelowFrames
 * @property {number} togetherFrames
 */

/**
 * @param {Partial<ReceiverSettings>} [given]
 * @returns {Readonly<ReceiverSettings>}
 */
export function receiverSettings(given = {}) {
  return Object.freeze({
    delay: delaySettings(), repeatFrames: 15, noiseFrames: 64, capacityFrames: 150, hurryFrames: 6,
    shortenAboveFrames: 0.75, stretchBelowFrames: 0.5, togetherFrames: 1, ...given,
  });
}

/** Playout next to a sound card, as in live/loop.py. */
export const LIVE_PLAYOUT = receiverSettings({
  delay: delaySettings({ minimumFrames: 0.5, initialFrames: 1, trialBuckets: 4, binsPerFrame: 8, spareFrames: 0 }),
  shortenAboveFrames: 0.125,
  stretchBelowFrames: 0.25,
});

/** Jitter buffer of one sender's stream, on a concealment ladder. The same calls give the same answers. */
export class Receiver {
  statistics = new ReceiverStatistics();
  #buffer;
  #playing = false;
  #position = 0;
  #ladder;
  #owed = 0; // frames made up while nothing waited, not yet known to be lost
  #mostCodebooks = 0;
  /** @type {number | null} */
  #lastTransit = null;
  #report = new ReportInterval();
  #queue;
  #left = false;

  /**
   * @param {StreamFormat} format
   * @param {Readonly<ReceiverSettings>} [settings]
   */
  constructor(format, settings = receiverSettings()) {
    this.format = format;
    this.settings = settings;
    this.#queue = new QueueMeter(format.frameSeconds);
    this.delay = new DelayEstimator(format.frameSeconds, settings.delay);
    this.#buffer = new FrameBuffer(settings.capacityFrames);
    this.#ladder = new ConcealmentLadder(format, this.statistics, settings.repeatFrames, settings.noiseFrames);
  }

  /** Frames that wait. */
  get bufferedFrames() {
    return this.#buffer.length;
  }

  /** The delay aimed at, in milliseconds. */
  get targetMs() {
    return 1000 * this.delay.targetFrames * this.format.frameSeconds;
  }

  /**
   * Take one packet that arrived at `nowS` (any epoch, never going back).
   *
   * Throws PacketError for bytes that are no packet of this stream; the receiver is then as it was.
   * @param {Uint8Array} data
   * @param {number} nowS
   */
  receive(data, nowS) {
    const packet = parsePacket(data);
    this.format.checkPacket(packet);
    const stats = this.statistics, result = this.#buffer.insert(packet);
    stats.packetsLost = this.#buffer.lost;
    stats.holes = this.#buffer.holes;
    stats.missingFrames = this.#buffer.missingFrames;
    if (result.duplicate) {
      stats.duplicatePackets++;
      return;
    }
    stats.countPacket(packet, data.length, nowS);
    stats.restarts += Number(result.restarted);
    if (result.restarted) this.#queue.restart();
    if (result.restarted || result.afterOutage) {
      this.delay.restart();
      this.#playing = false;
      this.#owed = 0;
      this.#lastTransit = null;
      this.#ladder.pause(null);
    }
    stats.packetsDiscarded += Number(result.late) - result.recalled;
    if (result.timestamp === null) return;
    if (packet.start && !this.#playing && !result.late) {
      // Speech after a pause, in which timestamps stood still: that was no stall of the network.
      this.delay.restart();
      this.#queue.restart();
      this.#lastTransit = null;
    }
    const clockFrames = nowS / this.format.frameSeconds;
    this.delay.onPacket(result.timestamp, clockFrames, framesIn(packet), packet.noise !== null);
    // By its last frame: of a longer packet the first one has waited for longer at the sender.
    this.#queue.onPacket(result.timestamp + framesIn(packet), clockFrames);
    if (result.repaired !== null) this.delay.onRepair(result.repaired, clockFrames);
    this.#updateJitter(clockFrames - result.timestamp);
    this.#mostCodebooks = Math.max(this.#mostCodebooks, codebooksIn(packet));
  }

  /**
   * What to make next; call it when the output runs short of samples. Never an empty list.
   * @param {number} nowS
   * @param {number} [queuedS] sound made earlier that will be heard before this
   * @returns {PlayoutInstruction[]} one frame, or several to be treated together where the pace is not "keep"
   */
  pull(nowS, queuedS = 0) {
    const clockFrames = (nowS + queuedS) / this.format.frameSeconds;
    if (this.#left && !this.#buffer.length) this.#fallSilent();
    return this.#playing ? this.#play(clockFrames) : this.#wait(clockFrames);
  }

  /** The speaker has left: what waits is still played, and nothing is made up after it. */
  leave() {
    this.#left = true;
    if (!this.#buffer.length) this.#fallSilent();
  }

  /**
   * Whether that many pulls from now on decode one frame each that is here, at the sender's pace.
   * @param {number} frames
   * @param {number} nowS
   * @param {number} [queuedS]
   */
  isCertain(frames, nowS, queuedS = 0) {
    if (!this.#playing || !this.#have(frames)) return false;
    return this.#choosePace((nowS + queuedS) / this.format.frameSeconds)[0] === "keep";
  }

  /** Whether the sender should know at once: a queue became much longer, or packets are lost and were not before. */
  get reportIsDue() {
    return this.#queue.hasGrown || this.#report.hasNewLosses(this.statistics);
  }

  /**
   * How the stream arrived since the last report, for its sender.
   * @param {number} sender
   */
  report(sender) {
    const queueMs = 1000 * this.#queue.close() * this.format.frameSeconds;
    return this.#report.close(this.statistics, sender, this.targetMs, queueMs);
  }

  /**
   * @param {number} frame
   * @param {number} clockFrames
   */
  #delayOf(frame, clockFrames) {
    return clockFrames - frame - this.delay.base;
  }

  /**
   * Before the first frame, and in a silence of the sender's: go on when the next frame is due.
   * @param {number} clockFrames
   * @returns {PlayoutInstruction[]}
   */
  #wait(clockFrames) {
    let frame = this.#buffer.first();
    // In a silence the packet that says so is due at the same delay as the speech after it.
    while (frame !== null && this.#delayOf(frame, clockFrames) >= this.delay.targetFrames - 1e-6) {
      const entry = this.#buffer.peek(frame);
      if (entry && entry.noise === null) {
        this.#playing = true;
        this.#position = frame;
        this.#owed = 0;
        return this.#play(clockFrames);
      }
      this.#buffer.take(frame);
      if (entry) this.#pause(entry);
      frame = this.#buffer.first();
    }
    return [this.#ladder.rest()];
  }

  /**
   * @param {number} clockFrames
   * @returns {PlayoutInstruction[]}
   */
  #play(clockFrames) {
    const owed = this.#owed, place = this.#position;
    if (!this.#buffer.peek(this.#position) && !this.#leap(clockFrames)) return [this.#conceal()];
    const entry = this.#buffer.peek(this.#position);
    if (!entry) return [this.#conceal()];
    // More was made up than is missing: word that the sender pauses was late.
    if (entry.noise !== null || entry.end) this.#ladder.takeBack(owed - (this.#position - place));
    if (entry.noise !== null) {
      this.#buffer.take(this.#position);
      this.#pause(entry);
      return this.#wait(clockFrames);
    }
    const [pace, count] = this.#choosePace(clockFrames);
    const spare = pace === "shorten" ? this.#spareSamples(clockFrames) : 0;
    return Array.from({ length: count }, (_, place) => this.#decode(clockFrames + place, pace, spare));
  }

  /**
   * The frame at the position is missing: move to a later one, if that costs nothing.
   * @param {number} clockFrames
   */
  #leap(clockFrames) {
    const frame = this.#buffer.first();
    if (frame === null) return false;
    const delay = this.#delayOf(frame, clockFrames), target = this.delay.targetFrames;
    if (this.#owed && delay < target / 2) return false; // after a dry spell, gather half the target before going on
    const gap = frame - this.#position;
    let free = Math.min(this.#owed, gap);
    this.#owed = 0;
    if (delay > target + 1 || gap > Math.floor(this.settings.capacityFrames / 2)) free = gap;
    this.statistics.skippedFrames += free;
    this.#position += free;
    this.#buffer.dropBefore(this.#position);
    return this.#position === frame;
  }

  #conceal() {
    if (this.#buffer.length) {
      this.#position++;
      this.#buffer.dropBefore(this.#position);
    } else this.#owed++;
    return this.#ladder.conceal(this.#position);
  }

  /**
   * @param {number} clockFrames
   * @param {Pace} pace
   * @param {number} spareSamples
   * @returns {PlayoutInstruction}
   */
  #decode(clockFrames, pace, spareSamples) {
    const frame = this.#position, entry = this.#buffer.take(frame);
    if (!entry?.codes) return this.#conceal(); // `#choosePace` counted frames of codes that are here
    this.#position++;
    this.#owed = 0;
    this.#countPlayed(entry, Math.max(0, this.#delayOf(frame, clockFrames)));
    this.statistics.lastPlayedFrame = frame;
    this.statistics.lastPlayedTimestamp = clockFrames * this.format.frameSeconds;
    if (entry.end) this.#playing = false;
    const following = entry.end ? [] : this.#following(entry.codes.length);
    return { ...this.#ladder.play(entry, frame), pace, spareSamples, following };
  }

  /**
   * Codes of the frames from the position on, while they are here and of the same kind.
   * @param {number} codebooks
   */
  #following(codebooks) {
    /** @type {Frame[]} */
    const found = [];
    for (let frame = this.#position; frame < this.#position + this.settings.togetherFrames - 1; frame++) {
      const entry = this.#buffer.peek(frame);
      if (!entry?.codes || entry.reset || entry.codes.length !== codebooks) break;
      found.push(entry.codes);
      if (entry.end) break;
    }
    return found;
  }

  /**
   * Which way to bend time, and over how many frames; only over whole runs of good frames.
   * @param {number} clockFrames
   * @returns {[Pace, number]}
   */
  #choosePace(clockFrames) {
    const excess = this.#excess(clockFrames);
    if (excess > this.settings.hurryFrames) return this.#runOf("shorten fast", 4);
    if (excess > this.settings.shortenAboveFrames) return this.#runOf("shorten", 2);
    if (excess < -this.settings.stretchBelowFrames) return this.#runOf("stretch", 1);
    return ["keep", 1];
  }

  /**
   * By how many frames delay is above its target.
   * @param {number} clockFrames
   */
  #excess(clockFrames) {
    return this.#delayOf(this.#position, clockFrames) - this.delay.targetFrames;
  }

  /**
   * What may be left out: half way from the target to where delay would be stretched again.
   * @param {number} clockFrames
   */
  #spareSamples(clockFrames) {
    const least = this.#excess(clockFrames) + this.settings.stretchBelowFrames / 2;
    return roundHalfEven(least * this.format.frameSamples);
  }

  /**
   * @param {Pace} pace
   * @param {number} count
   * @returns {[Pace, number]}
   */
  #runOf(pace, count) {
    return this.#have(count) ? [pace, count] : ["keep", 1];
  }

  /**
   * Whether the next so many frames are here, one run of sound.
   * @param {number} count
   */
  #have(count) {
    for (let frame = this.#position; frame < this.#position + count; frame++) {
      const entry = this.#buffer.peek(frame), last = frame === this.#position + count - 1;
      if (!entry?.codes || (entry.end && !last) || (entry.reset && frame > this.#position)) return false;
    }
    return true;
  }

  /**
   * @param {BufferedFrame} entry
   * @param {number} delayFrames
   */
  #countPlayed(entry, delayFrames) {
    const stats = this.statistics, samples = this.format.frameSamples, seconds = this.format.frameSeconds;
    stats.jitterBufferEmittedCount += samples;
    stats.jitterBufferDelay += delayFrames * seconds * samples;
    stats.jitterBufferTargetDelay += this.delay.targetFrames * seconds * samples;
    stats.jitterBufferMinimumDelay += this.settings.delay.minimumFrames * seconds * samples;
    stats.reducedFrames += Number(!entry.redundant && (entry.codes?.length ?? 0) < this.#mostCodebooks);
  }

  /** Nothing follows the last frame: what was made up since stood for nothing. */
  #fallSilent() {
    this.#playing = false;
    this.#owed = 0;
    this.#ladder.takeBack();
    this.#ladder.pause(null);
  }

  /** @param {BufferedFrame} entry */
  #pause(entry) {
    this.#playing = false;
    this.#owed = 0;
    this.#ladder.pause(entry);
  }

  /** @param {number} transitFrames */
  #updateJitter(transitFrames) {
    if (this.#lastTransit !== null) {
      const change = Math.abs(transitFrames - this.#lastTransit) * this.format.frameSeconds;
      this.statistics.jitter += (change - this.statistics.jitter) / 16; // RFC 3550, 6.4.1
    }
    this.#lastTransit = transitFrames;
  }
}

// Mirrors voice/rate.py: frames per packet, redundancy and codebooks, chosen from listeners' reports.

import { StreamError } from "../errors.js";
import { roundHalfEven } from "../numbers.js";
import { MAX_FRAMES, MAX_REDUNDANT_CODEBOOKS } from "../wire/header.js";
import { OVERHEAD_BYTES } from "../wire/wireSize.js";
import { hasRedundancy, senderSettings, wireKbps } from "./sender.js";

/** @typedef {import("./sender.js").SenderSettings} SenderSettings */
/** @typedef {import("./statistics.js").Report} Report */
/** @typedef {import("../wire/streamFormat.js").StreamFormat} StreamFormat */

const INTERVAL_S = 1; // between two reports of a listener, about
const LEAST_INTERVAL_S = 0.2; // the same where a queue grows
const GROWS_MS_PER_S = 10;
const SETTLE_S = 1.5; // after a step down, until reports show what it did
const CARRIED_SHARE = 0.9; // of what the line was seen to carry: the queue must drain
const LEAST_CARRIED = 0.3; // of what was sent, a line carries no less: a queue may have grown by a stall
const DRAIN_S = 4; // so long at most: a queue that stands for longer is others'
const ANSWER_S = 1; // after a step down and the length of the queue, until reports tell whether the queue shrinks
const ANSWERS = 2; // a queue is others' if so many reports after that do not find it shorter: one may be late
const LONGER = 1.5, LONGER_MS = 250, MISTAKEN_S = 60; // others' queue that gets so much longer was none
const CROWDED = 0.25; // where others' queue drops so much, as little as possible is sent
const LONGEST_PATIENCE = 16;
const KNOWN_PATIENCE = 4; // before a step up to more than the line was seen to carry

/**
 * Bounds and thresholds of the rate control; see the Python class.
 * @typedef {object} RateSettings
 * @property {readonly number[]} ladder
 * @property {number} overheadBytes
 * @property {number} budgetKbps
 * @property {number} mostFrames
 * @property {number} lossy
 * @property {number} clean
 * @property {number} redundantCodebooks
 * @property {number} mostRedundantCodes
 * @property {number} mostRedundantFrames
 * @property {number} standingMs
 * @property {number} fullMs
 * @property {number} patienceS
 * @property {number} forgetS
 */

/**
 * @param {Partial<RateSettings>} [given]
 * @returns {Readonly<RateSettings>}
 */
export function rateSettings(given = {}) {
  const s = {
    ladder: [2, 4, 8, 16], overheadBytes: OVERHEAD_BYTES, budgetKbps: 64, mostFrames: MAX_FRAMES, lossy: 0.02,
    clean: 0.005, redundantCodebooks: 2, mostRedundantCodes: 68, mostRedundantFrames: 17, standingMs: 48, fullMs: 120, patienceS: 5, forgetS: 10, ...given,
  };
  const rises = s.ladder.length > 0 && s.ladder.every((count, i) => count > (i ? s.ladder[i - 1] : 0));
  if (!rises) throw new StreamError("the ladder of codebooks rises from at least 1");
  return Object.freeze(s);
}

/** A step down: when, the rung, the wire bitrate and what the line was held to carry before it, how the queue grew, and
 * whether by what is sent here.
 * @typedef {{atS: number, rung: number, kbps: number, carriedKbps: number, growthMsPerS: number, isOurs: boolean}} Step */

/** answers: reports since the step down that found its queue no shorter though little is sent.
 * othersMs: how long its queue was when it was found to be others'.
 * @typedef {{reportedS: number, loss: number, burstFrames: number, queueMs: number, growthMsPerS: number, ordered: boolean, answers: number, othersMs: number | null}} Listener */

/** Turns reports into `SenderSettings`. It has no clock of its own. */
export class RateControl {
  #format;
  #start;
  /** From the start to the least that can be sent: frames a packet first, then codebooks. @type {[frames: number, codebooks: number][]} */
  #rungs = [];
  #rung = 0;
  #leastFrames;
  #redundantFrames;
  /** @type {Map<number, Listener>} */
  #listeners = new Map();
  #settledS = -Infinity;
  #drainsUntilS = -Infinity;
  #drains = false;
  #carriedKbps = Infinity; // what the line was seen to carry, as far as it limits
  /** @type {Step} */
  #stepped = { atS: -Infinity, rung: 0, kbps: 0, carriedKbps: Infinity, growthMsPerS: 0, isOurs: false };
  #mistakenS = -Infinity;
  /** @type {number | null} */
  #calmSinceS = null;
  #climbedS = -Infinity;
  /** How much longer than usual a step up to the rung waits. @type {number[]} */
  #patience;

  /**
   * @param {StreamFormat} format
   * @param {Readonly<SenderSettings>} start what is sent where all is well
   * @param {Readonly<RateSettings>} [settings]
   */
  constructor(format, start, settings = rateSettings()) {
    this.settings = settings;
    this.#format = format;
    this.#start = start;
    const base = start.framesPerPacket; // what the encoder computes at once; packets hold whole steps
    const most = Math.max(base, settings.mostFrames), mostFrames = most - (most % base);
    const fuller = [base, ...(2 * base < mostFrames ? [2 * base] : []), mostFrames];
    for (const frames of new Set(fuller)) this.#rungs.push([frames, start.numCodebooks]);
    const fewer = [...settings.ladder].reverse().filter((count) => count < start.numCodebooks);
    for (const count of fewer) this.#rungs.push([mostFrames, count]);
    this.#leastFrames = this.#redundantFrames = hasRedundancy(start) ? start.redundantFrames : 0;
    this.#patience = this.#rungs.map(() => 1);
  }

  /**
   * Take one listener's report. Returns the settings to send with from now on.
   * @param {Report} report
   * @param {number} nowS
   * @param {{ordered?: boolean}} [options] ordered: the sender's own transport keeps order at present
   */
  onReport(report, nowS, { ordered = false } = {}) {
    const { settings } = this, number = report.listener ?? 0, queueMs = report.queue_ms ?? 0;
    // A new listener's queue is as old as its first interval.
    const listener = this.#listeners.get(number) ?? { reportedS: nowS - INTERVAL_S, loss: 0, burstFrames: 0, queueMs: 0, growthMsPerS: 0, ordered: false, answers: 0, othersMs: null };
    this.#listeners.set(number, listener);
    const intervalS = Math.max(LEAST_INTERVAL_S, nowS - listener.reportedS);
    listener.growthMsPerS = (queueMs - listener.queueMs) / intervalS;
    listener.reportedS = nowS;
    listener.queueMs = queueMs;
    listener.ordered = ordered && (report.ordered ?? true);
    listener.answers += Number(this.#stays(listener, nowS));
    const isOthers = listener.othersMs !== null || this.#rung === this.#rungs.length - 1;
    const overflows = queueMs > settings.standingMs && (this.#drains || !isOthers);
    if (!listener.ordered && !overflows) {
      listener.loss += 0.4 * (report.fraction_lost - listener.loss);
      // No redundancy covers an outage. The holes of the usual length decide.
      const covered = report.burst_frames <= settings.mostRedundantFrames ? report.burst_frames : 0;
      listener.burstFrames = Math.max(covered, 0.8 * listener.burstFrames);
    }
    for (const [known, one] of this.#listeners) if (one.reportedS < nowS - settings.forgetS) this.#listeners.delete(known);
    this.#chooseRedundancy();
    this.#chooseRung(nowS);
    return this.current();
  }

  /** The settings as they stand. Redundancy above the budget takes codebooks, and goes last itself. */
  current() {
    const budgetKbps = Math.min(this.settings.budgetKbps, CARRIED_SHARE * this.#carriedKbps), last = this.#rungs.length - 1;
    for (let redundantFrames = this.#redundantFrames; ; redundantFrames = Math.floor(redundantFrames / 2)) {
      for (let rung = this.#drains ? last : this.#rung; rung <= last; rung++) {
        for (const redundantCodebooks of this.#redundantCodebooks(rung, redundantFrames)) {
          const made = this.#made(rung, redundantFrames, redundantCodebooks);
          if (!redundantFrames || this.#wireKbps(made) <= budgetKbps) return made;
        }
      }
    }
  }

  /**
   * What may be sent of each redundant frame, the most first.
   * @param {number} rung
   * @param {number} redundantFrames
   */
  #redundantCodebooks(rung, redundantFrames) {
    if (!redundantFrames) return [0];
    if (this.#start.redundantCodebooks) return [this.#start.redundantCodebooks];
    const { ladder, redundantCodebooks: least, mostRedundantCodes } = this.settings;
    const most = Math.min(this.#rungs[rung][1], MAX_REDUNDANT_CODEBOOKS, Math.floor(mostRedundantCodes / redundantFrames));
    return [...[...ladder].reverse().filter((count) => least < count && count <= most), least];
  }

  /**
   * On the wire, with as little of each redundant frame as may be sent.
   * @param {number} rung
   * @param {number} redundantFrames
   */
  #leastKbps(rung, redundantFrames) {
    const choices = this.#redundantCodebooks(rung, redundantFrames);
    return this.#wireKbps(this.#made(rung, redundantFrames, choices[choices.length - 1]));
  }

  /**
   * @param {number} rung
   * @param {number} redundantFrames
   * @param {number} redundantCodebooks
   */
  #made(rung, redundantFrames, redundantCodebooks) {
    const [framesPerPacket, numCodebooks] = this.#rungs[rung];
    return senderSettings({ ...this.#start, framesPerPacket, numCodebooks, redundantCodebooks, redundantFrames });
  }

  /** @param {SenderSettings} settings */
  #wireKbps(settings) {
    return wireKbps(settings, this.#format, this.settings.overheadBytes);
  }

  #chooseRedundancy() {
    const { settings } = this, listeners = [...this.#listeners.values()];
    const loss = Math.max(...listeners.map((one) => one.loss));
    if (loss > settings.lossy) {
      const [packet] = this.#rungs[this.#rung];
      const burstFrames = Math.max(...listeners.map((one) => one.burstFrames));
      // One and a half of the usual hole, and never less than two packets.
      const wanted = Math.max(2 * packet, roundHalfEven(1.5 * burstFrames) + packet);
      const most = Math.max(settings.mostRedundantFrames, this.#leastFrames);
      this.#redundantFrames = Math.min(most, Math.max(this.#redundantFrames, wanted));
    } else if (loss < settings.clean) this.#redundantFrames = this.#leastFrames;
  }

  /** @param {number} nowS */
  #chooseRung(nowS) {
    const { settings } = this;
    this.#findOthers(nowS);
    const ours = [...this.#listeners.values()].filter((one) => one.othersMs === null);
    const { queueMs, growthMsPerS } = ours.reduce((most, one) => (one.queueMs > most.queueMs ? one : most), ours[0] ?? { queueMs: 0, growthMsPerS: 0 });
    const stands = queueMs > settings.standingMs, shrinks = growthMsPerS <= -GROWS_MS_PER_S;
    this.#drains &&= stands && nowS < this.#drainsUntilS;
    const grows = stands && growthMsPerS > GROWS_MS_PER_S;
    if (grows || (queueMs > settings.fullMs && !shrinks)) {
      this.#calmSinceS = null;
      if (nowS >= this.#settledS && !this.#drains) this.#stepDown(queueMs, growthMsPerS, nowS);
      // Part of the interval before lay before the queue; this one is still of what was sent then.
      else if (growthMsPerS > this.#stepped.growthMsPerS) this.#stepTo({ ...this.#stepped, growthMsPerS });
    } else if (queueMs > settings.standingMs / 2 || ours.length < this.#listeners.size) this.#calmSinceS = null;
    else this.#stepUp(nowS);
  }

  /**
   * Whether a queue is no shorter, though what is left of the time before the step down has passed.
   * @param {Listener} one
   * @param {number} nowS
   */
  #stays({ queueMs, growthMsPerS }, nowS) {
    return this.#drains && nowS >= this.#stepped.atS + queueMs / 1000 + ANSWER_S && growthMsPerS > -GROWS_MS_PER_S;
  }

  /**
   * Which queues are others'. Where all that stand are found to be, the last step down was for nothing.
   * @param {number} nowS
   */
  #findOthers(nowS) {
    const { standingMs } = this.settings, step = this.#stepped, standing = [];
    for (const one of this.#listeners.values()) {
      if (one.othersMs !== null) {
        if (one.queueMs > Math.max(LONGER * one.othersMs, one.othersMs + LONGER_MS)) {
          one.othersMs = null;
          this.#mistakenS = nowS;
        } else if (one.loss > CROWDED || one.queueMs <= standingMs / 2) one.othersMs = null;
      } else if (one.queueMs > standingMs) standing.push(one);
    }
    if (!(this.#drains && standing.length && nowS - this.#mistakenS > MISTAKEN_S)) return;
    const isOthers = standing.every((one) => one.answers >= ANSWERS && one.loss <= CROWDED && !one.ordered);
    if (!isOthers) return;
    this.#rung = step.rung;
    this.#carriedKbps = step.carriedKbps;
    this.#drains = false;
    for (const one of standing) one.othersMs = one.queueMs;
  }

  /**
   * @param {number} queueMs
   * @param {number} growthMsPerS
   * @param {number} nowS
   */
  #stepDown(queueMs, growthMsPerS, nowS) {
    // The last step up was too much for the line.
    if (nowS - this.#climbedS < 2 * this.settings.patienceS) {
      this.#patience[this.#rung] = Math.min(LONGEST_PATIENCE, 2 * this.#patience[this.#rung]);
    }
    this.#climbedS = -Infinity;
    const mayFall = this.#rung < this.#rungs.length - 1;
    const isOurs = mayFall && nowS >= this.#drainsUntilS; // else a queue grows by what others send
    const kbps = this.#wireKbps(this.current());
    const step = { atS: nowS, rung: this.#rung, kbps, carriedKbps: this.#carriedKbps, growthMsPerS, isOurs };
    if (mayFall) {
      for (const one of this.#listeners.values()) one.answers = 0;
      this.#drains = true;
      this.#drainsUntilS = nowS + DRAIN_S;
    }
    this.#stepTo(step);
    this.#settledS = nowS + SETTLE_S + queueMs / 1000;
  }

  /**
   * The next rung that the line carries.
   * @param {Step} step
   */
  #stepTo(step) {
    this.#stepped = step;
    // Where each second adds g seconds of queue, 1 - g seconds of voice have arrived.
    const carried = step.kbps * Math.max(LEAST_CARRIED, 1 - Math.max(0, step.growthMsPerS) / 1000);
    if (step.isOurs) this.#carriedKbps = carried;
    const last = this.#rungs.length - 1;
    let rung = step.rung + 1;
    while (rung < last && this.#leastKbps(rung, this.#redundantFrames) > CARRIED_SHARE * carried) rung++;
    this.#rung = Math.min(last, rung);
  }

  /** @param {number} nowS */
  #stepUp(nowS) {
    this.#calmSinceS ??= nowS;
    if (this.#rung === 0) return;
    const known = this.#leastKbps(this.#rung - 1, 0) > this.#carriedKbps ? KNOWN_PATIENCE : 1;
    if (nowS - this.#calmSinceS >= known * this.settings.patienceS * this.#patience[this.#rung - 1]) {
      this.#rung--;
      this.#climbedS = this.#calmSinceS = nowS;
      // It carries what is sent now, and so much more that a step is worth a try; at the top it has room.
      const madeKbps = this.#leastKbps(this.#rung, 0) / CARRIED_SHARE;
      this.#carriedKbps = this.#rung ? Math.max(this.#carriedKbps, madeKbps) : Infinity;
    }
  }
}

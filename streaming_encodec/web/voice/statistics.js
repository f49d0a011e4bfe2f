// Mirrors voice/statistics.py: what a receiver counts, under the names of W3C webrtc-stats.

import { HEADER_BYTES } from "../wire/header.js";

/** @typedef {import("../wire/packet.js").Packet} Packet */

/**
 * How one speaker's packets arrived at one listener: docs/protocol.md, "report", in its spelling.
 * @typedef {object} Report
 * @property {number} sender
 * @property {number} fraction_lost
 * @property {number} fraction_concealed
 * @property {number} burst_frames
 * @property {number} jitter_ms
 * @property {number} playout_delay_ms
 * @property {number} [queue_ms]
 * @property {boolean} [ordered]
 * @property {number} [listener]
 */

/** Totals since the stream began; all samples are per channel, times in seconds. */
export class ReceiverStatistics {
  packetsReceived = 0;
  packetsLost = 0;
  packetsDiscarded = 0;
  bytesReceived = 0;
  headerBytesReceived = 0;
  lastPacketReceivedTimestamp = 0;
  jitter = 0;
  totalSamplesReceived = 0;
  concealedSamples = 0;
  silentConcealedSamples = 0;
  concealmentEvents = 0;
  insertedSamplesForDeceleration = 0;
  removedSamplesForAcceleration = 0;
  jitterBufferDelay = 0;
  jitterBufferTargetDelay = 0;
  jitterBufferMinimumDelay = 0;
  jitterBufferEmittedCount = 0;
  fecPacketsReceived = 0;
  duplicatePackets = 0;
  holes = 0;
  missingFrames = 0;
  redundantFramesUsed = 0;
  reducedFrames = 0;
  skippedFrames = 0;
  comfortNoiseSamples = 0;
  restarts = 0;
  lastPlayedFrame = 0;
  lastPlayedTimestamp = 0;

  /** Made-up samples among all played, 0 to 1. */
  get concealedShare() {
    return this.concealedSamples / Math.max(1, this.totalSamplesReceived);
  }

  /** Mean stay in the buffer, in milliseconds. */
  get meanDelayMs() {
    return (1000 * this.jitterBufferDelay) / Math.max(1, this.jitterBufferEmittedCount);
  }

  /**
   * A good packet that arrived at `nowS`, no duplicate.
   * @param {Packet} packet
   * @param {number} sizeBytes
   * @param {number} nowS
   */
  countPacket(packet, sizeBytes, nowS) {
    this.packetsReceived++;
    this.bytesReceived += sizeBytes - HEADER_BYTES;
    this.headerBytesReceived += HEADER_BYTES;
    this.lastPacketReceivedTimestamp = nowS;
    this.fecPacketsReceived += Number(packet.redundancy !== null);
  }

  /**
   * A frame that was made up.
   * @param {number} samples
   * @param {boolean} begins the one before it was not
   * @param {boolean} silent as comfort noise
   */
  countConcealed(samples, begins, silent) {
    this.concealmentEvents += Number(begins);
    this.concealedSamples += samples;
    this.totalSamplesReceived += samples;
    this.silentConcealedSamples += samples * Number(silent);
  }

  /**
   * So many made-up samples, with the silent ones among them, stood for no voice.
   * @param {number} samples
   * @param {number} silentSamples
   * @param {boolean} allOfIt that was their event
   */
  takeBackConcealed(samples, silentSamples, allOfIt) {
    this.concealmentEvents -= Number(allOfIt);
    this.concealedSamples -= samples;
    this.totalSamplesReceived -= samples;
    this.silentConcealedSamples -= silentSamples;
  }

  /**
   * Samples that a change of pace added (positive) or left out (negative).
   * @param {number} samples
   */
  countStretch(samples) {
    this.insertedSamplesForDeceleration += Math.max(0, samples);
    this.removedSamplesForAcceleration += Math.max(0, -samples);
  }
}

const NEWS_PACKETS = 2; // a lone packet that is missing may only be late

/** What happened since the last report to the sender. */
export class ReportInterval {
  #marks = [0, 0, 0, 0, 0, 0];
  #hadLosses = false;

  /**
   * Whether several packets are missing, where none was in the interval before.
   * @param {ReceiverStatistics} stats
   */
  hasNewLosses(stats) {
    return !this.#hadLosses && stats.packetsLost - this.#marks[1] >= NEWS_PACKETS;
  }

  /**
   * The report; the next interval begins.
   * @param {ReceiverStatistics} stats
   * @param {number} sender
   * @param {number} delayMs
   * @param {number} queueMs
   * @returns {Report}
   */
  close(stats, sender, delayMs, queueMs) {
    const marks = [
      stats.packetsReceived, stats.packetsLost, stats.totalSamplesReceived, stats.concealedSamples, stats.holes,
      stats.missingFrames,
    ];
    const [received, lost, played, more, holes, missing] = marks.map((mark, i) => mark - this.#marks[i]);
    const concealed = Math.max(0, more); // some may have been taken back
    this.#marks = marks;
    this.#hadLosses = lost > 0;
    return {
      sender,
      fraction_lost: short(Math.min(1, Math.max(0, lost) / Math.max(1, received + lost))),
      fraction_concealed: short(Math.min(1, concealed / Math.max(1, played))),
      burst_frames: short(holes ? missing / holes : 0),
      jitter_ms: short(1000 * stats.jitter),
      playout_delay_ms: short(delayMs),
      queue_ms: short(queueMs),
      ordered: true,
      listener: 0,
    };
  }
}

/**
 * Three decimals: on a line of 16 kbit/s each 20 digits more would hold a report up by 10 ms.
 * @param {number} value
 */
function short(value) {
  return Math.floor(1000 * value + 0.5) / 1000;
}

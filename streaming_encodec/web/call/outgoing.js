// Mirrors call/outgoing.py: one voice on its way out: samples to codes to packets, without silence, at a rate that
// listeners' reports choose.

import { checkSamples } from "../codec/encoder.js";
import { NoiseMeter } from "../voice/noise.js";
import { concatenated } from "../voice/playout.js";
import { RateControl, rateSettings } from "../voice/rate.js";
import { StallMeter, VoiceSender, senderSettings, wireKbps } from "../voice/sender.js";
import { VoiceActivityDetector } from "../voice/vad.js";
import { roundHalfEven } from "../numbers.js";
import { NO_NOISE } from "../wire/header.js";
import { RestingEncoder, split } from "./restingEncoder.js";

/** @typedef {import("../codec/codec.js").Codec} Codec */
/** @typedef {import("../voice/sender.js").SenderSettings} SenderSettings */
/** @typedef {import("../voice/statistics.js").Report} Report */
/** @typedef {import("../wire/packet.js").Frame} Frame */
/** @typedef {import("../wire/streamFormat.js").StreamFormat} StreamFormat */

const WAITING_REPORTS = 1024;

/** Encoder, sender, voice activity detection and rate control of one client. */
export class OutgoingVoice {
  /** The VAD's last word: nobody speaks. */
  isSilent = false;
  #codec;
  #format;
  #asked;
  #kbps;
  #encoder;
  #sender;
  #adapt;
  #vad;
  #meter;
  #rate;
  #stall;
  #step; // samples that are encoded at once: the weights are read once for what goes into a packet together
  #unencoded = new Float32Array(0);
  #resting;
  #unjudged = new Float32Array(0); // from the next step on
  #ended = true;
  /** @type {[report: Report, nowS: number, ordered: boolean][]} */
  #reports = [];

  /**
   * dtx: send little while nobody speaks, and encode nothing of it. adapt: let listeners' reports choose frames per packet, codebooks and
   * redundancy. firstSequence, firstTimestamp: random, so that receivers tell a new call from the old one.
   * @param {Codec} codec
   * @param {StreamFormat} format
   * @param {{kbps?: number, settings?: Partial<SenderSettings>, dtx?: boolean, adapt?: boolean,
   *   firstSequence: number, firstTimestamp: number}} options
   */
  constructor(codec, format, { kbps = codec.usualBandwidth, settings = {}, dtx = true, adapt = true, firstSequence, firstTimestamp }) {
    this.#codec = codec;
    this.#format = format;
    this.#asked = senderSettings(settings);
    this.#kbps = kbps;
    this.#encoder = codec.createEncoder({ codebooks: codec.codebooksFor(kbps) });
    this.#sender = new VoiceSender(format, this.#asked, { firstSequence, firstTimestamp });
    this.#adapt = adapt;
    this.#vad = dtx ? new VoiceActivityDetector(format.frameSeconds) : null;
    this.#meter = new NoiseMeter(format.sampleRate, format.frameSamples);
    this.#step = this.#asked.framesPerPacket * format.frameSamples;
    this.#resting = new RestingEncoder(this.#encoder, this.#asked.framesPerPacket, format.frameSamples);
    this.#rate = this.#makeRate();
    this.#stall = new StallMeter(format.sampleRate);
  }

  /** Of the encoder; the rate control may send less of it. */
  get kbps() {
    return this.#kbps;
  }
  set kbps(kbps) {
    this.#encoder.codebooks = this.#codec.codebooksFor(kbps);
    this.#kbps = kbps;
    this.#rate = this.#makeRate();
  }

  /** What is sent at present. */
  get settings() {
    return this.#sender.settings;
  }

  /**
   * Samples that end at `nowS`; gives the packets they complete.
   *
   * After a pause of the caller, they lie so much later in the stream: else listeners would hear the pause as delay.
   * @param {Float32Array} pcm
   * @param {number} nowS
   */
  push(pcm, nowS) {
    for (const [report, atS, ordered] of this.#reports.splice(0)) this.#sender.configure(this.#rate.onReport(report, atS, { ordered }));
    if (!this.#vad) {
      const frames = this.#encode(pcm);
      return [...this.#goOn(pcm.length, nowS), ...this.#sender.push(frames)];
    }
    checkSamples(pcm);
    const packets = this.#goOn(pcm.length, nowS), { stepSamples, aheadSamples } = this.#resting;
    this.#unjudged = concatenated([this.#unjudged, pcm]);
    while (this.#unjudged.length >= stepSamples + aheadSamples) {
      packets.push(...this.#speakOrRest(this.#unjudged.subarray(0, stepSamples + aheadSamples), this.#vad));
      this.#unjudged = this.#unjudged.subarray(stepSamples);
    }
    return packets;
  }

  /** The packets still owed, the last with the end flag. What is pushed later begins a new stream. */
  finish() {
    if (this.#ended) return [];
    this.#ended = true;
    this.#stall.restart();
    const { codebooks } = this.#encoder;
    const rest = this.#vad
      ? this.#resting.finish(this.#unjudged)
      : [...split(this.#encoder.encode(this.#unencoded), codebooks), ...split(this.#encoder.flush(), codebooks)];
    this.#unencoded = this.#unjudged = new Float32Array(0);
    const packets = [...this.#sender.push(rest), ...this.#sender.end(NO_NOISE)];
    this.#sender.restart();
    return packets;
  }

  /**
   * A listener's report on this voice; it takes effect with the next push.
   * @param {Report} report
   * @param {number} nowS
   * @param {{ordered?: boolean}} [options] ordered: packets leave over a transport that keeps order
   */
  onReport(report, nowS, { ordered = true } = {}) {
    if (!this.#adapt) return;
    this.#reports.push([report, nowS, ordered]);
    if (this.#reports.length > WAITING_REPORTS) this.#reports.shift();
  }

  /** Give the encoder's memory back. */
  close() {
    this.#encoder.close();
  }

  /**
   * So many samples came; the packets that a pause of the caller's before them gives.
   * @param {number} samples
   * @param {number} nowS
   */
  #goOn(samples, nowS) {
    const gapS = this.#stall.gapS(samples, nowS), ended = this.#ended;
    this.#ended = false;
    return gapS && !ended ? this.#sender.skip(roundHalfEven(gapS / this.#format.frameSeconds)) : [];
  }

  /**
   * A step of sound, and what the encoder needs of the next one.
   * @param {Float32Array} sound
   * @param {VoiceActivityDetector} vad
   */
  #speakOrRest(sound, vad) {
    const { frameSamples } = this.#format, count = this.#resting.stepSamples / frameSamples;
    const frames = Array.from({ length: count }, (_, f) => sound.subarray(f * frameSamples, (f + 1) * frameSamples));
    const silent = frames.map((frame) => (this.isSilent = vad.isSilent(frame)));
    if (silent.every(Boolean)) {
      this.#resting.rest(sound);
      return frames.flatMap((frame) => this.#sender.rest(this.#noise(frame)));
    }
    const [before, codes] = this.#resting.encode(sound);
    this.#sender.recall(before);
    return frames.flatMap((frame, at) => this.#sender.push([codes[at]], silent[at] ? this.#noise(frame) : null));
  }

  /**
   * What a noise packet says; it is measured where there will be one.
   * @param {Float32Array} frame
   */
  #noise(frame) {
    return this.#sender.noiseIsDue ? this.#meter.measure(frame) : NO_NOISE;
  }

  /**
   * @param {Float32Array} pcm
   * @returns {Frame[]}
   */
  #encode(pcm) {
    const sound = this.#unencoded.length ? concatenated([this.#unencoded, pcm]) : pcm;
    const whole = Math.floor(sound.length / this.#step) * this.#step;
    const codes = this.#encoder.encode(sound.subarray(0, whole)); // a bad sample throws before anything has changed
    this.#unencoded = sound.slice(whole);
    return split(codes, this.#encoder.codebooks);
  }

  #makeRate() {
    const settings = senderSettings({ ...this.#asked, numCodebooks: this.#encoder.codebooks });
    this.#sender.configure(settings);
    const ladder = [...new Set(this.#codec.bandwidths.map((kbps) => this.#codec.codebooksFor(kbps)))].sort((a, b) => a - b);
    const rate = rateSettings({ ladder });
    const budgetKbps = 2 * wireKbps(settings, this.#format, rate.overheadBytes);
    return new RateControl(this.#format, settings, rateSettings({ ...rate, budgetKbps }));
  }
}

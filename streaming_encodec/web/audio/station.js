// Between the worklets' ports and the call: the microphone at the model's rate, sound at the context's, levels.

import { concatenated } from "../voice/playout.js";
import { Resampler } from "./resample.js";

const LEVEL_S = 0.07;
const TEST_S = 3;

/**
 * @typedef {object} Voice what a call takes and gives, at the model's rate
 * @property {(pcm: Float32Array, nowS: number) => void} hear
 * @property {(count: number, nowS: number) => Float32Array} read
 */

export class Station {
  /** @type {Voice | null} */
  call = null;
  /** Highest sample of the last moment, 0 to 1. */
  peak = 0;
  underruns = 0;
  #rate;
  #hop;
  #onLevel;
  #inwards;
  #outwards;
  #contextRate;
  #levelAtS = 0;
  /** A test of the microphone: what it recorded, and how far it was played. */
  #test = { state: "none", sound: new Float32Array(0), at: 0 };
  #onTest;

  /**
   * @param {{capture: MessagePort, playback: MessagePort, contextRate: number, rate: number, hop: number}} options
   * @param {(peak: number, pcm: Float32Array) => void} onLevel called with each block of the microphone
   * @param {(state: "recording" | "playing" | "none") => void} onTest
   */
  constructor({ capture, playback, contextRate, rate, hop }, onLevel, onTest) {
    this.#rate = rate;
    this.#hop = hop;
    this.#onLevel = onLevel;
    this.#onTest = onTest;
    this.#contextRate = contextRate;
    this.#inwards = new Resampler(contextRate, rate);
    this.#outwards = new Resampler(rate, contextRate);
    capture.onmessage = ({ data }) => this.#hear(data, performance.now() / 1000);
    playback.onmessage = ({ data }) => {
      const whole = this.#fill(data % 65536, performance.now() / 1000);
      this.underruns = Math.floor(data / 65536);
      playback.postMessage(whole, [whole.buffer]);
    };
  }

  /** Record for some seconds, then play that. */
  test() {
    this.#test = { state: "recording", sound: new Float32Array(TEST_S * this.#rate), at: 0 };
    this.#onTest("recording");
  }

  /**
   * @param {Float32Array} block
   * @param {number} nowS
   */
  #hear(block, nowS) {
    const pcm = this.#inwards.push(block);
    for (let i = 0; i < pcm.length; i++) this.peak = Math.max(this.peak, Math.abs(pcm[i]));
    this.call?.hear(pcm, nowS);
    const test = this.#test;
    if (test.state === "recording") {
      const part = pcm.subarray(0, test.sound.length - test.at);
      test.sound.set(part, test.at);
      test.at += part.length;
      if (test.at === test.sound.length) {
        this.#test = { ...test, state: "playing", at: 0 };
        this.#onTest("playing");
      }
    }
    if (nowS - this.#levelAtS < LEVEL_S) return;
    this.#levelAtS = nowS;
    this.#onLevel(this.peak, pcm);
    this.peak = 0;
  }

  /**
   * So many samples at least: one block, or several after this thread was late.
   * @param {number} missing
   * @param {number} nowS
   */
  #fill(missing, nowS) {
    /** @type {Float32Array[]} */
    const blocks = [];
    for (let owed = Math.max(1, missing); owed > 0; owed -= blocks[blocks.length - 1].length) {
      blocks.push(this.#read(nowS - owed / this.#contextRate));
    }
    return blocks.length === 1 ? blocks[0] : concatenated(blocks);
  }

  /**
   * @param {number} dueS when the block had to be made: as smooth as the loudspeaker's clock, and never later than now,
   * since playout counts on the packets that have come until then
   */
  #read(dueS) {
    const pcm = this.call ? this.call.read(this.#hop, dueS) : new Float32Array(this.#hop);
    const test = this.#test;
    if (test.state === "playing") {
      const part = test.sound.subarray(test.at, test.at + pcm.length);
      for (let i = 0; i < part.length; i++) pcm[i] += part[i];
      test.at += part.length;
      if (part.length < pcm.length) {
        this.#test = { state: "none", sound: new Float32Array(0), at: 0 };
        this.#onTest("none");
      }
    }
    const out = this.#outwards.push(pcm);
    return out === pcm ? pcm.slice() : out;
  }
}

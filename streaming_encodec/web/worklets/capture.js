/// <reference path="./worklet.d.ts" />
// The microphone's samples, in small blocks, to whoever holds the other end of the port that is handed in.
// `process` allocates nothing: the block is sent as a copy that the browser makes.

const BLOCK_S = 0.005;

class Capture extends AudioWorkletProcessor {
  /** @type {MessagePort | null} */
  #out = null;
  #block = new Float32Array(Math.max(128, Math.round((BLOCK_S * sampleRate) / 128) * 128));
  #filled = 0;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => (this.#out = data);
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    const channel = inputs[0][0];
    if (channel === undefined || this.#out === null) return true; // no microphone at the moment
    this.#block.set(channel, this.#filled);
    this.#filled += channel.length;
    if (this.#filled >= this.#block.length) {
      this.#out.postMessage(this.#block);
      this.#filled = 0;
    }
    return true;
  }
}

registerProcessor("capture", Capture);

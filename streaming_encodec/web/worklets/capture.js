/// <reference path="./worklet.d.ts" />
// The microphone's samples, in blocks of the size that is asked for, to whoever holds the other end of the port that is
// handed in.
// `process` allocates nothing: the block is sent as a copy that the browser makes.

class Capture extends AudioWorkletProcessor {
  /** @type {MessagePort | null} */
  #out = null;
  #block;
  #filled = 0;

  /** @param {{processorOptions: {block: number}}} options */
  constructor({ processorOptions }) {
    super();
    this.#block = new Float32Array(processorOptions.block);
    this.port.onmessage = ({ data }) => (this.#out = data);
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    const channel = inputs[0][0];
    if (channel === undefined || this.#out === null) return true; // no microphone at the moment
    for (let i = 0; i < channel.length; i++) {
      this.#block[this.#filled++] = channel[i];
      if (this.#filled < this.#block.length) continue;
      this.#out.postMessage(this.#block);
      this.#filled = 0;
    }
    return true;
  }
}

registerProcessor("capture", Capture);

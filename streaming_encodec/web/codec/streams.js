// Encoder and decoder as streams (WHATWG TransformStream), to be put into a pipe.

/** @typedef {import("./encoder.js").Encoder} Encoder */
/** @typedef {import("./decoder.js").Decoder} Decoder */

/**
 * Chunks of samples of any length in, codes of whole frames out.
 * @extends {TransformStream<Float32Array, Uint16Array>}
 */
export class EncodeStream extends TransformStream {
  /** @param {Encoder} encoder which nobody else uses meanwhile */
  constructor(encoder) {
    /** @type {(codes: Uint16Array, controller: TransformStreamDefaultController<Uint16Array>) => void} */
    const give = (codes, controller) => {
      if (codes.length) controller.enqueue(codes);
    };
    super({
      transform: (pcm, controller) => give(encoder.encode(pcm), controller),
      flush: (controller) => give(encoder.flush(), controller),
    });
  }
}

/**
 * Codes of whole frames in, samples out.
 * @extends {TransformStream<Uint16Array, Float32Array>}
 */
export class DecodeStream extends TransformStream {
  /**
   * @param {Decoder} decoder which nobody else uses meanwhile
   * @param {number} codebooks of each frame
   */
  constructor(decoder, codebooks) {
    /** @type {(sound: Float32Array, controller: TransformStreamDefaultController<Float32Array>) => void} */
    const give = (sound, controller) => {
      if (sound.length) controller.enqueue(sound);
    };
    super({
      transform: (codes, controller) => give(decoder.decode(codes, codes.length / codebooks), controller),
      flush: (controller) => give(decoder.flush(), controller),
    });
  }
}

// Mirrors engines/kernel/shared_library.py: the functions of kernel.c, in WebAssembly, and the memory that they work in.

import { StreamError, UnsupportedError } from "../errors.js";

const PAGE = 65_536;
/** Phases of `run`. */
export const START = 0, STEP = 1, FLUSH = 2;
/** Frames that streams hand to a step at once, at most. */
export const MOST_FRAMES = 8;
/** Streams that take a step together, at most. */
export const MOST_ROWS = 8;

/**
 * @typedef {object} Exports
 * @property {WebAssembly.Memory} memory
 * @property {WebAssembly.Global} __heap_base the stack ends here; what lies above is ours
 * @property {(image: number, part: number, batch: number, n: number) => number} kernel_scratch
 * @property {(image: number, part: number, phase: number, batch: number, n: number, x: number, y: number, before: number, after: number, scratch: number) => number} kernel_run
 * @property {(image: number, rows: number, codebooks: number, latent: number, codes: number, scratch: number) => void} kernel_search
 * @property {(image: number, rows: number, codebooks: number, codes: number, latent: number) => void} kernel_lookup
 */

/** kernel.wasm with its memory. Addresses are bytes; pieces are aligned to 64 and never move. */
export class Kernel {
  /** @type {Exports} */
  functions;
  #end;
  /** @type {Map<number, number[]>} pieces that were given back, by size */
  #spare = new Map();
  #floats = new Float32Array(0);
  #ints = new Int32Array(0);

  /** @param {WebAssembly.Instance} instance */
  constructor(instance) {
    this.functions = /** @type {Exports} */ (/** @type {unknown} */ (instance.exports));
    this.#end = (this.functions.__heap_base.value + 63) & ~63;
  }

  /**
   * Throws UnsupportedError where WebAssembly or its SIMD is missing.
   * @param {BufferSource | WebAssembly.Module} wasm
   */
  static async load(wasm) {
    if (typeof WebAssembly === "undefined") throw new UnsupportedError("there is no WebAssembly here: update the browser");
    try {
      const module = wasm instanceof WebAssembly.Module ? wasm : await WebAssembly.compile(wasm);
      return new Kernel(await WebAssembly.instantiate(module, {}));
    } catch (error) {
      throw new UnsupportedError(`the codec cannot be started (${error instanceof Error ? error.message : error}): it needs a browser with WebAssembly SIMD, of 2023 or later`);
    }
  }

  /**
   * Memory for so many floats (or words). Its content is whatever was there.
   * @param {number} floats
   */
  reserve(floats) {
    const bytes = Math.max(64, (4 * floats + 63) & ~63);
    const spare = this.#spare.get(bytes)?.pop();
    if (spare !== undefined) return spare;
    const at = this.#end, missing = at + bytes - this.functions.memory.buffer.byteLength;
    if (missing > 0) {
      try {
        this.functions.memory.grow(Math.ceil(missing / PAGE));
      } catch {
        throw new StreamError("there is no more memory for the codec: close streams that are not used");
      }
    }
    this.#end = at + bytes;
    return at;
  }

  /**
   * Give a piece back.
   * @param {number} at
   * @param {number} floats as it was reserved
   */
  release(at, floats) {
    const bytes = Math.max(64, (4 * floats + 63) & ~63), pieces = this.#spare.get(bytes) ?? [];
    this.#spare.set(bytes, [...pieces, at]);
  }

  /** All memory, as it is now: views end when memory grows. */
  get floats() {
    if (this.#floats.buffer !== this.functions.memory.buffer) this.#floats = new Float32Array(this.functions.memory.buffer);
    return this.#floats;
  }

  /** The same as whole numbers. */
  get ints() {
    if (this.#ints.buffer !== this.functions.memory.buffer) this.#ints = new Int32Array(this.functions.memory.buffer);
    return this.#ints;
  }
}

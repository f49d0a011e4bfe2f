// Mirrors the end of wire/header.py: numbers that wrap, compared as in RFC 1982.

import { modulo } from "../numbers.js";

export const SEQUENCE_BITS = 16;
export const TIMESTAMP_BITS = 32;

/**
 * `a - b` on a circle of 2^bits: from -2^(bits-1) to 2^(bits-1) - 1.
 * @param {number} a
 * @param {number} b
 * @param {number} bits
 */
export function serialDifference(a, b, bits) {
  const half = 2 ** (bits - 1);
  return modulo(a - b + half, 2 * half) - half;
}

/** Unwraps numbers: each is placed nearest to the last one seen. */
export class Unwrapper {
  #bits;
  /** @type {number | null} */
  #last = null;

  /** @param {number} bits */
  constructor(bits) {
    this.#bits = bits;
  }

  /**
   * The unwrapped number, without remembering it.
   * @param {number} wrapped
   */
  peek(wrapped) {
    return this.#last === null ? wrapped : this.#last + serialDifference(wrapped, this.#last, this.#bits);
  }

  /**
   * The unwrapped number; later numbers are placed near it.
   * @param {number} wrapped
   */
  next(wrapped) {
    this.#last = this.peek(wrapped);
    return this.#last;
  }
}

// Mirrors wire/bits.py: whole numbers of a fixed width, least significant bit first.

import { PacketError, StreamError } from "../errors.js";

/** Widest code that is packed. */
export const MAX_BITS = 16;

/**
 * Bytes that `count` numbers of `bits` bits take.
 * @param {number} count
 * @param {number} bits
 */
export function packedSize(count, bits) {
  return (count * bits + 7) >> 3;
}

/**
 * Whole numbers from 0 to 2^bits - 1, packed. Throws StreamError for any other.
 * @param {ArrayLike<number>} values
 * @param {number} bits 1 to 16
 */
export function packBits(values, bits) {
  checkWidth(bits);
  const bytes = new Uint8Array(packedSize(values.length, bits));
  let waiting = 0, count = 0, at = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (!Number.isInteger(value) || value < 0 || value >> bits) {
      throw new StreamError(`codes must be whole numbers in 0..${(1 << bits) - 1} to fit ${bits} bits`);
    }
    waiting |= value << count;
    count += bits;
    while (count >= 8) {
      bytes[at++] = waiting & 255;
      waiting >>>= 8;
      count -= 8;
    }
  }
  if (count) bytes[at] = waiting;
  return bytes;
}

/**
 * The first `count` numbers of `bits` bits. Throws PacketError for data too short.
 * @param {Uint8Array} data
 * @param {number} count
 * @param {number} bits 1 to 16
 */
export function unpackBits(data, count, bits) {
  checkWidth(bits);
  const size = packedSize(count, bits);
  if (data.length < size) throw new PacketError(`${count} codes of ${bits} bits take ${size} bytes, only ${data.length} came`);
  const values = new Uint16Array(count), mask = (1 << bits) - 1;
  let waiting = 0, have = 0, at = 0;
  for (let i = 0; i < count; i++) {
    while (have < bits) {
      waiting |= data[at++] << have;
      have += 8;
    }
    values[i] = waiting & mask;
    waiting >>>= bits;
    have -= bits;
  }
  return values;
}

/**
 * The bytes of the first `count` numbers alone: the spare bits of the last one are cleared.
 * @param {Uint8Array} data
 * @param {number} count
 * @param {number} bits
 */
export function cutBits(data, count, bits) {
  checkWidth(bits);
  const size = packedSize(count, bits);
  if (data.length < size) throw new PacketError(`${count} codes of ${bits} bits take ${size} bytes, only ${data.length} came`);
  const kept = new Uint8Array(data.subarray(0, size)), spare = 8 * size - count * bits;
  if (spare) kept[size - 1] &= 0xff >> spare;
  return kept;
}

/** @param {number} bits */
function checkWidth(bits) {
  if (!(Number.isInteger(bits) && bits >= 1 && bits <= MAX_BITS)) {
    throw new StreamError(`a code takes 1 to ${MAX_BITS} bits, not ${bits}`);
  }
}

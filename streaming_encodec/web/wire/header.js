// Mirrors wire/header.py: a packet's header, checked against the whole packet's length.

import { PacketError, StreamError } from "../errors.js";
import { MAX_BITS, cutBits, packedSize } from "./bits.js";

export const PROTOCOL_VERSION = 1;
export const HEADER_BYTES = 12;
/** Frames in one packet. */
export const MAX_FRAMES = 6;
export const MAX_CODEBOOKS = 32;
export const MAX_REDUNDANT_FRAMES = 32;
export const MAX_REDUNDANT_CODEBOOKS = 8;
export const NOISE_BANDS = 6;
/** Noise levels are whole decibels below full scale; this one means silence. */
export const NOISE_FLOOR_DB = 127;
/** The levels of a noise packet that means silence. @type {readonly number[]} */
export const NO_NOISE = Object.freeze(Array(NOISE_BANDS).fill(NOISE_FLOOR_DB));

export const FLAG_SCALE = 1, FLAG_REDUNDANCY = 2, FLAG_NOISE = 4, FLAG_START = 8, FLAG_END = 16;
const KNOWN_FLAGS = 31;
const FIRST_BYTE = 0xe0 | PROTOCOL_VERSION;
export const SCALE_BYTES = 4;

/** No packet is longer: 913 bytes. */
export const MAX_PACKET_BYTES = HEADER_BYTES + SCALE_BYTES + 1
  + packedSize(MAX_REDUNDANT_FRAMES * MAX_REDUNDANT_CODEBOOKS, MAX_BITS)
  + packedSize(MAX_FRAMES * MAX_CODEBOOKS, MAX_BITS);

/**
 * A packet's header and the offsets of its parts. `numCodebooks` is 0 in a noise packet; `redundancyAt` is the offset
 * of the redundancy's shape byte, `bodyAt` that of the codes or the noise levels.
 * @typedef {object} PacketHeader
 * @property {number} flags
 * @property {number} numFrames
 * @property {number} numCodebooks
 * @property {number} bitsPerCode
 * @property {number} sender
 * @property {number} sequence
 * @property {number} timestamp
 * @property {number} redundantCodebooks
 * @property {number} redundantFrames
 * @property {number} redundancyAt
 * @property {number} bodyAt
 */

/** @param {Uint8Array} data */
function viewOf(data) {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

/**
 * Read and check the header: version, flags, limits, every length, spare bits. Codes stay packed.
 *
 * What this accepts, `parsePacket` accepts. Throws PacketError for anything else, and nothing but PacketError.
 * @param {Uint8Array} data
 * @returns {PacketHeader}
 */
export function readHeader(data) {
  const length = data.length;
  if (length < HEADER_BYTES) throw new PacketError(`a packet has at least ${HEADER_BYTES} bytes, this one ${length}`);
  if (length > MAX_PACKET_BYTES) throw new PacketError(`a packet has at most ${MAX_PACKET_BYTES} bytes, this one ${length}`);
  const view = viewOf(data), first = data[0], flags = data[1], shape = data[2], width = data[3];
  if (first !== FIRST_BYTE) {
    if (first >> 4 === 0xe) {
      throw new PacketError(`protocol version ${first & 15}; this end speaks ${PROTOCOL_VERSION}: update one of the two`);
    }
    throw new PacketError("not a voice packet: the first nibble is wrong");
  }
  if (flags & ~KNOWN_FLAGS) throw new PacketError(`unknown flags 0x${(flags & ~KNOWN_FLAGS).toString(16)}`);
  if (width >> 4) throw new PacketError("the upper bits of byte 3 must be zero");
  const bits = width + 1, numFrames = (shape & 7) + 1;
  let numCodebooks = (shape >> 3) + 1, at = HEADER_BYTES;
  if (numFrames > MAX_FRAMES) throw new PacketError(`at most ${MAX_FRAMES} frames a packet, this one says ${numFrames}`);
  if (flags & FLAG_SCALE) at = checkScale(view, flags, at);
  const redundancyAt = at;
  let redundantCodebooks = 0, redundantFrames = 0;
  if (flags & FLAG_REDUNDANCY) {
    if (length <= at) throw new PacketError("the packet ends before its redundancy");
    redundantCodebooks = (data[at] & 7) + 1;
    redundantFrames = (data[at] >> 3) + 1;
    const count = redundantCodebooks * redundantFrames * bits;
    at += 1 + ((count + 7) >> 3);
    checkPart(data, at, count, "redundancy");
  }
  if (flags & FLAG_NOISE) {
    if (shape) throw new PacketError("a noise packet says 0 in byte 2");
    numCodebooks = 0;
    checkNoise(data, at);
  } else {
    const count = numCodebooks * numFrames * bits, end = at + ((count + 7) >> 3);
    if (length !== end) throw new PacketError(`a packet of this shape has ${end} bytes, this one ${length}`);
    checkPart(data, end, count, "codes");
  }
  return {
    flags, numFrames, numCodebooks, bitsPerCode: bits,
    sender: view.getUint16(4, true), sequence: view.getUint16(6, true), timestamp: view.getUint32(8, true),
    redundantCodebooks, redundantFrames, redundancyAt, bodyAt: at,
  };
}

/**
 * Write the 12 bytes of a header to the beginning of `data`; `numCodebooks` is 0 for noise. The caller has checked the
 * ranges.
 * @param {Uint8Array} data
 * @param {Pick<PacketHeader, "flags" | "numFrames" | "numCodebooks" | "bitsPerCode" | "sender" | "sequence" | "timestamp">} head
 */
export function writeHeader(data, head) {
  const view = viewOf(data);
  data[0] = FIRST_BYTE;
  data[1] = head.flags;
  data[2] = head.flags & FLAG_NOISE ? 0 : (head.numFrames - 1) | ((head.numCodebooks - 1) << 3);
  data[3] = head.bitsPerCode - 1;
  view.setUint16(4, head.sender, true);
  view.setUint16(6, head.sequence, true);
  view.setUint32(8, head.timestamp, true);
}

/**
 * The same packet with at most `numCodebooks` codebooks, without decoding a code.
 *
 * Throws PacketError for bytes that are no packet, StreamError for a count below 1.
 * @param {Uint8Array} data
 * @param {number} numCodebooks
 * @param {{keepRedundancy?: boolean}} [options]
 */
export function cutPacket(data, numCodebooks, { keepRedundancy = true } = {}) {
  if (numCodebooks < 1) throw new StreamError("a packet keeps at least one codebook");
  const head = readHeader(data);
  const drop = Boolean(head.flags & FLAG_REDUNDANCY) && !keepRedundancy;
  let body = data.subarray(head.bodyAt), shape = data[2];
  if (!(head.flags & FLAG_NOISE) && numCodebooks < head.numCodebooks) {
    body = cutBits(body, numCodebooks * head.numFrames, head.bitsPerCode);
    shape = (head.numFrames - 1) | ((numCodebooks - 1) << 3);
  } else if (!drop) return data;
  const middle = data.subarray(HEADER_BYTES, drop ? head.redundancyAt : head.bodyAt);
  const made = new Uint8Array(HEADER_BYTES + middle.length + body.length);
  made.set(data.subarray(0, HEADER_BYTES));
  made[1] = drop ? head.flags & ~FLAG_REDUNDANCY : head.flags;
  made[2] = shape;
  made.set(middle, HEADER_BYTES);
  made.set(body, HEADER_BYTES + middle.length);
  return made;
}

/**
 * The same packet with the sender's number written in; the packet is not checked again.
 * @param {Uint8Array} data
 * @param {number} sender
 */
export function withSender(data, sender) {
  const made = new Uint8Array(data); // a copy
  viewOf(made).setUint16(4, sender, true);
  return made;
}

/**
 * @param {DataView} view
 * @param {number} flags
 * @param {number} at
 */
function checkScale(view, flags, at) {
  if (flags & FLAG_NOISE) throw new PacketError("a noise packet has no scale");
  if (view.byteLength < at + SCALE_BYTES) throw new PacketError("the packet ends within its scale");
  const scale = view.getFloat32(at, true);
  if (!(scale > 0 && Number.isFinite(scale))) throw new PacketError(`a scale is positive and finite, not ${scale}`);
  return at + SCALE_BYTES;
}

/**
 * @param {Uint8Array} data
 * @param {number} end
 * @param {number} bitCount
 * @param {string} name
 */
function checkPart(data, end, bitCount, name) {
  if (data.length < end) throw new PacketError(`the packet ends within its ${name}`);
  const spare = -bitCount & 7;
  if (spare && data[end - 1] >> (8 - spare)) throw new PacketError(`the spare bits after the ${name} must be zero`);
}

/**
 * @param {Uint8Array} data
 * @param {number} at
 */
function checkNoise(data, at) {
  if (data.length !== at + NOISE_BANDS) {
    throw new PacketError(`a noise packet of this shape has ${at + NOISE_BANDS} bytes, this one ${data.length}`);
  }
  for (let i = at; i < data.length; i++) {
    if (data[i] > NOISE_FLOOR_DB) throw new PacketError(`noise levels lie in 0..${NOISE_FLOOR_DB} decibels below full scale`);
  }
}

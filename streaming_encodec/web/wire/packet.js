// Mirrors wire/packet.py: 1 to 6 frames of codes, or a noise level; parsePacket(serializePacket(p)) equals p.

import { StreamError } from "../errors.js";
import { MAX_BITS, packBits, packedSize, unpackBits } from "./bits.js";
import {
  FLAG_END, FLAG_NOISE, FLAG_REDUNDANCY, FLAG_SCALE, FLAG_START, HEADER_BYTES, MAX_CODEBOOKS, MAX_FRAMES,
  MAX_REDUNDANT_CODEBOOKS, MAX_REDUNDANT_FRAMES, NOISE_BANDS, NOISE_FLOOR_DB, SCALE_BYTES, readHeader, writeHeader,
} from "./header.js";

/**
 * Codes of one frame, coarse first.
 * @typedef {Uint16Array} Frame
 */

/**
 * One packet. Exactly one of `codes` and `noise` is there.
 *
 * codes: 1 to 6 frames of 1 to 32 codebooks. noise: six levels, whole decibels below full scale: the sender is silent
 * from `timestamp` until its next packet. redundancy: the first 1 to 8 codebooks of the 1 to 32 frames before
 * `timestamp`. start: the encoder was reset before this packet. end: nothing follows.
 * @typedef {object} Packet
 * @property {number} sequence
 * @property {number} timestamp
 * @property {Frame[] | null} codes
 * @property {readonly number[] | null} noise
 * @property {Frame[] | null} redundancy
 * @property {number | null} scale
 * @property {boolean} start
 * @property {boolean} end
 * @property {number} bitsPerCode
 * @property {number} sender
 */

/**
 * A packet of these values; StreamError for one out of range.
 * @param {Partial<Packet> & {sequence: number, timestamp: number}} values
 * @returns {Packet}
 */
export function makePacket(values) {
  const packet = {
    codes: null, noise: null, redundancy: null, scale: null, start: false, end: false, bitsPerCode: 10, sender: 0, ...values,
  };
  checkRange("sequence", packet.sequence, 0xffff);
  checkRange("timestamp", packet.timestamp, 0xffffffff);
  checkRange("sender", packet.sender, 0xffff);
  checkRange("bitsPerCode", packet.bitsPerCode, MAX_BITS, 1);
  if ((packet.codes === null) === (packet.noise === null)) throw new StreamError("a packet carries either codes or noise");
  if (packet.codes) checkFrames("codes", packet.codes, MAX_CODEBOOKS, MAX_FRAMES);
  if (packet.redundancy) checkFrames("redundancy", packet.redundancy, MAX_REDUNDANT_CODEBOOKS, MAX_REDUNDANT_FRAMES);
  if (packet.noise) {
    if (packet.noise.length !== NOISE_BANDS || packet.scale !== null) {
      throw new StreamError(`a noise packet has ${NOISE_BANDS} levels and no scale`);
    }
    for (const level of packet.noise) checkRange("noise level", level, NOISE_FLOOR_DB);
  }
  if (packet.scale !== null) {
    packet.scale = Math.fround(packet.scale);
    if (!(packet.scale > 0 && Number.isFinite(packet.scale))) throw new StreamError("a scale is positive and finite in float32");
  }
  return packet;
}

/**
 * Frames of codes in the packet; 1 for noise, which begins with that frame.
 * @param {Packet} packet
 */
export function framesIn(packet) {
  return packet.codes ? packet.codes.length : 1;
}

/**
 * Codebooks of each frame; 0 for noise.
 * @param {Packet} packet
 */
export function codebooksIn(packet) {
  return packet.codes ? packet.codes[0].length : 0;
}

/**
 * The packet's bytes.
 * @param {Packet} packet as `makePacket` gives it
 */
export function serializePacket(packet) {
  const { codes, noise, redundancy, scale, bitsPerCode } = packet;
  const before = redundancy && packFrames(redundancy, bitsPerCode);
  const body = codes ? packFrames(codes, bitsPerCode) : Uint8Array.from(noise ?? []);
  const bodyAt = HEADER_BYTES + (scale === null ? 0 : SCALE_BYTES) + (before ? 1 + before.length : 0);
  const data = new Uint8Array(bodyAt + body.length);
  const flags = (scale === null ? 0 : FLAG_SCALE) | (before ? FLAG_REDUNDANCY : 0) | (noise ? FLAG_NOISE : 0)
    | (packet.start ? FLAG_START : 0) | (packet.end ? FLAG_END : 0);
  writeHeader(data, { ...packet, flags, numFrames: framesIn(packet), numCodebooks: codebooksIn(packet) });
  if (scale !== null) new DataView(data.buffer).setFloat32(HEADER_BYTES, scale, true);
  if (before && redundancy) {
    const at = bodyAt - before.length - 1;
    data[at] = (redundancy[0].length - 1) | ((redundancy.length - 1) << 3);
    data.set(before, at + 1);
  }
  data.set(body, bodyAt);
  return data;
}

/**
 * Exactly one packet. Throws PacketError for any other bytes, and nothing else.
 * @param {Uint8Array} data
 * @returns {Packet}
 */
export function parsePacket(data) {
  const head = readHeader(data), bits = head.bitsPerCode, flags = head.flags;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const { redundancyAt, redundantCodebooks, redundantFrames, bodyAt } = head;
  return {
    sequence: head.sequence,
    timestamp: head.timestamp,
    codes: flags & FLAG_NOISE ? null : unpackFrames(data.subarray(bodyAt), head.numCodebooks, head.numFrames, bits),
    noise: flags & FLAG_NOISE ? Array.from(data.subarray(bodyAt)) : null,
    redundancy: flags & FLAG_REDUNDANCY
      ? unpackFrames(data.subarray(redundancyAt + 1), redundantCodebooks, redundantFrames, bits) : null,
    scale: flags & FLAG_SCALE ? view.getFloat32(HEADER_BYTES, true) : null,
    start: Boolean(flags & FLAG_START),
    end: Boolean(flags & FLAG_END),
    bitsPerCode: bits,
    sender: head.sender,
  };
}

/**
 * Bytes of a packet of codes with these settings: the same for every packet.
 * @param {number} numFrames
 * @param {number} numCodebooks
 * @param {{bitsPerCode?: number, redundantCodebooks?: number, redundantFrames?: number}} [more]
 */
export function packetSize(numFrames, numCodebooks, { bitsPerCode = 10, redundantCodebooks = 0, redundantFrames = 0 } = {}) {
  const size = HEADER_BYTES + packedSize(numFrames * numCodebooks, bitsPerCode);
  if (!redundantCodebooks || !redundantFrames) return size;
  return size + 1 + packedSize(redundantCodebooks * redundantFrames, bitsPerCode);
}

/**
 * Codebook by codebook, as they lie in a packet.
 * @param {Frame[]} frames
 * @param {number} bits
 */
function packFrames(frames, bits) {
  const books = frames[0].length, flat = new Uint16Array(books * frames.length);
  for (let k = 0; k < books; k++) for (let f = 0; f < frames.length; f++) flat[k * frames.length + f] = frames[f][k];
  return packBits(flat, bits);
}

/**
 * @param {Uint8Array} data
 * @param {number} books
 * @param {number} count
 * @param {number} bits
 * @returns {Frame[]}
 */
function unpackFrames(data, books, count, bits) {
  const flat = unpackBits(data, books * count, bits);
  return Array.from({ length: count }, (_, f) => {
    const frame = new Uint16Array(books);
    for (let k = 0; k < books; k++) frame[k] = flat[k * count + f];
    return frame;
  });
}

/**
 * @param {string} name
 * @param {number} value
 * @param {number} high
 * @param {number} [low]
 */
function checkRange(name, value, high, low = 0) {
  if (!(Number.isInteger(value) && value >= low && value <= high)) {
    throw new StreamError(`${name} lies in ${low}..${high}, not ${value}`);
  }
}

/**
 * @param {string} name
 * @param {Frame[]} frames
 * @param {number} codebooks
 * @param {number} most
 */
function checkFrames(name, frames, codebooks, most) {
  const books = frames[0]?.length ?? 0;
  if (!(frames.length >= 1 && frames.length <= most && books >= 1 && books <= codebooks)) {
    throw new StreamError(`${name} are 1..${most} frames of 1..${codebooks} codebooks, not ${frames.length} of ${books}`);
  }
  if (frames.some((frame) => frame.length !== books)) throw new StreamError(`${name} have as many codebooks in each frame`);
}

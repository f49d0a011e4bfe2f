// Mirrors model/safetensors_file.py and model/weights.py: a checkpoint's tensors as plain weights, weight norm folded.

import { CheckpointError } from "../errors.js";
import { fromHalves } from "./half.js";

/**
 * Values of a tensor: in 16 bits as they are stored, or as numbers.
 * @typedef {object} Tensor
 * @property {number[]} shape
 * @property {Uint16Array | null} halves
 * @property {Float32Array | Float64Array | null} values exactly one of the two
 */

const BYTES = /** @type {Record<string, number>} */ ({ F16: 2, BF16: 2, F32: 4, F64: 8 });
const MOST_HEAD_BYTES = 1 << 22;
const TRAINING_BUFFERS = /\.(inited|cluster_size|embed_avg)$/;
const MAGNITUDE = /\.(weight_g|parametrizations\.weight\.original0)$/;
const DIRECTION = /\.(weight_v|parametrizations\.weight\.original1)$/;

/** Plain weights under Hugging Face's names; each is read, checked and folded when it is asked for. */
export class Weights {
  #data;
  #first = 0;
  /** @type {Map<string, Map<string, string>>} by plain name: the file's names of weight, or of g and v */
  #parts = new Map();
  /** @type {Record<string, {dtype: string, shape: number[], data_offsets: [number, number]}>} */
  #entries = {};

  /**
   * Throws CheckpointError for bytes that are no .safetensors file of floats.
   * @param {Uint8Array} data the whole file; it must stay as it is
   */
  constructor(data) {
    this.#data = new Uint8Array(data.buffer, data.byteOffset, data.length); // a node Buffer's slice would be no copy
    const head = this.#readHead();
    for (const [name, entry] of Object.entries(head)) {
      if (name === "__metadata__" || TRAINING_BUFFERS.test(name)) continue;
      this.#entries[name] = this.#checked(name, entry);
      const kind = MAGNITUDE.test(name) ? "g" : DIRECTION.test(name) ? "v" : "weight";
      const base = name.replace(MAGNITUDE, ".weight").replace(DIRECTION, ".weight");
      const part = this.#parts.get(base) ?? new Map();
      if (part.has(kind)) throw new CheckpointError(`the weights hold ${base} in two spellings`);
      this.#parts.set(base, part.set(kind, name));
    }
    for (const [base, part] of this.#parts) {
      if (part.has("weight") === part.size > 1) throw new CheckpointError(`the weights hold ${base} in part, or both with and without weight norm`);
    }
  }

  /** Plain names. */
  get names() {
    return [...this.#parts.keys()];
  }

  /** Codebooks that are there. */
  get numCodebooks() {
    return this.names.filter((name) => /^quantizer\.layers\.\d+\.codebook\.embed$/.test(name)).length;
  }

  /**
   * @param {string} name
   * @param {number[]} shape that the configuration wants
   * @returns {Tensor}
   */
  get(name, shape) {
    const part = this.#parts.get(name);
    if (!part) throw new CheckpointError(`the weights do not fit their configuration: ${name} is missing`);
    const plain = part.get("weight");
    if (plain !== undefined) return this.#load(plain, shape);
    const g = this.#load(/** @type {string} */ (part.get("g")), [shape[0], ...shape.slice(1).map(() => 1)]);
    const folded = fold(g, this.#load(/** @type {string} */ (part.get("v")), shape));
    if (folded.values && !folded.values.every(Number.isFinite)) {
      throw new CheckpointError(`${name} has a row of zeros, to which its magnitude gives a length: the file is damaged`);
    }
    return folded;
  }

  /** @returns {Record<string, unknown>} */
  #readHead() {
    const data = this.#data;
    const size = data.length < 8 ? NaN : Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
    if (!(size >= 2 && size <= MOST_HEAD_BYTES && 8 + size <= data.length)) {
      throw new CheckpointError("the weights are no .safetensors file, or its beginning is missing");
    }
    this.#first = 8 + size;
    try {
      const head = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data.subarray(8, 8 + size)));
      if (typeof head === "object" && head !== null && !Array.isArray(head)) return head;
    } catch {
      // said below
    }
    throw new CheckpointError("the weights' head is no JSON object: the file is damaged");
  }

  /**
   * @param {string} name
   * @param {unknown} entry
   */
  #checked(name, entry) {
    const { dtype, shape, data_offsets: offsets } = /** @type {any} */ (entry ?? {});
    const whole = (/** @type {unknown} */ x) => Number.isInteger(x) && /** @type {number} */ (x) >= 0;
    if (!(typeof dtype === "string" && Array.isArray(shape) && shape.length <= 8 && shape.every(whole) && Array.isArray(offsets)
      && offsets.length === 2 && offsets.every(whole))) {
      throw new CheckpointError(`tensor ${name.slice(0, 100)} is not described: the file is damaged`);
    }
    const bytes = BYTES[dtype];
    if (!bytes) throw new CheckpointError(`tensor ${name.slice(0, 100)} holds ${dtype.slice(0, 20)}, and no floats`);
    const [begin, end] = offsets;
    if (end - begin !== bytes * shape.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1)) {
      throw new CheckpointError(`tensor ${name.slice(0, 100)} is of another size than it says: the file is damaged`);
    }
    if (this.#first + end > this.#data.length) throw new CheckpointError("the weights are cut off: load the file again");
    return { dtype, shape, data_offsets: /** @type {[number, number]} */ ([begin, end]) };
  }

  /**
   * @param {string} name in the file
   * @param {number[]} shape
   * @returns {Tensor}
   */
  #load(name, shape) {
    const entry = this.#entries[name];
    if (entry.shape.length !== shape.length || entry.shape.some((n, i) => n !== shape[i])) {
      throw new CheckpointError(`tensor ${name} is [${entry.shape}], but its configuration wants [${shape}]`);
    }
    const [begin, end] = entry.data_offsets;
    const buffer = this.#data.slice(this.#first + begin, this.#first + end).buffer; // a copy, aligned
    if (entry.dtype === "F16") {
      const halves = new Uint16Array(buffer);
      if (halves.some((bits) => (bits & 0x7c00) === 0x7c00)) throw damaged(name);
      return { shape, halves, values: null };
    }
    const values = entry.dtype === "F64" ? new Float64Array(buffer) : entry.dtype === "F32" ? new Float32Array(buffer) : brain(buffer);
    if (!values.every(Number.isFinite)) throw damaged(name);
    return { shape, halves: null, values };
  }
}

/** @param {string} name */
function damaged(name) {
  return new CheckpointError(`tensor ${name} holds NaN or infinite values: the file is damaged`);
}

/** @param {ArrayBuffer} buffer */
function brain(buffer) {
  return new Float32Array(Uint32Array.from(new Uint16Array(buffer), (bits) => bits << 16).buffer);
}

/**
 * A tensor's numbers.
 * @param {Tensor} tensor
 */
export function numbersOf(tensor) {
  return tensor.values ?? fromHalves(/** @type {Uint16Array} */ (tensor.halves));
}

/**
 * `g` [R, 1, …] times `v` [R, …] over its rows' norms; `v` itself where it gives that.
 *
 * In float64, with sums by pairs: the same bits as Python's `fold`.
 * @param {Tensor} g
 * @param {Tensor} v
 * @returns {Tensor}
 */
function fold(g, v) {
  const magnitudes = numbersOf(g), directions = numbersOf(v);
  const rows = v.shape[0], width = directions.length / rows;
  const isDouble = magnitudes instanceof Float64Array;
  const ratios = new Float64Array(rows), terms = new Float64Array(width);
  let same = true;
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < width; i++) terms[i] = directions[r * width + i] * directions[r * width + i];
    const norm = Math.sqrt(pairedSum(terms));
    // A magnitude that is this very norm, rounded to the file's precision, means "v as it is".
    const isNorm = (isDouble ? norm : Math.fround(norm)) === magnitudes[r];
    ratios[r] = isNorm ? 1 : magnitudes[r] / norm;
    same &&= isNorm;
  }
  if (same) return v;
  const values = directions instanceof Float64Array ? new Float64Array(directions.length) : new Float32Array(directions.length);
  for (let r = 0; r < rows; r++) for (let i = 0; i < width; i++) values[r * width + i] = directions[r * width + i] * ratios[r];
  return { shape: v.shape, halves: null, values };
}

/** @param {Float64Array} terms are used up */
function pairedSum(terms) {
  let length = terms.length;
  while (length > 1) {
    const half = length >> 1;
    for (let i = 0; i < half; i++) terms[i] += terms[half + i];
    if (length & 1) terms[half] = terms[2 * half];
    length = half + (length & 1);
  }
  return terms[0];
}

// Mirrors engines/kernel/image.py: a model as one block of memory, as kernel.c reads it.
//
// All panels are float32 here, where Python's are float16 if that loses nothing: the same bits come out, and
// WebAssembly, which has no instruction to widen float16, takes a third of the time.

import { CheckpointError } from "../errors.js";
import { CONV, LSTM, TRANSPOSED, makeParts, namedLayers, shapesOf } from "./architecture.js";
import { numbersOf } from "./weights.js";

/** @typedef {import("./architecture.js").Layer} Layer */
/** @typedef {import("./architecture.js").Part} Part */
/** @typedef {import("./config.js").EncodecConfig} EncodecConfig */
/** @typedef {import("./kernel.js").Kernel} Kernel */
/** @typedef {import("./weights.js").Tensor} Tensor */
/** @typedef {import("./weights.js").Weights} Weights */

const PANELS = 0, ROWS = 2;
const MAGIC = 0x4b534543, VERSION = 1, HEADER_WORDS = 18, MATRIX_WORDS = 5, LANES = 16;
const MOST_ROW_OUTPUTS = 2;

/**
 * A matrix [in, out] inside a tensor: the value of input i and output o is at `rows[i] + columns[o]`.
 * @typedef {object} Matrix
 * @property {Tensor} tensor
 * @property {Uint32Array} rows
 * @property {Uint32Array} columns
 * @property {boolean} negative
 */

/**
 * @typedef {object} Image
 * @property {number} at its address
 * @property {Part} encoder
 * @property {Part} decoder
 */

/**
 * Write a model's weights into the kernel's memory.
 *
 * Throws CheckpointError where they do not fit the configuration.
 * @param {Kernel} kernel
 * @param {EncodecConfig} config
 * @param {Weights} weights
 * @returns {Image}
 */
export function writeImage(kernel, config, weights) {
  const [encoder, decoder] = makeParts(config), layers = [...encoder.layers, ...decoder.layers];
  const shapes = layers.flatMap(shapesOf), codebook = shapes.length;
  for (let k = 0; k < config.numCodebooks; k++) shapes.push([config.hiddenSize, config.codebookSize]);
  const layersAt = whole(HEADER_WORDS), matricesAt = whole(layersAt + layers.length * layerWords(layers[0]).length);
  const headWords = whole(matricesAt + shapes.length * MATRIX_WORDS);
  const writer = new Writer(kernel, headWords);

  const asked = new Set();
  const get = (/** @type {string} */ name, /** @type {number[]} */ shape) => {
    asked.add(name);
    return weights.get(name, shape);
  };
  for (const [name, layer] of namedLayers(encoder, decoder)) {
    for (const [matrix, bias] of matricesOf(layer, name, get)) writer.add(matrix, bias);
  }
  for (let k = 0; k < config.numCodebooks; k++) {
    const [size, dimension] = [config.codebookSize, config.hiddenSize];
    writer.addCodebook(get(`quantizer.layers.${k}.codebook.embed`, [size, dimension]), size, dimension);
  }
  const unknown = weights.names.filter((name) => !asked.has(name));
  if (unknown.length) throw new CheckpointError(`the weights do not fit their configuration: they have ${unknown.slice(0, 5).join(", ")} too many`);

  const words = kernel.ints.subarray(writer.at >> 2);
  words.set([MAGIC, VERSION, layersAt, matricesAt, config.numCodebooks, config.codebookSize, config.hiddenSize, codebook]);
  words.set([0, encoder.layers.length, encoder.inputs, encoder.outputs, encoder.stateFloats], 8);
  words.set([encoder.layers.length, decoder.layers.length, decoder.inputs, decoder.outputs, decoder.stateFloats], 13);
  words.set(layers.flatMap(layerWords), layersAt);
  words.set(writer.table.flat(), matricesAt);
  return { at: writer.at, encoder, decoder };
}

/** @param {Layer} l */
function layerWords(l) {
  return [l.kind, l.elu, l.inputs, l.outputs, l.kernel, l.stride, l.dilation, l.history, l.lookahead, l.trim, l.pad, l.matrix, l.count, l.state];
}

/**
 * A layer's matrices and biases, one after the other.
 * @param {Layer} layer
 * @param {string} name
 * @param {(name: string, shape: number[]) => Tensor} get
 * @returns {Generator<[Matrix, Float32Array]>}
 */
function* matricesOf(layer, name, get) {
  const { inputs, outputs, kernel, stride, count } = layer;
  if (layer.kind === CONV) yield taps(get, name, inputs, outputs, kernel);
  else if (layer.kind === TRANSPOSED) {
    const wide = 2 * stride, bias = numbersOf(get(`${name}.conv.bias`, [outputs]));
    const twice = new Float32Array(wide * outputs); // of an output's two halves the first has the bias
    for (let t = 0; t < stride; t++) twice.set(bias, t * outputs);
    yield [{
      tensor: get(`${name}.conv.weight`, [inputs, outputs, wide]), negative: false,
      rows: steps(inputs, (i) => i * outputs * wide),
      columns: steps(wide * outputs, (c) => (c % outputs) * wide + Math.floor(c / outputs)),
    }, twice];
  } else if (layer.kind === LSTM) {
    for (let i = 0; i < count; i++) {
      const biases = ["ih", "hh"].map((kind) => numbersOf(get(`${name}.lstm.bias_${kind}_l${i}`, [4 * inputs])));
      const bias = Float32Array.from(biases[0], (b, at) => Math.fround(b) + Math.fround(biases[1][at]));
      for (const [kind, its] of /** @type {[string, Float32Array][]} */ ([["ih", bias], ["hh", new Float32Array(4 * inputs)]])) {
        const tensor = get(`${name}.lstm.weight_${kind}_l${i}`, [4 * inputs, inputs]);
        yield [{ tensor, rows: steps(inputs, (at) => at), columns: steps(4 * inputs, (o) => o * inputs), negative: false }, its];
      }
    }
  } else {
    yield taps(get, `${name}.block.1`, inputs, outputs, kernel);
    yield taps(get, `${name}.block.3`, outputs, inputs, 1);
    if (count) yield taps(get, `${name}.shortcut`, inputs, inputs, 1);
  }
}

/**
 * [out, in, kernel] as [kernel * in, out].
 * @param {(name: string, shape: number[]) => Tensor} get
 * @param {string} name
 * @param {number} inputs
 * @param {number} outputs
 * @param {number} kernel
 * @returns {[Matrix, Float32Array]}
 */
function taps(get, name, inputs, outputs, kernel) {
  return [{
    tensor: get(`${name}.conv.weight`, [outputs, inputs, kernel]), negative: false,
    rows: steps(kernel * inputs, (r) => (r % inputs) * kernel + Math.floor(r / inputs)),
    columns: steps(outputs, (o) => o * inputs * kernel),
  }, Float32Array.from(numbersOf(get(`${name}.conv.bias`, [outputs])))];
}

/**
 * @param {number} count
 * @param {(i: number) => number} at
 */
function steps(count, at) {
  return Uint32Array.from({ length: count }, (_, i) => at(i));
}

/** Packs one matrix after the other. */
class Writer {
  #kernel;
  #end;
  /** Form, inputs, outputs, and where weights and bias begin, in floats from the image's begin. @type {number[][]} */
  table = [];

  /**
   * @param {Kernel} kernel
   * @param {number} begin words that go before
   */
  constructor(kernel, begin) {
    this.#kernel = kernel;
    /** Address of the image. */
    this.at = kernel.reserve(begin);
    this.#end = begin;
    kernel.ints.fill(0, this.at >> 2, (this.at >> 2) + begin);
  }

  /**
   * @param {Matrix} matrix
   * @param {ArrayLike<number>} bias
   */
  add({ tensor, rows, columns, negative }, bias) {
    const inputs = rows.length, outputs = columns.length, width = whole(outputs);
    const biasAt = this.#take(width);
    this.#kernel.floats.set(bias, biasAt);
    const isRows = outputs <= MOST_ROW_OUTPUTS, sign = negative ? -1 : 1, values = numbersOf(tensor);
    const at = this.#take(isRows ? whole(inputs * outputs) : inputs * width), { floats } = this.#kernel;
    if (isRows) {
      for (let o = 0; o < outputs; o++) for (let r = 0; r < inputs; r++) floats[at + o * inputs + r] = sign * values[rows[r] + columns[o]];
    } else fillPanels(floats, at, values, rows, columns, sign);
    const from = this.at >> 2;
    this.table.push([isRows ? ROWS : PANELS, inputs, outputs, at - from, biasAt - from]);
  }

  /**
   * [size, D]: its negated vectors, and half their squares. The least sum is the nearest vector.
   * @param {Tensor} tensor
   * @param {number} size
   * @param {number} dimension
   */
  addCodebook(tensor, size, dimension) {
    const values = numbersOf(tensor), squares = new Float64Array(size);
    for (let d = 0; d < dimension; d++) for (let i = 0; i < size; i++) squares[i] += values[i * dimension + d] * values[i * dimension + d];
    const matrix = { tensor, rows: steps(dimension, (d) => d), columns: steps(size, (i) => i * dimension), negative: true };
    this.add(matrix, squares.map((square) => square / 2));
  }

  /**
   * Zeros, right after what there is. Returns where they begin, in floats from the memory's begin.
   * @param {number} words
   */
  #take(words) {
    const at = this.#kernel.reserve(words) >> 2;
    if (at !== (this.at >> 2) + this.#end) throw new CheckpointError("a model is laid out before any stream begins");
    this.#end += words;
    this.#kernel.floats.fill(0, at, at + words);
    return at;
  }
}

/**
 * [out/16][in][16].
 * @param {Float32Array} to
 * @param {number} at
 * @param {Float32Array | Float64Array} values
 * @param {Uint32Array} rows
 * @param {Uint32Array} columns
 * @param {number} sign
 */
function fillPanels(to, at, values, rows, columns, sign) {
  for (let begin = 0; begin < columns.length; begin += LANES) {
    const lanes = Math.min(LANES, columns.length - begin);
    for (let r = 0; r < rows.length; r++, at += LANES) {
      const row = rows[r];
      for (let lane = 0; lane < lanes; lane++) to[at + lane] = sign * values[row + columns[begin + lane]];
    }
  }
}

/**
 * Rounded up to 64 bytes.
 * @param {number} words
 */
function whole(words) {
  return Math.ceil(words / LANES) * LANES;
}

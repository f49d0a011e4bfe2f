// Mirrors model/architecture.py and model/geometry.py: EnCodec's layers as plain numbers.

import { divideUp, modulo } from "../numbers.js";
import { PAD_MODES } from "./config.js";

/** @typedef {import("./config.js").EncodecConfig} EncodecConfig */

export const CONV = 0, TRANSPOSED = 1, LSTM = 2, RESIDUAL = 3;

/**
 * As `Layer` in kernel.c, field by field and in its order.
 * @typedef {object} Layer
 * @property {number} kind
 * @property {number} elu
 * @property {number} inputs
 * @property {number} outputs
 * @property {number} kernel
 * @property {number} stride
 * @property {number} dilation
 * @property {number} history
 * @property {number} lookahead
 * @property {number} trim
 * @property {number} pad
 * @property {number} matrix
 * @property {number} count
 * @property {number} state
 */

/**
 * Encoder or decoder: its layers, channels at both ends, the floats of a stream's state, and how long one waits:
 * `startInputs` before the first output of the offline model's start, `lookaheadInputs` beyond a frame's own, and by how
 * many outputs a stream is late.
 * @typedef {object} Part
 * @property {Layer[]} layers
 * @property {number} inputs
 * @property {number} outputs
 * @property {number} stateFloats
 * @property {number} startInputs
 */

/**
 * Encoder and decoder of a configuration.
 * @param {EncodecConfig} config
 * @returns {[encoder: Part, decoder: Part]}
 */
export function makeParts(config) {
  const encoder = place(encoderLayers(config), 0);
  const decoder = place(decoderLayers(config), encoder.matrices);
  return [finish(config, encoder.layers, true), finish(config, decoder.layers, false)];
}

/**
 * Inputs and outputs of a layer's matrices.
 * @param {Layer} layer
 * @returns {[inputs: number, outputs: number][]}
 */
export function shapesOf(layer) {
  const { kind, inputs, outputs, kernel, stride, count } = layer;
  if (kind === TRANSPOSED) return [[inputs, 2 * stride * outputs]];
  if (kind === LSTM) return Array(2 * count).fill([inputs, 4 * inputs]);
  if (kind === CONV) return [[kernel * inputs, outputs]];
  return [[kernel * inputs, outputs], [outputs, inputs], ...Array(count).fill([inputs, inputs])];
}

/**
 * All layers with their names in checkpoints, such as `encoder.layers.3`.
 * @param {Part} encoder
 * @param {Part} decoder
 * @returns {[name: string, layer: Layer][]}
 */
export function namedLayers(encoder, decoder) {
  /** @type {[string, Layer][]} */
  const named = [];
  for (const [name, part] of /** @type {[string, Part][]} */ ([["encoder", encoder], ["decoder", decoder]])) {
    let index = 0;
    for (const layer of part.layers) {
      index += layer.kind === CONV || layer.kind === TRANSPOSED ? layer.elu : 0; // there a layer of its own
      named.push([`${name}.layers.${index}`, layer]);
      index++;
    }
  }
  return named;
}

/** @param {Layer} layer */
function stateFloats(layer) {
  if (layer.kind === TRANSPOSED) return layer.stride * layer.outputs;
  if (layer.kind === LSTM) return 2 * layer.count * layer.inputs;
  return (layer.history + (layer.kind === RESIDUAL ? layer.lookahead : 0)) * layer.inputs;
}

/**
 * @param {Layer[]} layers
 * @param {number} matrix
 */
function place(layers, matrix) {
  let state = 0;
  const placed = layers.map((layer) => {
    const here = { ...layer, matrix, state };
    matrix += shapesOf(layer).length;
    state += stateFloats(layer);
    return here;
  });
  return { layers: placed, matrices: matrix };
}

/**
 * @param {EncodecConfig} config
 * @param {Layer[]} layers
 * @param {boolean} encodes
 * @returns {Part}
 */
function finish(config, layers, encodes) {
  const last = layers[layers.length - 1];
  const lookahead = encodes ? lookaheadOf(layers) : 0, unit = encodes ? config.hop : 1;
  let frames = 1;
  while (startOutputs(layers, lookahead + frames * unit, config) === null) frames++;
  return {
    layers, inputs: layers[0].inputs, outputs: last.outputs, stateFloats: last.state + stateFloats(last),
    startInputs: lookahead + frames * unit,
  };
}

/** @param {Layer[]} layers */
function lookaheadOf(layers) {
  let lookahead = 0, rate = 1;
  for (const layer of layers) {
    lookahead += layer.lookahead * rate;
    rate *= layer.stride;
  }
  return lookahead;
}

/**
 * Outputs for the first `n` inputs; null where they do not decide what the offline model pads with.
 * @param {Layer[]} layers
 * @param {number} n
 * @param {EncodecConfig} config
 */
function startOutputs(layers, n, config) {
  const mode = config.fields.pad_mode, least = mode === "constant" ? 0 : 1;
  for (const layer of layers) {
    if (layer.kind === TRANSPOSED || layer.kind === LSTM) {
      if (n < 1) return null;
      n = n * layer.stride - layer.trim;
      continue;
    }
    const decided = mode === "reflect" ? geometry(config, layer.kernel, layer.stride, layer.dilation).reflected : least;
    if (n < Math.max(decided, layer.lookahead) || (n - layer.lookahead) % layer.stride) return null;
    n = (n - layer.lookahead) / layer.stride;
    if (layer.kind === RESIDUAL && n < least) return null;
  }
  return n;
}

/**
 * Outputs of a layer for `n` inputs in a phase of kernel.c.
 * @param {Layer} layer
 * @param {"start" | "step" | "flush"} phase
 * @param {number} n
 */
export function outputsOf(layer, phase, n) {
  if (layer.kind === TRANSPOSED) return n * layer.stride + (phase === "start" ? -layer.trim : phase === "flush" ? layer.trim : 0);
  if (phase === "start") return Math.floor((n - layer.lookahead) / layer.stride);
  if (phase === "step") return Math.floor(n / layer.stride);
  return divideUp(n + layer.lookahead, layer.stride);
}

// -- which layers there are: an ELU goes along with the layer after it -----------------------------------------------

/**
 * @param {EncodecConfig} config
 * @returns {Layer[]}
 */
function encoderLayers(config) {
  const f = config.fields;
  let dim = f.num_filters;
  const layers = [conv(config, 0, config.channels, dim, f.kernel_size)];
  for (const ratio of [...f.upsampling_ratios].reverse()) {
    layers.push(...residuals(config, dim), conv(config, 1, dim, 2 * dim, 2 * ratio, ratio));
    dim *= 2;
  }
  return [...layers, ...lstm(config, dim), conv(config, 1, dim, f.hidden_size, f.last_kernel_size)];
}

/**
 * @param {EncodecConfig} config
 * @returns {Layer[]}
 */
function decoderLayers(config) {
  const f = config.fields;
  let dim = f.num_filters * 2 ** f.upsampling_ratios.length;
  const layers = [conv(config, 0, f.hidden_size, dim, f.kernel_size), ...lstm(config, dim)];
  for (const ratio of f.upsampling_ratios) {
    const right = f.use_causal_conv ? Math.ceil(ratio * f.trim_right_ratio) : Math.floor(ratio / 2);
    layers.push(makeLayer({ kind: TRANSPOSED, elu: 1, inputs: dim, outputs: Math.floor(dim / 2), kernel: 2 * ratio, stride: ratio, trim: ratio - right }));
    dim = Math.floor(dim / 2);
    layers.push(...residuals(config, dim));
  }
  return [...layers, conv(config, 1, dim, config.channels, f.last_kernel_size)];
}

/**
 * @param {Partial<Layer> & Pick<Layer, "kind" | "elu" | "inputs" | "outputs">} values
 * @returns {Layer}
 */
function makeLayer(values) {
  const { kind, elu, inputs, outputs, ...more } = values;
  return { kind, elu, inputs, outputs, kernel: 1, stride: 1, dilation: 1, history: 0, lookahead: 0, trim: 0, pad: 0, matrix: 0, count: 0, state: 0, ...more };
}

/**
 * @param {EncodecConfig} config
 * @param {number} elu
 * @param {number} inputs
 * @param {number} outputs
 * @param {number} kernel
 * @param {number} [stride]
 */
function conv(config, elu, inputs, outputs, kernel, stride = 1) {
  const { history, lookahead } = geometry(config, kernel, stride, 1);
  return makeLayer({ kind: CONV, elu, inputs, outputs, kernel, stride, history, lookahead, pad: padOf(config) });
}

/**
 * @param {EncodecConfig} config
 * @param {number} dim
 */
function residuals(config, dim) {
  const f = config.fields;
  return Array.from({ length: f.num_residual_layers }, (_, j) => {
    const kernel = f.residual_kernel_size, dilation = f.dilation_growth_rate ** j;
    const { history, lookahead } = geometry(config, kernel, 1, dilation);
    const inside = Math.floor(dim / f.compress), count = f.use_conv_shortcut ? 1 : 0;
    return makeLayer({ kind: RESIDUAL, elu: 1, inputs: dim, outputs: inside, kernel, dilation, history, lookahead, pad: padOf(config), count });
  });
}

/**
 * @param {EncodecConfig} config
 * @param {number} dim
 */
function lstm(config, dim) {
  const count = config.fields.num_lstm_layers;
  return count ? [makeLayer({ kind: LSTM, elu: 0, inputs: dim, outputs: dim, count })] : [];
}

/** @param {EncodecConfig} config */
function padOf(config) {
  return PAD_MODES.indexOf(/** @type {"constant"} */ (config.fields.pad_mode));
}

/**
 * Lookahead and history of a convolution padded so that T inputs give T / stride outputs.
 * @param {EncodecConfig} config
 * @param {number} kernel
 * @param {number} stride
 * @param {number} dilation
 */
function geometry(config, kernel, stride, dilation) {
  const span = (kernel - 1) * dilation + 1, padding = span - stride, mode = config.fields.pad_mode;
  const lookahead = config.fields.use_causal_conv ? 0 : Math.floor(padding / 2);
  let flush = 0; // inputs that the padding at the end is made of
  if (mode === "replicate") flush = lookahead ? 1 : 0;
  if (mode === "reflect") {
    for (let u = 0; u < span + stride; u++) {
      const right = lookahead + modulo(-(lookahead + u), stride);
      if (right) flush = Math.max(flush, right + 1 - u);
    }
  }
  return { lookahead, history: Math.max(padding, flush), reflected: Math.max(padding - lookahead, lookahead + stride - 1) + 1 };
}

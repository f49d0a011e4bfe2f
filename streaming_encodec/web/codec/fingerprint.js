// Mirrors model/fingerprint.py: the name of a model by its configuration and weights, as docs/protocol.md spells it.

import { UnsupportedError } from "../errors.js";
import { LSTM, RESIDUAL, TRANSPOSED, makeParts, namedLayers } from "./architecture.js";
import { numbersOf } from "./weights.js";

/** @typedef {import("./config.js").EncodecConfig} EncodecConfig */
/** @typedef {import("./weights.js").Weights} Weights */

const FLOATS = ["chunk_length_s", "overlap", "target_bandwidths", "trim_right_ratio"];

/**
 * 32 hexadecimal digits.
 * @param {EncodecConfig} config
 * @param {Weights} weights
 */
export async function fingerprintOf(config, weights) {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) throw new UnsupportedError("a fingerprint is computed only on pages of HTTPS or localhost: hand it to loadCodec");
  const encoder = new TextEncoder(), parts = [encoder.encode(configText(config))];
  const shapes = weightShapes(config);
  for (const name of [...shapes.keys()].sort()) {
    const shape = /** @type {number[]} */ (shapes.get(name)), values = Float32Array.from(numbersOf(weights.get(name, shape)));
    parts.push(encoder.encode(`\0${name}\0(${shape.join(", ")}${shape.length === 1 ? "," : ""})\0`), new Uint8Array(values.buffer));
  }
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  const digest = new Uint8Array(await subtle.digest("SHA-256", all));
  return Array.from(digest.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {EncodecConfig} config */
function configText(config) {
  const f = config.fields;
  const all = /** @type {Record<string, unknown>} */ ({
    architectures: ["EncodecModel"], model_type: "encodec", codebook_dim: f.hidden_size, overlap: config.overlap, ...f,
  });
  const float = (/** @type {unknown} */ x) => (x === null ? "null" : Number.isInteger(x) ? `${x}.0` : String(x));
  const spell = (/** @type {string} */ name) => {
    const value = all[name];
    if (!FLOATS.includes(name)) return JSON.stringify(value);
    return Array.isArray(value) ? `[${value.map(float).join(",")}]` : float(value);
  };
  return `{${Object.keys(all).sort().map((name) => `"${name}":${spell(name)}`).join(",")}}`;
}

/**
 * Name and shape of every plain weight.
 * @param {EncodecConfig} config
 */
function weightShapes(config) {
  /** @type {Map<string, number[]>} */
  const shapes = new Map();
  const conv = (/** @type {string} */ name, /** @type {number[]} */ shape, /** @type {number} */ outputs) => {
    shapes.set(`${name}.conv.weight`, shape).set(`${name}.conv.bias`, [outputs]);
  };
  for (const [name, layer] of namedLayers(...makeParts(config))) {
    const { kind, inputs, outputs, kernel, count } = layer;
    if (kind === LSTM) {
      for (let i = 0; i < count; i++) {
        for (const gate of ["ih", "hh"]) {
          shapes.set(`${name}.lstm.weight_${gate}_l${i}`, [4 * inputs, inputs]).set(`${name}.lstm.bias_${gate}_l${i}`, [4 * inputs]);
        }
      }
    } else if (kind === RESIDUAL) {
      conv(`${name}.block.1`, [outputs, inputs, kernel], outputs);
      conv(`${name}.block.3`, [inputs, outputs, 1], inputs);
      if (count) conv(`${name}.shortcut`, [inputs, inputs, 1], inputs);
    } else if (kind === TRANSPOSED) conv(name, [inputs, outputs, kernel], outputs);
    else conv(name, [outputs, inputs, kernel], outputs);
  }
  for (let k = 0; k < config.numCodebooks; k++) shapes.set(`quantizer.layers.${k}.codebook.embed`, [config.codebookSize, config.hiddenSize]);
  return shapes;
}

// A model's fingerprint, computed from docs/protocol.md, "The fingerprint", alone.
//
//     node fingerprint.mjs FOLDER           a folder with config.json and model.safetensors
//     node fingerprint.mjs fingerprint.json the worked example of the specification

import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";

const DEFAULTS = {
  audio_channels: 1, chunk_length_s: null, codebook_dim: null, codebook_size: 1024, compress: 2,
  dilation_growth_rate: 2, hidden_size: 128, kernel_size: 7, last_kernel_size: 7, norm_type: "weight_norm",
  normalize: false, num_filters: 32, num_lstm_layers: 2, num_residual_layers: 1, overlap: null, pad_mode: "reflect",
  residual_kernel_size: 3, sampling_rate: 24000, target_bandwidths: [1.5, 3, 6, 12, 24], trim_right_ratio: 1,
  upsampling_ratios: [8, 5, 4, 2], use_causal_conv: true, use_conv_shortcut: true,
};
const FLOATS = ["chunk_length_s", "overlap", "target_bandwidths", "trim_right_ratio"];

function configText(config) {
  const all = { architectures: ["EncodecModel"], model_type: "encodec" };
  for (const [name, value] of Object.entries(DEFAULTS)) all[name] = name in config ? config[name] : value;
  all.codebook_dim ??= all.hidden_size;
  const float = (x) => (x === null ? "null" : Number.isInteger(x) ? `${x}.0` : String(x));
  const spell = (name) => {
    const value = all[name];
    if (!FLOATS.includes(name)) return JSON.stringify(value);
    return Array.isArray(value) ? `[${value.map(float).join(",")}]` : float(value);
  };
  return `{${Object.keys(all).sort().map((name) => `"${name}":${spell(name)}`).join(",")}}`;
}

function norm(values) {
  let t = values.map((x) => x * x);
  while (t.length > 1) {
    const h = Math.floor(t.length / 2);
    t = [...Array.from({ length: h }, (_, i) => t[i] + t[h + i]), ...t.slice(2 * h)];
  }
  return Math.sqrt(t[0]);
}

function fold(g, v) {
  const width = v.values.length / v.shape[0];
  const values = new Float32Array(v.values.length); // storing rounds
  for (let r = 0; r < v.shape[0]; r++) {
    const row = Array.from(v.values.slice(r * width, (r + 1) * width));
    const length = norm(row);
    const ratio = Math.fround(length) === g.values[r] ? 1 : g.values[r] / length;
    row.forEach((x, i) => (values[r * width + i] = x * ratio));
  }
  return { shape: v.shape, values };
}

/** Tensors by name, {shape, values}, as bytes to be hashed, one Buffer for each. */
function weightBytes(found) {
  const tensors = {}, weights = {};
  for (const [name, tensor] of Object.entries(found)) {
    const spelled = name.replace(/\.parametrizations\.weight\.original0$/, ".weight_g")
      .replace(/\.parametrizations\.weight\.original1$/, ".weight_v");
    tensors[spelled] = tensor;
  }
  for (const [name, tensor] of Object.entries(tensors)) {
    if (/\.(inited|cluster_size|embed_avg)$/.test(name) || name.endsWith(".weight_v")) continue;
    if (name.endsWith(".weight_g")) weights[name.slice(0, -2)] = fold(tensor, tensors[name.slice(0, -1) + "v"]);
    else weights[name] = { shape: tensor.shape, values: Float32Array.from(tensor.values) };
  }
  return Object.keys(weights).sort().map((name) => {
    const { shape, values } = weights[name];
    const head = `\0${name}\0(${shape.join(", ")}${shape.length === 1 ? "," : ""})\0`;
    return Buffer.concat([Buffer.from(head), Buffer.from(values.buffer)]); // little-endian, as every machine with node
  });
}

function half(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

/** The tensors of a .safetensors file: 8 bytes of length, a JSON of names, the data. */
function readSafetensors(path) {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const tensors = {};
  for (const [name, entry] of Object.entries(JSON.parse(file.toString("utf8", 8, 8 + length)))) {
    if (name === "__metadata__") continue;
    const [begin, end] = entry.data_offsets.map((offset) => 8 + length + offset);
    const data = new Uint8Array(file.subarray(begin, end)).buffer; // a copy, aligned
    if (!["F16", "F32"].includes(entry.dtype)) throw new Error(`${name} is ${entry.dtype}`);
    const values = entry.dtype === "F32" ? new Float32Array(data) : Float32Array.from(new Uint16Array(data), half);
    tensors[name] = { shape: entry.shape, values };
  }
  return tensors;
}

const path = process.argv[2];
const example = statSync(path).isFile() ? JSON.parse(readFileSync(path, "utf8")) : {
  config: JSON.parse(readFileSync(join(path, "config.json"), "utf8")),
  tensors: readSafetensors(join(path, "model.safetensors")),
};
const digest = createHash("sha256").update(configText(example.config));
for (const bytes of weightBytes(example.tensors)) digest.update(bytes);
console.log(digest.digest("hex").slice(0, 32));

// What is said of wrong files and wrong sound: a JSON object of names and messages.

import { loadCodec } from "../../streaming_encodec/web/codec/index.js";
import { bundled, file } from "./codec_kit.mjs";

/** @type {Record<string, [string, string] | string>} */
const told = {};

/**
 * @param {string} what
 * @param {() => unknown} action
 */
async function attempt(what, action) {
  try {
    await action();
    told[what] = "fine";
  } catch (error) {
    told[what] = error instanceof Error ? [error.name, error.message] : String(error);
  }
}

const wasm = file("web/codec/kernel.wasm"), weights = new Uint8Array(file("assets/voice-24khz/model.safetensors"));
const config = JSON.parse(file("assets/voice-24khz/config.json").toString("utf8"));
const nan = weights.slice();
nan.fill(0xff, nan.length - 64);
const head = weights.slice();
head[8] = 0;

await attempt("no wasm", () => loadCodec({ wasm: wasm.subarray(0, 100), weights, config }));
await attempt("cut off", () => loadCodec({ wasm, weights: weights.subarray(0, -1000), config }));
await attempt("no safetensors", () => loadCodec({ wasm, weights: new Uint8Array(4), config }));
await attempt("head", () => loadCodec({ wasm, weights: head, config }));
await attempt("another model", () => loadCodec({ wasm, weights, config: { ...config, num_lstm_layers: 2 } }));
await attempt("nan weight", () => loadCodec({ wasm, weights: nan, config }));
await attempt("segments", () => loadCodec({ wasm, weights, config: { ...config, chunk_length_s: 1 } }));
await attempt("no config", () => loadCodec({ wasm, weights, config: null }));
await attempt("ratios", () => loadCodec({ wasm, weights, config: { ...config, upsampling_ratios: [2, "4"] } }));

const codec = await bundled(), encoder = codec.createEncoder(), decoder = codec.createDecoder();
await attempt("bandwidth", () => codec.codebooksFor(5));
await attempt("nan sample", () => encoder.encode(Float32Array.of(0, 0, 0, NaN)));
await attempt("loud sample", () => encoder.encode(Float32Array.of(200)));
await attempt("code", () => decoder.decode(Uint16Array.of(1024), 1));
await attempt("no frames", () => decoder.decode(new Uint16Array(0), 0));
await attempt("codebooks", () => codec.createEncoder({ codebooks: 17 }));
await attempt("state", () => encoder.restore({ pending: new Float32Array(0), layers: new Float32Array(3), skip: 0 }));
await attempt("a network of 20 frames", () => decoder.decode(encoder.encode(new Float32Array(6400)), 20));
encoder.close();
await attempt("closed", () => encoder.encode(new Float32Array(320)));
console.log(JSON.stringify(told));

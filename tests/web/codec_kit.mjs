// What the programs of these tests share: the bundled model from its files.

import { readFileSync } from "node:fs";
import { loadCodec } from "../../streaming_encodec/web/codec/index.js";

const PACKAGE = new URL("../../streaming_encodec/", import.meta.url);

/** @param {string} path in the package */
export function file(path) {
  return readFileSync(new URL(path, PACKAGE));
}

/** The bundled model. */
export function bundled() {
  return loadCodec({
    wasm: file("web/codec/kernel.wasm"),
    weights: file("assets/voice-24khz/model.safetensors"),
    config: JSON.parse(file("assets/voice-24khz/config.json").toString("utf8")),
  });
}

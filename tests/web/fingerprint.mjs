// A model's fingerprint:  node fingerprint.mjs FOLDER

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { loadCodec } from "../../streaming_encodec/web/codec/index.js";
import { file } from "./codec_kit.mjs";

const codec = await loadCodec({
  wasm: file("web/codec/kernel.wasm"),
  weights: readFileSync(join(process.argv[2], "model.safetensors")),
  config: JSON.parse(readFileSync(join(process.argv[2], "config.json"), "utf8")),
});
console.log(await codec.fingerprint());

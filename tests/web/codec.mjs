// Sound through the codec:  node codec.mjs FOLDER CODEBOOKS  with samples (float32) as the standard input. The samples
// come in odd chunks; of the frames some are lost, some have fewer codebooks, and at some the decoder is reset. Writes
// the number of codes (int32), the codes (uint16) and the samples (float32); test_web_codec.py does the same.

import { readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { loadCodec } from "../../streaming_encodec/web/codec/index.js";
import { file } from "./codec_kit.mjs";

const [folder, books] = [process.argv[2], Number(process.argv[3])];
const codec = await loadCodec({
  wasm: file("web/codec/kernel.wasm"),
  weights: readFileSync(join(folder, "model.safetensors")),
  config: JSON.parse(readFileSync(join(folder, "config.json"), "utf8")),
});
const input = new Uint8Array(readFileSync(0)), pcm = new Float32Array(input.buffer, 0, input.length / 4), { channels } = codec;

let encoder = codec.createEncoder({ codebooks: books });
/** @type {number[]} */
const codes = [];
for (let at = 0, i = 0, n = 0; at < pcm.length; at += n, i++) {
  n = Math.min(pcm.length - at, channels * ((i * 7919) % 1500));
  codes.push(...encoder.encode(pcm.subarray(at, at + n)));
  if (i % 20 === 19) { // the state is a value
    const other = codec.createEncoder({ codebooks: books });
    other.restore(encoder.state());
    encoder.close();
    encoder = other;
  }
}
codes.push(...encoder.flush());

let decoder = codec.createDecoder();
/** @type {Float32Array[]} */
const sound = [];
for (let frame = 0; frame < codes.length / books; frame++) {
  const all = Uint16Array.from(codes.slice(frame * books, (frame + 1) * books));
  if (frame % 97 === 50) decoder.reset();
  if (frame % 10 === 9 || frame % 60 > 54) sound.push(decoder.conceal());
  else sound.push(decoder.decode(frame % 31 ? all : all.subarray(0, 1), 1));
  if (frame % 40 === 39) {
    const other = codec.createDecoder();
    other.restore(decoder.state());
    decoder.close();
    decoder = other;
  }
}
sound.push(decoder.flush());

/** @param {ArrayBufferView} view */
function give(view) {
  const bytes = Buffer.from(view.buffer, view.byteOffset, view.byteLength);
  for (let done = 0; done < bytes.length; ) done += writeSync(1, bytes, done);
}
give(Int32Array.of(codes.length));
give(Uint16Array.from(codes));
for (const piece of sound) give(piece);

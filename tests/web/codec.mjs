// Sound through the codec:  node codec.mjs FOLDER CODEBOOKS  with samples (float32) as the standard input. The samples
// come in odd chunks; of the frames some are lost, some have fewer codebooks, and at some the decoder is reset. Writes
// the number of codes (int32), the codes (uint16) and the samples (float32); test_web_codec.py does the same. Another decoder is stepped together with a
// changing number of others, and must make the same sound.

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
const twin = codec.createDecoder(), others = Array.from({ length: 10 }, () => codec.createDecoder());
/** @param {Uint16Array | null} its @param {number} frame @param {Float32Array} alone */
function compare(its, frame, alone) {
  const some = others.slice(0, (frame * 5) % 11), place = frame % (some.length + 1);
  /** @type {(Uint16Array | null)[]} */
  const frames = some.map((_, i) => ((frame + i) % 4 ? Uint16Array.from({ length: 1 + (i % books) }, (_, k) => (i + k + frame) % 16) : null));
  const all = some.slice();
  all.splice(place, 0, twin);
  frames.splice(place, 0, its);
  const made = codec.decodeTogether(all, frames)[place];
  if (Buffer.compare(Buffer.from(made.buffer), Buffer.from(alone.buffer))) throw new Error(`frame ${frame} differs beside ${some.length} others`);
}

/** @type {Float32Array[]} */
const sound = [];
for (let frame = 0; frame < codes.length / books; frame++) {
  const all = Uint16Array.from(codes.slice(frame * books, (frame + 1) * books));
  if (frame % 97 === 50) for (const one of [decoder, twin, others[frame % 10]]) one.reset();
  const given = frame % 10 === 9 || frame % 60 > 54 ? null : frame % 31 ? all : all.subarray(0, 1);
  sound.push(given ? decoder.decode(given, 1) : decoder.conceal());
  compare(given, frame, sound[sound.length - 1]);
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

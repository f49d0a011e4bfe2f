// A minute of sound through kernel.wasm in node: as kernel_program.c, file for file.
import { readFileSync, writeSync } from "node:fs";

const { instance } = await WebAssembly.instantiate(readFileSync(process.argv[2]), {});
const { memory, kernel_run, kernel_scratch, kernel_search, kernel_lookup, __heap_base } = instance.exports;

const input = readFileSync(0);
const [imageFloats, samples, hop, firstSamples, firstFrames, books, size] = new Int32Array(input.buffer, input.byteOffset, 7);

let end = (__heap_base.value + 63) & ~63;
function reserve(floats) {
  const at = end;
  end = (end + 4 * floats + 63) & ~63;
  const missing = end - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  return at;
}
const image = reserve(imageFloats), pcm = reserve(samples), latent = reserve(1 << 16);
const states = [0, 1, 2, 3].map(() => reserve(1 << 16));
const most = Math.ceil(samples / hop) + 8;
const codes = reserve(most * books), sound = reserve(most * hop);
new Uint8Array(memory.buffer).set(input.subarray(28, 28 + 4 * imageFloats), image);
new Uint8Array(memory.buffer).set(input.subarray(28 + 4 * imageFloats), pcm);
const scratch = reserve(Math.max(1 << 20, kernel_scratch(image, 0, 1, firstSamples), kernel_scratch(image, 1, 1, firstFrames)));

let frames = 0, made = 0;
for (let at = 0, step = 0, last = false, n; !last; at += n, step++) {
  last = step > 0 && samples - at < hop;
  n = step === 0 ? firstSamples : last ? samples - at : hop;
  const phase = step === 0 ? 0 : last ? 2 : 1;
  const out = kernel_run(image, 0, phase, 1, n, pcm + 4 * at, latent, states[step % 2], states[1 - (step % 2)], scratch);
  kernel_search(image, out, books, latent, codes + 4 * frames * books, scratch);
  frames += out;
}
for (let at = 0, step = 0, n; at < frames; at += n, step++) {
  n = step === 0 ? firstFrames : 1;
  kernel_lookup(image, n, books, codes + 4 * at * books, latent);
  const before = states[2 + (step % 2)], after = states[3 - (step % 2)];
  made += kernel_run(image, 1, step === 0 ? 0 : 1, 1, n, latent, sound + 4 * made, before, after, scratch);
}
function give(at, bytes) {
  for (let done = 0; done < bytes; ) done += writeSync(1, new Uint8Array(memory.buffer, at + done, bytes - done));
}
give(codes, 4 * frames * books);
give(sound, 4 * made);

// Sound through EncodeStream and DecodeStream in pieces, and through encoder and decoder at once: "same".

import { readFileSync } from "node:fs";
import { DecodeStream, EncodeStream } from "../../streaming_encodec/web/codec/index.js";
import { bundled } from "./codec_kit.mjs";

const codec = await bundled(), books = 4;
const input = new Uint8Array(readFileSync(0)), pcm = new Float32Array(input.buffer, 0, input.length / 4);
const encoder = codec.createEncoder({ codebooks: books });
const codes = [...encoder.encode(pcm), ...encoder.flush()];
const whole = codec.createDecoder().decode(Uint16Array.from(codes), codes.length / books);

const pieces = new ReadableStream({
  start(controller) {
    for (let at = 0, n = 1; at < pcm.length; at += n, n = (n * 7) % 2003) controller.enqueue(pcm.subarray(at, at + n));
    controller.close();
  },
});
const heard = pieces
  .pipeThrough(new EncodeStream(codec.createEncoder({ codebooks: books })))
  .pipeThrough(new DecodeStream(codec.createDecoder(), books));
let at = 0;
for await (const chunk of /** @type {AsyncIterable<Float32Array>} */ (/** @type {unknown} */ (heard))) {
  for (const sample of chunk) if (!Object.is(sample, whole[at++])) throw new Error(`sample ${at} differs`);
}
console.log(at === whole.length && at > pcm.length ? "same" : `${at} of ${whole.length}`);

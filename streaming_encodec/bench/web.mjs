// The codec and the voice ends in JavaScript, measured by bench/web.py: lines of JSON on the standard input are answered
// with a line each. {"frames": n}: milliseconds to encode and to decode each of them. {"speakers": n, "seconds": s}:
// processor seconds for a call in which one speaks and listens to n others, all of them all the time.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { IncomingVoices, OutgoingVoice } from "../web/call/index.js";
import { loadCodec } from "../web/codec/index.js";
import { LIVE_PLAYOUT } from "../web/voice/index.js";
import { withSender } from "../web/wire/index.js";

const file = (/** @type {string} */ path) => readFileSync(new URL(path, import.meta.url));
const codec = await loadCodec({
  wasm: file("../web/codec/kernel.wasm"),
  weights: file("../assets/voice-24khz/model.safetensors"),
  config: JSON.parse(file("../assets/voice-24khz/config.json").toString("utf8")),
});
const format = await codec.format(), encoder = codec.createEncoder({ codebooks: 8 }), decoder = codec.createDecoder();
const input = new Uint8Array(readFileSync(process.argv[2])), pcm = new Float32Array(input.buffer), hop = codec.hop;
let at = 0;

function sound(/** @type {number} */ count) {
  at = at + count > pcm.length ? count : at + count;
  return pcm.subarray(at - count, at);
}

/** @param {number} frames */
function measure(frames) {
  return Array.from({ length: frames }, () => {
    const block = sound(hop), begin = performance.now(), codes = encoder.encode(block), middle = performance.now();
    decoder.decode(codes, 1);
    return [middle - begin, performance.now() - middle];
  });
}

/**
 * @param {number} speakers
 * @param {number} seconds
 */
function call(speakers, seconds) {
  const make = () => new OutgoingVoice(codec, format, { dtx: false, firstSequence: 0, firstTimestamp: 0 });
  const others = Array.from({ length: speakers }, make), step = 3 * hop, stepS = step / codec.sampleRate;
  const rounds = Math.floor(seconds / stepS);
  const packets = Array.from({ length: rounds }, (_, i) => others.flatMap((one, n) => one.push(sound(step), i * stepS).map((data) => withSender(data, n + 1))));
  const own = make(), incoming = new IncomingVoices(codec, format, { settings: LIVE_PLAYOUT, nowS: 0, onReports: () => {} });
  const before = process.cpuUsage();
  packets.forEach((some, i) => {
    own.push(sound(step), i * stepS);
    for (const data of some) incoming.onPacket(data, i * stepS);
    for (let j = 0; j < 3; j++) incoming.read(hop, i * stepS + (j * hop) / codec.sampleRate + 0.02);
  });
  const { user, system } = process.cpuUsage(before);
  return { cpu_s: (user + system) / 1e6, audio_s: rounds * stepS };
}

console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  console.log(JSON.stringify("frames" in asked ? measure(asked.frames) : call(asked.speakers, asked.seconds)));
}

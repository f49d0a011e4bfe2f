// What the sender in JavaScript makes of sound:  node outgoing.mjs SCRIPT.json  with samples (float32) as the standard
// input. The script: {settings, dtx, kbps, first: [sequence, timestamp], steps}; a step is {push: samples, at}, {report,
// at, ordered}, {kbps} or {finish: true}. Prints the packets, a line of hex each, with "." after each step.

import { readFileSync } from "node:fs";
import { OutgoingVoice } from "../../streaming_encodec/web/call/index.js";
import { bundled } from "./codec_kit.mjs";

const script = JSON.parse(readFileSync(process.argv[2], "utf8"));
const input = new Uint8Array(readFileSync(0)), pcm = new Float32Array(input.buffer, 0, input.length / 4);
const codec = await bundled();
const voice = new OutgoingVoice(codec, await codec.format(), {
  kbps: script.kbps, settings: script.settings, dtx: script.dtx, firstSequence: script.first[0], firstTimestamp: script.first[1],
});
/** @type {string[]} */
const lines = [];
let at = 0;
for (const step of script.steps) {
  /** @type {Uint8Array[]} */
  let packets = [];
  if ("push" in step) packets = voice.push(pcm.subarray(at, (at += step.push)), step.at);
  else if ("report" in step) voice.onReport(step.report, step.at, { ordered: step.ordered });
  else if ("kbps" in step) voice.kbps = step.kbps;
  else packets = voice.finish();
  lines.push(...packets.map((data) => Buffer.from(data).toString("hex")), ".");
}
console.log(lines.join("\n"));

// What the receiver in JavaScript makes of traces:  node replay.mjs TRACE.jsonl…  prints a line of JSON for each.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { Mixer } from "../../streaming_encodec/web/call/index.js";
import { delaySettings, receiverSettings } from "../../streaming_encodec/web/voice/index.js";
import { bundled } from "./codec_kit.mjs";

const DELAY = Object.keys(delaySettings());
const codec = await bundled(), format = await codec.format();

/** @param {string} name */
function camel(name) {
  return name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
}

/** @param {Record<string, number>} playout */
function settingsOf(playout) {
  const all = Object.entries(playout).map(([name, value]) => [camel(name), value]);
  const delay = delaySettings(Object.fromEntries(all.filter(([name]) => DELAY.includes(String(name)))));
  return receiverSettings({ ...Object.fromEntries(all.filter(([name]) => !DELAY.includes(String(name)))), delay });
}

/** @param {any[]} lines */
function replay(lines) {
  /** @type {Record<string, unknown[]>} */
  const instructions = {};
  /** @type {unknown[]} */
  const pulls = [], /** @type {unknown[]} */ reports = [];
  /** @type {Record<string, unknown>} */
  const statistics = {};
  const digest = createHash("sha256");
  const mixer = new Mixer(format, codec, {
    settings: settingsOf(lines[0].playout),
    observe: (sender, i, heardS) => {
      (instructions[sender] ??= []).push([
        i.kind, i.frame, i.lostFrames, i.redundant, i.reset, i.pace, i.spareSamples, i.noise, i.codes?.length ?? 0, i.following.length, heardS,
      ]);
    },
  });
  for (const line of lines.slice(1)) {
    if ("packet" in line) {
      const data = Uint8Array.from(Buffer.from(line.packet, "hex"));
      mixer.receive(data[4] | (data[5] << 8), data, line.at);
    } else if ("pull" in line) {
      for (const [sender, one] of mixer.statistics) statistics[sender] = one; // also of those who leave now
      const ahead = line.certain ? mixer.readWhole(line.pull, line.at, { certain: true }) : null;
      const pcm = ahead ?? (line.certain ? mixer.readWhole(line.pull, line.at, { certain: false }) : mixer.read(line.pull, line.at));
      if (!pcm) throw new Error("nothing to play");
      digest.update(new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength));
      pulls.push([ahead !== null, pcm.length, [...mixer.targetMs].sort(([a], [b]) => a - b)]);
    } else if ("leave" in line) mixer.leave(line.leave);
    else reports.push(mixer.reports());
  }
  return { instructions, pulls, reports, statistics, bad: mixer.badPackets, sound: digest.digest("hex") };
}

for (const path of process.argv.slice(2)) {
  const lines = readFileSync(path, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
  console.log(JSON.stringify(replay(lines)));
}

// The package by its name, as a program that installed it has it:  node installed.mjs FOLDER
// @ts-nocheck: the name is known only where it is installed

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { loadCodec } from "streaming-encodec-web";
import { Receiver } from "streaming-encodec-web/voice";
import { parsePacket } from "streaming-encodec-web/wire";
import { OutgoingVoice } from "streaming-encodec-web/call";

const folder = process.argv[2];
const codec = await loadCodec({
  wasm: await readFile(fileURLToPath(import.meta.resolve("streaming-encodec-web/kernel.wasm"))),
  weights: await readFile(`${folder}/model.safetensors`),
  config: JSON.parse(await readFile(`${folder}/config.json`, "utf8")),
});
const format = await codec.format(), receiver = new Receiver(format);
const voice = new OutgoingVoice(codec, format, { firstSequence: 0, firstTimestamp: 0 });
for (const packet of voice.push(new Float32Array(4800), 0)) {
  parsePacket(packet);
  receiver.receive(packet, 0);
}
const codes = codec.createEncoder({ codebooks: 8 }).encode(new Float32Array(24_000));
console.log(`${codec.createDecoder().decode(codes, codes.length / 8).length} samples`);

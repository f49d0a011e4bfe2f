// The golden packets, read and written by packet.mjs:  node vectors.mjs packets.json

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readPacket, writePacket } from "./packet.mjs";

const { good, bad } = JSON.parse(readFileSync(process.argv[2], "utf8"));
for (const { hex, bits_per_code: bits = 10, ...fields } of good) {
  const wanted = { sequence: 0, timestamp: 0, sender: 0, start: false, end: false, bits, ...fields };
  assert.deepEqual(readPacket(Buffer.from(hex, "hex")), wanted);
  assert.equal(writePacket(wanted).toString("hex"), hex);
}
for (const { hex, why } of bad) assert.throws(() => readPacket(Buffer.from(hex, "hex")), Error, why);
console.log(JSON.stringify({ good: good.length, bad: bad.length }));

// Whether voice is due:  node streams_due.mjs < one JSON line for each event
// [time, "packet", hex] [time, "left", sender] [time, "welcome"]: prints true or false after each.

import { readFileSync } from "node:fs";
import { Streams } from "../../streaming_encodec/web/client/streams.js";

const streams = new Streams();
const lines = readFileSync(0, "utf8").trim().split("\n").map((line) => JSON.parse(line));
const said = lines.map(([nowS, kind, about]) => {
  if (kind === "packet") streams.onPacket(Uint8Array.from(Buffer.from(about, "hex")), nowS);
  if (kind === "left") streams.onLeft(about);
  if (kind === "welcome") streams.clear();
  return streams.isVoiceDue(nowS);
});
console.log(JSON.stringify(said));

// Packets from the standard input, a line of hex each: how they are written again, or the name of the error.

import { readFileSync } from "node:fs";
import { StreamFormat, parsePacket, serializePacket } from "../../streaming_encodec/web/wire/index.js";

const small = new StreamFormat({ model: "0".repeat(32), maxCodebooks: 4, codebookSize: 1000 });

/** @param {unknown} error */
const nameOf = (error) => (error instanceof Error ? error.name : String(error));

/** @param {string} line */
function read(line) {
  let packet;
  try {
    packet = parsePacket(Buffer.from(line, "hex"));
  } catch (error) {
    return nameOf(error);
  }
  const hex = Buffer.from(serializePacket(packet)).toString("hex");
  try {
    small.checkPacket(packet);
  } catch (error) {
    return nameOf(error) === "PacketError" ? `${hex} other format` : nameOf(error);
  }
  return hex;
}

console.log(readFileSync(0, "utf8").split("\n").map(read).join("\n"));

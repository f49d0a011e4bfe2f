// Packets of a call: docs/protocol.md.

export { PacketError, StreamError } from "../errors.js";
export { cutPacket, readHeader, withSender, NO_NOISE, MAX_PACKET_BYTES, PROTOCOL_VERSION } from "./header.js";
export { makePacket, parsePacket, serializePacket, packetSize } from "./packet.js";
export { StreamFormat, MAX_SPEAKERS } from "./streamFormat.js";
/** @typedef {import("./packet.js").Packet} Packet */
/** @typedef {import("./packet.js").Frame} Frame */

// The page's link between a WebSocket and a datagram session of this program:  node link.mjs  prints what came of it.

import { Link } from "../../streaming_encodec/web/client/link.js";

const END = 16;
/** @type {Record<"messages" | "packets" | "overSocket" | "overDatagrams", any[]>} */
const came = { messages: [], packets: [], overSocket: [], overDatagrams: [] };
/** @type {any} */
let socket;
/** @type {any} */
let incoming;

class FakeSocket {
  bufferedAmount = 0;
  constructor() {
    socket = this;
  }
  /** @param {string | Uint8Array} data */
  send(data) {
    if (typeof data !== "string") came.overSocket.push(data[2]);
  }
  close() {}
}

class FakeTransport {
  ready = Promise.resolve();
  closed = new Promise(() => undefined);
  datagrams = {
    maxDatagramSize: 1200,
    writable: new WritableStream({ write: (bytes) => void came.overDatagrams.push(bytes[2]) }),
    readable: new ReadableStream({ start: (controller) => void (incoming = controller) }),
  };
  close() {}
}

Object.defineProperty(globalThis, "performance", { value: { now: () => 1000 } }); // however slow the machine is
Object.assign(globalThis, { WebSocket: FakeSocket, WebTransport: FakeTransport });
const turn = () => new Promise((done) => setTimeout(done));
/** A packet's first bytes, as far as the link looks at them. @param {number} number @param {number} [flags] */
const packet = (number, flags = 0) => Uint8Array.of(0xe1, flags, number);
/** @param {string} text */
const bytes = (text) => new TextEncoder().encode(text);

const link = new Link("ws://127.0.0.1:1", {}, {
  onPacket: (data) => came.packets.push(data[2]), onMessage: (message) => came.messages.push(message.type),
  onTicket: () => undefined, onLost: () => undefined, onOver: () => undefined,
});
link.open();
socket.onopen();
const datagrams = { port: 1, key: "k", certificate_sha256: "0".repeat(64) };
socket.onmessage({ data: JSON.stringify({ type: "welcome", protocol: 1, sender: 7, speakers: [], datagrams }) });
while (incoming === undefined) await turn();
incoming.enqueue(packet(1));
while (link.sendsOrdered) await turn();
for (const text of ["{", '{"type":"joined","sender":3}', '{"type":"left","sender":3}']) incoming.enqueue(bytes(text));
while (!came.messages.includes("left")) await turn();
link.send(packet(2));
link.send(packet(3, END));
await turn();
socket.onmessage({ data: packet(4, END).buffer }); // the relay sends the end both ways, and doubts nothing
const trusted = !link.sendsOrdered && !link.hearsOrdered;
socket.onmessage({ data: packet(5).buffer });
const doubted = link.sendsOrdered && link.hearsOrdered;
link.send(packet(6));
await turn();
link.close();
console.log(JSON.stringify({ ...came, trusted, doubted, dropped: link.packetsDropped }));
process.exit(0);

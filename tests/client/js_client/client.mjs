// A client of streaming-encodec's protocol, version 1, written from docs/protocol.md alone.
//
// It joins a room, says the codes of a file at the pace of speech, and notes all that it is sent:
//     node client.mjs JOB OUT
// JOB and OUT are JSON files. JOB: {url, room, format, token, codes: [codebooks of frames], framesPerPacket,
// cutAfter: packets after which the connection is cut once, to come back with the ticket}. The client leaves when
// it has said all and everybody that it heard has ended. Lines of its output: "welcome NUMBER", "said all".

import { readFileSync, writeFileSync } from "node:fs";
import { randomInt } from "node:crypto";
import WebSocket from "ws";
import { readPacket, writePacket } from "./packet.mjs";

const [, , jobFile, outFile] = process.argv;
const job = JSON.parse(readFileSync(jobFile, "utf8"));
const frames = job.framesPerPacket ?? 3;
const bits = Math.max(1, Math.ceil(Math.log2(job.format.codebook_size)));
const frameMs = (1000 * job.format.frame_samples) / job.format.sample_rate;

const heard = {}; // by the number of the speaker
const log = { sent: [], told: [], welcomes: 0, resumed: 0, heard };
let socket, ticket, heartbeat, lastSaid = 0, over = false, cutAfter = job.cutAfter ?? Infinity;

// -- speaking ------------------------------------------------------------------------------------------------------

let sequence = randomInt(65536), timestamp = randomInt(2 ** 32), said = 0, ended = false;

function sendPacket(packet, length) {
  const bytes = writePacket({ bits, sequence, timestamp, ...packet });
  sequence = (sequence + 1) % 65536; // also where there is no connection: listeners count it as lost
  timestamp = (timestamp + length) % 2 ** 32;
  if (socket.readyState !== WebSocket.OPEN || !ticket) return;
  socket.send(bytes);
  lastSaid = Date.now();
  if (--cutAfter === 0) socket.terminate();
}

function speak(begin) {
  const total = job.codes[0].length;
  const due = Math.floor((Date.now() - begin) / frameMs);
  while (said < total && said + frames <= due) {
    const codes = job.codes.map((row) => row.slice(said, said + frames));
    sendPacket({ codes, start: said === 0 }, codes[0].length);
    said += codes[0].length;
  }
  if (said >= total && !ended) {
    ended = true;
    sendPacket({ noise: [127, 127, 127, 127, 127, 127], end: true }, 1);
    console.log("said all");
    leaveIfDone();
  }
}

// -- listening -----------------------------------------------------------------------------------------------------

function hear(bytes) {
  let p;
  try {
    p = readPacket(bytes);
  } catch {
    return;
  }
  const speaker = (heard[p.sender] ??= { codes: [], packets: 0, lost: 0, noise: 0, ended: false, interval: [0, 0] });
  const missing = speaker.last === undefined ? 0 : (p.sequence - speaker.last - 1 + 65536) % 65536;
  speaker.last = p.sequence;
  speaker.packets++;
  speaker.lost += missing;
  speaker.ended = p.end;
  if (p.noise) speaker.noise++;
  else for (let f = 0; f < p.codes[0].length; f++) speaker.codes.push(p.codes.map((row) => row[f]));
  if (p.end) leaveIfDone();
}

function sendReports() {
  for (const [number, speaker] of Object.entries(heard)) {
    const packets = speaker.packets - speaker.interval[0], lost = speaker.lost - speaker.interval[1];
    speaker.interval = [speaker.packets, speaker.lost];
    if (packets) {
      say({
        type: "report", sender: Number(number), fraction_lost: lost / (lost + packets), fraction_concealed: 0,
        burst_frames: 0, jitter_ms: 0, playout_delay_ms: 0,
      });
    }
  }
}

// -- the connection ------------------------------------------------------------------------------------------------

function say(message) {
  if (socket.readyState !== WebSocket.OPEN) return;
  const text = JSON.stringify(message);
  log.sent.push(text);
  lastSaid = Date.now();
  socket.send(text);
}

function take(text) {
  log.told.push(text);
  const message = JSON.parse(text);
  if (message.type === "welcome") {
    log.welcomes++;
    log.resumed += message.resumed ? 1 : 0;
    ticket = message.resume;
    clearInterval(heartbeat);
    const everyMs = 1000 * (message.heartbeat_s ?? 5);
    heartbeat = setInterval(() => {
      if (Date.now() - lastSaid >= everyMs) say({ type: "layers", max_codebooks: job.format.max_codebooks });
    }, everyMs);
    console.log(`welcome ${message.sender}`);
  } else if (message.type === "left") {
    if (heard[message.sender]) heard[message.sender].ended = true;
    leaveIfDone();
  }
}

function leaveIfDone() {
  const others = Object.values(heard);
  if (!ended || !others.length || !others.every((speaker) => speaker.ended)) return;
  say({ type: "bye" });
  socket.close(1000);
}

const OVER = [1000, 1002, 1007, 1009, 4001, 4400, 4403, 4409, 4421, 4426];

function connect(attempt = 0) {
  const headers = job.token ? { Authorization: `Bearer ${job.token}` } : {};
  socket = new WebSocket(job.url, "streaming-encodec.v1", { perMessageDeflate: false, headers });
  const hello = { type: "hello", protocol: 1, room: job.room, role: "both", format: job.format, resume: ticket };
  socket.on("open", () => say(hello));
  socket.on("message", (data, isBinary) => (isBinary ? hear(data) : take(data.toString())));
  socket.on("error", (error) => console.error(error.message));
  socket.on("close", (code) => {
    if (over) return;
    log.code = code;
    if (OVER.includes(code) || attempt > 50) return finish();
    attempt = ticket ? attempt + 1 : Infinity; // never welcomed: trying again is for people to decide
    setTimeout(connect, Math.min(1200, 50 * 2 ** attempt) * (0.5 + Math.random() / 2), attempt);
  });
}

function finish() {
  over = true;
  writeFileSync(outFile, JSON.stringify(log));
  process.exit(log.code === 1000 ? 0 : 1);
}

connect();
const begin = setInterval(() => {
  if (!ticket) return;
  clearInterval(begin);
  const now = Date.now();
  setInterval(() => speak(now), 5);
  setInterval(sendReports, 1000);
}, 5);

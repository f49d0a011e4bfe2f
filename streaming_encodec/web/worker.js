// The thread of a call: codec, connection and jitter buffers. The page has the other end of its messages
// (page/engine.js), the worklets hand it their ports.

import { Station } from "./audio/station.js";
import { Session } from "./client/session.js";
import { loadCodec } from "./codec/index.js";
import { UnsupportedError } from "./errors.js";
import { VoiceActivityDetector } from "./voice/vad.js";
import { StreamFormat } from "./wire/index.js";

/** @typedef {import("./codec/codec.js").Codec} Codec */
/** @typedef {import("./page/engine.js").ToWorker} ToWorker */
/** @typedef {import("./page/engine.js").FromWorker} FromWorker */

/** Somebody who was muted spoke for so long, of the last moments, before a notice is of use. */
const MUTED_SPEECH_S = 0.4;
const LOUD_PEAK = 0.03;

/** @type {Codec} */
let codec;
/** @type {StreamFormat} */
let format;
/** @type {Station | null} */
let station = null;
/** @type {Session | null} */
let session = null;
let muted = false, spokenS = 0, heardS = 0;
/** @type {VoiceActivityDetector} */
let vad;

/** @param {FromWorker} message */
function tell(message) {
  self.postMessage(message);
}

/** @param {{kernel: string, weights: string, config: string, bytes: number, format: any}} files */
async function load({ kernel, weights, config, bytes, format: said }) {
  const beginMs = performance.now();
  const [wasm, tensors, configuration] = await Promise.all([
    fetchBytes(kernel), fetchBytes(weights, (done) => tell({ type: "loading", share: Math.min(1, done / bytes) })),
    fetchBytes(config).then((text) => JSON.parse(new TextDecoder().decode(text))),
  ]);
  const loadedMs = performance.now();
  codec = await loadCodec({ wasm, weights: tensors, config: configuration, fingerprint: said.model });
  format = new StreamFormat({
    model: said.model, sampleRate: said.sample_rate, channels: said.channels, frameSamples: said.frame_samples,
    maxCodebooks: said.max_codebooks, codebookSize: said.codebook_size,
  });
  const encoder = codec.createEncoder({ codebooks: codec.maxCodebooks }); // computes the silence before the first stream
  encoder.encode(new Float32Array(format.frameSamples));
  encoder.close();
  vad = new VoiceActivityDetector(0.07); // it is asked once for each level
  tell({
    type: "ready", bandwidths: [...codec.bandwidths], codebooks: codec.bandwidths.map((kbps) => codec.codebooksFor(kbps)),
    rate: format.sampleRate, frameSamples: format.frameSamples,
    loadMs: loadedMs - beginMs, startMs: performance.now() - loadedMs,
  });
}

/**
 * @param {string} url
 * @param {(done: number) => void} [onProgress]
 */
async function fetchBytes(url, onProgress) {
  const answer = await fetch(url);
  if (!answer.ok || answer.body === null) throw new Error(`${answer.status}`);
  const parts = [], reader = answer.body.getReader();
  let done = 0;
  for (;;) {
    const { value } = await reader.read();
    if (value === undefined) break;
    parts.push(value);
    done += value.length;
    onProgress?.(done);
  }
  const bytes = new Uint8Array(done);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/**
 * @param {number} peak
 * @param {Float32Array} pcm
 */
function onLevel(peak, pcm) {
  const speaking = peak > LOUD_PEAK && !vad.isSilent(pcm);
  const nowS = performance.now() / 1000, passedS = Math.min(0.2, nowS - heardS);
  heardS = nowS;
  spokenS = Math.max(0, Math.min(1, spokenS + (speaking ? passedS : -passedS / 2)));
  tell({ type: "level", peak, speaking, mutedSpeech: muted && session !== null && spokenS > MUTED_SPEECH_S });
}

/** @type {{[Kind in ToWorker["type"]]: (message: Extract<ToWorker, {type: Kind}>) => void}} */
const HANDLERS = {
  load: ({ files }) => {
    load(files).catch((/** @type {Error} */ error) => {
      tell({ type: "failed", unsupported: error instanceof UnsupportedError, detail: error.message });
    });
  },
  audio: ({ capture, playback, contextRate }) => {
    station = new Station(
      { capture, playback, contextRate, rate: format.sampleRate, hop: format.frameSamples }, onLevel,
      (state) => tell({ type: "test", state }),
    );
    station.call = session;
  },
  test: () => station?.test(),
  join: ({ options }) => {
    session?.leave();
    session = new Session(codec, format, { ...options, nowS: performance.now() / 1000 }, {
      onState: (state) => tell({ type: "state", state }),
      onOver: (code, reason) => {
        session = null;
        if (station) station.call = null;
        tell({ type: "over", code, reason });
      },
      onPeople: (others) => tell({ type: "people", others }),
      onTicket: (ticket) => tell({ type: "ticket", ticket }),
      onQuality: (quality) => tell({ type: "quality", quality, underruns: station?.underruns ?? 0 }),
    });
    session.muted = muted;
    if (station) station.call = session;
  },
  mute: (message) => {
    muted = message.muted;
    spokenS = 0;
    if (session) session.muted = muted;
  },
  kbps: ({ kbps }) => {
    if (session) session.kbps = kbps;
  },
  codebooks: ({ codebooks }) => {
    if (session) session.codebooks = codebooks;
  },
  hurry: () => session?.hurry(),
  leave: () => session?.leave(),
};

self.onmessage = ({ data }) => /** @type {(message: ToWorker) => void} */ (HANDLERS[/** @type {ToWorker} */ (data).type])(data);

setInterval(() => session?.look(performance.now() / 1000), 1000);
setInterval(() => {
  if (session) tell({ type: "speakers", levels: [...session.levels] });
}, 100);

// Mirrors engines/kernel/codec.py and stepping/silence.py: a model in the kernel, and what silence leaves behind in it.

import { StreamError } from "../errors.js";
import { StreamFormat } from "../wire/streamFormat.js";
import { outputsOf } from "./architecture.js";
import { EncodecConfig } from "./config.js";
import { Decoder } from "./decoder.js";
import { Encoder } from "./encoder.js";
import { fingerprintOf } from "./fingerprint.js";
import { writeImage } from "./image.js";
import { FLUSH, Kernel, MOST_FRAMES, MOST_ROWS, START, STEP } from "./kernel.js";
import { Weights } from "./weights.js";

/** @typedef {import("./architecture.js").Part} Part */

/** Zero frames before a stream that starts in silence. */
const SILENCE_FRAMES = 64;

/**
 * Everything a stream remembers between two calls: inputs that do not yet fill a frame, the layers' state (null before
 * the first frame), and outputs that still belong to the silence before the stream.
 * @typedef {object} HalfState
 * @property {Float32Array} pending
 * @property {Float32Array | null} layers
 * @property {number} skip
 */

/**
 * Compile the kernel and lay a model out for it.
 *
 * wasm: bytes of kernel.wasm, or the compiled module. weights: bytes of model.safetensors, any float type. config: the
 * object of config.json. fingerprint: the model's, where it is known; computing it takes a moment.
 *
 * Throws UnsupportedError, ConfigError or CheckpointError; each message says what to do.
 * @param {{wasm: BufferSource | WebAssembly.Module, weights: ArrayBuffer | Uint8Array, config: unknown, fingerprint?: string}} files
 */
export async function loadCodec({ wasm, weights, config, fingerprint }) {
  const stored = new Weights(weights instanceof Uint8Array ? weights : new Uint8Array(weights));
  const said = new EncodecConfig(config), kernel = await Kernel.load(wasm);
  // transformers until 4.51 counted 10 bits a code whatever the codebooks' size: then the weights say how many there are.
  const older = Math.floor((1000 * said.bandwidths[said.bandwidths.length - 1]) / (said.frameRate * 10));
  const known = stored.numCodebooks === older ? new EncodecConfig(config, older) : said;
  return new Codec(kernel, known, stored, fingerprint);
}

/** A model. It makes any number of encoders and decoders, which share its memory. */
export class Codec {
  #kernel;
  #config;
  #weights;
  /** @type {Promise<string> | undefined} */
  #fingerprint;
  #parts;
  #image;
  #scratch;
  #scratchFrames;
  #latent;
  #codes;
  #sound;
  /** Of streams that take a step together: their states before it and after it. */
  #rows;
  /** @type {{encoder: HalfState, codes: Uint16Array, decoders: Map<number, HalfState>} | undefined} */
  #silence;

  /**
   * @param {Kernel} kernel
   * @param {EncodecConfig} config
   * @param {Weights} weights
   * @param {string} [fingerprint]
   */
  constructor(kernel, config, weights, fingerprint) {
    this.#kernel = kernel;
    this.#config = config;
    this.#weights = weights;
    if (fingerprint !== undefined) this.#fingerprint = Promise.resolve(fingerprint);
    const { at, encoder, decoder } = writeImage(kernel, config, weights);
    this.#image = at;
    this.#parts = [encoder, decoder];
    const starts = Math.ceil(encoder.startInputs / config.hop);
    this.#scratchFrames = Math.max(MOST_FRAMES, MOST_ROWS, starts, decoder.startInputs);
    const { kernel_scratch: scratch } = kernel.functions, frames = this.#scratchFrames;
    this.#scratch = kernel.reserve(Math.max(
      scratch(at, 0, 1, frames * config.hop), scratch(at, 1, 1, frames), scratch(at, 1, MOST_ROWS, 1), frames * (config.hiddenSize + config.codebookSize),
    ));
    this.#latent = kernel.reserve((frames + 1) * config.hiddenSize);
    this.#codes = kernel.reserve((frames + 1) * config.numCodebooks);
    this.#sound = kernel.reserve((frames + 1) * config.hop * config.channels);
    this.#rows = [0, 1].map(() => kernel.reserve(MOST_ROWS * decoder.stateFloats));
  }

  get sampleRate() {
    return this.#config.sampleRate;
  }
  get channels() {
    return this.#config.channels;
  }
  /** Samples of each channel in a frame. */
  get hop() {
    return this.#config.hop;
  }
  /** Codebooks that the model has. */
  get maxCodebooks() {
    return this.#config.numCodebooks;
  }
  get codebookSize() {
    return this.#config.codebookSize;
  }
  /** In kbps, rising. */
  get bandwidths() {
    return this.#config.bandwidths;
  }
  /** Kbps of a stream that asks for none. */
  get usualBandwidth() {
    return this.#config.usualBandwidth;
  }

  /**
   * Codebooks at a bandwidth in kbps. Throws ConfigError if it is none of the model's.
   * @param {number} kbps
   */
  codebooksFor(kbps) {
    return this.#config.codebooksFor(kbps);
  }

  /** What both ends of a call compare: 32 hexadecimal digits. */
  fingerprint() {
    this.#fingerprint ??= fingerprintOf(this.#config, this.#weights);
    return this.#fingerprint;
  }

  /** What a hello says of the codes. */
  async format() {
    return new StreamFormat({
      model: await this.fingerprint(), sampleRate: this.sampleRate, channels: this.channels, frameSamples: this.hop,
      maxCodebooks: this.maxCodebooks, codebookSize: this.codebookSize,
    });
  }

  /** @param {{codebooks?: number}} [options] codebooks: of each frame; else as many as the usual bandwidth has */
  createEncoder({ codebooks = this.codebooksFor(this.usualBandwidth) } = {}) {
    return new Encoder(this, codebooks);
  }

  createDecoder() {
    return new Decoder(this);
  }

  /**
   * A frame of each of several decoders of this codec; null conceals. The same bits as one after the other, in less
   * time: the weights are read once.
   * @param {Decoder[]} decoders each once
   * @param {(Uint16Array | null)[]} frames
   */
  decodeTogether(decoders, frames) {
    return Decoder.together(this, decoders, frames);
  }

  // -- for streams ------------------------------------------------------------------------------------------------

  /**
   * Memory for a part's states, two of them: before a step and after it.
   * @param {0 | 1} part encoder or decoder
   */
  openState(part) {
    const floats = this.#parts[part].stateFloats;
    return [this.#kernel.reserve(floats), this.#kernel.reserve(floats)];
  }

  /**
   * @param {0 | 1} part
   * @param {number[]} states
   */
  closeState(part, states) {
    for (const at of states) this.#kernel.release(at, this.#parts[part].stateFloats);
  }

  /**
   * @param {number} at
   * @param {Float32Array} layers
   */
  writeState(at, layers) {
    this.#kernel.floats.set(layers, at >> 2);
  }

  /**
   * @param {0 | 1} part
   * @param {number} at
   */
  readState(part, at) {
    return this.#kernel.floats.slice(at >> 2, (at >> 2) + this.#parts[part].stateFloats);
  }

  /** @param {0 | 1} part */
  stateFloats(part) {
    return this.#parts[part].stateFloats;
  }

  /**
   * Samples to latents, in the kernel's memory; returns how many.
   * @param {number} phase
   * @param {Float32Array} pcm
   * @param {number} begin of the samples in it
   * @param {number} count of samples of each channel
   * @param {number} before
   * @param {number} after
   */
  encodeStep(phase, pcm, begin, count, before, after) {
    const { channels } = this;
    this.#kernel.floats.set(pcm.subarray(begin * channels, (begin + count) * channels), this.#sound >> 2);
    return this.#run(0, phase, count, this.#sound, this.#latent, before, after);
  }

  /**
   * The codes of latents that `encodeStep` made, frame by frame.
   * @param {number} rows
   * @param {number} codebooks
   */
  search(rows, codebooks) {
    this.#kernel.functions.kernel_search(this.#image, rows, codebooks, this.#latent, this.#codes, this.#scratch);
    const codes = new Uint16Array(rows * codebooks), at = this.#codes >> 2, ints = this.#kernel.ints;
    for (let i = 0; i < codes.length; i++) codes[i] = ints[at + i];
    return codes;
  }

  /**
   * Codes to latents, in the kernel's memory. The codes must be in range.
   * @param {Uint16Array} codes
   * @param {number} begin
   * @param {number} rows
   * @param {number} codebooks
   * @param {number} [to] the first latent's place
   */
  lookup(codes, begin, rows, codebooks, to = 0) {
    const at = this.#codes >> 2, ints = this.#kernel.ints;
    for (let i = 0; i < rows * codebooks; i++) ints[at + i] = codes[begin * codebooks + i];
    this.#kernel.functions.kernel_lookup(this.#image, rows, codebooks, this.#codes, this.#latentAt(to));
  }

  /** @param {number} place */
  #latentAt(place) {
    return this.#latent + 4 * place * this.#config.hiddenSize;
  }

  /**
   * A latent that `lookup` made, times a factor.
   * @param {number} factor
   * @param {number} [place]
   */
  scaleLatent(factor, place = 0) {
    const floats = this.#kernel.floats, at = this.#latentAt(place) >> 2;
    for (let d = 0; d < this.#config.hiddenSize; d++) floats[at + d] *= factor;
  }

  /**
   * Latents in the kernel's memory to samples.
   * @param {number} phase
   * @param {number} frames
   * @param {number} before
   * @param {number} after
   */
  decodeStep(phase, frames, before, after) {
    const count = this.#run(1, phase, frames, this.#latent, this.#sound, before, after), at = this.#sound >> 2;
    return this.#kernel.floats.slice(at, at + count * this.channels);
  }

  /**
   * Latents in the kernel's memory to samples, one frame of each stream. Streams: where its states are, before and after.
   * @param {[before: number, after: number][]} streams at most MOST_ROWS
   */
  decodeStepTogether(streams) {
    const { floats, functions } = this.#kernel, { stateFloats } = this.#parts[1], [before, after] = this.#rows;
    streams.forEach(([state], row) => {
      floats.copyWithin((before >> 2) + row * stateFloats, state >> 2, (state >> 2) + stateFloats);
    });
    const count = functions.kernel_run(
      this.#image, 1, STEP, streams.length, 1, this.#latent, this.#sound, before, after, this.#scratch,
    ) * this.channels;
    return streams.map(([, state], row) => {
      const made = (after >> 2) + row * stateFloats, at = (this.#sound >> 2) + row * count;
      floats.copyWithin(state >> 2, made, made + stateFloats);
      return floats.slice(at, at + count);
    });
  }

  /** The encoder's state after silence: a value that nobody changes. */
  encoderAfterSilence() {
    return this.#afterSilence().encoder;
  }

  /**
   * The decoder's state after the silence's codes, with so many codebooks.
   * @param {number} codebooks
   */
  decoderAfterSilence(codebooks) {
    const { codes, decoders } = this.#afterSilence();
    let state = decoders.get(codebooks);
    if (!state) {
      const books = this.maxCodebooks, frames = codes.length / books, { startInputs } = this.#parts[1];
      const fewer = codes.filter((_, i) => i % books < codebooks);
      state = this.#through(1, frames, 1, (phase, at, count, before, after) => {
        this.lookup(fewer, at, count, codebooks);
        return this.decodeStep(phase, count, before, after).length / this.channels;
      }, startInputs, this.hop);
      decoders.set(codebooks, state);
    }
    return state;
  }

  #afterSilence() {
    if (this.#silence) return this.#silence;
    const { hop, channels } = this, { startInputs } = this.#parts[0];
    const frames = Math.max(SILENCE_FRAMES, Math.ceil(startInputs / hop), this.#parts[1].startInputs);
    const zeros = new Float32Array(this.#scratchFrames * hop * channels);
    /** @type {number[]} */
    const codes = [];
    const encoder = this.#through(0, frames * hop, hop, (phase, at, count, before, after) => {
      const rows = this.encodeStep(phase, zeros, 0, count, before, after);
      codes.push(...this.search(rows, this.maxCodebooks));
      return rows;
    }, startInputs, 1);
    const [spare, other] = this.openState(0);
    this.writeState(spare, /** @type {Float32Array} */ (encoder.layers));
    const owed = this.encodeStep(FLUSH, zeros, 0, encoder.pending.length / channels, spare, other);
    if (owed) codes.push(...this.search(owed, this.maxCodebooks));
    this.closeState(0, [spare, other]);
    this.#silence = { encoder, codes: Uint16Array.from(codes), decoders: new Map() };
    return this.#silence;
  }

  /**
   * The state after so many inputs of silence: the first `start` of them, then whole frames; the rest stay pending.
   * @param {0 | 1} part
   * @param {number} inputs
   * @param {number} unit inputs of a frame
   * @param {(phase: number, at: number, count: number, before: number, after: number) => number} step gives outputs
   * @param {number} start
   * @param {number} outputsPerFrame
   * @returns {HalfState}
   */
  #through(part, inputs, unit, step, start, outputsPerFrame) {
    let [before, after] = this.openState(part);
    let given = step(START, 0, start, before, after), at = start;
    while (inputs - at >= unit) {
      [before, after] = [after, before];
      const count = Math.min(MOST_FRAMES, Math.floor((inputs - at) / unit)) * unit;
      given += step(STEP, at, count, before, after);
      at += count;
    }
    const layers = this.readState(part, after);
    this.closeState(part, [before, after]);
    const width = part ? this.#config.hiddenSize : this.channels;
    const owed = Math.ceil(inputs / unit) * outputsPerFrame;
    return { pending: new Float32Array((inputs - at) * width), layers, skip: owed - given };
  }

  /**
   * @param {0 | 1} part
   * @param {number} phase
   * @param {number} n
   * @param {number} x
   * @param {number} y
   * @param {number} before
   * @param {number} after
   */
  #run(part, phase, n, x, y, before, after) {
    const outputs = this.#outputsOf(part, phase, n), most = (this.#scratchFrames + 1) * (part ? this.hop : 1);
    if (outputs > most) throw new StreamError(`a step gives at most ${most} outputs, not ${outputs}`);
    return this.#kernel.functions.kernel_run(this.#image, part, phase, 1, n, x, y, before, after, this.#scratch);
  }

  /**
   * @param {0 | 1} part
   * @param {number} phase
   * @param {number} n
   */
  #outputsOf(part, phase, n) {
    const name = phase === START ? "start" : phase === STEP ? "step" : "flush";
    return this.#parts[part].layers.reduce((count, layer) => outputsOf(layer, name, count), n);
  }
}

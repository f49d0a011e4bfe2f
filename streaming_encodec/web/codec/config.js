// Mirrors model/config.py: the fields of EnCodec's config.json, as far as a stream needs them.

import { ConfigError } from "../errors.js";

const DEFAULTS = {
  target_bandwidths: [1.5, 3, 6, 12, 24], sampling_rate: 24_000, audio_channels: 1, normalize: false,
  /** @type {number | null} */ chunk_length_s: null,
  hidden_size: 128, num_filters: 32, num_residual_layers: 1, upsampling_ratios: [8, 5, 4, 2],
  norm_type: "weight_norm", kernel_size: 7, last_kernel_size: 7, residual_kernel_size: 3, dilation_growth_rate: 2,
  use_causal_conv: true, pad_mode: "reflect", compress: 2, num_lstm_layers: 2, trim_right_ratio: 1,
  codebook_size: 1024, use_conv_shortcut: true,
};

/** Published models have 60 MB in float32; this is no limit of EnCodec's, but a page should not be asked for more. */
const MOST = 1 << 16;
const LEAST_ZERO = ["num_residual_layers", "num_lstm_layers"];
/** @type {readonly ["constant", "reflect", "replicate"]} */
export const PAD_MODES = ["constant", "reflect", "replicate"];

/** An EnCodec architecture that streams by samples. */
export class EncodecConfig {
  /**
   * Throws ConfigError for a field out of range, or a model that works on whole segments.
   * @param {unknown} said the object of config.json; unknown fields are ignored
   * @param {number} [storedCodebooks] as many as the weights hold; else what the highest bandwidth needs
   */
  constructor(said, storedCodebooks) {
    if (typeof said !== "object" || said === null || Array.isArray(said)) {
      throw new ConfigError("the configuration is no object: it should be EnCodec's config.json");
    }
    const given = /** @type {Record<string, unknown>} */ (said);
    if ((given.model_type ?? "encodec") !== "encodec") throw new ConfigError("this is no EnCodec configuration: see its model_type");
    const all = /** @type {Record<string, unknown>} */ ({ ...DEFAULTS });
    for (const name of Object.keys(DEFAULTS)) if (name in given) all[name] = given[name];
    check(all);
    const f = /** @type {typeof DEFAULTS} */ (/** @type {unknown} */ (all));
    this.fields = Object.freeze({ ...f });
    /** Of segments, which this model has none of; the fingerprint knows it all the same. @type {number | null} */
    this.overlap = typeof given.overlap === "number" ? given.overlap : null;
    this.sampleRate = f.sampling_rate;
    this.channels = f.audio_channels;
    this.hop = f.upsampling_ratios.reduce((a, b) => a * b, 1);
    /** Frames a second, rounded up as upstream does. */
    this.frameRate = Math.ceil(this.sampleRate / this.hop);
    this.hiddenSize = f.hidden_size;
    this.codebookSize = f.codebook_size;
    /** Bits of a code as bandwidths count them. */
    this.bitsPerCodebook = 31 - Math.clz32(f.codebook_size);
    this.bandwidths = Object.freeze([...f.target_bandwidths]);
    const needed = Math.floor((1000 * f.target_bandwidths[f.target_bandwidths.length - 1]) / (this.frameRate * this.bitsPerCodebook));
    this.numCodebooks = storedCodebooks ?? needed;
    if (this.numCodebooks < 1) throw new ConfigError("target_bandwidths must be enough for one codebook at the highest");
    Object.freeze(this);
  }

  /**
   * Active codebooks at a bandwidth in kbps, one of `bandwidths`.
   * @param {number} kbps
   */
  codebooksFor(kbps) {
    if (!this.bandwidths.includes(kbps)) {
      throw new ConfigError(`bandwidth ${kbps} kbps is not one of this model's: choose ${this.bandwidths.join(", ")}`);
    }
    const wanted = Math.floor((kbps * 1000) / (this.bitsPerCodebook * this.frameRate));
    return Math.min(Math.max(1, wanted), this.numCodebooks);
  }

  /** Kbps of a stream that asks for none: 6 where the model has it, else the nearest. */
  get usualBandwidth() {
    return this.bandwidths.reduce((best, kbps) => (Math.abs(kbps - 6) < Math.abs(best - 6) ? kbps : best));
  }
}

/** @param {Record<string, unknown>} all */
function check(all) {
  for (const [name, standard] of Object.entries(DEFAULTS)) {
    const value = all[name];
    if (typeof standard === "boolean" && typeof value !== "boolean") throw new ConfigError(`${name} must be true or false`);
    if (typeof standard === "string" && typeof value !== "string") throw new ConfigError(`${name} must be text`);
    if (Array.isArray(standard)) checkList(name, value);
    else if (typeof standard === "number" && name !== "trim_right_ratio") {
      const least = LEAST_ZERO.includes(name) ? 0 : 1, most = name === "sampling_rate" ? 192_000 : MOST;
      if (!(isWhole(value) && value >= least && value <= most)) throw new ConfigError(`${name} must be a whole number from ${least} to ${most}`);
    }
  }
  const size = /** @type {number} */ (all.codebook_size), trim = all.trim_right_ratio;
  const inside = /** @type {number} */ (all.num_filters) >= /** @type {number} */ (all.compress);
  if (!inside) throw new ConfigError("compress must be at most num_filters");
  if (size < 2 || size & (size - 1)) throw new ConfigError("codebook_size must be a power of two");
  if (!(typeof trim === "number" && trim >= 0 && trim <= 1)) throw new ConfigError("trim_right_ratio must lie in 0 to 1");
  if (!(/** @type {number} */ (all.audio_channels) <= 2)) throw new ConfigError("audio_channels must be 1 or 2");
  if (all.chunk_length_s !== null || all.normalize || all.norm_type !== "weight_norm") {
    throw new ConfigError("this model works on whole segments and cannot stream by samples: use one such as facebook/encodec_24khz");
  }
  if (!PAD_MODES.includes(/** @type {"constant"} */ (all.pad_mode))) throw new ConfigError(`pad_mode must be one of ${PAD_MODES.join(", ")}`);
}

/**
 * @param {string} name
 * @param {unknown} value
 */
function checkList(name, value) {
  const whole = name === "upsampling_ratios";
  const good = Array.isArray(value) && value.length >= 1 && value.length <= 64
    && value.every((item, i) => (whole ? isWhole(item) && item >= 1 : typeof item === "number" && item > (i ? value[i - 1] : 0)));
  if (!good) throw new ConfigError(`${name} must be a list of ${whole ? "whole numbers" : "rising numbers"}`);
  if (whole && value.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1) > 192_000) throw new ConfigError(`${name} make too long a frame`);
}

/**
 * @param {unknown} value
 * @returns {value is number}
 */
function isWhole(value) {
  return Number.isInteger(value);
}

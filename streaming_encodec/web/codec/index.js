// The codec alone: docs/web-codec.md.

export { CheckpointError, ConfigError, StreamError, UnsupportedError } from "../errors.js";
export { StreamFormat } from "../wire/streamFormat.js";
export { Codec, loadCodec } from "./codec.js";
export { Decoder } from "./decoder.js";
export { Encoder } from "./encoder.js";
export { DecodeStream, EncodeStream } from "./streams.js";

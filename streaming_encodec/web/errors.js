// Mirrors errors.py: what a caller did wrong, or what a file or the network brought.

/** Bytes that are no packet of the stream. */
export class PacketError extends Error {
  name = "PacketError";
}

/** A setting or an argument out of range. */
export class StreamError extends Error {
  name = "StreamError";
}

/** A configuration that is none of EnCodec's, or of a model that cannot stream by samples. */
export class ConfigError extends Error {
  name = "ConfigError";
}

/** Weights that are damaged, or do not fit their configuration. */
export class CheckpointError extends Error {
  name = "CheckpointError";
}

/** The browser or the program lacks something that the codec needs. */
export class UnsupportedError extends Error {
  name = "UnsupportedError";
}

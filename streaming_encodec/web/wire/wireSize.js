// Mirrors wire/wire_size.py: what packets are on the wire, with the headers of everything below them.

/** IPv4, TCP with timestamps, and a WebSocket client's frame header: what a packet without TLS bears. */
export const OVERHEAD_BYTES = 20 + 32 + 6;

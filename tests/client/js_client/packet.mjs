// Packets of streaming-encodec's protocol, version 1: docs/protocol.md, "Packets".

const SCALE = 1, REDUNDANCY = 2, NOISE = 4, START = 8, END = 16;
const HEAD_BYTES = 12, MAX_BYTES = 913, NOISE_BANDS = 6;

/** Codes of codebooks of frames, [[…], …], as bytes: lowest bit first, codebook by codebook. */
function pack(codes, bits) {
  const values = codes.flat();
  const bytes = new Uint8Array(Math.ceil((values.length * bits) / 8));
  values.forEach((value, i) => {
    for (let j = 0, n = i * bits; j < bits; j++, n++) bytes[n >> 3] |= ((value >> j) & 1) << (n & 7);
  });
  return bytes;
}

function unpack(bytes, codebooks, frames, bits) {
  const bit = (n) => (bytes[n >> 3] >> (n & 7)) & 1;
  for (let n = codebooks * frames * bits; n < 8 * bytes.length; n++) if (bit(n)) throw new Error("a spare bit is set");
  return Array.from({ length: codebooks }, (_, k) =>
    Array.from({ length: frames }, (_, f) => {
      let value = 0;
      for (let j = 0; j < bits; j++) value |= bit((k * frames + f) * bits + j) << j;
      return value;
    }),
  );
}

/** {codes or noise, bits, sequence, timestamp, and if wanted redundancy, scale, start, end, sender} as bytes. */
export function writePacket(p) {
  const head = new DataView(new ArrayBuffer(HEAD_BYTES));
  head.setUint8(0, 0xe1);
  head.setUint8(1, (p.scale ? SCALE : 0) | (p.redundancy ? REDUNDANCY : 0) | (p.noise ? NOISE : 0)
    | (p.start ? START : 0) | (p.end ? END : 0));
  head.setUint8(2, p.noise ? 0 : (p.codes[0].length - 1) | ((p.codes.length - 1) << 3));
  head.setUint8(3, p.bits - 1);
  head.setUint16(4, p.sender ?? 0, true);
  head.setUint16(6, p.sequence, true);
  head.setUint32(8, p.timestamp, true);
  const parts = [Buffer.from(head.buffer)];
  if (p.scale) parts.push(Buffer.from(new Float32Array([p.scale]).buffer)); // little-endian, as every machine with node
  if (p.redundancy) {
    parts.push(Buffer.from([(p.redundancy.length - 1) | ((p.redundancy[0].length - 1) << 3)]));
    parts.push(pack(p.redundancy, p.bits));
  }
  parts.push(p.noise ? Buffer.from(p.noise) : pack(p.codes, p.bits));
  return Buffer.concat(parts);
}

/** The same, the other way. Throws an Error for bytes that are not a packet. */
export function readPacket(bytes) {
  if (bytes.length < HEAD_BYTES || bytes.length > MAX_BYTES) throw new Error("not a packet's length");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const [first, flags, shape, width] = bytes;
  if (first !== 0xe1 || flags > 31 || width > 15) throw new Error("not a packet's head");
  const p = {
    bits: width + 1, sender: view.getUint16(4, true), sequence: view.getUint16(6, true),
    timestamp: view.getUint32(8, true), start: !!(flags & START), end: !!(flags & END),
  };
  let at = HEAD_BYTES;
  const take = (size) => {
    if (at + size > bytes.length) throw new Error("the packet is too short");
    return bytes.subarray(at, (at += size));
  };
  if (flags & SCALE) {
    take(4);
    p.scale = view.getFloat32(at - 4, true);
    if (flags & NOISE || !(p.scale > 0 && p.scale < Infinity)) throw new Error("not a scale");
  }
  if (flags & REDUNDANCY) {
    const [said] = take(1);
    const codebooks = (said & 7) + 1, frames = (said >> 3) + 1;
    p.redundancy = unpack(take(Math.ceil((codebooks * frames * p.bits) / 8)), codebooks, frames, p.bits);
  }
  if (flags & NOISE) {
    p.noise = [...take(NOISE_BANDS)];
    if (shape || p.noise.some((level) => level > 127)) throw new Error("not a noise packet");
  } else {
    const frames = (shape & 7) + 1, codebooks = (shape >> 3) + 1;
    if (frames > 6) throw new Error("too many frames");
    p.codes = unpack(take(Math.ceil((codebooks * frames * p.bits) / 8)), codebooks, frames, p.bits);
  }
  if (at !== bytes.length) throw new Error("the packet is too long");
  return p;
}

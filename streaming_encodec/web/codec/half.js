// Numbers of 16 bits (IEEE binary16) as they lie in files.

/** Values of all 65,536 patterns. @type {Float32Array | undefined} */
let table;

/** @param {Uint16Array} bits */
export function fromHalves(bits) {
  table ??= Float32Array.from({ length: 65_536 }, (_, pattern) => {
    const sign = pattern >> 15 ? -1 : 1, exponent = (pattern >> 10) & 31, fraction = pattern & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  });
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) values[i] = table[bits[i]];
  return values;
}

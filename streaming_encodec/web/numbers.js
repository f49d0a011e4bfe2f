// Arithmetic in which Python and JavaScript differ, as Python has it: the same bits on both sides.

/**
 * `round(x)` and `np.rint`: to the nearest whole number, ties to the even one.
 * @param {number} x
 */
export function roundHalfEven(x) {
  const low = Math.floor(x), rest = x - low;
  if (rest < 0.5) return low;
  if (rest > 0.5) return low + 1;
  return low % 2 === 0 ? low : low + 1;
}

/**
 * `np.linspace(begin, end, count, dtype=np.float32)`.
 * @param {number} begin
 * @param {number} end
 * @param {number} count
 */
export function linspace(begin, end, count) {
  const line = new Float32Array(count);
  const step = count > 1 ? (end - begin) / (count - 1) : NaN;
  for (let i = 0; i < count; i++) line[i] = i * step + begin;
  if (count > 1) line[count - 1] = end;
  else if (count === 1) line[0] = begin;
  return line;
}

/**
 * Rounded up.
 * @param {number} a
 * @param {number} b
 */
export function divideUp(a, b) {
  return Math.ceil(a / b);
}

/**
 * The rest of a division, with the divisor's sign as Python's `%`.
 * @param {number} a
 * @param {number} b
 */
export function modulo(a, b) {
  return ((a % b) + b) % b;
}

// The discrete Fourier transform for any length (the self-sorting one of Stockham; Cochran et al. 1967), as np.fft has it.

/** Transforms of one length, in float64. */
export class Fourier {
  #factors;
  #cos;
  #sin;
  #spareRe;
  #spareIm;

  /** @param {number} size */
  constructor(size) {
    this.size = size;
    this.re = new Float64Array(size);
    this.im = new Float64Array(size);
    this.#spareRe = new Float64Array(size);
    this.#spareIm = new Float64Array(size);
    this.#cos = Float64Array.from({ length: size }, (_, i) => Math.cos((2 * Math.PI * i) / size));
    this.#sin = Float64Array.from({ length: size }, (_, i) => -Math.sin((2 * Math.PI * i) / size));
    this.#factors = factorsOf(size);
  }

  /** `re` and `im` in place. @param {boolean} [inverse] not divided by the size */
  transform(inverse = false) {
    const n = this.size, cos = this.#cos, sin = this.#sin, sign = inverse ? -1 : 1;
    let re = this.re, im = this.im, toRe = this.#spareRe, toIm = this.#spareIm;
    let length = n, stride = 1;
    for (const p of this.#factors) {
      const rest = length / p;
      for (let k = 0; k < rest; k++) {
        for (let c = 0; c < p; c++) {
          const turn = (k * c * stride) % n, turnRe = cos[turn], turnIm = sign * sin[turn], to = stride * (p * k + c);
          for (let t = 0; t < stride; t++) {
            let sumRe = 0, sumIm = 0;
            for (let r = 0, at = t + stride * k, angle = 0; r < p; r++, at += stride * rest) {
              const wRe = cos[angle], wIm = sign * sin[angle];
              sumRe += re[at] * wRe - im[at] * wIm;
              sumIm += re[at] * wIm + im[at] * wRe;
              angle = (angle + (c * n) / p) % n;
            }
            toRe[to + t] = sumRe * turnRe - sumIm * turnIm;
            toIm[to + t] = sumRe * turnIm + sumIm * turnRe;
          }
        }
      }
      [re, toRe] = [toRe, re];
      [im, toIm] = [toIm, im];
      length = rest;
      stride *= p;
    }
    [this.re, this.im, this.#spareRe, this.#spareIm] = [re, im, toRe, toIm];
  }
}

/** @param {number} size */
function factorsOf(size) {
  /** @type {number[]} */
  const factors = [];
  for (const p of [4, 2, 3, 5]) {
    while (size % p === 0) {
      factors.push(p);
      size /= p;
    }
  }
  for (let p = 7; size > 1; p += 2) {
    while (size % p === 0) {
      factors.push(p);
      size /= p;
    }
  }
  return factors;
}

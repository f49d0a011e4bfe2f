/* The codec's steps in C: SEANet's layers over a stream, and the search of codes (arXiv 2210.13438).
 *
 * One source for x86 (plain, and AVX2 with F16C), ARM and WebAssembly, and the same bits from each. So:
 *  - every output is summed in one order, whatever the vector width and however many rows go through at once:
 *    bias, then the products of input 0, 1, 2, …; vectors run along the outputs;
 *  - no fused multiply-add (-ffp-contract=off), no library function: exp is a polynomial;
 *  - values below TINY become zero where they enter a product or a state, so that silence makes no denormals;
 *  - the processor's rounding and denormal modes are set to IEEE's own for the call, whatever the thread has.
 *
 * Values are channels last: [batch][length][channels]. A model is one block of memory, the image, which image.py
 * writes: header, layers, matrices, weights. A stream's state is one row of floats, given in and out: layer after
 * layer a convolution's history [history][in], a transposed one's overlap [stride][out], an LSTM's hidden and
 * cell [layers][size] each, a residual block's history and its delay [lookahead][in]. There is no other memory:
 * any number of threads may use an image. */

#include <stdint.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define INLINE static inline __attribute__((always_inline))
#define CALLED static __attribute__((noinline)) /* small frames: Windows' stack is not probed */

enum { CONV, TRANSPOSED, LSTM, RESIDUAL };   /* Layer.kind */
enum { START, STEP, FLUSH, WHOLE };          /* phase: a stream's first inputs, those in between, the last; or all at once */
enum { CONSTANT, REFLECT, REPLICATE };       /* Layer.pad, at start and flush */
enum { PANELS, HALF_PANELS, ROWS };          /* Matrix.form: float32 or float16 [out/16][in][16], float32 [out][in] */

typedef struct { int32_t form, inputs, outputs, weights, bias; } Matrix;   /* where: in floats from the image's begin */

typedef struct {
  int32_t kind, elu;                     /* elu: of the input, before all else */
  int32_t inputs, outputs;               /* channels; LSTM: size; RESIDUAL: channels, and those inside */
  int32_t kernel, stride, dilation;
  int32_t history, lookahead;            /* inputs remembered; inputs waited for */
  int32_t trim, pad;                     /* TRANSPOSED: outputs cut off at the start; CONV: see above */
  int32_t matrix, count;                 /* the first; LSTM: layers, two matrices each; RESIDUAL: 1 with a shortcut */
  int32_t state;                         /* where its state begins in a stream's */
} Layer;

typedef struct { int32_t first, layers, inputs, outputs, state; } Part;   /* state: floats of a stream */

typedef struct {
  int32_t magic, version, layers, matrices;                   /* where the tables are, in floats */
  int32_t codebooks, codebook_size, dimension, codebook;      /* the last: its first matrix; holds minus the vectors */
  Part parts[2];                                              /* encoder, decoder */
} Image;

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef float v8_at_any __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint16_t h8_at_any __attribute__((vector_size(16), aligned(2), may_alias));
typedef struct { v8 low, high; } v16;

/* Of rows and panels so many at once: 1 x MANY, 2 x MANY/2 or, of many rows, MANY x 1. Sums that do not wait for each
 * other, and fit registers. */
#if defined(__AVX2__) || defined(__aarch64__)
#define MANY 4
#else
#define MANY 2
#endif

/* Of few rows a product takes as long as its weights take from memory: those of the next panels are fetched meanwhile,
 * so many bytes ahead. The processor itself looks no further than a page. */
#define FEW(rows) ((rows) < MANY || MANY == 2)
#define AHEAD 16384L

static const float TINY = 8.67361738e-19f; /* 2^-60 */

/* -- vectors -------------------------------------------------------------------------------------------------- */

INLINE v8 load(const float *x) { return *(const v8_at_any *)x; }
INLINE void store(float *y, v8 x) { *(v8_at_any *)y = x; }
INLINE v8 all(float x) { return (v8){x, x, x, x, x, x, x, x}; }
INLINE v8 pick(i8 mask, v8 yes, v8 no) { return (v8)((mask & (i8)yes) | (~mask & (i8)no)); }
INLINE v8 clean(v8 x) { return pick((v8)((i8)x & 0x7fffffff) < all(TINY), all(0), x); }

INLINE v8 load_some(const float *x, long count) {
  if (count >= 8) return load(x);
  v8 y = all(0);
  for (long i = 0; i < count; i++) y[i] = x[i];
  return y;
}

INLINE void store_some(float *y, v8 x, long count) {
  if (count >= 8) { store(y, x); return; }
  for (long i = 0; i < count; i++) y[i] = x[i];
}

#if defined(__F16C__)
#include <immintrin.h>
INLINE v8 load_half(const uint16_t *x) { return (v8)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x)); }
#elif defined(__aarch64__)
typedef __fp16 f8_at_any __attribute__((vector_size(16), aligned(2), may_alias));
INLINE v8 load_half(const uint16_t *x) { return __builtin_convertvector(*(const f8_at_any *)x, v8); }
#else
INLINE v8 load_half(const uint16_t *x) { /* finite numbers only */
  i8 h = __builtin_convertvector(*(const h8_at_any *)x, i8), bits = (h & 0x7fff) << 13, small = (h & 0x7c00) == 0;
  v8 normal = (v8)(bits + (112 << 23)), denormal = (v8)(bits + (113 << 23)) - all(6.10351563e-5f);
  return (v8)((i8)pick(small, denormal, normal) | ((h & 0x8000) << 16));
}
#endif

/* e^x - 1 = scale * part + (scale - 1): x = n ln 2 + r, scale = 2^n, part = e^r - 1 by Taylor's series. */
INLINE v8 exponential(v8 x, v8 *scale) {
  x = pick(x < all(-87), all(-87), x);
  x = pick(x > all(87), all(87), x);
  v8 shifted = x * all(1.44269504f) + all(12582912); /* rounded to a whole number by what it is added to */
  v8 n = shifted - all(12582912);
  v8 r = x - n * all(0.693359375f) - n * all(-2.12194440e-4f);
  v8 p = all(1.98412698e-4f);
  p = p * r + all(1.38888889e-3f);
  p = p * r + all(8.33333333e-3f);
  p = p * r + all(4.16666667e-2f);
  p = p * r + all(1.66666667e-1f);
  p = p * r + all(0.5f);
  *scale = (v8)(((i8)shifted - 0x4b400000 + 127) << 23);
  return r + r * r * p;
}

INLINE v8 elu(v8 x) {
  v8 scale, part = exponential(x, &scale);
  return pick(x > all(0), x, scale * part + (scale - all(1)));
}

INLINE v8 sigmoid(v8 x) {
  v8 scale, part = exponential(-x, &scale);
  return all(1) / (all(1) + (scale * part + scale));
}

INLINE v8 hyperbolic(v8 x) { /* tanh: e^2x - 1 over e^2x + 1 */
  v8 scale, part = exponential(x + x, &scale), e = scale * part + (scale - all(1));
  return e / (e + all(2));
}

static void copy(const float *x, float *y, long count) {
  for (long i = 0; i < count; i += 8) store_some(y + i, load_some(x + i, count - i), count - i);
}

static void fill(float *y, float x, long count) {
  for (long i = 0; i < count; i++) y[i] = x;
}

/* What enters a product: without what is too small, after an ELU where there is one. */
static void enter(const float *x, float *y, long count, int with_elu) {
  for (long i = 0; i < count; i += 8) {
    v8 v = load_some(x + i, count - i);
    store_some(y + i, clean(with_elu ? elu(v) : v), count - i);
  }
}

/* -- products ------------------------------------------------------------------------------------------------- */

/* Where the inputs of rows lie: in groups (streams), each input in `taps` pieces of `length` floats. */
typedef struct { const float *x; long group, group_step, row_step, taps, length, tap_step; } Inputs;

/* The inputs of rows, one after the other. */
typedef struct { const float *x, *group; long left; } Place;   /* left: rows of this group, this one included */

INLINE Place first_row(const Inputs *in) { return (Place){in->x, in->x, in->group}; }

INLINE const float *next_row(const Inputs *in, Place *at) {
  const float *x = at->x;
  at->x += in->row_step;
  if (--at->left == 0) *at = (Place){at->group + in->group_step, at->group + in->group_step, in->group};
  return x;
}

/* Where the outputs of rows lie, `left` of them wanted, and what they begin with: biases, and with `onto` themselves. */
typedef struct { float *y; long step, left; const float *bias; int onto; } Outputs;

/* Apart, so that the sums of `multiply` stay in registers: a lane chosen at run time is one in memory. */
CALLED v8 load_few(const float *x, long count) { return load_some(x, count); }
CALLED void store_few(float *y, v8 x, long count) { store_some(y, x, count); }

/* y [tiles * rows][panels][16] = bias + inputs x weights [panels][K][16]; how many rows and panels go through at once is
 * known when compiled. */
INLINE void multiply(const int rows, const int panels, const int half, long tiles, const Inputs *in, Place *row,
                     const char *weights, long panel, Outputs *out) {
  const long length = in->length, tap_step = in->tap_step, last = out->left - (panels - 1) * 16;
  const int low_whole = last >= 8, high_whole = last >= 16, onto = out->onto; /* of the last panel */
  const long block = panels * panel, ahead = (AHEAD + block - 1) / block * block;
  float *y = out->y;
  for (; tiles > 0; tiles--, y += rows * out->step) {
    const float *x[MANY];
    v16 sum[MANY][MANY];
#pragma clang loop unroll(full)
    for (int r = 0; r < rows; r++) {
      x[r] = next_row(in, row);
#pragma clang loop unroll(full)
      for (int p = 0; p < panels; p++) {
        const float *from = y + r * out->step + p * 16;
        v8 low = load(out->bias + p * 16), high = load(out->bias + p * 16 + 8);
        if (onto) {
          low += p + 1 < panels || low_whole ? load(from) : load_few(from, last);
          high += p + 1 < panels || high_whole ? load(from + 8) : load_few(from + 8, last - 8);
        }
        sum[r][p] = (v16){low, high};
      }
    }
    const char *at = weights;
    for (long tap = 0; tap < in->taps; tap++) {
      for (long k = 0; k < length; k++, at += half ? 32 : 64) {
#pragma clang loop unroll(full)
        for (int p = 0; p < panels; p++) {
          const char *w = at + p * panel;
          if (FEW(rows)) __builtin_prefetch(w + ahead, 0, 2);
          v8 low = half ? load_half((const uint16_t *)w) : load((const float *)w);
          v8 high = half ? load_half((const uint16_t *)w + 8) : load((const float *)w + 8);
#pragma clang loop unroll(full)
          for (int r = 0; r < rows; r++) {
            sum[r][p].low += all(x[r][k]) * low;
            sum[r][p].high += all(x[r][k]) * high;
          }
        }
      }
#pragma clang loop unroll(full)
      for (int r = 0; r < rows; r++) x[r] += tap_step;
    }
#pragma clang loop unroll(full)
    for (int r = 0; r < rows; r++)
#pragma clang loop unroll(full)
      for (int p = 0; p < panels; p++) {
        float *to = y + r * out->step + p * 16;
        if (p + 1 < panels || low_whole) store(to, sum[r][p].low);
        else store_few(to, sum[r][p].low, last);
        if (p + 1 < panels || high_whole) store(to + 8, sum[r][p].high);
        else store_few(to + 8, sum[r][p].high, last - 8);
      }
  }
  out->y = y;
}

CALLED void multiply_some(int rows, int panels, int half, long tiles, const Inputs *in, Place *row,
                          const char *weights, long panel, Outputs *out) {
#define CASE(R, P, H) \
  if (rows == R && panels == P && half == H) { multiply(R, P, H, tiles, in, row, weights, panel, out); return; }
  CASE(1, 1, 0) CASE(1, 1, 1) CASE(1, 2, 0) CASE(1, 2, 1) CASE(2, 1, 0) CASE(2, 1, 1)
#if MANY == 4
  CASE(2, 2, 0) CASE(2, 2, 1) CASE(1, 4, 0) CASE(1, 4, 1) CASE(4, 1, 0) CASE(4, 1, 1)
#endif
}

/* Few outputs: vectors run along the inputs instead. */
static float dot(const Inputs *in, const float *x, const float *w) {
  v8 low = all(0), high = all(0);
  float rest = 0;
  for (long tap = 0; tap < in->taps; tap++, x += in->tap_step, w += in->length) {
    long k = 0;
    for (; k + 16 <= in->length; k += 16) {
      low += load(x + k) * load(w + k);
      high += load(x + k + 8) * load(w + k + 8);
    }
    for (; k < in->length; k++) rest += x[k] * w[k];
  }
  v8 s = low + high;
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])) + rest;
}

/* y [rows][outputs], rows y_step apart: bias + inputs x weights; onto: added to what is there. */
CALLED void product(const Image *image, const Matrix *m, const Inputs *in, long rows, float *y, long y_step, int onto) {
  const float *base = (const float *)image, *bias = base + m->bias;
  const int half = m->form == HALF_PANELS;
  if (m->form == ROWS) {
    Place at = first_row(in);
    for (long r = 0; r < rows; r++, y += y_step) {
      const float *x = next_row(in, &at);
      for (long o = 0; o < m->outputs; o++)
        y[o] = (onto ? bias[o] + y[o] : bias[o]) + dot(in, x, base + m->weights + o * m->inputs);
    }
    return;
  }
  const long panels = (m->outputs + 15) / 16, panel = m->inputs * (half ? 32L : 64L);
  const long most = rows >= MANY ? 1 : rows > 1 ? MANY / 2 : MANY;
  for (long p = 0, width; p < panels; p += width) {
    width = panels - p >= most ? most : panels - p >= 2 && most > 2 ? 2 : 1;
    const char *weights = (const char *)(base + m->weights) + p * panel;
    Place at = first_row(in);
    Outputs out = {y + p * 16, y_step, m->outputs - p * 16, bias + p * 16, onto};
    for (long left = rows, count; left > 0; left %= count) {
      count = left >= MANY ? MANY : left > 1 ? 2 : 1;
      multiply_some(count, width, half, left / count, in, &at, weights, panel, &out);
    }
  }
}

INLINE Inputs plain(const float *x, long inputs) { return (Inputs){x, 1, inputs, 0, 1, inputs, 0}; }

/* -- layers: each returns the length of its output ------------------------------------------------------------ */

typedef struct {
  const Image *image;
  const Matrix *matrices;
  int phase;
  long batch, state;          /* streams; floats between two streams' states */
  const float *before;
  float *after, *a, *b;       /* a, b: memory for what a layer needs in between */
} Run;

/* Whether the phase is a stream's first, so that there is no state before it; and its last. */
INLINE int begins(const Run *run) { return run->phase == START || run->phase == WHOLE; }
INLINE int ends(const Run *run) { return run->phase == FLUSH || run->phase == WHOLE; }

/* x [batch][n][in] → y [batch][m][out]; a: windows [batch][length][in], the history before and padding around.
 * An input too short to be reflected is extended by zeros first, whose length is cut off again: as published. */
CALLED long convolve(const Run *run, const Layer *l, const float *x, long n, float *y) {
  const Matrix *m = run->matrices + l->matrix;
  const long c = l->inputs, span = (l->kernel - 1) * l->dilation + 1, padding = span - l->stride;
  const long left = begins(run) ? padding - l->lookahead : 0;
  const long before = run->phase == FLUSH ? l->lookahead : 0; /* inputs that wait in the history */
  const long extra = ends(run) ? (l->stride - (before + n) % l->stride) % l->stride : 0;
  const long right = ends(run) ? l->lookahead + extra : 0;
  const long front = l->history + left, length = front + n + right;
  const long begin = begins(run) ? l->history : l->history - padding;
  const long outputs = (run->phase == START ? n - l->lookahead : before + n + extra) / l->stride;
  const long most = left > right ? left : right, seen = run->phase == WHOLE && most >= n ? most + 1 : n;
  for (long s = 0; s < run->batch; s++) {
    float *w = run->a + s * length * c, *end = w + (front + n) * c;
    if (begins(run)) fill(w, 0, front * c);
    else copy(run->before + s * run->state + l->state, w, l->history * c);
    enter(x + s * n * c, w + front * c, n * c, l->elu);
    for (long d = 1; l->pad != CONSTANT && d <= left; d++)
      if (l->pad != REFLECT) copy(w + front * c, w + (front - d) * c, c);
      else if (d < n) copy(w + (front + d) * c, w + (front - d) * c, c);
    for (long d = 1; d <= right; d++) {
      /* Mirrored about the last of `seen` inputs: the d-th after the n that are there. */
      const long from = l->pad == REFLECT ? n + d - 1 < seen ? n : 2 * (seen - 1) - (n + d - 1) : n - 1;
      if (l->pad == CONSTANT || (l->pad == REFLECT && from >= n)) fill(end + (d - 1) * c, 0, c);
      else copy(w + (front + from) * c, end + (d - 1) * c, c);
    }
    copy(end - l->history * c, run->after + s * run->state + l->state, l->history * c);
  }
  Inputs in = {run->a + begin * c, outputs ? outputs : 1, length * c, l->stride * c, l->kernel, c, l->dilation * c};
  if (l->dilation == 1) in.taps = 1, in.length = l->kernel * c; /* a window in one piece */
  product(run->image, m, &in, run->batch * outputs, y, m->outputs, 0);
  return outputs;
}

/* kernel = 2 * stride: one product makes [batch][n][2][stride][out]; second halves belong to the input after. */
CALLED long transpose(const Run *run, const Layer *l, const float *x, long n, float *y) {
  const Matrix *m = run->matrices + l->matrix;
  const long half = l->stride * l->outputs, cut = begins(run) ? l->trim : 0;
  const long owed = ends(run) ? l->trim * l->outputs : 0;
  const long outputs = n * l->stride - cut + owed / l->outputs;
  const float *bias = (const float *)run->image + m->bias;
  enter(x, run->a, run->batch * n * l->inputs, l->elu);
  Inputs in = plain(run->a, l->inputs);
  product(run->image, m, &in, run->batch * n, run->b, 2 * half, 0);
  for (long s = 0; s < run->batch; s++) {
    float *out = y + s * outputs * l->outputs, *kept = run->after + s * run->state + l->state;
    if (begins(run)) fill(kept, 0, half);
    else copy(run->before + s * run->state + l->state, kept, half);
    for (long t = 0; t < n; t++) {
      const float *made = run->b + (s * n + t) * 2 * half;
      for (long i = t ? 0 : cut * l->outputs; i < half; i += 8)
        store_some(out + t * half - cut * l->outputs + i, load_some(made + i, half - i) + load_some(kept + i, half - i),
                   half - i);
      copy(made + half, kept, half);
    }
    for (long i = 0; i < owed; i++) out[n * half - cut * l->outputs + i] = kept[i] + bias[i];
  }
  return outputs;
}

/* y = x + LSTM(x), all [batch][n][size]; a: gates [batch][n][4][size], in the order input, forget, cell, output. */
CALLED long remember(const Run *run, const Layer *l, const float *x, long n, float *y) {
  const long size = l->inputs, cells = l->count * size;
  enter(x, y, run->batch * n * size, l->elu);
  for (long s = 0; s < run->batch; s++)
    if (begins(run)) fill(run->after + s * run->state + l->state, 0, 2 * cells);
    else copy(run->before + s * run->state + l->state, run->after + s * run->state + l->state, 2 * cells);
  for (long layer = 0; layer < l->count; layer++) {
    const Matrix *m = run->matrices + l->matrix + 2 * layer;
    float *hidden = run->after + l->state + layer * size;
    Inputs in = plain(y, size), back = plain(hidden, size);
    back.group_step = run->state;
    product(run->image, m, &in, run->batch * n, run->a, 4 * size, 0);
    for (long t = 0; t < n; t++) {
      product(run->image, m + 1, &back, run->batch, run->a + t * 4 * size, n * 4 * size, 1);
      for (long s = 0; s < run->batch; s++) {
        const float *gates = run->a + (s * n + t) * 4 * size;
        float *h = hidden + s * run->state, *cell = h + cells, *out = y + (s * n + t) * size;
        for (long i = 0; i < size; i += 8) {
          const long left = size - i;
          v8 fresh = sigmoid(load_some(gates + i, left)) * hyperbolic(load_some(gates + 2 * size + i, left));
          v8 now = clean(sigmoid(load_some(gates + size + i, left)) * load_some(cell + i, left) + fresh);
          v8 given = clean(sigmoid(load_some(gates + 3 * size + i, left)) * hyperbolic(now));
          store_some(cell + i, now, left);
          store_some(h + i, given, left);
          store_some(out + i, given, left);
        }
      }
    }
  }
  const long count = run->batch * n * size;
  for (long i = 0; i < count; i += 8)
    store_some(y + i, load_some(y + i, count - i) + load_some(x + i, count - i), count - i);
  return n;
}

/* y = past(x) + second(elu(first(elu(x)))): [batch][n][in] → [batch][m][in]. b: what first gives. The convolutions'
 * lookahead makes what goes past them wait. */
CALLED long residual(const Run *run, const Layer *l, const float *x, long n, float *y) {
  const Matrix *m = run->matrices + l->matrix;
  const long c = l->inputs, held = begins(run) ? 0 : l->lookahead, wait = run->phase == WHOLE ? 0 : l->lookahead;
  const long outputs = convolve(run, l, x, n, run->b);
  enter(run->b, run->b, run->batch * outputs * l->outputs, 1);
  const float *past = x;
  if (wait) {
    for (long s = 0; s < run->batch; s++) {
      float *row = run->a + s * (held + n) * c;
      const long delay = s * run->state + l->state + l->history * c;
      copy(run->before + delay, row, held * c);
      copy(x + s * n * c, row + held * c, n * c);
      copy(row + (held + n - wait) * c, run->after + delay, wait * c);
    }
    past = run->a;
  }
  Inputs around = {past, outputs ? outputs : 1, (held + n) * c, c, 1, c, 0}, inside = plain(run->b, l->outputs);
  if (l->count) product(run->image, m + 2, &around, run->batch * outputs, y, c, 0);
  else for (long s = 0; s < run->batch; s++) copy(past + s * (held + n) * c, y + s * outputs * c, outputs * c);
  product(run->image, m + 1, &inside, run->batch * outputs, y, c, 1);
  return outputs;
}

/* -- what is called ------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
static uint32_t set_float_mode(uint32_t mode) {
  uint32_t old;
  __asm__ volatile("stmxcsr %0" : "=m"(old));
  __asm__ volatile("ldmxcsr %0" : : "m"(mode));
  return old;
}
#define IEEE 0x1f80
#elif defined(__aarch64__)
static uint64_t set_float_mode(uint64_t mode) {
  uint64_t old;
  __asm__ volatile("mrs %0, fpcr" : "=r"(old));
  __asm__ volatile("msr fpcr, %0" : : "r"(mode));
  return old;
}
#define IEEE 0
#else /* WebAssembly has no other mode */
static int set_float_mode(int mode) { return mode; }
#define IEEE 0
#endif

INLINE const Layer *layers_of(const Image *image, int part) {
  return (const Layer *)((const float *)image + image->layers) + image->parts[part].first;
}

INLINE long most(long a, long b) { return a > b ? a : b; }

/* Floats that each of the four areas of scratch memory needs for n inputs of each stream. */
static long area(const Image *image, int part, long batch, long n) {
  long floats = 0;
  const Layer *l = layers_of(image, part), *end = l + image->parts[part].layers;
  for (; l < end; l++) {
    long span = (l->kernel - 1) * l->dilation + 1, windows = (n + 2L * l->history + 2 * span + l->stride) * l->inputs;
    long outputs = l->kind == TRANSPOSED ? (n + 1) * l->stride : (n + l->lookahead) / l->stride + 1;
    long width = l->kind == LSTM ? 4L * l->inputs : l->kind == TRANSPOSED ? 2L * l->outputs : most(l->inputs, l->outputs);
    floats = most(floats, most(windows, outputs * width));
    n = outputs;
  }
  return (batch * floats + 31) / 16 * 16;
}

/* Floats of scratch memory that kernel_run needs. */
EXPORT int32_t kernel_scratch(const Image *image, int32_t part, int32_t batch, int32_t n) {
  return (int32_t)(4 * area(image, part, batch, n));
}

/* A part's layers over n inputs of each stream: x [batch][n][in] → y [batch][returned][out]. States [batch][state]:
 * `before` is only read, not at all in START and WHOLE; `after` is written, and means nothing after FLUSH and WHOLE. */
EXPORT int32_t kernel_run(const Image *image, int32_t part, int32_t phase, int32_t batch, int32_t n, const float *x,
                          float *y, const float *before, float *after, float *scratch) {
  const Part *p = &image->parts[part];
  const Layer *l = layers_of(image, part), *end = l + p->layers;
  const long each = area(image, part, batch, n);
  float *outs[2] = {scratch + 2 * each, scratch + 3 * each};
  Run run = {image, (const Matrix *)((const float *)image + image->matrices), phase, batch, p->state, before, after,
             scratch, scratch + each};
  __typeof__(set_float_mode(IEEE)) mode = set_float_mode(IEEE);
  long length = n;
  for (int i = 0; l < end; l++, i = 1 - i) {
    float *to = l + 1 == end ? y : outs[i];
    length = l->kind == CONV         ? convolve(&run, l, x, length, to)
             : l->kind == TRANSPOSED ? transpose(&run, l, x, length, to)
             : l->kind == LSTM       ? remember(&run, l, x, length, to)
                                     : residual(&run, l, x, length, to);
    x = to;
  }
  set_float_mode(mode);
  return (int32_t)length;
}

/* rest [rows][dimension] -= or += what one code of each row stands for. */
CALLED void apply(const Image *image, const Matrix *m, long rows, const int32_t *codes, long code_step, int sign,
                  float *rest) {
  const float *base = (const float *)image + m->weights;
  for (long r = 0; r < rows; r++) {
    const long code = codes[r * code_step], panel = code / 16 * m->inputs * 16, lane = code % 16;
    for (long k = 0; k < m->inputs; k++) {
      const long at = panel + k * 16 + (m->form == HALF_PANELS ? lane / 8 * 8 : lane);
      float w = m->form == HALF_PANELS ? load_half((const uint16_t *)base + at)[lane % 8] : base[at];
      rest[r * m->inputs + k] += sign * w;
    }
  }
}

/* The nearest vector has the least |e|²/2 - x·e; of equals the first. Scratch: rows * (dimension + codebook_size). */
EXPORT void kernel_search(const Image *image, int32_t rows, int32_t codebooks, const float *latent, int32_t *codes,
                          float *scratch) {
  const Matrix *m = (const Matrix *)((const float *)image + image->matrices) + image->codebook;
  const long size = image->codebook_size, dimension = image->dimension;
  float *rest = scratch, *scores = scratch + rows * dimension;
  __typeof__(set_float_mode(IEEE)) mode = set_float_mode(IEEE);
  enter(latent, rest, rows * dimension, 0);
  for (long k = 0; k < codebooks; k++, m++) {
    Inputs in = plain(rest, dimension);
    product(image, m, &in, rows, scores, size, 0);
    for (long r = 0; r < rows; r++) {
      const float *score = scores + r * size;
      v8 least = all(__builtin_inff());
      i8 where = {0}, at = {0, 1, 2, 3, 4, 5, 6, 7};
      long i = 0;
      for (; i + 8 <= size; i += 8, at += 8) {
        v8 now = load(score + i);
        i8 less = now < least;
        least = pick(less, now, least);
        where = (less & at) | (~less & where);
      }
      float best = __builtin_inff();
      int32_t code = 0;
      for (int lane = 0; lane < 8; lane++)
        if (least[lane] < best || (least[lane] == best && where[lane] < code)) best = least[lane], code = where[lane];
      for (; i < size; i++)
        if (score[i] < best) best = score[i], code = (int32_t)i;
      codes[r * codebooks + k] = code;
    }
    apply(image, m, rows, codes + k, codebooks, 1, rest); /* the matrix holds minus the vectors */
  }
  set_float_mode(mode);
}

/* codes [rows][codebooks] → latent [rows][dimension]: the sum of what they stand for, coarse first. */
EXPORT void kernel_lookup(const Image *image, int32_t rows, int32_t codebooks, const int32_t *codes, float *latent) {
  const Matrix *m = (const Matrix *)((const float *)image + image->matrices) + image->codebook;
  __typeof__(set_float_mode(IEEE)) mode = set_float_mode(IEEE);
  fill(latent, 0, (long)rows * image->dimension);
  for (long k = 0; k < codebooks; k++) apply(image, m + k, rows, codes + k, codebooks, -1, latent);
  set_float_mode(mode);
}

/* 1 where the processor and the system have AVX2 and F16C, else 0. */
EXPORT int32_t kernel_has_avx2(void) {
#if defined(__x86_64__)
  uint32_t a = 1, b, c = 0, d, low, high;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  const uint32_t wanted = 1u << 27 | 1u << 28 | 1u << 29; /* OSXSAVE, AVX, F16C */
  if ((c & wanted) != wanted) return 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  a = 7, c = 0;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return (low & 6) == 6 && (b >> 5 & 1);
#else
  return 0;
#endif
}

#if defined(_WIN32)
int DllMainCRTStartup(void *library, uint32_t reason, void *reserved) { /* without a C library */
  (void)library, (void)reason, (void)reserved;
  return 1;
}
#endif

/* A minute of sound through the kernel as a program without an operating system's library, for emulated processors:
 * what kernel_kit.py describes comes in on standard input, codes and samples go out on standard output. Linux. */

#include <stdint.h>

int32_t kernel_run(const void *, int32_t, int32_t, int32_t, int32_t, const float *, float *, const float *, float *,
                   float *);
void kernel_search(const void *, int32_t, int32_t, const float *, int32_t *, float *);
void kernel_lookup(const void *, int32_t, int32_t, const int32_t *, float *);

#if defined(__aarch64__)
static long call(long number, long a, long b, long c) {
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}
enum { READ = 63, WRITE = 64, EXIT = 93 };
#else
static long call(long number, long a, long b, long c) {
  __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return number;
}
enum { READ = 0, WRITE = 1, EXIT = 60 };
#endif

enum { STATE = 1 << 16, CODES = 1 << 20, SOUND = 1 << 23 };
static _Alignas(64) float memory[1 << 25], states[4][STATE], scratch[1 << 22], latent[1 << 16];
static int32_t codes[CODES];
static float sound[SOUND];

static void move(long number, long file, char *at, long bytes) {
  for (long done; bytes > 0; at += done, bytes -= done) {
    done = call(number, file, (long)at, bytes);
    if (done <= 0) call(EXIT, 1, 0, 0);
  }
}

void program(void) {
  int32_t head[7]; /* floats of the image, samples, hop, first samples, first frames, codebooks, latent's size */
  move(READ, 0, (char *)head, sizeof head);
  move(READ, 0, (char *)memory, 4L * (head[0] + head[1]));
  const float *pcm = memory + head[0];
  const int32_t samples = head[1], hop = head[2], books = head[5];
  int32_t frames = 0, made = 0;
  for (int32_t at = 0, n, last = 0, step = 0; !last; at += n, step++) {
    last = step && samples - at < hop;
    n = step == 0 ? head[3] : last ? samples - at : hop;
    int32_t out = kernel_run(memory, 0, step == 0 ? 0 : last ? 2 : 1, 1, n, pcm + at, latent, states[step % 2],
                             states[1 - step % 2], scratch);
    kernel_search(memory, out, books, latent, codes + frames * books, scratch);
    frames += out;
  }
  for (int32_t at = 0, n, step = 0; at < frames; at += n, step++) {
    n = step == 0 ? head[4] : 1;
    kernel_lookup(memory, n, books, codes + at * books, latent);
    made += kernel_run(memory, 1, step == 0 ? 0 : 1, 1, n, latent, sound + made, states[2 + step % 2],
                       states[3 - step % 2], scratch);
  }
  move(WRITE, 1, (char *)codes, 4L * frames * books);
  move(WRITE, 1, (char *)sound, 4L * made);
  call(EXIT, 0, 0, 0);
}

#if defined(__aarch64__)
__asm__(".global _start\n_start: bl program\n");
#else
__asm__(".global _start\n_start: call program\n");
#endif

// What hot loops share: compiled once per instruction set and chosen when the addon loads, sums that vectorise without
// reordering being left to the compiler, and an exponential that does too.
#pragma once

#include <cstdint>
#include <cstring>

// Clones of a function for wider vectors. Sanitizers cannot run the code that chooses (it runs before they are set up).
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define TANDEM_SIMD __attribute__((target_clones("arch=x86-64-v3", "default")))
#define TANDEM_SIMD_CLONES 1
#else
#define TANDEM_SIMD
#define TANDEM_SIMD_CLONES 0
#endif
#define TANDEM_INLINE inline __attribute__((always_inline))

namespace tandem {

/** Widest vector instructions that this processor and this build share. */
inline const char* simdName() {
#if TANDEM_SIMD_CLONES
  if (__builtin_cpu_supports("x86-64-v3")) return "avx2";
#endif
  return "baseline";
}

/** Sum of term(i), in eight interleaved parts: always in the same order, whatever the vector width. */
template <class Term>
TANDEM_INLINE double sumOf(int64_t count, Term term) {
  double parts[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int lane = 0; lane < 8; lane++) parts[lane] += term(i + lane);
  }
  for (int lane = 0; i < count; i++, lane++) parts[lane] += term(i);
  return ((parts[0] + parts[4]) + (parts[2] + parts[6])) + ((parts[1] + parts[5]) + (parts[3] + parts[7]));
}

/** Largest of `count` values; NaN where there is one. */
TANDEM_INLINE float maxOf(const float* values, int64_t count) {
  float parts[8];
  for (float& part : parts) part = -__builtin_inff();
  bool nan = false;
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int lane = 0; lane < 8; lane++) {
      const float x = values[i + lane];
      parts[lane] = x > parts[lane] ? x : parts[lane];
    }
  }
  for (int lane = 0; i < count; i++, lane++) parts[lane] = values[i] > parts[lane] ? values[i] : parts[lane];
  float max = parts[0];
  for (const float part : parts) max = part > max ? part : max;
  for (int64_t j = 0; j < count; j++) nan |= values[j] != values[j];
  return nan ? __builtin_nanf("") : max;
}

/**
 * e^x to about one unit in the last place of float32: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial in r, and n added to
 * the exponent. Zero below -87.3, infinity above 88.7, NaN for NaN.
 */
TANDEM_INLINE float expOf(float x) {
  const float low = -87.33654f;
  const float high = 88.72283f;
  const float clamped = x < low ? low : x > high ? high : x;
  // adding 1.5 * 2^23 leaves the nearest integer in the low bits
  const float shifted = clamped * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
  float p = 1.98756915e-4f;
  p = p * r + 1.39819995e-3f;
  p = p * r + 8.33345205e-3f;
  p = p * r + 4.16657962e-2f;
  p = p * r + 1.66666657e-1f;
  p = p * r + 0.5f;
  p = p * (r * r) + r + 1.0f;
  // 2^n in two halves, so that n = 128 does not overflow before the product does
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const auto exponent = static_cast<int32_t>(bits) - 0x4b400000;
  const int32_t half = exponent >> 1;
  const auto firstBits = static_cast<uint32_t>(half + 127) << 23;
  const auto secondBits = static_cast<uint32_t>(exponent - half + 127) << 23;
  float first;
  float second;
  std::memcpy(&first, &firstBits, sizeof first);
  std::memcpy(&second, &secondBits, sizeof second);
  const float result = p * first * second;
  return x < low ? 0.0f : x > high ? __builtin_inff() : result;
}

}  // namespace tandem

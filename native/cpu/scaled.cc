// Numbers that share a scale: the scale of a block, and the grid numbers of its values under it. As core/kernels/rounding.ts defines
// them, bit for bit, in loops that vectorise.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "rounding.h"
#include "simd.h"

namespace tandem {

namespace {

constexpr double gridMax[] = {16, 448, 127};
/** Halfway between neighbours of float4's grid (0, 1/4, 1/2, 1 ... 16). Whoever lies there goes to the even code: up, where that is odd. */
constexpr double float4Halfways[] = {0.125, 0.375, 0.75, 1.5, 3, 6, 12};
constexpr int float4Steps = 7;
constexpr uint32_t infinityBits = 0x7f800000u;

/** The largest magnitude as bits, which are in the order of magnitudes; above infinity's where there is a NaN. */
TANDEM_SIMD uint32_t largestBits(const float* values, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits;
    std::memcpy(&bits, &values[i], sizeof bits);
    bits &= 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

/** Values of a magnitude of at least `from[i]` have at least the grid's number i + 1. */
TANDEM_SIMD void float4Codes(const float* __restrict values, int64_t count, const float* __restrict from, float* __restrict codes) {
  const float a = from[0], b = from[1], c = from[2], d = from[3], e = from[4], f = from[5], g = from[6];
  for (int64_t i = 0; i < count; i++) {
    const float magnitude = std::fabs(values[i]);
    float code = magnitude >= a ? 0.25f : 0.0f;
    code = magnitude >= b ? 0.5f : code;
    code = magnitude >= c ? 1.0f : code;
    code = magnitude >= d ? 2.0f : code;
    code = magnitude >= e ? 4.0f : code;
    code = magnitude >= f ? 8.0f : code;
    code = magnitude >= g ? 16.0f : code;
    codes[i] = std::copysign(code, values[i]);
  }
}

/** To the nearest whole number, ties to even, of magnitudes below 2^51. */
TANDEM_INLINE double nearest(double magnitude) {
  const double shifted = magnitude + 4503599627370496.0;  // 2^52
  return shifted - 4503599627370496.0;
}

TANDEM_SIMD void float8Codes(const float* __restrict values, int64_t count, double scale, float* __restrict codes) {
  constexpr int64_t least = int64_t{1023 - 6} << 52;
  for (int64_t i = 0; i < count; i++) {
    const double magnitude = std::fabs(static_cast<double>(values[i]) / scale);
    int64_t bits;
    std::memcpy(&bits, &magnitude, sizeof bits);
    // Three bits behind the first, of numbers that have the smallest exponent as many as of 2^-6.
    int64_t exponent = bits & 0x7ff0000000000000;
    exponent = exponent > least ? exponent : least;
    const int64_t quantumBits = exponent - (int64_t{3} << 52);
    double quantum;
    std::memcpy(&quantum, &quantumBits, sizeof quantum);
    const double rounded = nearest(magnitude / quantum) * quantum;
    const double held = rounded > 448.0 ? 448.0 : rounded;
    codes[i] = std::copysign(static_cast<float>(held), values[i]);
  }
}

TANDEM_SIMD void int8Codes(const float* __restrict values, int64_t count, double scale, float* __restrict codes) {
  for (int64_t i = 0; i < count; i++) {
    const double value = static_cast<double>(values[i]) / scale;
    double code = nearest(std::fabs(value));
    code = code > 127.0 ? 127.0 : code;
    // Zero has a sign where a number was rounded to it.
    codes[i] = static_cast<float>(value < 0 ? -code : code);
  }
}

TANDEM_SIMD void multiply(const float* __restrict codes, int64_t count, float scale, float* __restrict values) {
  for (int64_t i = 0; i < count; i++) values[i] = codes[i] * scale;
}

}  // namespace

float scaleOf(const float* values, int64_t count, Scaled format) {
  const uint32_t bits = largestBits(values, count);
  if (bits >= infinityBits) return std::nanf("");
  float largest;
  std::memcpy(&largest, &bits, sizeof largest);
  return static_cast<float>(static_cast<double>(largest) / gridMax[static_cast<int>(format)]);
}

void codesOf(const float* values, int64_t count, float scale, Scaled format, float* codes) {
  if (!(scale > 0)) {
    std::fill(codes, codes + count, 0.0f);
    return;
  }
  if (format == Scaled::float8) return float8Codes(values, count, static_cast<double>(scale), codes);
  if (format == Scaled::int8) return int8Codes(values, count, static_cast<double>(scale), codes);
  // A quotient of two floats and its nearest double lie on the same side of a halfway, or both on it: so values are compared with
  // halfways times the scale, which a double holds exactly, and these with the next float that is not less.
  float from[float4Steps];
  for (int step = 0; step < float4Steps; step++) {
    const double halfway = float4Halfways[step] * static_cast<double>(scale);
    auto least = static_cast<float>(halfway);
    const bool toEven = step % 2 == 0;
    const bool below = static_cast<double>(least) < halfway || (toEven && static_cast<double>(least) == halfway);
    if (below) least = std::nextafterf(least, HUGE_VALF);
    from[step] = least;
  }
  float4Codes(values, count, from, codes);
}

void valuesOf(const float* codes, int64_t count, float scale, float* values) { multiply(codes, count, scale, values); }

}  // namespace tandem

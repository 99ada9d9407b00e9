#include "rounding.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace tandem {

namespace {

struct FloatFormat {
  int mantissaBits;
  int minExponent;
  double max;
  bool saturates;
};

constexpr FloatFormat bfloat16 = {7, -126, 3.3895313892515355e38, false};
constexpr FloatFormat float16 = {10, -14, 65504, false};
constexpr FloatFormat float8 = {3, -6, 448, true};
constexpr FloatFormat float4 = {0, -2, 16, true};

uint64_t bitsOf(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

/** floor(log2(|x|)) of a normal number; -1023 for zero and subnormals. */
int exponentOf(double x) { return static_cast<int>((bitsOf(x) >> 52) & 0x7ff) - 1023; }

double powerOfTwo(int exponent) {
  const uint64_t bits = static_cast<uint64_t>(exponent + 1023) << 52;
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

double roundHalfEven(double x) {
  const double magnitude = std::fabs(x);
  if (magnitude >= 2251799813685248.0) return x;  // 2^51
  const double shifted = magnitude + 4503599627370496.0;  // 2^52
  const double rounded = shifted - 4503599627370496.0;
  return x < 0 ? -rounded : rounded;
}

double roundFloat(double x, const FloatFormat& format) {
  if (std::isnan(x) || x == 0) return x;
  const int exponent = exponentOf(x);
  const double magnitude = std::fabs(x);
  double rounded;
  if (format.mantissaBits == 0 && exponent >= format.minExponent) {
    const double lower = std::isinf(x) ? magnitude : powerOfTwo(exponent);
    const bool codeIsEven = (exponent - format.minExponent + 1) % 2 == 0;
    const bool up = codeIsEven ? magnitude > 1.5 * lower : magnitude >= 1.5 * lower;
    rounded = up ? 2 * lower : lower;
  } else if (std::isinf(x)) {
    rounded = magnitude;
  } else {
    const double quantum = powerOfTwo((exponent > format.minExponent ? exponent : format.minExponent) - format.mantissaBits);
    rounded = roundHalfEven(magnitude / quantum) * quantum;
  }
  if (rounded > format.max) rounded = format.saturates ? format.max : HUGE_VAL;
  return x < 0 ? -rounded : rounded;
}

double roundInteger(double x, double min, double max) {
  const double rounded = roundHalfEven(x);
  return rounded < min ? min : rounded > max ? max : rounded;
}

}  // namespace

double roundTo(Dtype dtype, double x) {
  switch (dtype) {
    case Dtype::float32: return static_cast<double>(static_cast<float>(x));
    case Dtype::bfloat16: return roundFloat(x, bfloat16);
    case Dtype::float16: return roundFloat(x, float16);
    case Dtype::float8: return roundFloat(x, float8);
    case Dtype::float4: return roundFloat(x, float4);
    case Dtype::int8: return roundInteger(x, -128, 127);
    case Dtype::int32: return roundInteger(x, -2147483648.0, 2147483647.0);
  }
  return x;
}

const float* asTf32(const float* values, int64_t count, bool rounded, int place) {
  if (!rounded) return values;
  thread_local std::vector<float> kept[2];
  std::vector<float>& to = kept[place];
  to.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits;
    std::memcpy(&bits, &values[i], sizeof bits);
    // of an infinity or what is no number nothing is dropped
    if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu;
    std::memcpy(&to[static_cast<size_t>(i)], &bits, sizeof bits);
  }
  return to.data();
}

void roundInPlace(float* data, int64_t count, Dtype dtype) {
  if (dtype == Dtype::float32) return;
  if (dtype == Dtype::bfloat16) {
    // The upper half of the bits, rounded: overflow runs into the exponent and becomes infinity by itself.
    for (int64_t i = 0; i < count; i++) {
      uint32_t bits;
      std::memcpy(&bits, &data[i], sizeof bits);
      const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
      const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
      bits = nan ? (bits | 0x00400000u) : rounded;
      std::memcpy(&data[i], &bits, sizeof bits);
    }
    return;
  }
  for (int64_t i = 0; i < count; i++) data[i] = static_cast<float>(roundTo(dtype, static_cast<double>(data[i])));
}

void roundInPlace(int32_t* data, int64_t count, Dtype dtype) {
  if (dtype != Dtype::int8) return;
  for (int64_t i = 0; i < count; i++) data[i] = data[i] < -128 ? -128 : data[i] > 127 ? 127 : data[i];
}

int32_t toInt32(double x) {
  if (!std::isfinite(x)) return 0;
  const double wrapped = std::fmod(std::trunc(x), 4294967296.0);
  return static_cast<int32_t>(static_cast<uint32_t>(static_cast<int64_t>(wrapped)));
}

Dtype dtypeNamed(const std::string& name) {
  for (int i = 0; i < dtypeCount; i++) {
    if (name == nameOf(static_cast<Dtype>(i))) return static_cast<Dtype>(i);
  }
  throw BadCall("no dtype \"" + name + "\"");
}

}  // namespace tandem

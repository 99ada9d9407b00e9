#include "wire.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "../cpu/rounding.h"
#include "../cpu/simd.h"

namespace tandem {

namespace {

Scaled formatOf(Packing packing) {
  return packing == Packing::scaledFloat8 ? Scaled::float8
         : packing == Packing::scaledFloat4 ? Scaled::float4
                                            : Scaled::int8;
}

TANDEM_INLINE uint32_t wordOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

TANDEM_INLINE float floatOf(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/** Sign, four bits of exponent, three of mantissa, as OCP's E4M3; of numbers that lie on its grid. */
TANDEM_INLINE uint8_t toFloat8(float value) {
  const uint32_t bits = wordOf(value);
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<uint8_t>(sign | 0x7f);
  // Below the smallest normal number, 2^-6, the grid is even: multiples of 2^-9.
  if (magnitude < 0.015625f) return static_cast<uint8_t>(sign | static_cast<uint8_t>(magnitude * 512.0f));
  const uint32_t exponent = (bits >> 23 & 0xff) - 127 + 7;
  return static_cast<uint8_t>(sign | exponent << 3 | (bits >> 20 & 7));
}

float fromFloat8(uint8_t code) {
  const uint32_t exponent = code >> 3 & 15;
  const uint32_t mantissa = code & 7;
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24;
  if ((code & 0x7f) == 0x7f) return floatOf(sign | 0x7fc00000u);
  if (exponent == 0) return floatOf(wordOf(static_cast<float>(mantissa) / 512.0f) | sign);
  return floatOf(sign | (exponent - 7 + 127) << 23 | mantissa << 20);
}

const std::array<float, 256>& float8Values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> all{};
    for (size_t code = 0; code < 256; code++) all[code] = fromFloat8(static_cast<uint8_t>(code));
    return all;
  }();
  return values;
}

/** Values are taken apart and put together so many at a time, in a cache. Even, for two of four bits are a byte. */
constexpr int64_t tileValues = 1024;

/** `body(tile, first, count)` for each stretch of so many values. */
template <typename Body>
void inTiles(int64_t count, Body body) {
  float tile[tileValues];
  for (int64_t first = 0; first < count; first += tileValues) body(tile, first, std::min(tileValues, count - first));
}

TANDEM_SIMD void upperHalves(const float* values, int64_t count, char* to) {
  for (int64_t i = 0; i < count; i++) {
    const auto half = static_cast<uint16_t>(wordOf(values[i]) >> 16);
    std::memcpy(to + 2 * i, &half, 2);
  }
}

TANDEM_SIMD void fromUpperHalves(const char* from, int64_t count, float* values) {
  for (int64_t i = 0; i < count; i++) {
    uint16_t half;
    std::memcpy(&half, from + 2 * i, 2);
    values[i] = floatOf(static_cast<uint32_t>(half) << 16);
  }
}

TANDEM_SIMD void float8Bytes(const float* codes, int64_t count, uint8_t* to) {
  for (int64_t i = 0; i < count; i++) to[i] = toFloat8(codes[i]);
}

/** Codes end at 127 either way: -128 is free for the zero that has a sign. */
TANDEM_SIMD void int8Bytes(const float* codes, int64_t count, uint8_t* to) {
  for (int64_t i = 0; i < count; i++) {
    const auto code = static_cast<uint8_t>(static_cast<int32_t>(codes[i]));
    to[i] = wordOf(codes[i]) == 0x80000000u ? 0x80 : code;
  }
}

TANDEM_SIMD void fromInt8(const uint8_t* from, int64_t count, float scale, float* values) {
  for (int64_t i = 0; i < count; i++) {
    const float code = from[i] == 0x80 ? -0.0f : static_cast<float>(static_cast<int8_t>(from[i]));
    values[i] = code * scale;
  }
}

/** Sign and one of 0, 1/4, 1/2, 1, ... 16: core's float4 has powers of two alone. */
TANDEM_INLINE uint32_t toFloat4(float value) {
  const uint32_t bits = wordOf(value);
  const uint32_t exponent = bits >> 23 & 0xff;
  return (bits >> 28 & 8) | (exponent == 0 ? 0 : exponent - 127 + 3);
}

TANDEM_INLINE float fromFloat4(uint32_t code) {
  const uint32_t exponent = code & 7;
  return floatOf((code & 8) << 28 | (exponent == 0 ? 0 : (exponent - 3 + 127) << 23));
}

/** Two to a byte, the first in the lower half; of an odd number the last stands alone. */
TANDEM_SIMD void float4Nibbles(const float* codes, int64_t count, uint8_t* to) {
  const int64_t pairs = count / 2;
  for (int64_t i = 0; i < pairs; i++) {
    to[i] = static_cast<uint8_t>(toFloat4(codes[2 * i]) | toFloat4(codes[2 * i + 1]) << 4);
  }
  if (count % 2 != 0) to[pairs] = static_cast<uint8_t>(toFloat4(codes[count - 1]));
}

TANDEM_SIMD void fromNibbles(const uint8_t* from, int64_t count, float scale, float* values) {
  const int64_t pairs = count / 2;
  for (int64_t i = 0; i < pairs; i++) {
    values[2 * i] = fromFloat4(from[i]) * scale;
    values[2 * i + 1] = fromFloat4(from[i] >> 4) * scale;
  }
  if (count % 2 != 0) values[count - 1] = fromFloat4(from[pairs]) * scale;
}

uint16_t toFloat16(float value) {
  const uint32_t bits = wordOf(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7e00);
  if (std::isinf(value)) return static_cast<uint16_t>(sign | 0x7c00);
  // Below 2^-14 the grid is even: multiples of 2^-24.
  if (magnitude < 6.103515625e-05f) {
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(magnitude * 16777216.0f));
  }
  const uint32_t exponent = (bits >> 23 & 0xff) - 127 + 15;
  return static_cast<uint16_t>(sign | exponent << 10 | (bits >> 13 & 0x3ff));
}

float fromFloat16(uint16_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x8000) << 16;
  const uint32_t exponent = code >> 10 & 31;
  const uint32_t mantissa = code & 0x3ff;
  if (exponent == 31) return floatOf(sign | (mantissa == 0 ? 0x7f800000u : 0x7fc00000u));
  if (exponent == 0) return floatOf(wordOf(static_cast<float>(mantissa) / 16777216.0f) | sign);
  return floatOf(sign | (exponent - 15 + 127) << 23 | mantissa << 13);
}

}  // namespace

Packing packingOf(Dtype dtype, const std::string& wire) {
  if (dtype == Dtype::int32) return Packing::words;
  if (dtype == Dtype::int8) return Packing::bytes;
  const Dtype on = wire.empty() || wire == "float32" ? dtype : dtypeNamed(wire);
  const bool asWire = on != dtype || !(wire.empty() || wire == "float32");
  switch (on) {
    case Dtype::float32: return Packing::words;
    case Dtype::bfloat16: return Packing::halves;
    case Dtype::float16: return Packing::float16s;
    case Dtype::float8: return asWire ? Packing::scaledFloat8 : Packing::float8s;
    // A tensor of float4 may hold what four bits cannot, a NaN.
    case Dtype::float4: return asWire ? Packing::scaledFloat4 : Packing::halves;
    case Dtype::int8: return Packing::scaledInt8;
    default: throw BadCall("wire is \"" + wire + "\"");
  }
}

bool isScaled(Packing packing) {
  return packing == Packing::scaledFloat8 || packing == Packing::scaledFloat4 || packing == Packing::scaledInt8;
}

size_t packedBytes(Packing packing, int64_t count) {
  const auto n = static_cast<size_t>(count);
  switch (packing) {
    case Packing::words: return 4 * n;
    case Packing::halves:
    case Packing::float16s: return 2 * n;
    case Packing::bytes:
    case Packing::float8s: return n;
    case Packing::scaledFloat8:
    case Packing::scaledInt8: return 4 + n;
    case Packing::scaledFloat4: return 4 + (n + 1) / 2;
  }
  return 0;
}

float packingScale(Packing packing, const void* values, int64_t count) {
  return isScaled(packing) ? scaleOf(static_cast<const float*>(values), count, formatOf(packing)) : 0;
}

char* pack(Packing packing, float scale, const void* values, int64_t count, char* to) {
  const auto n = static_cast<size_t>(count);
  const auto* floats = static_cast<const float*>(values);
  if (isScaled(packing)) {
    std::memcpy(to, &scale, 4);
    to += 4;
  }
  auto* bytes = reinterpret_cast<uint8_t*>(to);
  switch (packing) {
    case Packing::words:
      if (n > 0) std::memcpy(to, values, 4 * n);
      return to + 4 * n;
    case Packing::halves:
      inTiles(count, [&](float* tile, int64_t first, int64_t part) {
        std::memcpy(tile, floats + first, 4 * static_cast<size_t>(part));
        roundInPlace(tile, part, Dtype::bfloat16);
        upperHalves(tile, part, to + 2 * first);
      });
      return to + 2 * n;
    case Packing::float16s:
      for (size_t i = 0; i < n; i++) {
        const uint16_t half =
            toFloat16(static_cast<float>(roundTo(Dtype::float16, static_cast<double>(floats[i]))));
        std::memcpy(to + 2 * i, &half, 2);
      }
      return to + 2 * n;
    case Packing::bytes:
      for (size_t i = 0; i < n; i++) bytes[i] = static_cast<uint8_t>(static_cast<const int32_t*>(values)[i]);
      return to + n;
    case Packing::float8s:
      for (size_t i = 0; i < n; i++) bytes[i] = toFloat8(floats[i]);
      return to + n;
    case Packing::scaledFloat8:
    case Packing::scaledInt8:
    case Packing::scaledFloat4:
      inTiles(count, [&](float* codes, int64_t first, int64_t part) {
        codesOf(floats + first, part, scale, formatOf(packing), codes);
        if (packing == Packing::scaledFloat8) return float8Bytes(codes, part, bytes + first);
        if (packing == Packing::scaledInt8) return int8Bytes(codes, part, bytes + first);
        float4Nibbles(codes, part, bytes + first / 2);
      });
      return to + packedBytes(packing, count) - sizeof scale;
  }
  return to;
}

void unpackPart(Packing packing, const char* from, int64_t first, int64_t count, void* values) {
  const auto n = static_cast<size_t>(count);
  auto* floats = static_cast<float*>(values);
  float scale = 0;
  if (isScaled(packing)) std::memcpy(&scale, from, 4);
  from += packedBytes(packing, first);
  const auto* bytes = reinterpret_cast<const uint8_t*>(from);
  switch (packing) {
    case Packing::words:
      if (n > 0) std::memcpy(values, from, 4 * n);
      return;
    case Packing::halves:
      fromUpperHalves(from, count, floats);
      return;
    case Packing::float16s:
      for (size_t i = 0; i < n; i++) {
        uint16_t half;
        std::memcpy(&half, from + 2 * i, 2);
        floats[i] = fromFloat16(half);
      }
      return;
    case Packing::bytes:
      for (size_t i = 0; i < n; i++) static_cast<int32_t*>(values)[i] = static_cast<int8_t>(bytes[i]);
      return;
    case Packing::float8s:
      for (size_t i = 0; i < n; i++) floats[i] = float8Values()[bytes[i]];
      return;
    case Packing::scaledFloat8:
      for (size_t i = 0; i < n; i++) floats[i] = float8Values()[bytes[i]] * scale;
      return;
    case Packing::scaledInt8:
      fromInt8(bytes, count, scale, floats);
      return;
    case Packing::scaledFloat4:
      fromNibbles(bytes, count, scale, floats);
      return;
  }
}

const char* unpack(Packing packing, const char* from, int64_t count, void* values) {
  unpackPart(packing, from, 0, count, values);
  return from + packedBytes(packing, count);
}

}  // namespace tandem

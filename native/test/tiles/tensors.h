// What tiles see of tensors: native/cuda/values.cuh on a processor.
#pragma once

#include "block.h"

namespace tandem::cuda {

enum class Dtype { float32, bfloat16 };

struct View {
  void* data = nullptr;
  Dtype dtype = Dtype::float32;
  View at(int64_t element) const { return {static_cast<char*>(data) + element * (dtype == Dtype::float32 ? 4 : 2), dtype}; }
};

inline float get(const View& v, int64_t i) {
  return v.dtype == Dtype::float32 ? static_cast<const float*>(v.data)[i] : bfloat16Of(static_cast<const uint16_t*>(v.data)[i]);
}
inline void set(const View& v, int64_t i, float x) { static_cast<float*>(v.data)[i] = x; }
inline void getPair(const View& v, int64_t i, float (&x)[2]) {
  for (int64_t j = 0; j < 2; j++) x[j] = get(v, i + j);
}
/** Rounded to the nearest, of two the even one. */
inline uint32_t bfloat16Bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}
inline uint32_t pairOf(Dtype, float x, float y) { return bfloat16Bits(x) | bfloat16Bits(y) << 16; }
inline int32_t getInteger(const View& v, int64_t i) { return static_cast<const int32_t*>(v.data)[i]; }

}  // namespace tandem::cuda

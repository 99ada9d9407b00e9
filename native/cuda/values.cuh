// How values lie in device memory, and how they are read and written: each dtype in its own width, rounded as
// core/kernels/rounding.ts has it where they are stored. A float4 takes a byte. Knows no kernel.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "../backend.h"

namespace tandem::cuda {

/** Bytes of one element as it is stored. */
__host__ __device__ inline int storedBytes(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32:
    case Dtype::int32: return 4;
    case Dtype::bfloat16:
    case Dtype::float16: return 2;
    default: return 1;
  }
}

/** Elements of one dtype, one after another. */
struct View {
  void* data = nullptr;
  Dtype dtype = Dtype::float32;

  __host__ __device__ View at(int64_t element) const {
    return {static_cast<char*>(data) + element * storedBytes(dtype), dtype};
  }
};

// float4 is a sign, bit 3, and 0, 1/4, 1/2, .. 16 by its low three bits; bit 4 says NaN.
__device__ inline float decodeFloat4(uint8_t code) {
  if (code & 16) return __int_as_float(0x7fc00000);
  // 2^(magnitude - 3), or zero
  const unsigned magnitude = code & 7;
  const unsigned bits = magnitude == 0 ? 0u : (magnitude + 124u) << 23;
  return __uint_as_float(bits | (code & 8u) << 28);
}

__device__ inline uint8_t encodeFloat4(float x) {
  if (x != x) return 16;
  const uint8_t sign = __float_as_uint(x) >> 28 & 8;
  const float magnitude = fabsf(x);
  if (magnitude <= 0.125f) return sign;
  if (magnitude < 0.25f) return sign | 1;
  if (magnitude >= 16.0f) return sign | 7;
  const unsigned code = (__float_as_uint(magnitude) >> 23) - 124u;
  // the larger power of two from half way on, halves to the even code
  const unsigned fraction = __float_as_uint(magnitude) & 0x7fffffu;
  return sign | static_cast<uint8_t>(code + ((code & 1) != 0 ? fraction >= 0x400000u : fraction > 0x400000u));
}

__device__ inline float decodeFloat8(uint8_t code) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}
__device__ inline uint8_t encodeFloat8(float x) { return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3); }

/** Element i of a float tensor. */
__device__ inline float get(const View& v, int64_t i) {
  switch (v.dtype) {
    case Dtype::float32: return static_cast<const float*>(v.data)[i];
    case Dtype::bfloat16: return __bfloat162float(static_cast<const __nv_bfloat16*>(v.data)[i]);
    case Dtype::float16: return __half2float(static_cast<const __half*>(v.data)[i]);
    case Dtype::float8: return decodeFloat8(static_cast<const uint8_t*>(v.data)[i]);
    case Dtype::float4: return decodeFloat4(static_cast<const uint8_t*>(v.data)[i]);
    case Dtype::int8: return static_cast<float>(static_cast<const int8_t*>(v.data)[i]);
    case Dtype::int32: return static_cast<float>(static_cast<const int32_t*>(v.data)[i]);
  }
  return 0;
}

__device__ inline void set(const View& v, int64_t i, float x) {
  switch (v.dtype) {
    case Dtype::float32: static_cast<float*>(v.data)[i] = x; break;
    case Dtype::bfloat16: static_cast<__nv_bfloat16*>(v.data)[i] = __float2bfloat16_rn(x); break;
    case Dtype::float16: static_cast<__half*>(v.data)[i] = __float2half_rn(x); break;
    case Dtype::float8: static_cast<uint8_t*>(v.data)[i] = encodeFloat8(x); break;
    case Dtype::float4: static_cast<uint8_t*>(v.data)[i] = encodeFloat4(x); break;
    default: break;
  }
}

__host__ __device__ inline bool integral(Dtype dtype) { return dtype == Dtype::int8 || dtype == Dtype::int32; }

/** What JavaScript does when it stores a number in an Int32Array: drop the fraction, wrap. */
__device__ inline int32_t wrapped(double x) {
  if (!isfinite(x)) return 0;
  return static_cast<int32_t>(static_cast<uint32_t>(static_cast<int64_t>(fmod(trunc(x), 4294967296.0))));
}

__device__ inline int32_t getInteger(const View& v, int64_t i) {
  return v.dtype == Dtype::int8 ? static_cast<const int8_t*>(v.data)[i] : static_cast<const int32_t*>(v.data)[i];
}

__device__ inline void setInteger(const View& v, int64_t i, int32_t x) {
  if (v.dtype == Dtype::int8) {
    static_cast<int8_t*>(v.data)[i] = static_cast<int8_t>(x < -128 ? -128 : x > 127 ? 127 : x);
  } else {
    static_cast<int32_t*>(v.data)[i] = x;
  }
}

/** Any tensor as the references see it: numbers. */
__device__ inline double getNumber(const View& v, int64_t i) {
  return integral(v.dtype) ? static_cast<double>(getInteger(v, i)) : static_cast<double>(get(v, i));
}

__device__ inline void setNumber(const View& v, int64_t i, double x) {
  if (integral(v.dtype)) {
    setInteger(v, i, wrapped(x));
  } else {
    set(v, i, static_cast<float>(x));
  }
}

/** Copies an element as it is, or through a number where the dtypes differ. */
__device__ inline void copyElement(const View& to, int64_t i, const View& from, int64_t j) {
  if (integral(to.dtype) || integral(from.dtype)) {
    setNumber(to, i, getNumber(from, j));
  } else {
    set(to, i, get(from, j));
  }
}

constexpr int pack = 8;

/** Two neighbours as they lie in a tensor of 16-bit floats. */
__device__ inline uint32_t pairOf(Dtype dtype, float x, float y) {
  if (dtype == Dtype::bfloat16) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<const uint32_t*>(&two);
  }
  const __half2 two = __floats2half2_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&two);
}

/** Two elements of float32 or 16 bits from i on, which is even from an aligned start. */
__device__ inline void getPair(const View& v, int64_t i, float (&x)[2]) {
  if (v.dtype == Dtype::float32) {
    const float2 two = *reinterpret_cast<const float2*>(static_cast<const float*>(v.data) + i);
    x[0] = two.x;
    x[1] = two.y;
    return;
  }
  const uint32_t word = *reinterpret_cast<const uint32_t*>(static_cast<const uint16_t*>(v.data) + i);
  if (v.dtype == Dtype::bfloat16) {
    x[0] = __uint_as_float(word << 16);
    x[1] = __uint_as_float(word & 0xffff0000u);
  } else {
    const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&word));
    x[0] = two.x;
    x[1] = two.y;
  }
}

/** Eight elements from i on, which is a multiple of eight from an aligned start. */
__device__ inline void getPack(const View& v, int64_t i, float* out) {
  if (v.dtype == Dtype::bfloat16 || v.dtype == Dtype::float16) {
    const uint4 words = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(v.data) + i);
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      if (v.dtype == Dtype::bfloat16) {
        out[2 * j] = __uint_as_float(word[j] << 16);
        out[2 * j + 1] = __uint_as_float(word[j] & 0xffff0000u);
      } else {
        const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&word[j]));
        out[2 * j] = two.x;
        out[2 * j + 1] = two.y;
      }
    }
  } else if (v.dtype == Dtype::float32) {
    const auto* from = reinterpret_cast<const float4*>(static_cast<const float*>(v.data) + i);
    const float4 low = from[0];
    const float4 high = from[1];
    out[0] = low.x;
    out[1] = low.y;
    out[2] = low.z;
    out[3] = low.w;
    out[4] = high.x;
    out[5] = high.y;
    out[6] = high.z;
    out[7] = high.w;
  } else {
#pragma unroll
    for (int j = 0; j < pack; j++) out[j] = get(v, i + j);
  }
}

__device__ inline void setPack(const View& v, int64_t i, const float* x) {
  if (v.dtype == Dtype::bfloat16 || v.dtype == Dtype::float16) {
    uint32_t word[4];
#pragma unroll
    for (int j = 0; j < 4; j++) word[j] = pairOf(v.dtype, x[2 * j], x[2 * j + 1]);
    *reinterpret_cast<uint4*>(static_cast<uint16_t*>(v.data) + i) = make_uint4(word[0], word[1], word[2], word[3]);
  } else if (v.dtype == Dtype::float32) {
    auto* to = reinterpret_cast<float4*>(static_cast<float*>(v.data) + i);
    to[0] = make_float4(x[0], x[1], x[2], x[3]);
    to[1] = make_float4(x[4], x[5], x[6], x[7]);
  } else {
#pragma unroll
    for (int j = 0; j < pack; j++) set(v, i + j, x[j]);
  }
}

/** Eight elements, or as many of them as there are before `end`; the others are `rest`. */
__device__ inline void getSome(const View& v, int64_t i, int64_t end, bool whole, float* out, float rest = 0) {
  if (whole) return getPack(v, i, out);
#pragma unroll
  for (int j = 0; j < pack; j++) out[j] = i + j < end ? get(v, i + j) : rest;
}

__device__ inline void setSome(const View& v, int64_t i, int64_t end, bool whole, const float* x) {
  if (whole) return setPack(v, i, x);
#pragma unroll
  for (int j = 0; j < pack; j++) {
    if (i + j < end) set(v, i + j, x[j]);
  }
}

}  // namespace tandem::cuda

// Codes under a scale: the largest magnitude of a block over the largest number of the grid. What the packing kernels and
// the wires of collectives share.
#pragma once

#include "kernels.h"
#include "reduce.cuh"

namespace tandem::cuda {

enum class Scaled { float4, float8, int8 };

__host__ __device__ inline double gridMax(Scaled format) {
  return format == Scaled::float4 ? 16 : format == Scaled::float8 ? 448 : 127;
}

/** What a value over its scale becomes on the grid, as it is stored, but for int8's zero with a sign. */
template <Scaled format>
struct Grid;

template <>
struct Grid<Scaled::float4> {
  using Code = uint8_t;
  static __device__ Code of(float quotient) { return encodeFloat4(quotient); }
  static __device__ float number(Code code) { return decodeFloat4(code); }
};

template <>
struct Grid<Scaled::float8> {
  using Code = uint8_t;
  static __device__ Code of(float quotient) { return encodeFloat8(quotient); }
  static __device__ float number(Code code) { return decodeFloat8(code); }
};

template <>
struct Grid<Scaled::int8> {
  using Code = float;
  static __device__ Code of(float quotient) { return fminf(fmaxf(rintf(quotient), -127.0f), 127.0f); }
  static __device__ float number(Code code) { return code; }
};

/** A quotient in float32 is taken for what it is in float64 where nothing so near it, relatively, is rounded to another code. */
constexpr float quotientDoubt = 1.0f / (1 << 20);

/**
 * The code of a value under that scale: rounded once, from the quotient in float64. That takes a division in float64 only near the
 * middle between two codes: elsewhere one in float32, which is off by two of its steps at most, is rounded to the same.
 */
template <Scaled format>
__device__ inline typename Grid<format>::Code gridCode(float value, float scale) {
  // a zero has no sign there, but what rounds to zero has
  if (!(scale > 0) || (format == Scaled::int8 && value == 0)) return Grid<format>::of(0.0f);
  if (scale > 1e-30f && scale < 1e30f) {
    const float quotient = __fdividef(value, scale);
    const auto code = Grid<format>::of(quotient * (1 - quotientDoubt));
    if (code == Grid<format>::of(quotient * (1 + quotientDoubt))) return code;
  }
  const double quotient = static_cast<double>(value) / static_cast<double>(scale);
  // an odd last bit stands for what float32 drops, so that rounding again cannot make a tie of what is none
  float sticky = __double2float_rz(quotient);
  if (static_cast<double>(sticky) != quotient) sticky = __uint_as_float(__float_as_uint(sticky) | 1u);
  return Grid<format>::of(sticky);
}

/** The grid number of a value under that scale. */
__device__ inline float codeOf(float value, float scale, Scaled format) {
  if (!(scale > 0)) return 0;
  switch (format) {
    case Scaled::float4: return Grid<Scaled::float4>::number(gridCode<Scaled::float4>(value, scale));
    case Scaled::float8: return Grid<Scaled::float8>::number(gridCode<Scaled::float8>(value, scale));
    case Scaled::int8: return gridCode<Scaled::int8>(value, scale);
  }
  return 0;
}

/** A block of threads per block of values. Zero for a block of zeros, NaN where there is a NaN or an infinity. */
static __global__ void __launch_bounds__(256) scaleBlock(View inp, int64_t elements, int64_t size, View scales, double max) {
  const int64_t start = blockIdx.x * size;
  const int64_t end = min(elements, start + size);
  float largest = 0;
  for (int64_t i = start + threadIdx.x; i < end; i += 256) largest = Larger{}(largest, fabsf(get(inp, i)));
  largest = blockReduce(largest, Larger{}, 0.0f);
  if (threadIdx.x != 0) return;
  const bool none = isnan(largest) || isinf(largest);
  set(scales, blockIdx.x, none ? __int_as_float(0x7fc00000) : static_cast<float>(static_cast<double>(largest) / max));
}

/** Largest magnitudes of long blocks, a part at a time; bits of a non-negative float rise with it, and NaN is above all. */
static __global__ void __launch_bounds__(256) largestPart(View inp, int64_t elements, unsigned* largest) {
  float own = 0;
  const bool packs = reinterpret_cast<uintptr_t>(inp.data) % 16 == 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * 256 * pack;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x) * pack; i < elements; i += step) {
    float values[pack];
    getSome(inp, i, elements, packs && i + pack <= elements, values);
#pragma unroll
    for (int j = 0; j < pack; j++) own = Larger{}(own, fabsf(values[j]));
  }
  own = blockReduce(own, Larger{}, 0.0f);
  if (threadIdx.x == 0) atomicMax(largest, __float_as_uint(own) & 0x7fffffffu);
}

static __global__ void scaleOfLargest(const unsigned* largest, View scales, double max) {
  const float value = __uint_as_float(*largest);
  const bool none = isnan(value) || isinf(value);
  set(scales, 0, none ? __int_as_float(0x7fc00000) : static_cast<float>(static_cast<double>(value) / max));
}

inline void scaleBlocks(const Launch& launch, const View& inp, int64_t elements, int64_t size, const View& scales,
                        Scaled format) {
  if (elements == 0) return;
  const int64_t blocks = ceilDiv(elements, size);
  if (blocks == 1 && elements > 16384) {
    const Scratch scratch(launch, sizeof(unsigned));
    auto* largest = scratch.as<unsigned>();
    check(cudaMemsetAsync(largest, 0, sizeof(unsigned), launch.stream), "cudaMemsetAsync");
    largestPart<<<blocksFor(elements, 256 * 16), 256, 0, launch.stream>>>(inp, elements, largest);
    scaleOfLargest<<<1, 1, 0, launch.stream>>>(largest, scales, gridMax(format));
    return;
  }
  scaleBlock<<<static_cast<unsigned>(blocks), 256, 0, launch.stream>>>(inp, elements, size, scales, gridMax(format));
}

}  // namespace tandem::cuda

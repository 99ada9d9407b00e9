// What the passes of attention on tensor cores share (FlashAttention-2, Dao 2023): tiles of one head's rows, and which calls
// they take.
#pragma once

#include "attention.h"
#include "mma.cuh"

namespace tandem::cuda {

namespace flash {

constexpr int threads = 128;
constexpr int warpRows = 16;
constexpr float log2e = 1.4426950408889634f;

/** Rows first .. first + rows - 1 of one head into a tile; beyond `end` zeros. */
template <int rows, int width>
__device__ inline void copyTile(uint32_t tile, const Heads& from, int64_t token, int64_t head, int64_t first, int64_t end) {
  const auto* base = static_cast<const uint16_t*>(from.view.data) + token * from.stride + head * width;
  copyRows<threads, rows, width>(tile, base, from.stride, first, end);
}

/** Sums of one warp's 16 rows, 8 columns at a time, stored as 16-bit values. */
template <class T, int width>
__device__ inline void storeRows(const Heads& to, int64_t token, int64_t head, int64_t first, int64_t end,
                                 const float (&sums)[width / 8][4], float factor0, float factor1) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int64_t row = first + lane / 4 + half * 8;
    if (row >= end) continue;
    const float factor = half == 0 ? factor0 : factor1;
    auto* out = static_cast<uint16_t*>(to.view.data) + (token + row) * to.stride + head * width;
#pragma unroll
    for (int n = 0; n < width / 8; n++) {
      *reinterpret_cast<uint32_t*>(out + n * 8 + lane % 4 * 2) =
          Mma<T>::two(sums[n][2 * half] * factor, sums[n][2 * half + 1] * factor);
    }
  }
}

/** How many of the keys from `firstKey` on query `row` sees, as far as a tile goes; zero or less: none. */
__device__ inline int columnsSeen(const Attention& a, int64_t row, int64_t firstKey) {
  return static_cast<int>(max(int64_t{-1}, min(int64_t{1024}, min(a.context, a.visible(row)) - firstKey)));
}

/** Raised once per kernel and device: tiles need more than the 48 KB that a block may have unasked. */
template <class K>
void allowShared(K kernel, size_t bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
}

inline dim3 gridOf(int64_t tokens, int rows, int64_t heads, int64_t batch) {
  return dim3(static_cast<unsigned>(ceilDiv(tokens, rows)), static_cast<unsigned>(heads), static_cast<unsigned>(batch));
}

inline bool fits(const Attention& a, std::initializer_list<const Heads*> tensors) {
  const Dtype dtype = a.q.view.dtype;
  if (dtype != Dtype::bfloat16 && dtype != Dtype::float16) return false;
  if (a.headWidth != 64 && a.headWidth != 128) return false;
  if (a.batch == 0 || a.time == 0 || a.context == 0 || a.heads == 0 || !isFloat32(a.lse)) return false;
  for (const Heads* heads : tensors) {
    if (heads->view.dtype != dtype || heads->stride % 8 != 0) return false;
  }
  return true;
}

}  // namespace flash

}  // namespace tandem::cuda

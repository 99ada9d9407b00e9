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

/** Rows are queries `row` and `row` + 8 of each lane's quad: what they do not see of the keys from `firstKey` on becomes `hidden`. */
template <int tiles>
__device__ inline void hideKeys(const Attention& a, float (&values)[tiles][4], int64_t row, int64_t firstKey, float hidden) {
  const int lane = threadIdx.x % 32;
  const int seen[2] = {columnsSeen(a, row, firstKey), columnsSeen(a, row + 8, firstKey)};
#pragma unroll
  for (int n = 0; n < tiles; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (n * 8 + lane % 4 * 2 + i % 2 >= seen[i / 2]) values[n][i] = hidden;
    }
  }
}

/** Rows are keys `key` and `key` + 8: zeros where a query from `query` on is beyond the last, or does not see them. */
template <int tiles>
__device__ inline void hideQueries(const Attention& a, float (&weights)[tiles][4], float (&changes)[tiles][4], int64_t key,
                                   int64_t query) {
  const int lane = threadIdx.x % 32;
  const int queries = static_cast<int>(min(a.time - query, int64_t{tiles * 8}));
  // the first query of this tile that sees the thread's keys
  const int64_t lead = a.causal ? key - (a.context - a.time) - query : 0;
  const int from[2] = {static_cast<int>(max(int64_t{0}, lead)), static_cast<int>(max(int64_t{0}, a.causal ? lead + 8 : 0))};
#pragma unroll
  for (int n = 0; n < tiles; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int at = n * 8 + lane % 4 * 2 + i % 2;
      if (at < from[i / 2] || at >= queries) weights[n][i] = changes[n][i] = 0;
    }
  }
}

/** Of queries `row` and `row` + 8: what the forward pass left of their weights, of base two, and delta of their gradients. */
__device__ inline void rowValuesOf(const Attention& a, const float* delta, int64_t b, int64_t head, int64_t row, float (&lse)[2],
                                 float (&mean)[2]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int64_t own = row + half * 8;
    const int64_t at = (b * a.heads + head) * a.time + own;
    lse[half] = own < a.time ? static_cast<const float*>(a.lse.data)[at] * log2e : 0;
    mean[half] = own < a.time ? delta[at] : 0;
  }
}

/** The softmax of two rows of each lane's quad as tiles of scores come. */
struct Running {
  float max[2] = {-INFINITY, -INFINITY};
  float total[2] = {0, 0};

  /** Scores become weights below the largest so far; what was summed before shrinks by as much. `scale` is of base two. */
  template <int tiles>
  __device__ inline void take(float (&scores)[tiles][4], float scale, float (&shrink)[2]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float highest = max[half];
#pragma unroll
      for (int n = 0; n < tiles; n++) highest = fmaxf(highest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
      // a row beyond the last query may see nothing at all
      const float base = highest == -INFINITY ? 0.0f : highest * scale;
      shrink[half] = exp2Fast(fmaf(max[half], scale, -base));
      max[half] = highest;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < tiles; n++) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; i++) {
          scores[n][i] = exp2Fast(fmaf(scores[n][i], scale, -base));
          sum += scores[n][i];
        }
      }
      total[half] = fmaf(total[half], shrink[half], sum);
    }
  }

  /** After the last tile: one over each row's sum; the logarithm of it goes to `lse`, which begins at the head's first query. */
  __device__ inline void finish(const Attention& a, float* lse, int64_t row, float (&over)[2]) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float sum = total[half];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      over[half] = 1.0f / sum;
      if (threadIdx.x % 4 == 0 && row + half * 8 < a.time) lse[row + half * 8] = max[half] * a.scale + logf(sum);
    }
  }
};

/** A weight from its score, and the gradient of the score. `lse` is of base two. */
__device__ inline void slope(float& score, float& dscore, float scale2, float scale, float lse, float delta) {
  score = exp2Fast(fmaf(score, scale2, -lse));
  dscore = scale * score * (dscore - delta);
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

/** An element and a width as arguments, for `forKind`. */
template <class T>
struct Element {
  using type = T;
};
template <int width>
using Width = std::integral_constant<int, width>;

/** of(Element<T>, Width<n>) with the 16-bit dtype and the head width of these operands, which `fits` has looked at. */
template <class Of>
auto forKind(const Attention& a, const Of& of) {
  const bool wide = a.headWidth == 128;
  if (a.q.view.dtype == Dtype::bfloat16) {
    return wide ? of(Element<__nv_bfloat16>{}, Width<128>{}) : of(Element<__nv_bfloat16>{}, Width<64>{});
  }
  return wide ? of(Element<__half>{}, Width<128>{}) : of(Element<__half>{}, Width<64>{});
}

}  // namespace flash

}  // namespace tandem::cuda

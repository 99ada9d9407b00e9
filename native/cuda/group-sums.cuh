// Where a group's sums go: from a warp's registers, as tensor cores leave them there, to the rows of its result. Includes nothing of
// CUDA's, for native/test/tiles runs it on a processor: whoever includes it has tensors (values.cuh) before.
#pragma once

namespace tandem::cuda::grouped {

/** One group's part of a result, rows of `n` elements, a multiple of 64; of float32 or 16 bits, from 16 bytes on, and `add` likewise. */
struct Result {
  View c, add;
  bool hasAdd;
  int64_t m, n;
};

struct alignas(8) TwoFloats {
  float x, y;
};
struct alignas(16) FourWords {
  uint32_t words[4];
};

/** Of a matrix of four by four words, a row in each of four neighbouring lanes, each gets its column. */
__device__ inline void transposeFour(uint32_t (&w)[4]) {
#pragma unroll
  for (int apart = 1; apart < 4; apart *= 2) {
    const bool upper = (threadIdx.x & static_cast<unsigned>(apart)) != 0;
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
      const int low = apart == 1 ? 2 * pair : pair;
      const int high = low + apart;
      const uint32_t other = __shfl_xor_sync(0xffffffffu, upper ? w[low] : w[high], apart);
      if (upper) {
        w[low] = other;
      } else {
        w[high] = other;
      }
    }
  }
}

/** sums += what lies in the result's place before. */
template <int blocks>
__device__ inline void addBefore(const Result& to, int64_t m0, int64_t n0, float (&sums)[blocks][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int block = 0; block < blocks; block++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int64_t m = m0 + lane / 4 + 8 * half;
      if (m >= to.m || n0 + 8 * block >= to.n) continue;
      float before[2];
      getPair(to.add, m * to.n + n0 + 8 * block + lane % 4 * 2, before);
      sums[block][2 * half] += before[0];
      sums[block][2 * half + 1] += before[1];
    }
  }
}

/**
 * 16 rows from m0 on and `blocks` times 8 columns from n0 on, a multiple of 32, by a warp: those that the result has. All that is computed
 * stands before all that is written, for nothing of it waits for anything else.
 */
template <int blocks>
__device__ inline void storeSums(const Result& to, int64_t m0, int64_t n0, float (&sums)[blocks][4]) {
  constexpr int parts = blocks / 4;
  const int lane = threadIdx.x % 32;
  if (to.hasAdd) addBefore(to, m0, n0, sums);
  const int64_t first = m0 + lane / 4;
  // of 32 columns each
  const auto there = static_cast<int>(min(int64_t{parts}, (to.n - n0) / 32));
  if (to.c.dtype == Dtype::float32) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      auto* row = static_cast<float*>(to.c.data) + (first + 8 * half) * to.n + n0 + lane % 4 * 2;
      const int own = first + 8 * half < to.m ? there : 0;
#pragma unroll
      for (int block = 0; block < blocks; block++) {
        if (block / 4 < own) *reinterpret_cast<TwoFloats*>(row + 8 * block) = {sums[block][2 * half], sums[block][2 * half + 1]};
      }
    }
    return;
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    FourWords words[parts];
#pragma unroll
    for (int block = 0; block < blocks; block++) {
      words[block / 4].words[block % 4] = pairOf(to.c.dtype, sums[block][2 * half], sums[block][2 * half + 1]);
    }
    // a lane's own eight columns of one block of four, so that four lanes write 64 bytes of a row
#pragma unroll
    for (int part = 0; part < parts; part++) transposeFour(words[part].words);
    auto* row = static_cast<uint16_t*>(to.c.data) + (first + 8 * half) * to.n + n0 + lane % 4 * 8;
    const int own = first + 8 * half < to.m ? there : 0;
#pragma unroll
    for (int part = 0; part < parts; part++) {
      if (part < own) *reinterpret_cast<FourWords*>(row + 32 * part) = words[part];
    }
  }
}

}  // namespace tandem::cuda::grouped

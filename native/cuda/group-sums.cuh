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

/** 16 rows from m0 on and `blocks` times 8 columns from n0 on, a multiple of 32, by a warp: those that the result has. */
template <int blocks>
__device__ inline void storeSums(const Result& to, int64_t m0, int64_t n0, const float (&sums)[blocks][4]) {
  const int lane = threadIdx.x % 32;
  const bool single = to.c.dtype == Dtype::float32;
#pragma unroll
  for (int part = 0; part < blocks / 4; part++) {
    if (n0 + 32 * part >= to.n) continue;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int64_t m = m0 + lane / 4 + 8 * half;
      const bool there = m < to.m;
      const int64_t row = m * to.n + n0 + 32 * part;
      float pairs[4][2];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        pairs[i][0] = sums[4 * part + i][2 * half];
        pairs[i][1] = sums[4 * part + i][2 * half + 1];
        if (!to.hasAdd || !there) continue;
        float before[2];
        getPair(to.add, row + 8 * i + lane % 4 * 2, before);
        pairs[i][0] += before[0];
        pairs[i][1] += before[1];
      }
      if (single) {
        auto* at = static_cast<float*>(to.c.data) + row + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 4; i++) {
          if (there) *reinterpret_cast<TwoFloats*>(at + 8 * i) = {pairs[i][0], pairs[i][1]};
        }
        continue;
      }
      // a lane's own eight columns of one block, so that four lanes write 64 bytes of a row
      FourWords four;
#pragma unroll
      for (int i = 0; i < 4; i++) four.words[i] = pairOf(to.c.dtype, pairs[i][0], pairs[i][1]);
      transposeFour(four.words);
      if (there) *reinterpret_cast<FourWords*>(static_cast<uint16_t*>(to.c.data) + row + lane % 4 * 8) = four;
    }
  }
}

}  // namespace tandem::cuda::grouped

// Products of groups of rows on tensor cores, all groups in one launch: tiles of 128 by 128, 64 deep, three of them on their way or
// in use, eight warps with 32 by 64 sums each. Includes nothing of CUDA's, for native/test/tiles runs it on a processor: whoever includes
// it has tensors (values.cuh), faults (kernels.h) and products (gemm.h) before.
#pragma once

#include "group-counts.cuh"
#include "mma.cuh"

namespace tandem::cuda::grouped {

constexpr int tile = 128;
constexpr int depth = 64;
constexpr int stages = 3;
constexpr int threads = 256;
/** Of one factor's part of a stage: 128 rows of 64 values, or twice 64 rows of 64. */
constexpr uint32_t factorBytes = tile * depth * 2;
constexpr uint32_t halfBytes = factorBytes / 2;
constexpr size_t sharedBytes = size_t{stages} * 2 * factorBytes;

/** One group's part of a product; rows of a and b are `aStride` and `bStride` elements apart. */
struct Group {
  const uint16_t* a;
  const uint16_t* b;
  int64_t aStride, bStride;
  int64_t m, n, k;
  View c, add;
  bool hasAdd;
};

/**
 * Rows first .. first + 127 of a factor whose rows are what is summed over, 64 deep from k0; or, `columns`, its columns first .. first
 * + 127, whose rows are the terms. `extent`: rows, or columns, that it has; columns come in multiples of 64.
 */
template <bool columns>
__device__ inline void copyFactor(uint32_t to, const uint16_t* from, int64_t stride, int64_t first, int64_t extent, int64_t k0,
                                  int64_t k) {
  if constexpr (columns) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int64_t column = first + half * 64;
      const bool there = column < extent;
      copyRows<threads, depth, 64>(to + half * halfBytes, from + (there ? column : 0), stride, k0, there ? k : 0);
    }
  } else {
    copyRows<threads, tile, depth>(to, from + k0, stride, first, extent);
  }
}

/** Rows row .. row + 15 and terms 16 k .. 16 k + 15 as the left factor. */
template <bool columns>
__device__ inline void loadLeftOf(uint32_t at, int row, int k, uint32_t (&r)[4]) {
  if constexpr (columns) {
    const int lane = threadIdx.x % 32;
    const uint32_t half = at + row / 64 * halfBytes;
    loadTransposed(pieceAddress<64>(half, 16 * k + lane / 16 * 8 + lane % 8, row % 64 / 8 + lane / 8 % 2), r);
  } else {
    loadLeft<depth>(at, row, k, r);
  }
}

/** Columns column .. column + 15 and the same terms as the right factor. */
template <bool columns>
__device__ inline void loadRightOf(uint32_t at, int column, int k, uint32_t (&r)[4]) {
  if constexpr (columns) {
    loadRightColumns<64>(at + column / 64 * halfBytes, 16 * k, column % 64 / 16, r);
  } else {
    loadRightRows<depth>(at, column, k, r);
  }
}

/** The tile of rows m0 and columns n0 of one group. */
template <class T, bool leftColumns, bool rightColumns>
__device__ inline void groupTile(const Group& g, int64_t m0, int64_t n0, uint32_t memory) {
  const auto left = [&](int stage) { return memory + stage * 2 * factorBytes; };
  const auto right = [&](int stage) { return left(stage) + factorBytes; };
  const auto steps = static_cast<int>((g.k + depth - 1) / depth);
  const auto fetch = [&](int step) {
    if (step < steps) {
      const int64_t k0 = static_cast<int64_t>(step) * depth;
      copyFactor<leftColumns>(left(step % stages), g.a, g.aStride, m0, g.m, k0, g.k);
      copyFactor<rightColumns>(right(step % stages), g.b, g.bStride, n0, g.n, k0, g.k);
    }
    // a group for each step, empty or not, so that how many are open says how far they are
    commitCopies();
  };
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int row = warp / 2 * 32;
  const int column = warp % 2 * 64;
  float sums[2][8][4] = {};
#pragma unroll
  for (int step = 0; step < stages - 1; step++) fetch(step);
  for (int step = 0; step < steps; step++) {
    awaitCopies<stages - 2>();
    // all threads' copies are there, and nobody reads any more what the next ones overwrite
    __syncthreads();
    fetch(step + stages - 1);
    const int stage = step % stages;
#pragma unroll
    for (int k = 0; k < depth / 16; k++) {
      uint32_t a[2][4];
#pragma unroll
      for (int i = 0; i < 2; i++) loadLeftOf<leftColumns>(left(stage), row + 16 * i, k, a[i]);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        uint32_t b[4];
        loadRightOf<rightColumns>(right(stage), column + 16 * j, k, b);
#pragma unroll
        for (int i = 0; i < 2; i++) {
          Mma<T>::add(sums[i][2 * j], a[i], b[0], b[1]);
          Mma<T>::add(sums[i][2 * j + 1], a[i], b[2], b[3]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int j = 0; j < 8; j++) {
#pragma unroll
      for (int part = 0; part < 4; part++) {
        const int64_t m = m0 + row + 16 * i + lane / 4 + part / 2 * 8;
        const int64_t n = n0 + column + 8 * j + lane % 4 * 2 + part % 2;
        if (m >= g.m || n >= g.n) continue;
        const int64_t at = m * g.n + n;
        set(g.c, at, sums[i][j][part] + (g.hasAdd ? get(g.add, at) : 0.0f));
      }
    }
  }
}

/** The tile of a block, in shared memory from `memory` on; counts that do not add up are a fault, and nothing is computed. */
template <class T, bool leftColumns, bool rightColumns>
__device__ inline void blockTile(const Grouped& g, const Reporter& reporter, uint32_t memory) {
  const auto [group, first, count, m0] = partOfBlock(g, reporter, tile);
  if (group < 0) return;
  const Product& p = g.product;
  const auto* a = static_cast<const uint16_t*>(p.a.view.data);
  const auto* b = static_cast<const uint16_t*>(p.b.view.data);
  Group own = {a, b, leftColumns ? p.a.column : p.a.row, rightColumns ? p.b.row : p.b.column, p.m, p.n, p.k, p.c, p.add, p.hasAdd};
  own.a += first * own.aStride;
  if (g.sums) {
    own.b += first * own.bStride;
    own.k = count;
    own.c = p.c.at(group * g.groupStride);
    if (p.hasAdd) own.add = p.add.at(group * g.groupStride);
  } else {
    own.b += group * g.groupStride;
    own.m = count;
    own.c = p.c.at(first * p.n);
  }
  groupTile<T, leftColumns, rightColumns>(own, m0, static_cast<int64_t>(blockIdx.x) * tile, memory);
}

}  // namespace tandem::cuda::grouped

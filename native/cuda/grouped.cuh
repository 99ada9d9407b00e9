// Products of groups of rows on tensor cores, all groups in one launch: tiles of 128 by 128, 64 deep, three of them on their way or
// in use, eight warps with 32 by 64 sums each. Includes nothing of CUDA's, for native/test/tiles runs it on a processor: whoever includes
// it has tensors (values.cuh), faults (kernels.h) and products (gemm.h) before.
#pragma once

#include "group-counts.cuh"
#include "group-sums.cuh"
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
  int64_t k;
  Result result;
};

/**
 * What a thread copies of a factor's rows first .. first + 127, whose elements are what is summed over, 64 of them at a time; or,
 * `columns`, of its columns first .. first + 127, whose rows are the terms. The same piece of every 32nd row of a tile, so that
 * addresses are found once. `extent`: rows, or columns, that it has; columns come in multiples of 64.
 */
template <bool columns>
struct Copier {
  static constexpr int apart = threads / 8;
  int row = threadIdx.x / 8;
  uint32_t to = pieceAddress<depth>(0, row, threadIdx.x % 8);
  const uint16_t* from;
  int64_t stride;
  int extent;

  __device__ inline Copier(const uint16_t* factor, int64_t rowsApart, int64_t first, int64_t has)
      : from(factor + (columns ? row * rowsApart + first : (first + row) * rowsApart) + threadIdx.x % 8 * 8),
        stride(rowsApart),
        extent(static_cast<int>(min(has - first, int64_t{tile}))) {}

  /** Terms from k0 on, of k. */
  __device__ inline void copy(uint32_t at, int64_t k0, int64_t k) const {
    if constexpr (columns) {
      const uint16_t* start = from + k0 * stride;
      const auto terms = static_cast<int>(min(k - k0, int64_t{depth}));
#pragma unroll
      for (int i = 0; i < depth / apart; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const bool valid = row + i * apart < terms && half * 64 < extent;
          copyLater(at + half * halfBytes + to + i * apart * 128, valid ? start + i * apart * stride + half * 64 : from, valid);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < tile / apart; i++) {
        const bool valid = row + i * apart < extent;
        copyLater(at + to + i * apart * 128, valid ? from + k0 + i * apart * stride : from, valid);
      }
    }
  }
};

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
  const Copier<leftColumns> a(g.a, g.aStride, m0, g.result.m);
  const Copier<rightColumns> b(g.b, g.bStride, n0, g.result.n);
  const auto fetch = [&](int step) {
    if (step < steps) {
      const int64_t k0 = static_cast<int64_t>(step) * depth;
      a.copy(left(step % stages), k0, g.k);
      b.copy(right(step % stages), k0, g.k);
    }
    // a group for each step, empty or not, so that how many are open says how far they are
    commitCopies();
  };
  const int warp = threadIdx.x / 32;
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
      uint32_t lefts[2][4];
#pragma unroll
      for (int i = 0; i < 2; i++) loadLeftOf<leftColumns>(left(stage), row + 16 * i, k, lefts[i]);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        uint32_t rights[4];
        loadRightOf<rightColumns>(right(stage), column + 16 * j, k, rights);
#pragma unroll
        for (int i = 0; i < 2; i++) {
          Mma<T>::add(sums[i][2 * j], lefts[i], rights[0], rights[1]);
          Mma<T>::add(sums[i][2 * j + 1], lefts[i], rights[2], rights[3]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; i++) storeSums(g.result, m0 + row + 16 * i, n0 + column, sums[i]);
}

/** The tile of a block, in shared memory from `memory` on; counts that do not add up are a fault, and nothing is computed. */
template <class T, bool leftColumns, bool rightColumns>
__device__ inline void blockTile(const Grouped& g, const Reporter& reporter, uint32_t memory) {
  const auto [group, first, count, m0] = partOfBlock(g, reporter, tile);
  if (group < 0) return;
  const Product& p = g.product;
  const auto* a = static_cast<const uint16_t*>(p.a.view.data);
  const auto* b = static_cast<const uint16_t*>(p.b.view.data);
  Group own = {a, b, leftColumns ? p.a.column : p.a.row, rightColumns ? p.b.row : p.b.column, p.k, {p.c, p.add, p.hasAdd, p.m, p.n}};
  own.a += first * own.aStride;
  if (g.sums) {
    own.b += first * own.bStride;
    own.k = count;
    own.result.c = p.c.at(group * g.groupStride);
    if (p.hasAdd) own.result.add = p.add.at(group * g.groupStride);
  } else {
    own.b += group * g.groupStride;
    own.result.m = count;
    own.result.c = p.c.at(first * p.n);
  }
  groupTile<T, leftColumns, rightColumns>(own, m0, static_cast<int64_t>(blockIdx.x) * tile, memory);
}

}  // namespace tandem::cuda::grouped

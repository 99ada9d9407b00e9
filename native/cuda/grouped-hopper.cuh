// Products of groups of rows on Hopper's tensor cores (wgmma), all groups in one launch: blocks that stay take tile after tile of 128 by
// 256, 64 deep; a warp has the copy engine fetch four of them ahead, and two groups of four warps multiply 64 rows each. Includes
// nothing of CUDA's, for native/test/tiles runs it on a processor: whoever includes it has tensors (values.cuh), faults (kernels.h) and
// products (gemm.h) before.
#pragma once

#include "group-counts.cuh"
#include "group-sums.cuh"
#include "mma.cuh"
#include "tma.cuh"
#include "wgmma.cuh"

namespace tandem::cuda::grouped {

namespace hopper {

constexpr int tileRows = 128;
constexpr int tileColumns = 256;
constexpr int depth = 64;
constexpr int stages = 4;
/** Those that multiply, and one that copies. */
constexpr int multipliers = 8;
constexpr int threads = (multipliers + 1) * 32;
/** Of 64 rows of 64 values. A stage has two for the left factor, then four for the right one. */
constexpr uint32_t stripBytes = 64 * depth * 2;
constexpr uint32_t leftBytes = tileRows / 64 * stripBytes;
constexpr uint32_t stageBytes = leftBytes + tileColumns / 64 * stripBytes;
/** Two barriers for each stage: it is full; it is empty. Stages begin at a multiple of 1024 bytes. */
constexpr size_t sharedBytes = size_t{stages} * (stageBytes + 16) + 1024;
/** Tiles that are worked at together share what they read: so many down, then the next across. */
constexpr unsigned bandTiles = 16;

/** Rows of a box of the left factor's map, and of the right one's: the whole tile's, or 64 where they are what is summed over. */
constexpr unsigned boxRows(bool columns, int extent) { return columns ? depth : static_cast<unsigned>(extent); }

/** A group, its rows and those of all groups before it, where in it a tile begins, and how many steps there are to it: all below 2^30. */
struct Tile {
  int32_t group, first, count, m0, n0, steps;
};

/** The tiles of all groups one after another, taken in rising order. */
struct Walk {
  const Grouped& g;
  int32_t group = 0;
  int32_t first = 0;
  /** Of all groups before. */
  unsigned before = 0;

  /** False beyond the last. */
  __device__ inline bool find(unsigned number, Tile& tile) {
    const Product& p = g.product;
    const auto across = static_cast<unsigned>((p.n + tileColumns - 1) / tileColumns);
    for (; group < static_cast<int32_t>(g.groups); group++) {
      const int32_t count = getInteger(g.counts, group);
      const auto down = (static_cast<unsigned>(g.sums ? p.m : count) + tileRows - 1) / tileRows;
      if (number - before < down * across) {
        const unsigned own = number - before;
        const unsigned band = own / (bandTiles * across);
        const unsigned rest = own % (bandTiles * across);
        const unsigned inBand = min(bandTiles, down - band * bandTiles);
        const auto terms = static_cast<int32_t>(g.sums ? count : p.k);
        tile = {group,
                first,
                count,
                static_cast<int32_t>((band * bandTiles + rest % inBand) * tileRows),
                static_cast<int32_t>(rest / inBand * tileColumns),
                (terms + depth - 1) / depth};
        return true;
      }
      before += down * across;
      first += count;
    }
    return false;
  }
};

#ifdef TANDEM_HAS_WGMMA

/** Which stage is next, and the parity of its phase. */
struct Ring {
  int stage = 0;
  uint32_t parity = 0;
  __device__ inline void advance() {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
};

/** Where a block's stages and barriers are. */
struct Room {
  uint32_t memory;
  __device__ inline uint32_t left(int stage) const { return memory + stage * stageBytes; }
  __device__ inline uint32_t right(int stage) const { return left(stage) + leftBytes; }
  __device__ inline uint32_t full(int stage) const { return memory + stages * stageBytes + stage * 16; }
  __device__ inline uint32_t empty(int stage) const { return full(stage) + 8; }
};

/** By one thread: the factors of all tiles of this block, one step of one tile after another. */
template <bool leftColumns, bool rightColumns>
__device__ inline void copyTiles(const Grouped& g, const TensorMap& left, const TensorMap& right, const Room& room) {
  const Product& p = g.product;
  Walk walk{g};
  Tile tile;
  Ring ring;
  for (unsigned number = blockIdx.x; walk.find(number, tile); number += gridDim.x) {
    // rows of the maps: of all groups, one after another
    const auto weights = static_cast<int32_t>(tile.group * (rightColumns ? p.k : p.n));
    for (int step = 0; step < tile.steps; step++, ring.advance()) {
      const int32_t k0 = step * depth;
      const uint32_t full = room.full(ring.stage);
      // those who read what lies there have arrived; in the first round nothing does
      awaitPhase(room.empty(ring.stage), ring.parity ^ 1);
      arriveExpecting(full, stageBytes);
      if constexpr (leftColumns) {
#pragma unroll
        for (int strip = 0; strip < tileRows / 64; strip++) {
          copyBox(room.left(ring.stage) + strip * stripBytes, left, full, tile.m0 + strip * 64, tile.first + k0);
        }
      } else {
        copyBox(room.left(ring.stage), left, full, k0, tile.first + tile.m0);
      }
      if constexpr (rightColumns) {
        const int32_t row = leftColumns ? tile.first + k0 : weights + k0;
#pragma unroll
        for (int strip = 0; strip < tileColumns / 64; strip++) {
          copyBox(room.right(ring.stage) + strip * stripBytes, right, full, tile.n0 + strip * 64, row);
        }
      } else {
        copyBox(room.right(ring.stage), right, full, k0, weights + tile.n0);
      }
    }
  }
}

/** Rows of a stage from `valid` on become zeros: they are another group's. By all warps that multiply. */
__device__ inline void clearRows(uint32_t stage, int valid) {
  const int pieces = (depth - valid) * 8;
  for (uint32_t strip = 0; strip < stageBytes; strip += stripBytes) {
    for (int i = threadIdx.x; i < pieces; i += multipliers * 32) clearPiece(stage + strip + static_cast<uint32_t>(valid * 128 + i * 16));
  }
  showProducts();
  meet<1, multipliers * 32>();
}

/** By the warps that multiply: all tiles of this block, and their sums into the result. */
template <class T, bool leftColumns, bool rightColumns>
__device__ inline void multiplyTiles(const Grouped& g, const Room& room) {
  const Product& p = g.product;
  const int warp = threadIdx.x / 32;
  // of this group of four warps: 64 rows of the left factor
  const uint32_t own = warp / 4 * stripBytes;
  Walk walk{g};
  Tile tile;
  Ring ring;
  unsigned number = blockIdx.x;
  bool more = walk.find(number, tile);
  while (more) {
    float sums[tileColumns / 8][4] = {};
    settle(sums);
    // the stage whose products are under way
    int before = -1;
    const auto release = [&] {
      if (before >= 0 && threadIdx.x % 32 == 0) arrive(room.empty(before));
    };
    for (int step = 0; step < tile.steps; step++) {
      awaitPhase(room.full(ring.stage), ring.parity);
      if (leftColumns && step == tile.steps - 1 && tile.count % depth != 0) {
        clearRows(room.left(ring.stage), tile.count % depth);
      }
      openProducts();
#pragma unroll
      for (int k = 0; k < depth / 16; k++) {
        const uint32_t left = room.left(ring.stage) + own + (leftColumns ? k * 16 * 128 : k * 32);
        const uint32_t right = room.right(ring.stage) + (rightColumns ? k * 16 * 128 : k * 32);
        const uint64_t columns = rightColumns ? stretch(right, stripBytes) : stretch(right);
        WideWgmma<T>::template add<leftColumns, rightColumns>(sums, stretch(left), columns);
      }
      closeProducts();
      // those of the step before have ended, and its stage may be filled again
      awaitProducts<1>();
      release();
      before = ring.stage;
      ring.advance();
    }
    const int64_t from = g.sums ? tile.group * g.groupStride : tile.first * p.n;
    const Result result = {p.c.at(from), p.hasAdd ? p.add.at(from) : View{}, p.hasAdd, g.sums ? p.m : int64_t{tile.count}, p.n};
    const int32_t m0 = tile.m0 + warp * 16;
    const int32_t n0 = tile.n0;
    // the next one is found while the last products are under way
    number += gridDim.x;
    more = walk.find(number, tile);
    awaitProducts<0>();
    settle(sums);
    release();
    storeSums(result, m0, n0, sums);
  }
}

/** The tiles of a block, in shared memory from `memory` on, a multiple of 1024; where counts do not add up, none. */
template <class T, bool leftColumns, bool rightColumns>
__device__ inline void blockTiles(const Grouped& g, const Reporter& reporter, const TensorMap& left, const TensorMap& right,
                                  uint32_t memory) {
  if (!countsAddUp(g, reporter)) return;
  const Room room = {memory};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < stages; stage++) {
      openBarrier(room.full(stage), 1);
      openBarrier(room.empty(stage), multipliers);
    }
    showBarriers();
  }
  __syncthreads();
  if (threadIdx.x < multipliers * 32) {
    multiplyTiles<T, leftColumns, rightColumns>(g, room);
  } else if (threadIdx.x == multipliers * 32) {
    copyTiles<leftColumns, rightColumns>(g, left, right, room);
  }
}

#endif

}  // namespace hopper

}  // namespace tandem::cuda::grouped

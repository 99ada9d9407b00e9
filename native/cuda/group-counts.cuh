// Groups of rows by how many each has: whether the counts add up, and which group a block of the grid works at. The same for products on
// tensor cores (grouped.cuh, grouped-hopper.cuh) and on the ordinary ones (gemm.cu). Includes nothing of CUDA's, for native/test/tiles runs
// it on a processor: whoever includes it has integers (values.cuh), faults (kernels.h) and products (gemm.h) before.
#pragma once

namespace tandem::cuda {

/** What a block works at: a group, its rows and those of all groups before it, and where in it the block's tile begins. */
struct GroupPart {
  /** -1 for a block that has no tile: there are as many as there may be, whatever the counts. */
  int64_t group = -1;
  int64_t first = 0;
  int64_t count = 0;
  int64_t m0 = 0;
};

/** Counts that do not add up are a fault, which the first thread of the grid tells. */
__device__ inline bool countsAddUp(const Grouped& g, const Reporter& reporter) {
  int64_t total = 0;
  bool negative = false;
  for (int64_t group = 0; group < g.groups; group++) {
    const int32_t count = getInteger(g.counts, group);
    total += count;
    negative |= count < 0;
  }
  if (!negative && total == g.rows) return true;
  if (threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0) reporter.fail(Wrong::counts, total, g.rows);
  return false;
}

/**
 * The part of this block in tiles of so many rows: block z has group z where products are sums over a group's rows, and block y one of the
 * tiles of all groups elsewhere. No block has a part where counts do not add up.
 */
__device__ inline GroupPart partOfBlock(const Grouped& g, const Reporter& reporter, int64_t tile) {
  if (!countsAddUp(g, reporter)) return {};
  int64_t first = 0;
  int64_t tilesBefore = 0;
  for (int64_t group = 0; group < g.groups; group++) {
    const int64_t count = getInteger(g.counts, group);
    const int64_t tiles = (count + tile - 1) / tile;
    const bool mine = g.sums ? group == blockIdx.z : static_cast<int64_t>(blockIdx.y) < tilesBefore + tiles;
    if (mine) return {group, first, count, (g.sums ? blockIdx.y : blockIdx.y - tilesBefore) * tile};
    tilesBefore += tiles;
    first += count;
  }
  return {};
}

}  // namespace tandem::cuda

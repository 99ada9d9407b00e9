// How rows are cut into the chunks that an expert-parallel layer sends.
#pragma once

#include <cstdint>

namespace tandem::cuda {

/** The first row of a chunk. */
__host__ __device__ inline int64_t chunkStart(int64_t rows, int64_t chunk, int64_t chunks) { return rows * chunk / chunks; }

}  // namespace tandem::cuda

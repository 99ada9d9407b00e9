// How rows are cut into the chunks that an expert-parallel layer sends, on processors and on GPUs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "anywhere.h"

namespace tandem {

/** The first row of a chunk. */
TANDEM_ANYWHERE inline int64_t chunkStart(int64_t rows, int64_t chunk, int64_t chunks) { return rows * chunk / chunks; }

/** The row of each (block, position) in order of memory, when every block is cut into `chunks`. */
inline std::vector<int64_t> placesOf(const std::vector<int64_t>& counts, int64_t chunks) {
  std::vector<int64_t> starts;
  int64_t total = 0;
  for (const int64_t count : counts) {
    starts.push_back(total);
    total += count;
  }
  std::vector<int64_t> places;
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    for (size_t block = 0; block < counts.size(); block++) {
      const int64_t end = chunkStart(counts[block], chunk + 1, chunks);
      for (int64_t p = chunkStart(counts[block], chunk, chunks); p < end; p++) places.push_back(starts[block] + p);
    }
  }
  return places;
}

}  // namespace tandem

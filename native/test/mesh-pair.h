// Two meshes of one process that have yet to find each other.
#pragma once

#include <vector>

#include "../transport/mesh.h"

namespace tandem {

/** What rank `rank` of two is opened with. */
inline MeshOptions oneOfTwo(int rank, int streams = 1) {
  MeshOptions options;
  options.rank = rank;
  options.size = 2;
  options.streams = streams;
  return options;
}

struct MeshPair {
  explicit MeshPair(int streams = 1) : first(oneOfTwo(0, streams)), second(oneOfTwo(1, streams)) {}

  Mesh first;
  Mesh second;
  const std::vector<Address> addresses = {{"127.0.0.1", first.port()}, {"127.0.0.1", second.port()}};
};

}  // namespace tandem

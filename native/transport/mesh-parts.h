// What a mesh is made of inside. For mesh.cc and mesh-io.cc alone.
#pragma once

#include <algorithm>
#include <cstring>

#include "connections.h"
#include "mesh.h"

namespace tandem {

/** Of notes, which hold a rank's timeline and final values, and of other words. Assumed: what a peer may make this process take. */
constexpr uint64_t noteBytesMax = uint64_t{1} << 30;
constexpr uint64_t textBytesMax = 4096;

/** The part of a collective by which a rank only says that it is there. */
constexpr uint32_t herePart = UINT32_MAX;

inline uint64_t textMaxOf(uint8_t type) { return type == noteFrame ? noteBytesMax : textBytesMax; }

inline int64_t nanosecondsOf(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

struct Mesh::Peer {
  std::atomic<int64_t> heard{0};
  /** When a connection ended without a goodbye; 0 while none has. */
  std::atomic<int64_t> suspect{0};
  /** How that ended, under the mesh's lock; empty where it was not told. */
  std::string why;
  std::atomic<bool> left{false};
};

}  // namespace tandem

// What kernels that draw by counting share on processors and on GPUs: hashes of counters (core/kernels/counter-hash.ts) and the
// window that initial values fill (core/kernels/initial-values.ts).
#pragma once

#include <cstdint>
#include <string>

#include "anywhere.h"
#include "backend.h"

namespace tandem {

/** 32-bit finalizer of MurmurHash3. */
TANDEM_ANYWHERE inline uint32_t mix(uint32_t word) {
  uint32_t h = word ^ (word >> 16);
  h *= 0x85ebca6bu;
  h ^= h >> 13;
  h *= 0xc2b2ae35u;
  return h ^ (h >> 16);
}

/** The low 32 bits of a whole number, as JavaScript's `| 0` takes them. */
TANDEM_ANYWHERE inline uint32_t low32(int64_t value) { return static_cast<uint32_t>(static_cast<uint64_t>(value)); }

/** What a seed makes of the index of a number. */
struct Numbers {
  uint32_t start;
  uint32_t keys[6];
  TANDEM_ANYWHERE uint32_t walk(int64_t index) const { return mix(start + low32(index >> 32)); }
  TANDEM_ANYWHERE uint32_t own(int64_t index) const { return mix(walk(index) + low32(index)); }
};

inline Numbers numbersOf(int64_t seed) {
  Numbers n{};
  n.start = mix(mix(low32(seed)) + low32(seed >> 32));
  const uint32_t again = mix(n.start ^ 0x9e3779b9u);
  for (uint32_t word = 0; word < 6; word++) n.keys[word] = mix(again + word);
  return n;
}

/** Which elements of a tensor are written, and which numbers: `columns` of every `stride`, from number `first` on. */
struct Window {
  int64_t at, count, first, columns, stride;
};

/** That of a call whose output has so many elements; throws BadCall where it does not lie in them. */
inline Window windowOf(const Call& call, int64_t elements) {
  Window w{call.integer("at"), call.integer("count"), call.integer("first"), call.integer("columns"), call.integer("stride")};
  if (w.at < 0 || w.count < 0 || w.first < 0 || w.columns < 0 || w.stride < 0 || w.at > elements || w.count > elements - w.at) {
    throw BadCall(call.kernel + ": " + std::to_string(w.count) + " elements from " + std::to_string(w.at) + " on, of a tensor of " +
                  std::to_string(elements) + ", from number " + std::to_string(w.first) + " on in rows of " +
                  std::to_string(w.columns) + " of " + std::to_string(w.stride));
  }
  if (w.count == 0) w.count = elements - w.at;
  if (w.columns == 0) w.columns = w.count > 0 ? w.count : 1;
  return w;
}

}  // namespace tandem

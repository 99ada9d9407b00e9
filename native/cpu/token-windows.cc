// Batches drawn from a corpus on the device; argument order and arithmetic as core/kernels/token-windows.ts.
#include <algorithm>
#include <cmath>

#include "kernels.h"

namespace tandem {

namespace {

/** 32-bit finalizer of MurmurHash3. */
uint32_t mix(uint32_t word) {
  uint32_t h = word ^ (word >> 16);
  h *= 0x85ebca6bu;
  h ^= h >> 13;
  h *= 0xc2b2ae35u;
  return h ^ (h >> 16);
}

/** The low 32 bits of a whole number, as JavaScript's `| 0` takes them. */
uint32_t low32(int64_t value) { return static_cast<uint32_t>(static_cast<uint64_t>(value)); }

Work tokenWindows(const Call& call) {
  const int32_t* corpus = integersIn(call, 0);
  int32_t* tokens = integersOut(call, 0);
  int32_t* targets = integersOut(call, 1);
  const int64_t batch = call.integer("batch");
  const int64_t time = call.integer("time");
  const int64_t places = input(call, 0).elements - time;
  const uint32_t state = mix(low32(call.integer("seed"))) + low32(call.integer("stream"));
  const uint32_t drawn = mix(mix(state) + low32(call.integer("step")));
  return [=, length = input(call, 0).elements] {
    if (places < 1) {
      throw BadCall("token_windows: a corpus of " + std::to_string(length) + " tokens; a window needs " +
                    std::to_string(time + 1));
    }
    for (int64_t b = 0; b < batch; b++) {
      const int32_t* window = corpus + mix(drawn + low32(b)) % static_cast<uint64_t>(places);
      std::copy(window, window + time, tokens + b * time);
      std::copy(window + 1, window + time + 1, targets + b * time);
    }
  };
}

}  // namespace

const KernelTable tokenWindowKernels = {{"token_windows", tokenWindows}};

}  // namespace tandem

// What is drawn on the device by counting: batches of a corpus, as core/kernels/token-windows.ts, and initial values, as
// core/kernels/initial-values.ts. Equal to them bit for bit.
#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "simd.h"

namespace tandem {

namespace {

/** 32-bit finalizer of MurmurHash3. */
inline uint32_t mix(uint32_t word) {
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
  const Scalar step = call.scalar("step");
  return [=, length = input(call, 0).elements](const double* scalars) {
    const uint32_t drawn = mix(mix(state) + low32(static_cast<int64_t>(step(scalars))));
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

/** What a seed makes of the index of a number: core/kernels/counter-hash.ts. */
struct Normals {
  uint32_t start;
  uint32_t keys[6];
};

Normals normalsOf(int64_t seed) {
  Normals n{};
  n.start = mix(mix(low32(seed)) + low32(seed >> 32));
  const uint32_t again = mix(n.start ^ 0x9e3779b9u);
  for (uint32_t word = 0; word < 6; word++) n.keys[word] = mix(again + word);
  return n;
}

/** Numbers `first` to `first + count`, whose high halves are alike. */
TANDEM_SIMD void drawNormals(const Normals& n, uint32_t walk, uint32_t first, int64_t count, double deviation, float* out) {
  const uint32_t keys[6] = {n.keys[0], n.keys[1], n.keys[2], n.keys[3], n.keys[4], n.keys[5]};
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    const uint32_t own = mix(walk + first + static_cast<uint32_t>(i));
    uint32_t sum = 0;
    for (const uint32_t key : keys) {
      const uint32_t drawn = mix(own + key);
      sum += (drawn & 0xffffu) + (drawn >> 16);
    }
    const auto centred = static_cast<int32_t>(2 * sum) - 12 * 0xffff;
    out[i] = static_cast<float>(deviation * (static_cast<double>(centred) / 0x20000));
  }
}

Work normalValues(const Call& call) {
  const Normals n = normalsOf(call.integer("seed"));
  const double deviation = call.number("deviation");
  const int64_t first = call.integer("first");
  float* out = floatsOut(call, 0);
  const int64_t elements = output(call, 0).elements;
  if (first < 0) throw BadCall("normal_values: begins at " + std::to_string(first));
  return [=](const double*) {
    for (int64_t at = 0; at < elements;) {
      const int64_t index = first + at;
      const int64_t count = std::min(elements - at, (((index >> 32) + 1) << 32) - index);
      drawNormals(n, mix(n.start + low32(index >> 32)), low32(index), count, deviation, out + at);
      at += count;
    }
  };
}

}  // namespace

const KernelTable drawnKernels = {{"token_windows", tokenWindows}, {"normal_values", normalValues}};

}  // namespace tandem

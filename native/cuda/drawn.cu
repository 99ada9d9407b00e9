// What is drawn on the device by counting: batches of a corpus, as core/kernels/token-windows.ts, and initial values, as
// core/kernels/initial-values.ts. Equal to them bit for bit.
#include "map.cuh"

namespace tandem::cuda {

namespace {

/** 32-bit finalizer of MurmurHash3. */
__host__ __device__ inline uint32_t mix(uint32_t word) {
  uint32_t h = word ^ (word >> 16);
  h *= 0x85ebca6bu;
  h ^= h >> 13;
  h *= 0xc2b2ae35u;
  return h ^ (h >> 16);
}

/** The low 32 bits of a whole number, as JavaScript's `| 0` takes them. */
__host__ __device__ inline uint32_t low32(int64_t value) { return static_cast<uint32_t>(static_cast<uint64_t>(value)); }

struct Windows {
  View corpus, tokens, targets;
  int64_t time, places;
  uint32_t drawn;
  __device__ void operator()(int64_t i) const {
    const int64_t from = mix(drawn + low32(i / time)) % static_cast<uint64_t>(places) + i % time;
    setInteger(tokens, i, getInteger(corpus, from));
    setInteger(targets, i, getInteger(corpus, from + 1));
  }
};

Work tokenWindows(const Call& call) {
  const int64_t length = input(call, 0).elements;
  const int64_t time = call.integer("time");
  const int64_t elements = call.integer("batch") * time;
  if (length - time < 1) {
    throw BadCall("token_windows: a corpus of " + std::to_string(length) + " tokens; a window needs " +
                  std::to_string(time + 1));
  }
  const Windows windows = {integersIn(call, 0), integersOut(call, 0), integersOut(call, 1), time, length - time, 0};
  const Scalar seed = call.scalar("seed");
  const Scalar stream = call.scalar("stream");
  const Scalar step = call.scalar("step");
  return [=](const Launch& launch) {
    const auto whole = [&](const Scalar& scalar) { return low32(static_cast<int64_t>(scalar(launch.scalars))); };
    Windows with = windows;
    with.drawn = mix(mix(mix(whole(seed)) + whole(stream)) + whole(step));
    each(launch, elements, with);
  };
}

/** What a seed makes of the index of a number: core/kernels/counter-hash.ts. */
struct Normals {
  View out;
  uint32_t start;
  uint32_t keys[6];
  int64_t first;
  double deviation;
  __device__ void operator()(int64_t i) const {
    const int64_t index = first + i;
    const uint32_t drawn = mix(mix(start + low32(index >> 32)) + low32(index));
    uint32_t sum = 0;
#pragma unroll
    for (int word = 0; word < 6; word++) {
      const uint32_t one = mix(drawn + keys[word]);
      sum += (one & 0xffffu) + (one >> 16);
    }
    const int32_t centred = static_cast<int32_t>(2 * sum) - 12 * 0xffff;
    set(out, i, static_cast<float>(deviation * (static_cast<double>(centred) / 0x20000)));
  }
};

Work normalValues(const Call& call) {
  const int64_t seed = call.integer("seed");
  Normals n{};
  n.out = floatsOut(call, 0);
  n.start = mix(mix(low32(seed)) + low32(seed >> 32));
  const uint32_t again = mix(n.start ^ 0x9e3779b9u);
  for (uint32_t word = 0; word < 6; word++) n.keys[word] = mix(again + word);
  n.first = call.integer("first");
  n.deviation = call.number("deviation");
  const int64_t elements = output(call, 0).elements;
  if (n.first < 0) throw BadCall("normal_values: begins at " + std::to_string(n.first));
  return [=](const Launch& launch) { each(launch, elements, n); };
}

}  // namespace

const KernelTable drawnKernels = {{"token_windows", tokenWindows}, {"normal_values", normalValues}};

}  // namespace tandem::cuda

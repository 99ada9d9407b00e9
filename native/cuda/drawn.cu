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

/** Which elements are written, and which numbers: core/kernels/initial-values.ts. */
struct Window {
  View out;
  int64_t count, first, columns, stride;
  __device__ int64_t index(int64_t i) const {
    return columns == count ? first + i : first + i / columns * stride + i % columns;
  }
};

Window windowOf(const Call& call) {
  const int64_t elements = output(call, 0).elements;
  const int64_t at = call.integer("at");
  Window w{floatsOut(call, 0), call.integer("count"), call.integer("first"), call.integer("columns"), call.integer("stride")};
  if (at < 0 || w.count < 0 || w.first < 0 || w.columns < 0 || w.stride < 0 || at + w.count > elements) {
    throw BadCall(call.kernel + ": " + std::to_string(w.count) + " elements from " + std::to_string(at) + " on, of a tensor of " +
                  std::to_string(elements) + ", from number " + std::to_string(w.first) + " on in rows of " +
                  std::to_string(w.columns) + " of " + std::to_string(w.stride));
  }
  w.out = w.out.at(at);
  if (w.count == 0) w.count = elements - at;
  if (w.columns == 0) w.columns = w.count;
  return w;
}

/** What a seed makes of the index of a number: core/kernels/counter-hash.ts. */
struct Numbers {
  uint32_t start;
  uint32_t keys[6];
  __device__ uint32_t own(int64_t index) const { return mix(mix(start + low32(index >> 32)) + low32(index)); }
};

Numbers numbersOf(int64_t seed) {
  Numbers n{};
  n.start = mix(mix(low32(seed)) + low32(seed >> 32));
  const uint32_t again = mix(n.start ^ 0x9e3779b9u);
  for (uint32_t word = 0; word < 6; word++) n.keys[word] = mix(again + word);
  return n;
}

struct Normals {
  Window window;
  Numbers numbers;
  double deviation;
  __device__ void operator()(int64_t i) const {
    const uint32_t own = numbers.own(window.index(i));
    uint32_t sum = 0;
#pragma unroll
    for (int word = 0; word < 6; word++) {
      const uint32_t one = mix(own + numbers.keys[word]);
      sum += (one & 0xffffu) + (one >> 16);
    }
    const int32_t centred = static_cast<int32_t>(2 * sum) - 12 * 0xffff;
    set(window.out, i, static_cast<float>(deviation * (static_cast<double>(centred) / 0x20000)));
  }
};

struct Uniforms {
  Window window;
  Numbers numbers;
  double low, range;
  __device__ void operator()(int64_t i) const {
    const uint32_t drawn = mix(numbers.own(window.index(i)) + numbers.keys[0]);
    set(window.out, i, static_cast<float>(low + range * (static_cast<double>(drawn) / 4294967296.0)));
  }
};

struct Constant {
  Window window;
  float value;
  __device__ void operator()(int64_t i) const { set(window.out, i, value); }
};

template <class Drawn>
Work drawing(const Drawn& drawn) {
  return [=](const Launch& launch) { each(launch, drawn.window.count, drawn); };
}

Work normalValues(const Call& call) {
  return drawing(Normals{windowOf(call), numbersOf(call.integer("seed")), call.number("deviation")});
}

Work uniformValues(const Call& call) {
  const double low = call.number("low");
  return drawing(Uniforms{windowOf(call), numbersOf(call.integer("seed")), low, call.number("high") - low});
}

Work constantValues(const Call& call) {
  return drawing(Constant{windowOf(call), static_cast<float>(call.number("value"))});
}

}  // namespace

const KernelTable drawnKernels = {{"token_windows", tokenWindows},
                                  {"normal_values", normalValues},
                                  {"uniform_values", uniformValues},
                                  {"constant_values", constantValues}};

}  // namespace tandem::cuda

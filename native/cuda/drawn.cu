// What is drawn on the device by counting: batches of a corpus, as core/kernels/token-windows.ts, and initial values, as
// core/kernels/initial-values.ts. Equal to them bit for bit.
#include "../drawn.h"
#include "map.cuh"

namespace tandem::cuda {

namespace {

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

/** A window of numbers, and where the first of its elements lies. */
struct Placed {
  View out;
  int64_t count, first, columns, stride;
  __device__ int64_t index(int64_t i) const {
    return columns == count ? first + i : first + i / columns * stride + i % columns;
  }
};

Placed placedOf(const Call& call) {
  const Window w = windowOf(call, output(call, 0).elements);
  return {floatsOut(call, 0).at(w.at), w.count, w.first, w.columns, w.stride};
}

struct Normals {
  Placed placed;
  Numbers numbers;
  double deviation;
  __device__ void operator()(int64_t i) const {
    const uint32_t own = numbers.own(placed.index(i));
    uint32_t sum = 0;
#pragma unroll
    for (int word = 0; word < 6; word++) {
      const uint32_t one = mix(own + numbers.keys[word]);
      sum += (one & 0xffffu) + (one >> 16);
    }
    const int32_t centred = static_cast<int32_t>(2 * sum) - 12 * 0xffff;
    set(placed.out, i, static_cast<float>(deviation * (static_cast<double>(centred) / 0x20000)));
  }
};

struct Uniforms {
  Placed placed;
  Numbers numbers;
  double low, range;
  __device__ void operator()(int64_t i) const {
    const uint32_t one = mix(numbers.own(placed.index(i)) + numbers.keys[0]);
    set(placed.out, i, static_cast<float>(low + range * (static_cast<double>(one) / 4294967296.0)));
  }
};

struct Constant {
  Placed placed;
  float value;
  __device__ void operator()(int64_t i) const { set(placed.out, i, value); }
};

template <class Draw>
Work drawing(const Draw& draw) {
  return [=](const Launch& launch) { each(launch, draw.placed.count, draw); };
}

Work normalValues(const Call& call) {
  return drawing(Normals{placedOf(call), numbersOf(call.integer("seed")), call.number("deviation")});
}

Work uniformValues(const Call& call) {
  const double low = call.number("low");
  return drawing(Uniforms{placedOf(call), numbersOf(call.integer("seed")), low, call.number("high") - low});
}

Work constantValues(const Call& call) {
  return drawing(Constant{placedOf(call), static_cast<float>(call.number("value"))});
}

}  // namespace

const KernelTable drawnKernels = {{"token_windows", tokenWindows},
                                  {"normal_values", normalValues},
                                  {"uniform_values", uniformValues},
                                  {"constant_values", constantValues}};

}  // namespace tandem::cuda

// Token embedding and learned positions; argument order as core/kernels/embedding.ts. Gradients are summed in float64 in
// order of position, as the reference, and without atomics: the block of a token's first position adds all of them.
#include <cub/device/device_radix_sort.cuh>

#include "map.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

struct Lookup {
  View tokens, weight, out;
  int64_t vocabulary, width;
  bool whole;
  Reporter reporter;
};

__global__ void __launch_bounds__(128) lookUp(Lookup a) {
  const int64_t row = blockIdx.x;
  const int32_t token = getInteger(a.tokens, row);
  if (token < 0 || token >= a.vocabulary) {
    if (threadIdx.x == 0) a.reporter.fail(Wrong::token, token, a.vocabulary);
    return;
  }
  const View from = a.weight.at(token * a.width);
  const View to = a.out.at(row * a.width);
  for (int64_t c = threadIdx.x * pack; c < a.width; c += blockDim.x * pack) {
    float values[pack];
    getSome(from, c, a.width, a.whole, values);
    setSome(to, c, a.width, a.whole, values);
  }
}

Work embeddingForward(const Call& call) {
  const int64_t width = input(call, 1).shape.at(1);
  const Lookup a = {integersIn(call, 0), floatsIn(call, 1),  floatsOut(call, 0), input(call, 1).shape.at(0),
                    width,               width % pack == 0, {}};
  const int64_t rows = input(call, 0).elements;
  return [=](const Launch& launch) {
    if (rows == 0) return;
    Lookup with = a;
    with.reporter = launch.reporter;
    lookUp<<<static_cast<unsigned>(rows), 128, 0, launch.stream>>>(with);
  };
}

struct Scatter {
  View dout, tokens, before, dweight;
  int64_t rows, vocabulary, width;
  bool accumulate;
  Reporter reporter;
};

/** dweight without any position: what was there, or zeros. */
struct ScatterStart {
  Scatter a;
  __device__ void operator()(int64_t i) const { set(a.dweight, i, a.accumulate ? get(a.before, i) : 0.0f); }
};

/** A position's token as a key to sort by; what is none comes last and is reported. */
struct KeyOf {
  Scatter a;
  int32_t* keys;
  int32_t* positions;
  __device__ void operator()(int64_t i) const {
    const int32_t token = getInteger(a.tokens, i);
    const bool valid = token >= 0 && token < a.vocabulary;
    if (!valid) a.reporter.fail(Wrong::token, token, a.vocabulary);
    keys[i] = valid ? token : static_cast<int32_t>(a.vocabulary);
    positions[i] = static_cast<int32_t>(i);
  }
};

/** A block per place in the order of tokens; that of a token's first position adds up all of them, in order. */
__global__ void __launch_bounds__(128) scatterRows(Scatter a, const int32_t* keys, const int32_t* positions) {
  constexpr int ahead = 4;
  const int64_t own = blockIdx.x;
  const int32_t token = keys[own];
  if (token >= a.vocabulary || (own > 0 && keys[own - 1] == token)) return;
  const bool whole = a.width % pack == 0;
  for (int64_t c = threadIdx.x * pack; c < a.width; c += 128 * pack) {
    double sums[pack] = {};
    float values[ahead][pack];
    if (a.accumulate) {
      getSome(a.before.at(token * a.width), c, a.width, whole, values[0]);
#pragma unroll
      for (int j = 0; j < pack; j++) sums[j] = static_cast<double>(values[0][j]);
    }
    bool more = true;
    for (int64_t at = own; more; at += ahead) {
      bool found[ahead];
#pragma unroll
      for (int k = 0; k < ahead; k++) {
        found[k] = at + k < a.rows && keys[at + k] == token;
        if (found[k]) getSome(a.dout.at(positions[at + k] * a.width), c, a.width, whole, values[k]);
      }
#pragma unroll
      for (int k = 0; k < ahead; k++) {
#pragma unroll
        for (int j = 0; j < pack; j++) {
          if (found[k]) sums[j] += static_cast<double>(values[k][j]);
        }
      }
      more = found[ahead - 1];
    }
#pragma unroll
    for (int j = 0; j < pack; j++) values[0][j] = static_cast<float>(sums[j]);
    setSome(a.dweight.at(token * a.width), c, a.width, whole, values[0]);
  }
}

Work embeddingBackwardWeight(const Call& call) {
  const bool accumulate = call.flag("accumulate");
  const Operand& out = output(call, 0);
  const Scatter a = {floatsIn(call, 0),
                     integersIn(call, 1),
                     accumulate ? floatsIn(call, 2) : View{},
                     floatsOut(call, 0),
                     input(call, 1).elements,
                     out.shape.at(0),
                     out.shape.at(1),
                     accumulate,
                     {}};
  const bool inPlace = accumulate && a.before.data == a.dweight.data;
  int bits = 1;
  while (bits < 31 && a.vocabulary >> bits != 0) bits++;
  size_t sortBytes = 0;
  const auto* none = static_cast<const int32_t*>(nullptr);
  check(cub::DeviceRadixSort::SortPairs(nullptr, sortBytes, none, static_cast<int32_t*>(nullptr), none,
                                        static_cast<int32_t*>(nullptr), static_cast<int>(a.rows), 0, bits),
        "the size of a sort");
  return [=](const Launch& launch) {
    Scatter with = a;
    with.reporter = launch.reporter;
    const int64_t elements = a.vocabulary * a.width;
    if (!accumulate) {
      check(cudaMemsetAsync(a.dweight.data, 0, static_cast<size_t>(elements * storedBytes(a.dweight.dtype)), launch.stream),
            "cudaMemsetAsync");
    } else if (!inPlace) {
      each(launch, elements, ScatterStart{with});
    }
    if (a.rows == 0) return;
    const auto list = static_cast<size_t>(ceilDiv(a.rows, 64) * 64);
    const Scratch scratch(launch, 4 * list * sizeof(int32_t) + sortBytes);
    const auto place = [&](size_t which) { return scratch.as<int32_t>(which * list * sizeof(int32_t)); };
    each(launch, a.rows, KeyOf{with, place(0), place(1)});
    // stable: positions of a token stay in order
    size_t bytes = sortBytes;
    check(cub::DeviceRadixSort::SortPairs(scratch.as<void>(4 * list * sizeof(int32_t)), bytes, place(0), place(2), place(1),
                                          place(3), static_cast<int>(a.rows), 0, bits, launch.stream),
          "a sort of tokens");
    scatterRows<<<static_cast<unsigned>(a.rows), 128, 0, launch.stream>>>(with, place(2), place(3));
  };
}

struct Positions {
  View inp, weight, before, out;
  int64_t batch, time, width, offset;
  bool accumulate;
};

Positions positionsOf(const Shape& tokens) {
  Positions p{};
  p.batch = tokens.at(0);
  p.time = tokens.at(1);
  p.width = tokens.at(2);
  return p;
}

/** From the offset of a launch on; throws BadCall beyond the `available` positions. */
Positions positionsAt(Positions p, double offset, int64_t available, const char* kernel) {
  p.offset = static_cast<int64_t>(offset);
  if (p.offset < 0 || p.offset + p.time > available) {
    throw BadCall(std::string(kernel) + ": " + std::to_string(p.offset + p.time) + " positions of " + std::to_string(available));
  }
  return p;
}

struct PositionAdd {
  Positions p;
  __device__ void operator()(int64_t i) const {
    const int64_t position = p.offset * p.width + i % (p.time * p.width);
    set(p.out, i, get(p.inp, i) + get(p.weight, position));
  }
};

Work positionAddForward(const Call& call) {
  Positions p = positionsOf(input(call, 0).shape);
  const int64_t available = input(call, 1).shape.at(0);
  const Scalar offset = call.scalar("offset");
  p.inp = floatsIn(call, 0);
  p.weight = floatsIn(call, 1);
  p.out = floatsOut(call, 0);
  if (offset.index < 0) positionsAt(p, offset.fixed, available, "position_add.forward");
  return [=](const Launch& launch) {
    const Positions at = positionsAt(p, offset(launch.scalars), available, "position_add.forward");
    each(launch, p.batch * p.time * p.width, PositionAdd{at});
  };
}

struct PositionGradient {
  Positions p;
  __device__ void operator()(int64_t i) const {
    double sum = p.accumulate ? static_cast<double>(get(p.before, i)) : 0;
    const int64_t at = i - p.offset * p.width;
    if (at >= 0 && at < p.time * p.width) {
      for (int64_t b = 0; b < p.batch; b++) sum += static_cast<double>(get(p.inp, b * p.time * p.width + at));
    }
    set(p.out, i, static_cast<float>(sum));
  }
};

Work positionAddBackwardWeight(const Call& call) {
  Positions p = positionsOf(input(call, 0).shape);
  const int64_t available = output(call, 0).shape.at(0);
  const Scalar offset = call.scalar("offset");
  p.accumulate = call.flag("accumulate");
  p.inp = floatsIn(call, 0);
  if (p.accumulate) p.before = floatsIn(call, 1);
  p.out = floatsOut(call, 0);
  const int64_t elements = output(call, 0).elements;
  if (offset.index < 0) positionsAt(p, offset.fixed, available, "position_add.backward_weight");
  return [=](const Launch& launch) {
    const Positions at = positionsAt(p, offset(launch.scalars), available, "position_add.backward_weight");
    each(launch, elements, PositionGradient{at});
  };
}

}  // namespace

const KernelTable embeddingKernels = {{"embedding.forward", embeddingForward},
                                      {"embedding.backward_weight", embeddingBackwardWeight},
                                      {"position_add.forward", positionAddForward},
                                      {"position_add.backward_weight", positionAddBackwardWeight}};

}  // namespace tandem::cuda

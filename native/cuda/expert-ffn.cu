// One expert's feed-forward layer over its own rows; argument order as core/kernels/expert-ffn.ts.
#include "gemm.h"
#include "map.cuh"

namespace tandem::cuda {

namespace {

/** The first half of a row becomes what comes out of the non-linearity. */
struct Activate {
  View hidden;
  int64_t ffn, hiddenWidth;
  bool gated;
  __device__ void operator()(int64_t i) const {
    const int64_t at = i / ffn * hiddenWidth + i % ffn;
    const float x = get(hidden, at);
    set(hidden, at, gated ? x / (1.0f + expf(-x)) * get(hidden, at + ffn) : x > 0 ? x : 0.0f);
  }
};

struct Keep {
  View from, to;
  __device__ void operator()(int64_t i) const { set(to, i, get(from, i)); }
};

/** Other rows of `hidden` and `out` stay as they are. */
Work expertFfn(const Call& call) {
  const bool gated = call.flag("gated");
  const int64_t assignments = input(call, 0).shape.at(0);
  const int64_t width = input(call, 0).shape.at(1);
  const int64_t hiddenWidth = output(call, 0).shape.at(1);
  const int64_t ffn = gated ? hiddenWidth / 2 : hiddenWidth;
  const int64_t first = call.integer("first");
  const int64_t count = call.integer("count");
  if (first < 0 || count < 0 || first + count > assignments) {
    throw BadCall("expert_ffn.forward: rows " + std::to_string(first) + " to " + std::to_string(first + count) + " of " +
                  std::to_string(assignments));
  }
  const View inp = floatsIn(call, 0).at(first * width);
  const View weights = floatsIn(call, 1);
  const View hidden = floatsOut(call, 0).at(first * hiddenWidth);
  const View out = floatsOut(call, 1).at(first * width);
  // Both products sum in float32 and what lies between them is rounded once, where it is stored.
  const Product up = {count, hiddenWidth, width, {inp, width, 1}, {weights, 1, width}, {}, {}, false, {}, false};
  const Product down = {count, width, ffn, {}, {weights.at(hiddenWidth * width), 1, ffn}, out, {}, false, {}, false};
  return [=](const Launch& launch) {
    if (count == 0) return;
    const Scratch scratch(launch, static_cast<size_t>(count * hiddenWidth) * sizeof(float));
    const View sums = {scratch.as<float>(), Dtype::float32};
    Product first = up;
    first.c = sums;
    multiply(launch, first);
    each(launch, count * ffn, Activate{sums, ffn, hiddenWidth, gated});
    each(launch, count * hiddenWidth, Keep{sums, hidden});
    Product second = down;
    second.a = {sums, hiddenWidth, 1};
    multiply(launch, second);
  };
}

}  // namespace

const KernelTable expertFfnKernels = {{"expert_ffn.forward", expertFfn}};

}  // namespace tandem::cuda

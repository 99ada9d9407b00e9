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
  const Scalar firstRow = call.scalar("first");
  const Scalar rowCount = call.scalar("count");
  const View inp = floatsIn(call, 0);
  const View weights = floatsIn(call, 1);
  const View hidden = floatsOut(call, 0);
  const View out = floatsOut(call, 1);
  return [=](const Launch& launch) {
    const auto first = static_cast<int64_t>(firstRow(launch.scalars));
    const auto count = static_cast<int64_t>(rowCount(launch.scalars));
    if (first < 0 || count < 0 || first + count > assignments) {
      throw BadCall("expert_ffn.forward: rows " + std::to_string(first) + " to " + std::to_string(first + count) + " of " +
                    std::to_string(assignments));
    }
    if (count == 0) return;
    // Both products sum in float32 and what lies between them is rounded once, where it is stored.
    const Scratch scratch(launch, static_cast<size_t>(count * hiddenWidth) * sizeof(float));
    const View sums = {scratch.as<float>(), Dtype::float32};
    const View rows = inp.at(first * width);
    multiply(launch, {count, hiddenWidth, width, {rows, width, 1}, {weights, 1, width}, sums, {}, false, {}, false});
    each(launch, count * ffn, Activate{sums, ffn, hiddenWidth, gated});
    each(launch, count * hiddenWidth, Keep{sums, hidden.at(first * hiddenWidth)});
    const View down = weights.at(hiddenWidth * width);
    multiply(launch, {count, width, ffn, {sums, hiddenWidth, 1}, {down, 1, ffn}, out.at(first * width), {}, false, {}, false});
  };
}

}  // namespace

const KernelTable expertFfnKernels = {{"expert_ffn.forward", expertFfn}};

}  // namespace tandem::cuda

// One expert's feed-forward layer over its own rows; argument order as core/kernels/expert-ffn.ts.
#include "gemm.h"
#include "kernels.h"
#include "simd.h"

namespace tandem {

namespace {

struct Expert {
  int64_t first, count, width, ffn, hiddenWidth;
  bool gated;
};

TANDEM_SIMD void activate(const Expert& e, float* hidden) {
  for (int64_t row = 0; row < e.count; row++) {
    float* x = hidden + row * e.hiddenWidth;
#pragma GCC ivdep
    for (int64_t h = 0; h < e.ffn; h++) {
      x[h] = e.gated ? x[h] / (1.0f + expOf(-x[h])) * x[h + e.ffn] : x[h] > 0 ? x[h] : 0.0f;
    }
  }
}

/** Other rows of `hidden` and `out` stay as they are. */
Work expertFfn(const Call& call) {
  const float* inp = floatsIn(call, 0);
  const float* weights = floatsIn(call, 1);
  float* hidden = floatsOut(call, 0);
  float* out = floatsOut(call, 1);
  const Dtype hiddenDtype = output(call, 0).dtype;
  const Dtype outDtype = output(call, 1).dtype;
  const bool gated = call.flag("gated");
  const int64_t assignments = input(call, 0).shape.at(0);
  const int64_t hiddenWidth = output(call, 0).shape.at(1);
  const Expert fixed = {0, 0, input(call, 0).shape.at(1), gated ? hiddenWidth / 2 : hiddenWidth, hiddenWidth, gated};
  const Scalar first = call.scalar("first");
  const Scalar count = call.scalar("count");
  return [=](const double* scalars) {
    Expert e = fixed;
    const double begin = first(scalars);
    const double end = begin + count(scalars);
    if (!(begin >= 0 && end >= begin && end <= static_cast<double>(assignments))) {
      throw BadCall("expert_ffn.forward: rows " + std::to_string(begin) + " to " + std::to_string(end) + " of " +
                    std::to_string(assignments));
    }
    e.first = static_cast<int64_t>(begin);
    e.count = static_cast<int64_t>(end) - e.first;
    float* own = hidden + e.first * e.hiddenWidth;
    float* rows = out + e.first * e.width;
    multiply(e.count, e.hiddenWidth, e.width, {inp + e.first * e.width, e.width, 1}, {weights, 1, e.width}, own,
             e.hiddenWidth, false);
    activate(e, own);
    // the second product reads what is stored
    roundInPlace(own, e.count * e.hiddenWidth, hiddenDtype);
    multiply(e.count, e.width, e.ffn, {own, e.hiddenWidth, 1}, {weights + e.hiddenWidth * e.width, 1, e.ffn}, rows,
             e.width, false);
    roundInPlace(rows, e.count * e.width, outDtype);
  };
}

}  // namespace

const KernelTable expertFfnKernels = {{"expert_ffn.forward", expertFfn, true}};

}  // namespace tandem

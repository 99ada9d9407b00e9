// Softmax over the last axis, and the mean cross-entropy of logits; argument order as core/kernels/loss.ts.
#include <cmath>

#include "kernels.h"
#include "simd.h"

namespace tandem {

namespace {

struct Rows {
  int64_t rows, width;
};

/** out = exp(inp - max); returns the sum in float64. */
TANDEM_SIMD double exponentials(int64_t width, const float* inp, float max, float* out) {
#pragma GCC ivdep
  for (int64_t c = 0; c < width; c++) out[c] = expOf(inp[c] - max);
  return sumOf(width, [=](int64_t c) { return static_cast<double>(out[c]); });
}

TANDEM_SIMD float largest(int64_t width, const float* values) { return maxOf(values, width); }

TANDEM_SIMD void softmaxRows(Rows s, const float* inp, float* probs) {
  for (int64_t row = 0; row < s.rows; row++) {
    const float* x = inp + row * s.width;
    float* p = probs + row * s.width;
    const double sum = exponentials(s.width, x, largest(s.width, x), p);
    const auto over = static_cast<float>(1 / sum);
    for (int64_t c = 0; c < s.width; c++) p[c] *= over;
  }
}

Work softmaxForward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  float* probs = floatsOut(call, 0);
  const Rows s = {rowsOf(input(call, 0)), widthOf(input(call, 0))};
  return [=](const double*) { softmaxRows(s, inp, probs); };
}

TANDEM_SIMD void softmaxBackwardRows(Rows s, const float* dout, const float* probs, float* dinp) {
  for (int64_t row = 0; row < s.rows; row++) {
    const float* dy = dout + row * s.width;
    const float* p = probs + row * s.width;
    float* dx = dinp + row * s.width;
    const double mean = sumOf(s.width, [=](int64_t c) { return static_cast<double>(dy[c]) * static_cast<double>(p[c]); });
#pragma GCC ivdep
    for (int64_t c = 0; c < s.width; c++) {
      dx[c] = static_cast<float>(static_cast<double>(p[c]) * (static_cast<double>(dy[c]) - mean));
    }
  }
}

Work softmaxBackward(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const float* probs = floatsIn(call, 1);
  float* dinp = floatsOut(call, 0);
  const Rows s = {rowsOf(input(call, 0)), widthOf(input(call, 0))};
  return [=](const double*) { softmaxBackwardRows(s, dout, probs, dinp); };
}

struct CrossEntropy {
  const float* logits;
  const int32_t* targets;
  float* dlogits;
  /** `width` logits in a row, of which the first `classes` count; the others pad the vocabulary. */
  int64_t rows, width, classes;
  int64_t ignoreIndex;
  double scale;
  /** What `loss_scale` keeps; null where the loss is not scaled. */
  const float* scaling;
};

/** probabilities in `p`, which may be `x` itself, become gradients. */
TANDEM_SIMD void gradientRow(int64_t vocabulary, float* p, double factor) {
  const auto over = static_cast<float>(factor);
  for (int64_t c = 0; c < vocabulary; c++) p[c] *= over;
}

/** Mean loss over the rows that count; gradients too, where they are wanted. */
double crossEntropy(const CrossEntropy& e) {
  int64_t counted = 0;
  for (int64_t row = 0; row < e.rows; row++) {
    const int32_t target = e.targets[row];
    if (target == e.ignoreIndex) continue;
    if (target < 0 || target >= e.classes) {
      throw BadCall("softmax_cross_entropy: target " + std::to_string(target) + " outside the vocabulary of " +
                    std::to_string(e.classes));
    }
    counted++;
  }
  thread_local std::vector<float> scratch;
  if (e.dlogits == nullptr) scratch.resize(static_cast<size_t>(e.classes));
  double loss = 0;
  for (int64_t row = 0; row < e.rows; row++) {
    const float* x = e.logits + row * e.width;
    float* p = e.dlogits == nullptr ? scratch.data() : e.dlogits + row * e.width;
    const int32_t target = e.targets[row];
    if (target == e.ignoreIndex) {
      for (int64_t c = 0; e.dlogits != nullptr && c < e.width; c++) p[c] = 0;
      continue;
    }
    const float max = largest(e.classes, x);
    const auto atTarget = static_cast<double>(x[target]);
    const double sum = exponentials(e.classes, x, max, p);
    loss += static_cast<double>(max) + std::log(sum) - atTarget;
    if (e.dlogits == nullptr) continue;
    const double factor = e.scale * (e.scaling == nullptr ? 1 : static_cast<double>(e.scaling[0])) / static_cast<double>(counted);
    // the target's own gradient is a difference, which must not lose its digits
    const double own = (static_cast<double>(p[target]) / sum - 1) * factor;
    gradientRow(e.classes, p, factor / sum);
    p[target] = static_cast<float>(own);
    for (int64_t c = e.classes; c < e.width; c++) p[c] = 0;
  }
  return loss / static_cast<double>(counted);
}

CrossEntropy of(const Call& call, float* dlogits) {
  const int64_t width = widthOf(input(call, 0));
  const int64_t classes = call.integer("classes");
  if (classes < 0 || classes > width) {
    throw BadCall(call.kernel + ": " + std::to_string(classes) + " classes of " + std::to_string(width) + " logits");
  }
  return {floatsIn(call, 0),
          integersIn(call, 1),
          dlogits,
          input(call, 1).elements,
          width,
          classes == 0 ? width : classes,
          call.integer("ignoreIndex"),
          dlogits == nullptr ? 1 : call.number("scale"),
          dlogits != nullptr && call.flag("scaled") ? floatsIn(call, 2) : nullptr};
}

Work crossEntropyForward(const Call& call) {
  float* loss = floatsOut(call, 0);
  const CrossEntropy e = of(call, nullptr);
  return [=](const double*) { loss[0] = static_cast<float>(crossEntropy(e)); };
}

Work crossEntropyBackward(const Call& call) {
  const CrossEntropy e = of(call, floatsOut(call, 0));
  return [=](const double*) { crossEntropy(e); };
}

Work crossEntropyFused(const Call& call) {
  float* loss = floatsOut(call, 0);
  const CrossEntropy e = of(call, floatsOut(call, 1));
  return [=](const double*) { loss[0] = static_cast<float>(crossEntropy(e)); };
}

}  // namespace

const KernelTable lossKernels = {{"softmax.forward", softmaxForward},
                                 {"softmax.backward", softmaxBackward},
                                 {"softmax_cross_entropy.forward", crossEntropyForward},
                                 {"softmax_cross_entropy.backward", crossEntropyBackward},
                                 {"softmax_cross_entropy.fused", crossEntropyFused}};

}  // namespace tandem

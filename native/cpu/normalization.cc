// LayerNorm and RMSNorm; argument order as core/kernels/normalization.ts. Row sums in float64.
#include <cmath>

#include "kernels.h"
#include "simd.h"

namespace tandem {

namespace {

struct Rows {
  int64_t rows, width;
};

Rows rowsAndWidth(const Operand& operand) { return {rowsOf(operand), widthOf(operand)}; }

TANDEM_SIMD void layerNormRows(Rows s, const float* inp, const float* weight, const float* bias, float* out, float* mean,
                               float* rstd, double epsilon) {
  for (int64_t row = 0; row < s.rows; row++) {
    const float* x = inp + row * s.width;
    float* y = out + row * s.width;
    const double center = sumOf(s.width, [=](int64_t c) { return static_cast<double>(x[c]); }) / static_cast<double>(s.width);
    const double squares = sumOf(s.width, [=](int64_t c) {
      const double distance = static_cast<double>(x[c]) - center;
      return distance * distance;
    });
    const double scale = 1 / std::sqrt(squares / static_cast<double>(s.width) + epsilon);
#pragma GCC ivdep
    for (int64_t c = 0; c < s.width; c++) {
      const double norm = (static_cast<double>(x[c]) - center) * scale;
      y[c] = static_cast<float>(norm * static_cast<double>(weight[c]) + static_cast<double>(bias[c]));
    }
    mean[row] = static_cast<float>(center);
    rstd[row] = static_cast<float>(scale);
  }
}

Work layerNormForward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  const float* weight = floatsIn(call, 1);
  const float* bias = floatsIn(call, 2);
  float* out = floatsOut(call, 0);
  float* mean = floatsOut(call, 1);
  float* rstd = floatsOut(call, 2);
  const Rows s = rowsAndWidth(input(call, 0));
  const double epsilon = call.number("epsilon");
  return [=](const double*) { layerNormRows(s, inp, weight, bias, out, mean, rstd, epsilon); };
}

TANDEM_SIMD void layerNormBackwardRows(Rows s, const float* dout, const float* inp, const float* weight,
                                       const float* mean, const float* rstd, float* dinp) {
  const auto width = static_cast<double>(s.width);
  for (int64_t row = 0; row < s.rows; row++) {
    const float* dy = dout + row * s.width;
    const float* x = inp + row * s.width;
    float* dx = dinp + row * s.width;
    const auto center = static_cast<double>(mean[row]);
    const auto scale = static_cast<double>(rstd[row]);
    const double sum = sumOf(s.width, [=](int64_t c) { return static_cast<double>(dy[c]) * static_cast<double>(weight[c]); });
    const double sumWithNorm = sumOf(s.width, [=](int64_t c) {
      return static_cast<double>(dy[c]) * static_cast<double>(weight[c]) * (static_cast<double>(x[c]) - center) * scale;
    });
#pragma GCC ivdep
    for (int64_t c = 0; c < s.width; c++) {
      const double norm = (static_cast<double>(x[c]) - center) * scale;
      const double gradient = static_cast<double>(dy[c]) * static_cast<double>(weight[c]);
      dx[c] = static_cast<float>(scale * (gradient - sum / width - norm * sumWithNorm / width));
    }
  }
}

Work layerNormBackwardInput(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const float* inp = floatsIn(call, 1);
  const float* weight = floatsIn(call, 2);
  const float* mean = floatsIn(call, 3);
  const float* rstd = floatsIn(call, 4);
  float* dinp = floatsOut(call, 0);
  const Rows s = rowsAndWidth(input(call, 0));
  return [=](const double*) { layerNormBackwardRows(s, dout, inp, weight, mean, rstd, dinp); };
}

/** Sums over rows for a strip of columns at a time; `mean` and `dbias` are null for RMSNorm. */
TANDEM_SIMD void weightGradient(Rows s, const float* dout, const float* inp, const float* mean, const float* rstd,
                                const float* before, const float* beforeBias, float* dweight, float* dbias) {
  constexpr int64_t strip = 64;
  for (int64_t first = 0; first < s.width; first += strip) {
    const int64_t columns = s.width - first < strip ? s.width - first : strip;
    double sums[strip] = {};
    double biasSums[strip] = {};
    for (int64_t c = 0; before != nullptr && c < columns; c++) sums[c] = static_cast<double>(before[first + c]);
    for (int64_t c = 0; beforeBias != nullptr && c < columns; c++) biasSums[c] = static_cast<double>(beforeBias[first + c]);
    for (int64_t row = 0; row < s.rows; row++) {
      const float* dy = dout + row * s.width + first;
      const float* x = inp + row * s.width + first;
      const double center = mean == nullptr ? 0 : static_cast<double>(mean[row]);
      const auto scale = static_cast<double>(rstd[row]);
      for (int64_t c = 0; c < columns; c++) {
        sums[c] += static_cast<double>(dy[c]) * (static_cast<double>(x[c]) - center) * scale;
        biasSums[c] += static_cast<double>(dy[c]);
      }
    }
    for (int64_t c = 0; c < columns; c++) dweight[first + c] = static_cast<float>(sums[c]);
    for (int64_t c = 0; dbias != nullptr && c < columns; c++) dbias[first + c] = static_cast<float>(biasSums[c]);
  }
}

Work layerNormBackwardWeight(const Call& call) {
  const bool accumulate = call.flag("accumulate");
  const float* dout = floatsIn(call, 0);
  const float* inp = floatsIn(call, 1);
  const float* mean = floatsIn(call, 2);
  const float* rstd = floatsIn(call, 3);
  const float* before = accumulate ? floatsIn(call, 4) : nullptr;
  const float* beforeBias = accumulate ? floatsIn(call, 5) : nullptr;
  float* dweight = floatsOut(call, 0);
  float* dbias = floatsOut(call, 1);
  const Rows s = rowsAndWidth(input(call, 0));
  return [=](const double*) { weightGradient(s, dout, inp, mean, rstd, before, beforeBias, dweight, dbias); };
}

TANDEM_SIMD void rmsNormRows(Rows s, const float* inp, const float* weight, float* out, float* rstd, double epsilon) {
  for (int64_t row = 0; row < s.rows; row++) {
    const float* x = inp + row * s.width;
    float* y = out + row * s.width;
    const double squares =
        sumOf(s.width, [=](int64_t c) { return static_cast<double>(x[c]) * static_cast<double>(x[c]); });
    const double scale = 1 / std::sqrt(squares / static_cast<double>(s.width) + epsilon);
#pragma GCC ivdep
    for (int64_t c = 0; c < s.width; c++) {
      y[c] = static_cast<float>(static_cast<double>(x[c]) * scale * static_cast<double>(weight[c]));
    }
    rstd[row] = static_cast<float>(scale);
  }
}

Work rmsNormForward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  const float* weight = floatsIn(call, 1);
  float* out = floatsOut(call, 0);
  float* rstd = floatsOut(call, 1);
  const Rows s = rowsAndWidth(input(call, 0));
  const double epsilon = call.number("epsilon");
  return [=](const double*) { rmsNormRows(s, inp, weight, out, rstd, epsilon); };
}

TANDEM_SIMD void rmsNormBackwardRows(Rows s, const float* dout, const float* inp, const float* weight,
                                     const float* rstd, float* dinp) {
  for (int64_t row = 0; row < s.rows; row++) {
    const float* dy = dout + row * s.width;
    const float* x = inp + row * s.width;
    float* dx = dinp + row * s.width;
    const auto scale = static_cast<double>(rstd[row]);
    const double sumWithNorm = sumOf(s.width, [=](int64_t c) {
      return static_cast<double>(dy[c]) * static_cast<double>(weight[c]) * static_cast<double>(x[c]) * scale;
    });
#pragma GCC ivdep
    for (int64_t c = 0; c < s.width; c++) {
      const double gradient = static_cast<double>(dy[c]) * static_cast<double>(weight[c]);
      const double norm = static_cast<double>(x[c]) * scale;
      dx[c] = static_cast<float>(scale * (gradient - norm * sumWithNorm / static_cast<double>(s.width)));
    }
  }
}

Work rmsNormBackwardInput(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const float* inp = floatsIn(call, 1);
  const float* weight = floatsIn(call, 2);
  const float* rstd = floatsIn(call, 3);
  float* dinp = floatsOut(call, 0);
  const Rows s = rowsAndWidth(input(call, 0));
  return [=](const double*) { rmsNormBackwardRows(s, dout, inp, weight, rstd, dinp); };
}

Work rmsNormBackwardWeight(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const float* inp = floatsIn(call, 1);
  const float* rstd = floatsIn(call, 2);
  const float* before = call.flag("accumulate") ? floatsIn(call, 3) : nullptr;
  float* dweight = floatsOut(call, 0);
  const Rows s = rowsAndWidth(input(call, 0));
  return [=](const double*) { weightGradient(s, dout, inp, nullptr, rstd, before, nullptr, dweight, nullptr); };
}

}  // namespace

const KernelTable normalizationKernels = {{"layer_norm.forward", layerNormForward},
                                          {"layer_norm.backward_input", layerNormBackwardInput},
                                          {"layer_norm.backward_weight", layerNormBackwardWeight},
                                          {"rms_norm.forward", rmsNormForward},
                                          {"rms_norm.backward_input", rmsNormBackwardInput},
                                          {"rms_norm.backward_weight", rmsNormBackwardWeight}};

}  // namespace tandem

// Linear layers, weight [out, in]; argument order as core/kernels/linear.ts.
#include <algorithm>
#include <cstring>

#include "gemm.h"
#include "kernels.h"
#include "rounding.h"
#include "simd.h"

namespace tandem {

namespace {

/** out[row] = inp[row] weight^T (+ bias). */
Work forward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  const float* weight = floatsIn(call, 1);
  const float* bias = call.inputs.size() > 2 ? floatsIn(call, 2) : nullptr;
  float* out = floatsOut(call, 0);
  const int64_t width = input(call, 1).shape.at(1);
  const int64_t outWidth = input(call, 1).shape.at(0);
  const int64_t rows = rowsOf(output(call, 0));
  const bool tf32 = call.flag("tf32");
  return [=](const double*) {
    const float* left = asTf32(inp, rows * width, tf32, 0);
    const float* right = asTf32(weight, outWidth * width, tf32, 1);
    if (bias != nullptr) {
      for (int64_t row = 0; row < rows; row++) std::copy(bias, bias + outWidth, out + row * outWidth);
    }
    multiply(rows, outWidth, width, {left, width, 1}, {right, 1, width}, out, outWidth, bias != nullptr);
  };
}

/** dinp[row] = dout[row] weight. */
Work backwardInput(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const float* weight = floatsIn(call, 1);
  float* dinp = floatsOut(call, 0);
  const int64_t width = input(call, 1).shape.at(1);
  const int64_t outWidth = input(call, 1).shape.at(0);
  const int64_t rows = rowsOf(input(call, 0));
  const bool tf32 = call.flag("tf32");
  return [=](const double*) {
    const float* left = asTf32(dout, rows * outWidth, tf32, 0);
    const float* right = asTf32(weight, outWidth * width, tf32, 1);
    multiply(rows, width, outWidth, {left, outWidth, 1}, {right, width, 1}, dinp, width, false);
  };
}

TANDEM_SIMD void sumRows(const float* rows, int64_t count, int64_t width, const float* before, float* sums) {
  // A strip of columns at a time, in float64 as the reference.
  constexpr int64_t strip = 64;
  for (int64_t first = 0; first < width; first += strip) {
    const int64_t columns = std::min(strip, width - first);
    double total[strip] = {};
    for (int64_t c = 0; before != nullptr && c < columns; c++) total[c] = static_cast<double>(before[first + c]);
    for (int64_t row = 0; row < count; row++) {
      for (int64_t c = 0; c < columns; c++) total[c] += static_cast<double>(rows[row * width + first + c]);
    }
    for (int64_t c = 0; c < columns; c++) sums[first + c] = static_cast<float>(total[c]);
  }
}

/** dweight = dout^T inp, dbias = column sums of dout; added to the gradients so far with `accumulate`. */
Work backwardWeight(const Call& call) {
  const bool bias = call.flag("bias");
  const bool accumulate = call.flag("accumulate");
  const bool tf32 = call.flag("tf32");
  const float* dout = floatsIn(call, 0);
  const float* inp = floatsIn(call, 1);
  const float* before = accumulate ? floatsIn(call, 2) : nullptr;
  const float* beforeBias = accumulate && bias ? floatsIn(call, 3) : nullptr;
  float* dweight = floatsOut(call, 0);
  float* dbias = bias ? floatsOut(call, 1) : nullptr;
  const int64_t outWidth = output(call, 0).shape.at(0);
  const int64_t width = output(call, 0).shape.at(1);
  const int64_t rows = rowsOf(input(call, 0));
  return [=](const double*) {
    if (accumulate && before != dweight) std::copy(before, before + outWidth * width, dweight);
    const float* left = asTf32(dout, rows * outWidth, tf32, 0);
    const float* right = asTf32(inp, rows * width, tf32, 1);
    multiply(outWidth, width, rows, {left, 1, outWidth}, {right, width, 1}, dweight, width, accumulate);
    if (bias) sumRows(dout, rows, outWidth, beforeBias, dbias);
  };
}

}  // namespace

const KernelTable linearKernels = {{"linear.forward", forward},
                                   {"linear.backward_input", backwardInput},
                                   {"linear.backward_weight", backwardWeight}};

}  // namespace tandem

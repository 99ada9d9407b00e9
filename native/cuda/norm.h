// The pieces of LayerNorm and RMSNorm that composite kernels share with them. `centred` tells LayerNorm from RMSNorm.
#pragma once

#include "kernels.h"

namespace tandem::cuda {

struct NormShape {
  int64_t rows, width;
  /** Rows begin where eight elements do. */
  bool whole;
};

inline NormShape normShape(const Operand& operand) {
  const int64_t width = widthOf(operand);
  return {rowsOf(operand), width, width % 8 == 0};
}

struct NormForward {
  NormShape s;
  View inp;
  /** With a residual stream: added to `inp`, and both together written to `sum`. */
  View other, sum;
  View weight, bias, out, mean, rstd;
  float epsilon;
};

struct NormBackward {
  NormShape s;
  View dsum, dout, inp, weight, mean, rstd, dinp;
  View before, beforeBias, dweight, dbias;
  bool accumulate;
  int64_t strips, rowsPerStrip;
};

template <bool centred>
void normForward(const Launch& launch, const NormForward& a);
/** dinp alone, written to `to`. */
template <bool centred>
void normInputGradient(const Launch& launch, const NormBackward& a, const View& to);
/** dweight and dbias alone. */
template <bool centred>
void normWeightGradient(const Launch& launch, NormBackward a);
/** dweight and dbias from the sums of `strips` strips of rows. */
template <bool centred>
void normTotals(const Launch& launch, const NormBackward& a, const float* weights, const float* biases);

}  // namespace tandem::cuda

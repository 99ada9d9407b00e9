// Products of one query with many keys, in float64 and in the reference's order: decisions (which token to keep, which to
// give up) are made on them, and must be the reference's.
#pragma once

#include <cmath>
#include <cstdint>

#include "simd.h"

namespace tandem {

/** out[s] = q . key s, summed from the first element on; keys are `stride` apart. Eight keys at a time hide the latency. */
TANDEM_INLINE void dotKeys(const float* q, const float* keys, int64_t stride, int64_t count, int64_t headWidth,
                           double* out) {
  int64_t s = 0;
  for (; s + 8 <= count; s += 8) {
    double sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    const float* block = keys + s * stride;
    for (int64_t i = 0; i < headWidth; i++) {
      const auto x = static_cast<double>(q[i]);
      for (int64_t lane = 0; lane < 8; lane++) sums[lane] += x * static_cast<double>(block[lane * stride + i]);
    }
    for (int64_t lane = 0; lane < 8; lane++) out[s + lane] = sums[lane];
  }
  for (; s < count; s++) {
    double sum = 0;
    for (int64_t i = 0; i < headWidth; i++) sum += static_cast<double>(q[i]) * static_cast<double>(keys[s * stride + i]);
    out[s] = sum;
  }
}

/** Softmax of `count` scores after scaling, in place. */
inline void softmaxScores(double* scores, int64_t count, double scale) {
  double max = -HUGE_VAL;
  for (int64_t s = 0; s < count; s++) max = std::fmax(max, scale * scores[s]);
  double total = 0;
  for (int64_t s = 0; s < count; s++) total += scores[s] = std::exp(scale * scores[s] - max);
  for (int64_t s = 0; s < count; s++) scores[s] /= total;
}

}  // namespace tandem

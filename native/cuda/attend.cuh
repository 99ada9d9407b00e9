// Products of one query with many keys, in float64 and in the reference's order: decisions (which token to keep, which to
// give up) are made on them, and must be the reference's.
#pragma once

#include "kernels.h"
#include "reduce.cuh"

namespace tandem::cuda {

__device__ inline double dotExact(const View& q, const View& key, int64_t headWidth) {
  double sum = 0;
  for (int64_t i = 0; i < headWidth; i++) sum += static_cast<double>(get(q, i)) * static_cast<double>(get(key, i));
  return sum;
}

/** Softmax of `count` scores after scaling, in place, by a whole block. */
__device__ inline void softmaxExact(double* scores, int64_t count, double scale) {
  double max = -INFINITY;
  for (int64_t s = threadIdx.x; s < count; s += blockDim.x) max = Larger{}(max, scale * scores[s]);
  max = blockReduce(max, Larger{}, static_cast<double>(-INFINITY));
  double sum = 0;
  for (int64_t s = threadIdx.x; s < count; s += blockDim.x) sum += scores[s] = exp(scale * scores[s] - max);
  sum = blockSum(sum);
  for (int64_t s = threadIdx.x; s < count; s += blockDim.x) scores[s] /= sum;
}

}  // namespace tandem::cuda

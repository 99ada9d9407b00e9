// Loops over elements: the same function of each element of some float tensors, eight at a time, and of each index.
#pragma once

#include "kernels.h"

namespace tandem::cuda {

template <int In, int Out>
struct MapViews {
  View in[In];
  View out[Out];
};

/** f(inputs, outputs) of each of the eight elements from i on, as far as there are. */
template <int In, int Out, class F>
__device__ inline void mapPack(const MapViews<In, Out>& views, int64_t i, int64_t count, const F& f) {
  const bool whole = i + pack <= count;
  float in[In][pack];
  float out[Out][pack];
#pragma unroll
  for (int k = 0; k < In; k++) getSome(views.in[k], i, count, whole, in[k]);
#pragma unroll
  for (int j = 0; j < pack; j++) {
    float x[In];
    float y[Out];
#pragma unroll
    for (int k = 0; k < In; k++) x[k] = in[k][j];
    f(x, y);
#pragma unroll
    for (int k = 0; k < Out; k++) out[k][j] = y[k];
  }
#pragma unroll
  for (int k = 0; k < Out; k++) setSome(views.out[k], i, count, whole, out[k]);
}

/** An output may be an input. */
template <int In, int Out, class F>
__global__ void __launch_bounds__(256) mapKernel(MapViews<In, Out> views, int64_t count, F f) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * pack;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * pack; i < count; i += step) {
    mapPack(views, i, count, f);
  }
}

template <int In, int Out, class F>
void map(const Launch& launch, const MapViews<In, Out>& views, int64_t count, F f) {
  if (count == 0) return;
  mapKernel<In, Out, F><<<blocksFor(count, 256 * pack), 256, 0, launch.stream>>>(views, count, f);
}

/** For `map`: the rounding of the output to its dtype is all there is to do. */
struct CopyValue {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0]; }
};

template <class F>
__global__ void __launch_bounds__(256) eachKernel(int64_t count, F f) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) f(i);
}

/** f(i) for each i. */
template <class F>
void each(const Launch& launch, int64_t count, F f) {
  if (count == 0) return;
  eachKernel<F><<<blocksFor(count, 256), 256, 0, launch.stream>>>(count, f);
}

}  // namespace tandem::cuda

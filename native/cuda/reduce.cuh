// Sums, maxima and prefix sums over the threads of a block, always in the same order.
#pragma once

#include <cstdint>

namespace tandem::cuda {

constexpr unsigned allLanes = 0xffffffffu;

template <class T, class Op>
__device__ inline T warpReduce(T value, Op op) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value = op(value, __shfl_xor_sync(allLanes, value, offset));
  return value;
}

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

/** The larger; NaN where there is one. */
struct Larger {
  __device__ float operator()(float a, float b) const { return a != a ? a : b != b ? b : a > b ? a : b; }
  __device__ double operator()(double a, double b) const { return a != a ? a : b != b ? b : a > b ? a : b; }
};

/** The same value in every thread of a block of at most 1024 threads, a multiple of 32. */
template <class T, class Op>
__device__ inline T blockReduce(T value, Op op, T none) {
  __shared__ T parts[32];
  const int lane = threadIdx.x % 32;
  const int warps = blockDim.x / 32;
  value = warpReduce(value, op);
  __syncthreads();  // parts may still be read by who was here before
  if (lane == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  value = lane < warps ? parts[lane] : none;
  return warpReduce(value, op);
}

template <class T>
__device__ inline T blockSum(T value) {
  return blockReduce(value, Add{}, T(0));
}

/** Sum of the values of the threads before this one; `total` is that of all. */
__device__ inline int blockPrefix(int value, int& total) {
  __shared__ int parts[32];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int warps = blockDim.x / 32;
  int inclusive = value;
#pragma unroll
  for (int offset = 1; offset < 32; offset <<= 1) {
    const int other = __shfl_up_sync(allLanes, inclusive, offset);
    if (lane >= offset) inclusive += other;
  }
  __syncthreads();
  if (lane == 31) parts[warp] = inclusive;
  __syncthreads();
  int before = 0;
  total = 0;
  for (int w = 0; w < warps; w++) {
    if (w < warp) before += parts[w];
    total += parts[w];
  }
  return before + inclusive - value;
}

}  // namespace tandem::cuda

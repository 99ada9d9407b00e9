// LayerNorm and RMSNorm; argument order as core/kernels/normalization.ts. A warp takes a narrow row, a block a wide one;
// sums are float32 in a fixed order.
#include "norm.h"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

/** Sum over the threads of a row: a warp, or the block. */
template <int threads>
__device__ inline float rowSum(float value) {
  if constexpr (threads == 32) {
    return warpReduce(value, Add{});
  } else {
    return blockSum(value);
  }
}

template <int threads>
__device__ inline int64_t rowIndex() {
  return threads == 32 ? static_cast<int64_t>(blockIdx.x) * 4 + threadIdx.x / 32 : blockIdx.x;
}

/** A row's elements, the other stream's added where there is one. */
template <bool residual>
__device__ inline void getRow(const NormForward& a, int64_t row, int64_t c, float* values, float rest) {
  getSome(a.inp.at(row * a.s.width), c, a.s.width, a.s.whole, values, rest);
  if (!residual) return;
  float other[pack];
  getSome(a.other.at(row * a.s.width), c, a.s.width, a.s.whole, other);
#pragma unroll
  for (int j = 0; j < pack; j++) values[j] += other[j];
}

template <int threads, bool centred, bool residual>
__global__ void __launch_bounds__(threads == 32 ? 128 : threads) forwardRows(NormForward a) {
  const int64_t row = rowIndex<threads>();
  if (row >= a.s.rows) return;
  const int lane = threadIdx.x % threads;
  const View y = a.out.at(row * a.s.width);
  const auto width = static_cast<float>(a.s.width);
  float values[pack];
  float center = 0;
  if (centred) {
    float sum = 0;
    for (int64_t c = lane * pack; c < a.s.width; c += threads * pack) {
      getRow<residual>(a, row, c, values, 0);
#pragma unroll
      for (int j = 0; j < pack; j++) sum += values[j];
    }
    center = rowSum<threads>(sum) / width;
  }
  float squares = 0;
  for (int64_t c = lane * pack; c < a.s.width; c += threads * pack) {
    getRow<residual>(a, row, c, values, center);
#pragma unroll
    for (int j = 0; j < pack; j++) squares += (values[j] - center) * (values[j] - center);
  }
  const float scale = 1.0f / sqrtf(rowSum<threads>(squares) / width + a.epsilon);
  for (int64_t c = lane * pack; c < a.s.width; c += threads * pack) {
    float weight[pack], bias[pack];
    getRow<residual>(a, row, c, values, 0);
    if (residual) setSome(a.sum.at(row * a.s.width), c, a.s.width, a.s.whole, values);
    getSome(a.weight, c, a.s.width, a.s.whole, weight);
    if (centred) getSome(a.bias, c, a.s.width, a.s.whole, bias);
#pragma unroll
    for (int j = 0; j < pack; j++) {
      const float norm = (values[j] - center) * scale * weight[j];
      values[j] = centred ? norm + bias[j] : norm;
    }
    setSome(y, c, a.s.width, a.s.whole, values);
  }
  if (lane == 0) {
    if (centred) set(a.mean, row, center);
    set(a.rstd, row, scale);
  }
}

/** A warp per row whose elements it keeps, up to 256 a pack: the row is read once. */
template <int packs, bool centred, bool residual>
__global__ void __launch_bounds__(128) forwardKept(NormForward a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * 4 + threadIdx.x / 32;
  if (row >= a.s.rows) return;
  const int lane = threadIdx.x % 32;
  const auto width = static_cast<float>(a.s.width);
  float values[packs][pack];
  float sum = 0;
#pragma unroll
  for (int k = 0; k < packs; k++) {
    const int64_t c = (k * 32 + lane) * pack;
    if (c < a.s.width) getRow<residual>(a, row, c, values[k], 0);
#pragma unroll
    for (int j = 0; j < pack; j++) sum += c < a.s.width ? values[k][j] : 0.0f;
  }
  const float center = centred ? warpReduce(sum, Add{}) / width : 0;
  float squares = 0;
#pragma unroll
  for (int k = 0; k < packs; k++) {
#pragma unroll
    for (int j = 0; j < pack; j++) {
      const float distance = values[k][j] - center;
      squares += (k * 32 + lane) * pack < a.s.width ? distance * distance : 0.0f;
    }
  }
  const float scale = 1.0f / sqrtf(warpReduce(squares, Add{}) / width + a.epsilon);
#pragma unroll
  for (int k = 0; k < packs; k++) {
    const int64_t c = (k * 32 + lane) * pack;
    if (c >= a.s.width) continue;
    float weight[pack], bias[pack];
    if (residual) setPack(a.sum.at(row * a.s.width), c, values[k]);
    getPack(a.weight, c, weight);
    if (centred) getPack(a.bias, c, bias);
#pragma unroll
    for (int j = 0; j < pack; j++) {
      const float norm = (values[k][j] - center) * scale * weight[j];
      values[k][j] = centred ? norm + bias[j] : norm;
    }
    setPack(a.out.at(row * a.s.width), c, values[k]);
  }
  if (lane == 0) {
    if (centred) set(a.mean, row, center);
    set(a.rstd, row, scale);
  }
}

constexpr int64_t warpWidth = 1024;

template <bool centred, bool residual>
void launchForward(const Launch& launch, const NormForward& a) {
  if (a.s.rows == 0) return;
  const auto blocks = static_cast<unsigned>(ceilDiv(a.s.rows, 4));
  if (a.s.whole && a.s.width <= 512) {
    forwardKept<2, centred, residual><<<blocks, 128, 0, launch.stream>>>(a);
  } else if (a.s.whole && a.s.width <= 768) {
    forwardKept<3, centred, residual><<<blocks, 128, 0, launch.stream>>>(a);
  } else if (a.s.whole && a.s.width <= warpWidth) {
    forwardKept<4, centred, residual><<<blocks, 128, 0, launch.stream>>>(a);
  } else if (a.s.width <= warpWidth) {
    forwardRows<32, centred, residual><<<blocks, 128, 0, launch.stream>>>(a);
  } else {
    forwardRows<256, centred, residual><<<static_cast<unsigned>(a.s.rows), 256, 0, launch.stream>>>(a);
  }
}

template <bool centred>
Work forward(const Call& call) {
  NormForward a{};
  a.s = normShape(input(call, 0));
  a.inp = floatsIn(call, 0);
  a.weight = floatsIn(call, 1);
  if (centred) a.bias = floatsIn(call, 2);
  a.out = floatsOut(call, 0);
  if (centred) a.mean = floatsOut(call, 1);
  a.rstd = floatsOut(call, centred ? 2 : 1);
  a.epsilon = static_cast<float>(call.number("epsilon"));
  return [=](const Launch& launch) { normForward<centred>(launch, a); };
}

template <int threads, bool centred>
__global__ void __launch_bounds__(threads == 32 ? 128 : threads) inputGradientRows(NormBackward a, View to) {
  const int64_t row = rowIndex<threads>();
  if (row >= a.s.rows) return;
  const int lane = threadIdx.x % threads;
  const View dout = a.dout.at(row * a.s.width);
  const View inp = a.inp.at(row * a.s.width);
  const View dinp = to.at(row * a.s.width);
  const float center = centred ? get(a.mean, row) : 0;
  const float scale = get(a.rstd, row);
  float dy[pack], x[pack], weight[pack];
  float sum = 0;
  float sumWithNorm = 0;
  for (int64_t c = lane * pack; c < a.s.width; c += threads * pack) {
    getSome(dout, c, a.s.width, a.s.whole, dy);
    getSome(inp, c, a.s.width, a.s.whole, x);
    getSome(a.weight, c, a.s.width, a.s.whole, weight);
#pragma unroll
    for (int j = 0; j < pack; j++) {
      sum += dy[j] * weight[j];
      sumWithNorm += dy[j] * weight[j] * ((x[j] - center) * scale);
    }
  }
  const float mean = centred ? rowSum<threads>(sum) / static_cast<float>(a.s.width) : 0;
  const float slope = rowSum<threads>(sumWithNorm) / static_cast<float>(a.s.width);
  for (int64_t c = lane * pack; c < a.s.width; c += threads * pack) {
    getSome(dout, c, a.s.width, a.s.whole, dy);
    getSome(inp, c, a.s.width, a.s.whole, x);
    getSome(a.weight, c, a.s.width, a.s.whole, weight);
#pragma unroll
    for (int j = 0; j < pack; j++) {
      x[j] = scale * (dy[j] * weight[j] - mean - (x[j] - center) * scale * slope);
    }
    setSome(dinp, c, a.s.width, a.s.whole, x);
  }
}

template <bool centred>
Work backwardInput(const Call& call) {
  NormBackward a{};
  a.s = normShape(input(call, 0));
  a.dout = floatsIn(call, 0);
  a.inp = floatsIn(call, 1);
  a.weight = floatsIn(call, 2);
  if (centred) a.mean = floatsIn(call, 3);
  a.rstd = floatsIn(call, centred ? 4 : 3);
  a.dinp = floatsOut(call, 0);
  return [=](const Launch& launch) { normInputGradient<centred>(launch, a, a.dinp); };
}

constexpr int columnsPerBlock = 32 * pack;

/** Strips of rows: eight warps, each with its own rows of 256 columns. */
template <bool centred>
__global__ void __launch_bounds__(256) weightStrips(NormBackward a, float* weights, float* biases) {
  __shared__ float parts[2][8][columnsPerBlock];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * columnsPerBlock + lane * pack;
  const int64_t from = blockIdx.y * a.rowsPerStrip;
  const int64_t to = min(a.s.rows, from + a.rowsPerStrip);
  float weight[pack] = {};
  float bias[pack] = {};
  if (c < a.s.width) {
    for (int64_t row = from + warp; row < to; row += 8) {
      float dy[pack], x[pack];
      getSome(a.dout.at(row * a.s.width), c, a.s.width, a.s.whole, dy);
      getSome(a.inp.at(row * a.s.width), c, a.s.width, a.s.whole, x);
      const float center = centred ? get(a.mean, row) : 0;
      const float scale = get(a.rstd, row);
#pragma unroll
      for (int j = 0; j < pack; j++) {
        weight[j] += dy[j] * ((x[j] - center) * scale);
        if (centred) bias[j] += dy[j];
      }
    }
  }
#pragma unroll
  for (int j = 0; j < pack; j++) {
    parts[0][warp][lane * pack + j] = weight[j];
    parts[1][warp][lane * pack + j] = bias[j];
  }
  __syncthreads();
  const int64_t column = static_cast<int64_t>(blockIdx.x) * columnsPerBlock + threadIdx.x;
  if (column >= a.s.width) return;
  float weightSum = 0;
  float biasSum = 0;
  for (int w = 0; w < 8; w++) {
    weightSum += parts[0][w][threadIdx.x];
    biasSum += parts[1][w][threadIdx.x];
  }
  weights[blockIdx.y * a.s.width + column] = weightSum;
  if (centred) biases[blockIdx.y * a.s.width + column] = biasSum;
}

/** 32 columns per block; each of eight warps adds every eighth strip, then the first adds theirs. */
template <bool centred>
__global__ void __launch_bounds__(256) weightTotals(NormBackward a, const float* weights, const float* biases) {
  __shared__ double parts[2][8][32];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + lane;
  double weight = 0;
  double bias = 0;
  for (int64_t strip = warp; strip < a.strips && c < a.s.width; strip += 8) {
    weight += static_cast<double>(weights[strip * a.s.width + c]);
    if (centred) bias += static_cast<double>(biases[strip * a.s.width + c]);
  }
  parts[0][warp][lane] = weight;
  parts[1][warp][lane] = bias;
  __syncthreads();
  if (warp != 0 || c >= a.s.width) return;
  weight = a.accumulate ? get(a.before, c) : 0;
  bias = centred && a.accumulate ? get(a.beforeBias, c) : 0;
  for (int w = 0; w < 8; w++) {
    weight += parts[0][w][lane];
    bias += parts[1][w][lane];
  }
  set(a.dweight, c, static_cast<float>(weight));
  if (centred) set(a.dbias, c, static_cast<float>(bias));
}

template <bool centred>
Work backwardWeight(const Call& call) {
  NormBackward a{};
  a.accumulate = call.flag("accumulate");
  a.s = normShape(input(call, 0));
  a.dout = floatsIn(call, 0);
  a.inp = floatsIn(call, 1);
  if (centred) a.mean = floatsIn(call, 2);
  a.rstd = floatsIn(call, centred ? 3 : 2);
  if (a.accumulate) a.before = floatsIn(call, centred ? 4 : 3);
  if (a.accumulate && centred) a.beforeBias = floatsIn(call, 5);
  a.dweight = floatsOut(call, 0);
  if (centred) a.dbias = floatsOut(call, 1);
  return [=](const Launch& launch) { normWeightGradient<centred>(launch, a); };
}

}  // namespace

template <bool centred>
void normForward(const Launch& launch, const NormForward& a) {
  if (a.other.data == nullptr) return launchForward<centred, false>(launch, a);
  launchForward<centred, true>(launch, a);
}

template <bool centred>
void normInputGradient(const Launch& launch, const NormBackward& a, const View& to) {
  if (a.s.rows == 0) return;
  if (a.s.width <= warpWidth) {
    inputGradientRows<32, centred><<<static_cast<unsigned>(ceilDiv(a.s.rows, 4)), 128, 0, launch.stream>>>(a, to);
  } else {
    inputGradientRows<256, centred><<<static_cast<unsigned>(a.s.rows), 256, 0, launch.stream>>>(a, to);
  }
}

template <bool centred>
void normTotals(const Launch& launch, const NormBackward& a, const float* weights, const float* biases) {
  weightTotals<centred><<<static_cast<unsigned>(ceilDiv(a.s.width, 32)), 256, 0, launch.stream>>>(a, weights, biases);
}

template <bool centred>
void normWeightGradient(const Launch& launch, NormBackward a) {
  if (a.s.width == 0) return;
  a.strips = std::max<int64_t>(1, std::min<int64_t>(128, ceilDiv(a.s.rows, 32)));
  a.rowsPerStrip = ceilDiv(a.s.rows, a.strips);
  const auto floats = static_cast<size_t>(a.strips * a.s.width);
  const Scratch scratch(launch, 2 * floats * sizeof(float));
  auto* weights = scratch.as<float>();
  const dim3 grid(static_cast<unsigned>(ceilDiv(a.s.width, columnsPerBlock)), static_cast<unsigned>(a.strips));
  weightStrips<centred><<<grid, 256, 0, launch.stream>>>(a, weights, weights + floats);
  normTotals<centred>(launch, a, weights, weights + floats);
}

template void normForward<true>(const Launch&, const NormForward&);
template void normForward<false>(const Launch&, const NormForward&);
template void normInputGradient<true>(const Launch&, const NormBackward&, const View&);
template void normInputGradient<false>(const Launch&, const NormBackward&, const View&);
template void normWeightGradient<true>(const Launch&, NormBackward);
template void normWeightGradient<false>(const Launch&, NormBackward);
template void normTotals<true>(const Launch&, const NormBackward&, const float*, const float*);
template void normTotals<false>(const Launch&, const NormBackward&, const float*, const float*);

const KernelTable normalizationKernels = {{"layer_norm.forward", forward<true>},
                                          {"layer_norm.backward_input", backwardInput<true>},
                                          {"layer_norm.backward_weight", backwardWeight<true>},
                                          {"rms_norm.forward", forward<false>},
                                          {"rms_norm.backward_input", backwardInput<false>},
                                          {"rms_norm.backward_weight", backwardWeight<false>}};

}  // namespace tandem::cuda

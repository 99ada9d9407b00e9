// Composite kernels (core/kernels/fused.ts) that are worth one launch: a norm with the residual stream around it, both halves
// of its backward pass, a linear layer with GELU. Values that pass between the parts are float32 and stay in registers.
#include "cublaslt.h"
#include "gelu.cuh"
#include "gemm.h"
#include "map.cuh"
#include "norm.h"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

/** dinp of a row and what it adds to dweight and dbias; a warp per row, its columns in registers over all of its rows. */
template <int packs, bool centred, bool residual>
__global__ void __launch_bounds__(256) normBackward(NormBackward a, float* weights, float* biases) {
  extern __shared__ float parts[];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const auto width = static_cast<float>(a.s.width);
  float dweight[packs][pack] = {};
  float dbias[packs][pack] = {};
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * 8 + warp; row < a.s.rows; row += static_cast<int64_t>(gridDim.x) * 8) {
    const float center = centred ? get(a.mean, row) : 0;
    const float scale = get(a.rstd, row);
    float dnorm[packs][pack], norm[packs][pack];
    float sum = 0;
    float sumWithNorm = 0;
#pragma unroll
    for (int k = 0; k < packs; k++) {
      const int64_t c = (k * 32 + lane) * pack;
      float weight[pack];
      if (c < a.s.width) {
        getPack(a.dout.at(row * a.s.width), c, dnorm[k]);
        getPack(a.inp.at(row * a.s.width), c, norm[k]);
        getPack(a.weight, c, weight);
      }
#pragma unroll
      for (int j = 0; j < pack; j++) {
        if (c >= a.s.width) dnorm[k][j] = norm[k][j] = weight[j] = 0;
        else norm[k][j] = (norm[k][j] - center) * scale;
        dweight[k][j] += dnorm[k][j] * norm[k][j];
        if (centred) dbias[k][j] += dnorm[k][j];
        dnorm[k][j] *= weight[j];
        sum += dnorm[k][j];
        sumWithNorm += dnorm[k][j] * norm[k][j];
      }
    }
    const float mean = centred ? warpReduce(sum, Add{}) / width : 0;
    const float slope = warpReduce(sumWithNorm, Add{}) / width;
#pragma unroll
    for (int k = 0; k < packs; k++) {
      const int64_t c = (k * 32 + lane) * pack;
      if (c >= a.s.width) continue;
      float stream[pack];
      if (residual) getPack(a.dsum.at(row * a.s.width), c, stream);
#pragma unroll
      for (int j = 0; j < pack; j++) {
        const float gradient = scale * (dnorm[k][j] - mean - norm[k][j] * slope);
        dnorm[k][j] = residual ? stream[j] + gradient : gradient;
      }
      setPack(a.dinp.at(row * a.s.width), c, dnorm[k]);
    }
  }
  // eight warps, one column each time
  for (int half = 0; half < (centred ? 2 : 1); half++) {
#pragma unroll
    for (int k = 0; k < packs; k++) {
#pragma unroll
      for (int j = 0; j < pack; j++) {
        parts[warp * packs * 32 * pack + (k * 32 + lane) * pack + j] = half == 0 ? dweight[k][j] : dbias[k][j];
      }
    }
    __syncthreads();
    float* const to = half == 0 ? weights : biases;
    for (int64_t c = threadIdx.x; c < a.s.width; c += 256) {
      float total = 0;
      for (int w = 0; w < 8; w++) total += parts[w * packs * 32 * pack + c];
      to[blockIdx.x * a.s.width + c] = total;
    }
    __syncthreads();
  }
}

constexpr int64_t mostStrips = 264;

template <int packs, bool centred, bool residual>
void launchNormBackward(const Launch& launch, NormBackward a) {
  a.strips = std::max<int64_t>(1, std::min(mostStrips, ceilDiv(a.s.rows, 8)));
  const auto floats = static_cast<size_t>(a.strips * a.s.width);
  const Scratch scratch(launch, 2 * floats * sizeof(float));
  auto* weights = scratch.as<float>();
  constexpr size_t shared = size_t{8} * packs * 32 * pack * sizeof(float);
  normBackward<packs, centred, residual>
      <<<static_cast<unsigned>(a.strips), 256, shared, launch.stream>>>(a, weights, weights + floats);
  normTotals<centred>(launch, a, weights, weights + floats);
}

struct AddStream {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] + x[1]; }
};

/** Rows that are too wide for registers, or do not lie on eights, take the halves one after the other. */
template <bool centred, bool residual>
Work normBackwardWork(const NormBackward& a) {
  if (a.s.whole && a.s.width <= 1024 && a.s.width > 0) {
    switch (ceilDiv(a.s.width, 32 * pack)) {
      case 1: return [=](const Launch& launch) { launchNormBackward<1, centred, residual>(launch, a); };
      case 2: return [=](const Launch& launch) { launchNormBackward<2, centred, residual>(launch, a); };
      case 3: return [=](const Launch& launch) { launchNormBackward<3, centred, residual>(launch, a); };
      default: return [=](const Launch& launch) { launchNormBackward<4, centred, residual>(launch, a); };
    }
  }
  return [=](const Launch& launch) {
    // dweight first: dinp may lie where dsum is, but never where dout is
    normWeightGradient<centred>(launch, a);
    if (!residual) return normInputGradient<centred>(launch, a, a.dinp);
    const int64_t elements = a.s.rows * a.s.width;
    const Scratch scratch(launch, static_cast<size_t>(elements + 1) * sizeof(float));
    const View gradient = {scratch.as<float>(), Dtype::float32};
    normInputGradient<centred>(launch, a, gradient);
    map(launch, MapViews<2, 1>{{a.dsum, gradient}, {a.dinp}}, elements, AddStream{});
  };
}

template <bool centred, bool residual>
Work backward(const Call& call) {
  const size_t first = residual ? 1 : 0;
  NormBackward a{};
  a.s = normShape(input(call, first));
  if (residual) a.dsum = floatsIn(call, 0);
  a.dout = floatsIn(call, first);
  a.inp = floatsIn(call, first + 1);
  a.weight = floatsIn(call, first + 2);
  if (centred) a.mean = floatsIn(call, first + 3);
  a.rstd = floatsIn(call, first + (centred ? 4 : 3));
  a.dinp = floatsOut(call, 0);
  a.dweight = floatsOut(call, 1);
  if (centred) a.dbias = floatsOut(call, 2);
  return normBackwardWork<centred, residual>(a);
}

template <bool centred>
Work residualForward(const Call& call) {
  NormForward a{};
  a.s = normShape(input(call, 0));
  a.inp = floatsIn(call, 0);
  a.other = floatsIn(call, 1);
  a.weight = floatsIn(call, 2);
  if (centred) a.bias = floatsIn(call, 3);
  a.sum = floatsOut(call, 0);
  a.out = floatsOut(call, 1);
  if (centred) a.mean = floatsOut(call, 2);
  a.rstd = floatsOut(call, centred ? 3 : 2);
  a.epsilon = static_cast<float>(call.number("epsilon"));
  return [=](const Launch& launch) { normForward<centred>(launch, a); };
}

struct GeluOf {
  __device__ void operator()(const float* x, float* y) const {
    y[0] = x[0];
    y[1] = gelu(x[0]);
  }
};

/** GELU and what goes into it in one product where cuBLASLt has that; else the product in float32, then both. */
Work linearGelu(const Call& call) {
  const bool hasBias = call.inputs.size() > 2;
  const View inp = floatsIn(call, 0);
  const View weight = floatsIn(call, 1);
  const View bias = hasBias ? floatsIn(call, 2) : View{};
  const View pre = floatsOut(call, 0);
  const View out = floatsOut(call, 1);
  const int64_t outs = input(call, 1).shape.at(0);
  const int64_t width = input(call, 1).shape.at(1);
  const int64_t rows = rowsOf(output(call, 0));
  LtCall lt{{inp, rows, width}, {weight, outs, width}, {out, rows, outs}};
  lt.transposeRight = true;
  lt.bias = bias;
  lt.hasBias = hasBias;
  lt.aux = pre;
  lt.gelu = LtGelu::forward;
  if (const auto product = ltProduct(lt)) return [=](const Launch& launch) { product->run(launch); };
  // what lies between the parts is rounded nowhere then
  if (isFloat32(pre)) {
    const Work product = linearProduct(inp, weight, hasBias ? &bias : nullptr, pre, rows, width, outs, call.flag("tf32"));
    return [=](const Launch& launch) {
      product(launch);
      map(launch, MapViews<1, 2>{{pre}, {pre, out}}, rows * outs, GeluOf{});
    };
  }
  const Product own = {rows, outs, width, {inp, width, 1}, {weight, 1, width}, {}, {}, false, bias, hasBias};
  return [=](const Launch& launch) {
    const Scratch scratch(launch, static_cast<size_t>(rows * outs + 1) * sizeof(float));
    Product product = own;
    product.c = {scratch.as<float>(), Dtype::float32};
    multiply(launch, product);
    map(launch, MapViews<1, 2>{{product.c}, {pre, out}}, rows * outs, GeluOf{});
  };
}

struct GeluGradientOf {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[1] * geluSlope(x[0]); }
};

Work geluLinearBackward(const Call& call) {
  const View dout = floatsIn(call, 0);
  const View weight = floatsIn(call, 1);
  const View pre = floatsIn(call, 2);
  const View dpre = floatsOut(call, 0);
  const int64_t outs = input(call, 1).shape.at(0);
  const int64_t width = input(call, 1).shape.at(1);
  const int64_t rows = rowsOf(input(call, 0));
  LtCall lt{{dout, rows, outs}, {weight, outs, width}, {dpre, rows, width}};
  lt.aux = pre;
  lt.gelu = LtGelu::backward;
  if (const auto product = ltProduct(lt)) return [=](const Launch& launch) { product->run(launch); };
  if (isFloat32(dpre)) {
    LtCall plain{{dout, rows, outs}, {weight, outs, width}, {dpre, rows, width}};
    plain.tf32 = call.flag("tf32");
    if (const auto product = ltProduct(plain)) {
      return [=](const Launch& launch) {
        product->run(launch);
        map(launch, MapViews<2, 1>{{pre, dpre}, {dpre}}, rows * width, GeluGradientOf{});
      };
    }
  }
  const Product own = {rows, width, outs, {dout, outs, 1}, {weight, width, 1}, {}, {}, false, {}, false};
  return [=](const Launch& launch) {
    const Scratch scratch(launch, static_cast<size_t>(rows * width + 1) * sizeof(float));
    Product product = own;
    product.c = {scratch.as<float>(), Dtype::float32};
    multiply(launch, product);
    map(launch, MapViews<2, 1>{{pre, product.c}, {dpre}}, rows * width, GeluGradientOf{});
  };
}

}  // namespace

const KernelTable fusedKernels = {{"residual_layer_norm.forward", residualForward<true>},
                                  {"residual_rms_norm.forward", residualForward<false>},
                                  {"layer_norm.backward", backward<true, false>},
                                  {"rms_norm.backward", backward<false, false>},
                                  {"residual_layer_norm.backward", backward<true, true>},
                                  {"residual_rms_norm.backward", backward<false, true>},
                                  {"linear_gelu.forward", linearGelu},
                                  {"gelu_linear.backward_input", geluLinearBackward}};

}  // namespace tandem::cuda

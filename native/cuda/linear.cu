// Linear layers, weight [out, in]; argument order as core/kernels/linear.ts.
#include "cublaslt.h"
#include "gemm.h"
#include "map.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {


Work own(const Product& product) {
  return [=](const Launch& launch) { multiply(launch, product); };
}

}  // namespace

Work linearProduct(const View& inp, const View& weight, const View* bias, const View& out, int64_t rows, int64_t width,
                   int64_t outs, bool tf32) {
  LtCall lt{{inp, rows, width}, {weight, outs, width}, {out, rows, outs}};
  lt.tf32 = tf32;
  lt.transposeRight = true;
  if (bias != nullptr) {
    lt.bias = *bias;
    lt.hasBias = true;
  }
  if (const auto product = ltProduct(lt)) return [=](const Launch& launch) { product->run(launch); };
  return own({rows, outs, width, {inp, width, 1}, {weight, 1, width}, out, {}, false, bias == nullptr ? View{} : *bias,
              bias != nullptr});
}

namespace {

/** out[row] = inp[row] weight^T (+ bias). */
Work forward(const Call& call) {
  const bool hasBias = call.inputs.size() > 2;
  const View bias = hasBias ? floatsIn(call, 2) : View{};
  const Shape& weight = input(call, 1).shape;
  return linearProduct(floatsIn(call, 0), floatsIn(call, 1), hasBias ? &bias : nullptr, floatsOut(call, 0),
                       rowsOf(output(call, 0)), weight.at(1), weight.at(0), call.flag("tf32"));
}

/** dinp[row] = dout[row] weight. */
Work backwardInput(const Call& call) {
  const View dout = floatsIn(call, 0);
  const View weight = floatsIn(call, 1);
  const View dinp = floatsOut(call, 0);
  const int64_t width = input(call, 1).shape.at(1);
  const int64_t outs = input(call, 1).shape.at(0);
  const int64_t rows = rowsOf(input(call, 0));
  LtCall lt{{dout, rows, outs}, {weight, outs, width}, {dinp, rows, width}};
  lt.tf32 = call.flag("tf32");
  if (const auto product = ltProduct(lt)) {
    return [=](const Launch& launch) { product->run(launch); };
  }
  return own({rows, width, outs, {dout, outs, 1}, {weight, width, 1}, dinp, {}, false, {}, false});
}

struct Columns {
  View rows, before, sums;
  int64_t count, width;
  bool accumulate, whole;
};

/** Eight columns per lane, eight warps over the rows of a strip. */
__global__ void __launch_bounds__(256) columnStrips(Columns c, int64_t rowsPerStrip, float* strips) {
  __shared__ float parts[8][32 * pack];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * 32 * pack + lane * pack;
  const int64_t from = blockIdx.y * rowsPerStrip;
  const int64_t to = min(c.count, from + rowsPerStrip);
  float sums[pack] = {};
  for (int64_t row = from + warp; column < c.width && row < to; row += 8) {
    float values[pack];
    getSome(c.rows.at(row * c.width), column, c.width, c.whole, values);
#pragma unroll
    for (int j = 0; j < pack; j++) sums[j] += values[j];
  }
#pragma unroll
  for (int j = 0; j < pack; j++) parts[warp][lane * pack + j] = sums[j];
  __syncthreads();
  const int64_t own = static_cast<int64_t>(blockIdx.x) * 32 * pack + threadIdx.x;
  if (own >= c.width) return;
  float sum = 0;
  for (int w = 0; w < 8; w++) sum += parts[w][threadIdx.x];
  strips[blockIdx.y * c.width + own] = sum;
}

struct TotalColumns {
  Columns c;
  const float* strips;
  int64_t count;
  __device__ void operator()(int64_t i) const {
    double sum = c.accumulate ? static_cast<double>(get(c.before, i)) : 0;
    for (int64_t strip = 0; strip < count; strip++) sum += static_cast<double>(strips[strip * c.width + i]);
    set(c.sums, i, static_cast<float>(sum));
  }
};

void sumColumns(const Launch& launch, const Columns& c) {
  if (c.width == 0) return;
  const int64_t strips = std::max<int64_t>(1, std::min<int64_t>(128, ceilDiv(c.count, 32)));
  const Scratch scratch(launch, static_cast<size_t>(strips * c.width) * sizeof(float));
  auto* sums = scratch.as<float>();
  const dim3 grid(static_cast<unsigned>(ceilDiv(c.width, 32 * pack)), static_cast<unsigned>(strips));
  columnStrips<<<grid, 256, 0, launch.stream>>>(c, ceilDiv(c.count, strips), sums);
  each(launch, c.width, TotalColumns{c, sums, strips});
}

/** dweight = dout^T inp, dbias = column sums of dout; added to the gradients so far with `accumulate`. */
Work backwardWeight(const Call& call) {
  const bool bias = call.flag("bias");
  const bool accumulate = call.flag("accumulate");
  const View dout = floatsIn(call, 0);
  const View inp = floatsIn(call, 1);
  const View before = accumulate ? floatsIn(call, 2) : View{};
  const View dweight = floatsOut(call, 0);
  const int64_t outs = output(call, 0).shape.at(0);
  const int64_t width = output(call, 0).shape.at(1);
  const int64_t rows = rowsOf(input(call, 0));
  LtCall lt{{dout, rows, outs}, {inp, rows, width}, {dweight, outs, width}};
  lt.transposeLeft = true;
  lt.tf32 = call.flag("tf32");
  lt.add = before;
  lt.hasAdd = accumulate;
  const bool fuse = bias && !accumulate && floatsOut(call, 1).dtype == dweight.dtype;
  if (fuse) {
    LtCall fused = lt;
    fused.leftSums = floatsOut(call, 1);
    fused.hasLeftSums = true;
    if (const auto product = ltProduct(fused)) return [=](const Launch& launch) { product->run(launch); };
  }
  const auto product = ltProduct(lt);
  const Product plain = {outs, width, rows, {dout, 1, outs}, {inp, width, 1}, dweight, before, accumulate, {}, false};
  Columns columns{};
  if (bias) {
    columns = {dout, accumulate ? floatsIn(call, 3) : View{}, floatsOut(call, 1), rows, outs, accumulate, outs % pack == 0};
  }
  return [=](const Launch& launch) {
    if (product != nullptr) {
      product->run(launch);
    } else {
      multiply(launch, plain);
    }
    if (bias) sumColumns(launch, columns);
  };
}

}  // namespace

const KernelTable linearKernels = {{"linear.forward", forward},
                                   {"linear.backward_input", backwardInput},
                                   {"linear.backward_weight", backwardWeight}};

}  // namespace tandem::cuda

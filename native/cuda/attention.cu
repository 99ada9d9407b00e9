// Grouped-query attention; argument order as core/kernels/attention.ts. This way takes any dtypes and widths, in float32, a
// warp per query (or key, for the gradients of keys and values); what tensor cores can do, flash.cu does, and other heads that are
// not too wide attention-tiles.cu. Where the user asks for cuDNN's, that does all of it (cudnn-work.cu).
#include "attention.h"

#include "map.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

Attention attentionOf(const Call& call, size_t first) {
  Attention a{};
  a.heads = call.integer("heads");
  a.kvHeads = call.integer("kvHeads");
  a.headWidth = call.integer("headWidth");
  a.causal = call.flag("causal");
  a.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(a.headWidth)));
  const Operand& q = input(call, first);
  a.batch = q.shape.at(0);
  a.time = q.shape.at(1);
  a.context = call.flag("packed") ? a.time : input(call, first + 1).shape.at(1);
  if (a.causal && a.context < a.time) {
    throw BadCall("attention: causal attention of " + std::to_string(a.time) + " queries over only " +
                  std::to_string(a.context) + " keys");
  }
  return a;
}

/** q, k and v in three tensors from `first` on, or side by side in one. */
void place(const Call& call, const std::vector<Operand>& operands, size_t first, const Attention& a, Heads& q, Heads& k,
           Heads& v) {
  const int64_t width = a.heads * a.headWidth;
  const int64_t kvWidth = a.kvHeads * a.headWidth;
  const View one = floatsOf(call, operands.at(first));
  if (call.flag("packed")) {
    const int64_t stride = width + 2 * kvWidth;
    q = {one, stride};
    k = {one.at(width), stride};
    v = {one.at(width + kvWidth), stride};
  } else {
    q = {one, width};
    k = {floatsOf(call, operands.at(first + 1)), kvWidth};
    v = {floatsOf(call, operands.at(first + 2)), kvWidth};
  }
}

constexpr int warps = 4;

__device__ inline float dotHeads(const View& x, const View& y, int64_t width) {
  float sum = 0;
  for (int64_t c = 0; c < width; c++) sum = fmaf(get(x, c), get(y, c), sum);
  return sum;
}

/** The warp's item: batch, head and token (a query, or a key). False beyond the last. */
struct Item {
  int64_t b, head, t;
};

__device__ inline bool itemOf(int64_t heads, int64_t tokens, int64_t batch, Item& item) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
  item = {index / tokens / heads, index / tokens % heads, index % tokens};
  return item.b < batch;
}

/** Widths beyond 1024 do not occur: a lane keeps 32 of the sums. */
constexpr int perLane = 32;

__global__ void __launch_bounds__(warps * 32) forwardKernel(Attention a) {
  Item item;
  if (!itemOf(a.heads, a.time, a.batch, item)) return;
  const int lane = threadIdx.x % 32;
  const View q = a.q.at(item.b * a.time + item.t, item.head, a.headWidth);
  const int64_t visible = a.visible(item.t);
  const int64_t kvHead = a.kvHead(item.head);
  float max = -INFINITY;
  float sum = 0;
  float sums[perLane] = {};
  for (int64_t first = 0; first < visible; first += 32) {
    const int64_t s = first + lane;
    const float score =
        s < visible ? a.scale * dotHeads(q, a.k.at(item.b * a.context + s, kvHead, a.headWidth), a.headWidth) : -INFINITY;
    const float highest = warpReduce(fmaxf(score, max), Larger{});
    const float shrink = expf(max - highest);
    const float weight = expf(score - highest);
    sum = sum * shrink + warpReduce(weight, Add{});
    max = highest;
    for (int i = 0; i * 32 < a.headWidth; i++) sums[i] *= shrink;
    for (int64_t key = 0; key < 32 && first + key < visible; key++) {
      const float w = __shfl_sync(allLanes, weight, static_cast<int>(key));
      const View v = a.v.at(item.b * a.context + first + key, kvHead, a.headWidth);
      for (int i = 0; i * 32 + lane < a.headWidth; i++) sums[i] = fmaf(w, get(v, i * 32 + lane), sums[i]);
    }
  }
  const View out = a.out.at(item.b * a.time + item.t, item.head, a.headWidth);
  for (int i = 0; i * 32 + lane < a.headWidth; i++) set(out, i * 32 + lane, sums[i] / sum);
  if (lane == 0) set(a.lse, (item.b * a.heads + item.head) * a.time + item.t, max + logf(sum));
}

unsigned blocksOf(int64_t items) { return static_cast<unsigned>(ceilDiv(items, warps)); }

Work forward(const Call& call) {
  Attention a = attentionOf(call, 0);
  place(call, call.inputs, 0, a, a.q, a.k, a.v);
  a.out = {floatsOut(call, 0), a.heads * a.headWidth};
  a.lse = floatsOut(call, 1);
  if (a.headWidth > perLane * 32) {
    throw BadCall("attention.forward: heads " + std::to_string(a.headWidth) + " wide; the cuda backend takes up to 1024");
  }
  const int64_t items = a.batch * a.heads * a.time;
  if (items > 0 && attentionByCudnn()) return cudnnAttention(a, false, call.kernel);
  Work work;
  if (flashForward(a, work) || tiledForward(a, work)) return work;
  return [=](const Launch& launch) {
    if (items > 0) forwardKernel<<<blocksOf(items), warps * 32, 0, launch.stream>>>(a);
  };
}

__global__ void __launch_bounds__(warps * 32) deltaKernel(Attention a, float* delta) {
  Item item;
  if (!itemOf(a.heads, a.time, a.batch, item)) return;
  const int lane = threadIdx.x % 32;
  const View dout = a.dout.at(item.b * a.time + item.t, item.head, a.headWidth);
  const View out = a.out.at(item.b * a.time + item.t, item.head, a.headWidth);
  float sum = 0;
  for (int64_t c = lane; c < a.headWidth; c += 32) sum = fmaf(get(dout, c), get(out, c), sum);
  sum = warpReduce(sum, Add{});
  if (lane == 0) delta[(item.b * a.heads + item.head) * a.time + item.t] = sum;
}

/** Weight of a key for a query, and the gradient of its score, the scale included. */
struct Slope {
  float weight, score;
};

__device__ inline Slope slopeOf(const Attention& a, const View& q, const View& dout, const View& k, const View& v, float lse,
                                float delta) {
  const float weight = expf(dotHeads(q, k, a.headWidth) * a.scale - lse);
  return {weight, a.scale * weight * (dotHeads(dout, v, a.headWidth) - delta)};
}

__global__ void __launch_bounds__(warps * 32) queryGradients(Attention a, const float* delta) {
  Item item;
  if (!itemOf(a.heads, a.time, a.batch, item)) return;
  const int lane = threadIdx.x % 32;
  const int64_t token = item.b * a.time + item.t;
  const int64_t row = (item.b * a.heads + item.head) * a.time + item.t;
  const View q = a.q.at(token, item.head, a.headWidth);
  const View dout = a.dout.at(token, item.head, a.headWidth);
  const int64_t visible = a.visible(item.t);
  const int64_t kvHead = a.kvHead(item.head);
  float sums[perLane] = {};
  for (int64_t first = 0; first < visible; first += 32) {
    const int64_t s = first + lane;
    float own = 0;
    if (s < visible) {
      const int64_t key = item.b * a.context + s;
      own = slopeOf(a, q, dout, a.k.at(key, kvHead, a.headWidth), a.v.at(key, kvHead, a.headWidth), get(a.lse, row), delta[row])
                .score;
    }
    for (int64_t key = 0; key < 32 && first + key < visible; key++) {
      const float slope = __shfl_sync(allLanes, own, static_cast<int>(key));
      const View k = a.k.at(item.b * a.context + first + key, kvHead, a.headWidth);
      for (int i = 0; i * 32 + lane < a.headWidth; i++) sums[i] = fmaf(slope, get(k, i * 32 + lane), sums[i]);
    }
  }
  const View dq = a.dq.at(token, item.head, a.headWidth);
  for (int i = 0; i * 32 + lane < a.headWidth; i++) set(dq, i * 32 + lane, sums[i]);
}

__global__ void __launch_bounds__(warps * 32) keyGradients(Attention a, const float* delta) {
  Item item;
  if (!itemOf(a.kvHeads, a.context, a.batch, item)) return;
  const int lane = threadIdx.x % 32;
  const int64_t key = item.b * a.context + item.t;
  const View k = a.k.at(key, item.head, a.headWidth);
  const View v = a.v.at(key, item.head, a.headWidth);
  const int64_t group = a.heads / a.kvHeads;
  // the first query that sees this key
  const int64_t from = a.causal ? max(int64_t{0}, item.t - (a.context - a.time)) : 0;
  float keySums[perLane] = {};
  float valueSums[perLane] = {};
  for (int64_t head = item.head * group; head < (item.head + 1) * group; head++) {
    for (int64_t first = from; first < a.time; first += 32) {
      const int64_t t = first + lane;
      Slope own = {0, 0};
      if (t < a.time) {
        const int64_t row = (item.b * a.heads + head) * a.time + t;
        const int64_t token = item.b * a.time + t;
        own = slopeOf(a, a.q.at(token, head, a.headWidth), a.dout.at(token, head, a.headWidth), k, v, get(a.lse, row), delta[row]);
      }
      for (int64_t query = 0; query < 32 && first + query < a.time; query++) {
        const float weight = __shfl_sync(allLanes, own.weight, static_cast<int>(query));
        const float slope = __shfl_sync(allLanes, own.score, static_cast<int>(query));
        const int64_t token = item.b * a.time + first + query;
        const View q = a.q.at(token, head, a.headWidth);
        const View dout = a.dout.at(token, head, a.headWidth);
        for (int i = 0; i * 32 + lane < a.headWidth; i++) {
          keySums[i] = fmaf(slope, get(q, i * 32 + lane), keySums[i]);
          valueSums[i] = fmaf(weight, get(dout, i * 32 + lane), valueSums[i]);
        }
      }
    }
  }
  const View dk = a.dk.at(key, item.head, a.headWidth);
  const View dv = a.dv.at(key, item.head, a.headWidth);
  for (int i = 0; i * 32 + lane < a.headWidth; i++) {
    set(dk, i * 32 + lane, keySums[i]);
    set(dv, i * 32 + lane, valueSums[i]);
  }
}

Work backward(const Call& call) {
  const bool packed = call.flag("packed");
  Attention a = attentionOf(call, 1);
  place(call, call.inputs, 1, a, a.q, a.k, a.v);
  place(call, call.outputs, 0, a, a.dq, a.dk, a.dv);
  const int64_t width = a.heads * a.headWidth;
  a.dout = {floatsIn(call, 0), width};
  a.out = {floatsIn(call, packed ? 2 : 4), width};
  a.lse = floatsIn(call, packed ? 3 : 5);
  if (a.headWidth > perLane * 32) {
    throw BadCall("attention.backward: heads " + std::to_string(a.headWidth) + " wide; the cuda backend takes up to 1024");
  }
  const int64_t queries = a.batch * a.heads * a.time;
  const int64_t keys = a.batch * a.kvHeads * a.context;
  if (queries > 0 && keys > 0 && attentionByCudnn()) return cudnnAttention(a, true, call.kernel);
  Work work;
  if (flashBackward(a, work)) return work;
  const Gradients tiled = tiledGradients(a);
  return [=](const Launch& launch) {
    const Scratch scratch(launch, static_cast<size_t>(queries + 1) * sizeof(float));
    auto* delta = scratch.as<float>();
    if (queries > 0) deltaKernel<<<blocksOf(queries), warps * 32, 0, launch.stream>>>(a, delta);
    if (tiled) return tiled(launch.stream, delta);
    if (queries > 0) queryGradients<<<blocksOf(queries), warps * 32, 0, launch.stream>>>(a, delta);
    if (keys > 0) keyGradients<<<blocksOf(keys), warps * 32, 0, launch.stream>>>(a, delta);
  };
}

}  // namespace

const KernelTable attentionKernels = {{"attention.forward", forward}, {"attention.backward", backward}};

}  // namespace tandem::cuda

// How much each token of a prompt is attended to; argument order as core/kernels/kv-scores.ts. In float64 and in the
// reference's order, for what is kept is decided by it; 16-bit prompts go over tensor cores (kv-window.h).
#include "attend.cuh"
#include "kv-window.h"
#include "map.cuh"

namespace tandem::cuda {

namespace {

/** One head: a block per query of the window, its scores over all keys. */
__global__ void __launch_bounds__(256) windowRow(Window w, int64_t head, double* rows) {
  const int64_t t = w.time - w.window + blockIdx.x;
  const int64_t kvHead = head / (w.heads / w.kvHeads);
  const View q = w.q.at((t * w.heads + head) * w.headWidth);
  double* row = rows + blockIdx.x * w.time;
  const int64_t visible = w.softmax ? t + 1 : w.time;
  for (int64_t s = threadIdx.x; s < w.time; s += 256) {
    row[s] = s < visible ? dotExact(q, w.k.at((s * w.kvHeads + kvHead) * w.headWidth), w.headWidth) : 0;
  }
  __syncthreads();
  if (!w.softmax) return;
  const double scale = 1 / sqrt(static_cast<double>(w.headWidth));
  if (w.lse == nullptr) {
    softmaxExact(row, visible, scale);
  } else {
    const auto lse = static_cast<double>(w.lse[head * w.time + t]);
    // each thread its own: nobody else has touched them
    for (int64_t s = threadIdx.x; s < visible; s += 256) row[s] = exp(scale * row[s] - lse);
  }
}

struct AddRows {
  Window w;
  const double* rows;
  double* totals;
  bool first;
  __device__ void operator()(int64_t s) const {
    double total = first ? 0 : totals[s];
    for (int64_t row = 0; row < w.window; row++) total += rows[row * w.time + s];
    totals[s] = total;
  }
};

struct StoreScores {
  Window w;
  const double* totals;
  double over;
  __device__ void operator()(int64_t i) const { set(w.scores, i, static_cast<float>(totals[i] / over)); }
};

Work windowScores(const Call& call) {
  const Window w = {floatsIn(call, 0),       floatsIn(call, 1),         floatsOut(call, 0),
                    input(call, 0).shape.at(1), call.integer("heads"),  call.integer("kvHeads"),
                    call.integer("headWidth"), call.integer("window"), call.flag("softmax"),
                    call.inputs.size() > 2 ? static_cast<const float*>(floatsIn(call, 2).data) : nullptr};
  if (w.window < 1 || w.window > w.time) {
    throw BadCall("kv.window_scores: a window of " + std::to_string(w.window) + " in a prompt of " + std::to_string(w.time));
  }
  Work work;
  if (windowOnTensorCores(w, work)) return work;
  return [=](const Launch& launch) {
    const auto rowDoubles = static_cast<size_t>(w.window * w.time);
    const auto totalDoubles = static_cast<size_t>(w.kvHeads * w.time);
    const Scratch scratch(launch, (rowDoubles + totalDoubles) * sizeof(double));
    auto* rows = scratch.as<double>();
    auto* totals = scratch.as<double>(rowDoubles * sizeof(double));
    const int64_t group = w.heads / w.kvHeads;
    for (int64_t h = 0; h < w.heads; h++) {
      windowRow<<<static_cast<unsigned>(w.window), 256, 0, launch.stream>>>(w, h, rows);
      each(launch, w.time, AddRows{w, rows, totals + h / group * w.time, h % group == 0});
    }
    const double over = w.softmax ? static_cast<double>(w.window * group) : 1;
    each(launch, w.kvHeads * w.time, StoreScores{w, totals, over});
  };
}

struct Pooling {
  View scores, pooled;
  int64_t lists, time, prefix, reach;
  double kernel;
  bool average;
};

/** Of token t of the prefix, rounded to float32. */
__device__ inline float pooledScore(const Pooling& p, int64_t list, int64_t t) {
  double total = 0;
  double highest = -INFINITY;
  for (int64_t s = max(int64_t{0}, t - p.reach); s <= min(p.prefix - 1, t + p.reach); s++) {
    const double score = get(p.scores, list * p.time + s);
    total += score;
    highest = fmax(highest, score);
  }
  return static_cast<float>(p.average ? total / p.kernel : highest);
}

/** Pools every token of the prefix, and finds the largest: what lies in the window is to be above it. */
__global__ void __launch_bounds__(256) poolPrefix(Pooling p, unsigned* largest) {
  float highest = -INFINITY;
  const int64_t count = p.lists * p.prefix;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x; i < count; i += gridDim.x * int64_t{256}) {
    const int64_t list = i / p.prefix;
    const int64_t t = i % p.prefix;
    const float score = pooledScore(p, list, t);
    set(p.pooled, list * p.time + t, score);
    highest = fmaxf(highest, score);
  }
  highest = blockReduce(highest, Larger{}, -INFINITY);
  // an order of bits that rises with the number
  const unsigned bits = __float_as_uint(highest);
  if (threadIdx.x == 0) atomicMax(largest, bits & 0x80000000u ? ~bits : bits | 0x80000000u);
}

struct PoolWindow {
  Pooling p;
  const unsigned* largest;
  __device__ void operator()(int64_t i) const {
    const int64_t window = p.time - p.prefix;
    const unsigned code = *largest;
    const float value = __uint_as_float(code & 0x80000000u ? code & 0x7fffffffu : ~code);
    const double above = p.prefix == 0 ? 0 : static_cast<double>(value);
    set(p.pooled, i / window * p.time + p.prefix + i % window, static_cast<float>(above + 1));
  }
};

Work poolScores(const Call& call) {
  const int64_t window = call.integer("window");
  const int64_t kernel = call.integer("kernel");
  const std::string& mode = call.text("mode");
  const int64_t time = input(call, 0).shape.at(1);
  if (mode != "avg" && mode != "max") {
    throw BadCall("kv.pool_scores: mode is \"" + mode + "\"; expected \"avg\" or \"max\"");
  }
  if (kernel < 1 || kernel % 2 == 0 || window > time) {
    throw BadCall("kv.pool_scores: kernel " + std::to_string(kernel) + " and window " + std::to_string(window) + " over " +
                  std::to_string(time) + " tokens");
  }
  const Pooling p = {floatsIn(call, 0),  floatsOut(call, 0), input(call, 0).shape.at(0),  time,
                     time - window, (kernel - 1) / 2,   static_cast<double>(kernel), mode == "avg"};
  return [=](const Launch& launch) {
    const Scratch scratch(launch, sizeof(unsigned));
    auto* largest = scratch.as<unsigned>();
    check(cudaMemsetAsync(largest, 0, sizeof(unsigned), launch.stream), "cudaMemsetAsync");
    const int64_t count = p.lists * p.prefix;
    if (count > 0) poolPrefix<<<blocksFor(count, 1024), 256, 0, launch.stream>>>(p, largest);
    each(launch, p.lists * window, PoolWindow{p, largest});
  };
}

struct Scores {
  View data;
  int64_t lists, time;

  /** Over all lists, tokens [from, to). */
  __device__ double sum(int64_t from, int64_t to) const {
    double total = 0;
    for (int64_t list = 0; list < lists; list++) {
      int64_t t = from;
      // several loads under way, added in order
      for (; t + 4 <= to; t += 4) {
        float values[4];
#pragma unroll
        for (int j = 0; j < 4; j++) values[j] = get(data, list * time + t + j);
#pragma unroll
        for (int j = 0; j < 4; j++) total += static_cast<double>(values[j]);
      }
      for (; t < to; t++) total += static_cast<double>(get(data, list * time + t));
    }
    return total;
  }
};

Scores scoresOf(const Call& call) { return {floatsIn(call, 0), input(call, 0).shape.at(0), input(call, 0).shape.at(1)}; }

/** A warp per chunk. Sums of so few float32 are exact in float64 unless they are far apart, in whatever order. */
__global__ void __launch_bounds__(128) chunkScore(Scores scores, View chunks, int64_t chunk, bool mean) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 4 + threadIdx.x / 32;
  const int64_t from = c * chunk;
  if (from >= scores.time) return;
  const auto own = static_cast<int>(min(scores.time - from, chunk));
  double sum = 0;
  for (int64_t i = threadIdx.x % 32; i < own * scores.lists; i += 32) {
    sum += static_cast<double>(get(scores.data, i / own * scores.time + from + i % own));
  }
  const double total = warpReduce(sum, Add{});
  if (threadIdx.x % 32 == 0) set(chunks, c, static_cast<float>(mean ? total / own : total));
}

Work chunkScores(const Call& call) {
  const Scores scores = scoresOf(call);
  const View chunks = floatsOut(call, 0);
  const int64_t chunk = call.integer("chunk");
  const std::string& reduce = call.text("reduce");
  if (reduce != "sum" && reduce != "mean") {
    throw BadCall("kv.chunk_scores: reduce is \"" + reduce + "\"; expected \"sum\" or \"mean\"");
  }
  const bool mean = reduce == "mean";
  const auto blocks = static_cast<unsigned>(ceilDiv(ceilDiv(scores.time, chunk), 4));
  return [=](const Launch& launch) {
    if (blocks > 0) chunkScore<<<blocks, 128, 0, launch.stream>>>(scores, chunks, chunk, mean);
  };
}

struct ShotScore {
  Scores scores;
  View shots;
  const int64_t* starts;
  int64_t count;
  __device__ void operator()(int64_t i) const {
    const int64_t end = i + 1 < count ? starts[i + 1] : scores.time;
    set(shots, i, static_cast<float>(scores.sum(starts[i], end) / static_cast<double>(end - starts[i])));
  }
};

Work shotScores(const Call& call) {
  const Scores scores = scoresOf(call);
  const View shots = floatsOut(call, 0);
  const Table<int64_t> starts(call.integers("starts"));
  return [=](const Launch& launch) { each(launch, starts.count, ShotScore{scores, shots, starts.data, starts.count}); };
}

}  // namespace

const KernelTable kvScoreKernels = {{"kv.window_scores", windowScores},
                                    {"kv.pool_scores", poolScores},
                                    {"kv.chunk_scores", chunkScores},
                                    {"kv.shot_scores", shotScores}};

}  // namespace tandem::cuda

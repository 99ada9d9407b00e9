// How much each token of a prompt is attended to; argument order as core/kernels/kv-scores.ts. In float64, for what is kept is
// decided by it, and probabilities in the reference's order; those of 16-bit prompts go over tensor cores (kv-window.h).
#include "attend.cuh"
#include "kv-window.h"
#include "map.cuh"

namespace tandem::cuda {

namespace {

/** One head: a block per query of the window, its probabilities over all keys. */
__global__ void __launch_bounds__(256) windowRow(Window w, int64_t head, double* rows) {
  const int64_t t = w.time - w.window + blockIdx.x;
  const int64_t kvHead = head / (w.heads / w.kvHeads);
  const View q = w.q.at((t * w.heads + head) * w.headWidth);
  double* row = rows + blockIdx.x * w.time;
  for (int64_t s = threadIdx.x; s < w.time; s += 256) {
    row[s] = s <= t ? dotExact(q, w.k.at((s * w.kvHeads + kvHead) * w.headWidth), w.headWidth) : 0;
  }
  __syncthreads();
  const double scale = 1 / sqrt(static_cast<double>(w.headWidth));
  if (w.lse == nullptr) {
    softmaxExact(row, t + 1, scale);
  } else {
    const auto lse = static_cast<double>(w.lse[head * w.time + t]);
    // each thread its own: nobody else has touched them
    for (int64_t s = threadIdx.x; s <= t; s += 256) row[s] = exp(scale * row[s] - lse);
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

constexpr int queryColumns = 32;
constexpr int queryWarps = 8;

/**
 * Bare products are linear in the query: what all queries of the window, of all heads that share a key/value head, make of a key is
 * what their sum makes of it. A block sums so many columns of one key/value head: each warp every so many queries, then all warps.
 */
__global__ void __launch_bounds__(queryColumns * queryWarps) windowQueries(Window w, double* sums) {
  __shared__ double parts[queryWarps][queryColumns];
  const int lane = threadIdx.x % queryColumns;
  const int warp = threadIdx.x / queryColumns;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * queryColumns + lane;
  const int64_t group = w.heads / w.kvHeads;
  double sum = 0;
  if (column < w.headWidth) {
    for (int64_t row = warp; row < w.window * group; row += queryWarps) {
      const int64_t t = w.time - w.window + row / group;
      const int64_t head = blockIdx.y * group + row % group;
      sum += static_cast<double>(get(w.q, (t * w.heads + head) * w.headWidth + column));
    }
  }
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= w.headWidth) return;
  double total = 0;
#pragma unroll
  for (int i = 0; i < queryWarps; i++) total += parts[i][lane];
  sums[blockIdx.y * w.headWidth + column] = total;
}

/**
 * Products of the keys of a key/value head with its queries' sum, a key/value head for each row of blocks: so many lanes of a warp for
 * each key, eight numbers a lane at a time, of which the first are held.
 */
template <int lanes>
__global__ void __launch_bounds__(256) windowProducts(Window w, const double* sums) {
  const int part = threadIdx.x % lanes;
  const int64_t kvHead = blockIdx.y;
  const auto width = static_cast<int>(w.headWidth);
  const bool packs = width % pack == 0;
  const double* query = sums + kvHead * width;
  double held[pack];
#pragma unroll
  for (int j = 0; j < pack; j++) held[j] = part * pack + j < width ? query[part * pack + j] : 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * (256 / lanes);
  // lanes of a warp stay together: what is beyond the last key is computed of it again
  const int64_t rounds = (w.time + step - 1) / step;
  int64_t index = static_cast<int64_t>(blockIdx.x) * (256 / lanes) + threadIdx.x / lanes;
  for (int64_t round = 0; round < rounds; round++, index += step) {
    const View key = w.k.at((min(index, w.time - 1) * w.kvHeads + kvHead) * width);
    float values[pack];
    getSome(key, part * pack, width, packs && part * pack < width, values);
    double sum = 0;
#pragma unroll
    for (int j = 0; j < pack; j++) sum += held[j] * static_cast<double>(values[j]);
    for (int i = (lanes + part) * pack; i < width; i++) {
      sum += query[i] * static_cast<double>(get(key, i));
      if ((i + 1) % pack == 0) i += (lanes - 1) * pack;
    }
#pragma unroll
    for (int offset = lanes / 2; offset > 0; offset >>= 1) sum += __shfl_xor_sync(allLanes, sum, offset);
    if (part == 0 && index < w.time) set(w.scores, kvHead * w.time + index, static_cast<float>(sum));
  }
}

Work bareScores(const Window& w) {
  return [=](const Launch& launch) {
    const Scratch scratch(launch, static_cast<size_t>(w.kvHeads * w.headWidth) * sizeof(double));
    auto* sums = scratch.as<double>();
    const dim3 grid(static_cast<unsigned>(ceilDiv(w.headWidth, queryColumns)), static_cast<unsigned>(w.kvHeads));
    windowQueries<<<grid, queryColumns * queryWarps, 0, launch.stream>>>(w, sums);
    const auto blocks = [&](int lanes) {
      return dim3(static_cast<unsigned>(blocksFor(w.time, 256 / lanes)), static_cast<unsigned>(w.kvHeads));
    };
    // a head of 64 or 128 has as many packs
    if (w.headWidth <= 8 * pack) {
      windowProducts<8><<<blocks(8), 256, 0, launch.stream>>>(w, sums);
    } else {
      windowProducts<16><<<blocks(16), 256, 0, launch.stream>>>(w, sums);
    }
  };
}

Work windowScores(const Call& call) {
  const Window w = {floatsIn(call, 0),       floatsIn(call, 1),         floatsOut(call, 0),
                    input(call, 0).shape.at(1), call.integer("heads"),  call.integer("kvHeads"),
                    call.integer("headWidth"), call.integer("window"), call.flag("softmax"),
                    call.inputs.size() > 2 ? static_cast<const float*>(floatsIn(call, 2).data) : nullptr};
  if (w.window < 1 || w.window > w.time) {
    throw BadCall("kv.window_scores: a window of " + std::to_string(w.window) + " in a prompt of " + std::to_string(w.time));
  }
  if (w.kvHeads == 0) return [](const Launch&) {};
  if (!w.softmax) return bareScores(w);
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
    const auto over = static_cast<double>(w.window * group);
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

  /**
   * Over all lists, tokens [from, to), in every lane of a warp. Sums of so few float32 are exact in float64 unless they are far
   * apart, in whatever order.
   */
  __device__ double sum(int64_t from, int64_t to) const {
    const auto own = static_cast<int>(to - from);
    double total = 0;
    for (int64_t i = threadIdx.x % 32; i < own * lists; i += 32) {
      total += static_cast<double>(get(data, i / own * time + from + i % own));
    }
    return warpReduce(total, Add{});
  }
};

Scores scoresOf(const Call& call) { return {floatsIn(call, 0), input(call, 0).shape.at(0), input(call, 0).shape.at(1)}; }

constexpr int stretchWarps = 4;

/** Sum or mean of the scores of each stretch of tokens, a warp for each; `boundsOf(i)`: its first token and its end. */
template <class Bounds>
__global__ void __launch_bounds__(32 * stretchWarps) stretchScore(Scores scores, View results, int64_t count, bool mean,
                                                                  Bounds boundsOf) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * stretchWarps + threadIdx.x / 32;
  if (i >= count) return;
  const longlong2 bounds = boundsOf(i);
  const double total = scores.sum(bounds.x, bounds.y);
  if (threadIdx.x % 32 == 0) {
    set(results, i, static_cast<float>(mean ? total / static_cast<double>(bounds.y - bounds.x) : total));
  }
}

template <class Bounds>
void scoreStretches(const Launch& launch, const Scores& scores, const View& results, int64_t count, bool mean, Bounds boundsOf) {
  const auto blocks = static_cast<unsigned>(ceilDiv(count, stretchWarps));
  if (count > 0) {
    stretchScore<<<blocks, 32 * stretchWarps, 0, launch.stream>>>(scores, results, count, mean, boundsOf);
  }
}

struct ChunkBounds {
  int64_t chunk, time;
  __device__ longlong2 operator()(int64_t i) const { return {i * chunk, min(time, (i + 1) * chunk)}; }
};

struct ShotBounds {
  const int64_t* starts;
  int64_t count, time;
  __device__ longlong2 operator()(int64_t i) const { return {starts[i], i + 1 < count ? starts[i + 1] : time}; }
};

Work chunkScores(const Call& call) {
  const Scores scores = scoresOf(call);
  const View chunks = floatsOut(call, 0);
  const int64_t chunk = call.integer("chunk");
  const std::string& reduce = call.text("reduce");
  if (reduce != "sum" && reduce != "mean") {
    throw BadCall("kv.chunk_scores: reduce is \"" + reduce + "\"; expected \"sum\" or \"mean\"");
  }
  const bool mean = reduce == "mean";
  return [=](const Launch& launch) {
    scoreStretches(launch, scores, chunks, ceilDiv(scores.time, chunk), mean, ChunkBounds{chunk, scores.time});
  };
}

Work shotScores(const Call& call) {
  const Scores scores = scoresOf(call);
  const View shots = floatsOut(call, 0);
  const Table<int64_t> starts(call.integers("starts"));
  // the table is freed with the work
  return [=](const Launch& launch) {
    scoreStretches(launch, scores, shots, starts.count, true, ShotBounds{starts.data, starts.count, scores.time});
  };
}

}  // namespace

const KernelTable kvScoreKernels = {{"kv.window_scores", windowScores},
                                    {"kv.pool_scores", poolScores},
                                    {"kv.chunk_scores", chunkScores},
                                    {"kv.shot_scores", shotScores}};

}  // namespace tandem::cuda

// The key/value cache of generation; argument order as core/kernels/kv-cache.ts. A cache is [2, capacity, width]: keys, then
// values. Weights are computed in float64, for what is given up is decided by them.
#include "../share.h"
#include "attend.cuh"
#include "map.cuh"

namespace tandem::cuda {

namespace {

struct Cache {
  View view;
  int64_t capacity, width;

  __host__ __device__ View key(int64_t row) const { return view.at(row * width); }
  __host__ __device__ View value(int64_t row) const { return view.at((capacity + row) * width); }
};

Cache cacheOf(const Call& call, const Operand& operand) {
  return {floatsOf(call, operand), operand.shape.at(1), operand.shape.at(2)};
}

std::vector<Cache> cachesOf(const Call& call, const std::vector<Operand>& operands, size_t first) {
  std::vector<Cache> caches;
  for (size_t i = first; i < operands.size(); i++) caches.push_back(cacheOf(call, operands[i]));
  return caches;
}

void checkRow(const Call& call, int64_t row, const Cache& cache) {
  if (row < 0 || row > cache.capacity) {
    throw BadCall(call.kernel + ": row " + std::to_string(row) + " of a cache of " + std::to_string(cache.capacity));
  }
}

/** One list of a batch's places in its caches, of an int32 tensor [lists, batch]. */
View listOf(const Call& call, size_t index) {
  return integersIn(call, index).at(call.integer("list") * input(call, index).shape.at(1));
}

/** A sequence each: its token's position, and its row in every list. */
struct Advance {
  View generated, prompt, first, counted, positions, rows;
  int64_t lists, batch;
  double keep;
  __device__ void operator()(int64_t i) const {
    const int32_t before = getInteger(generated, i);
    const auto kept = static_cast<int32_t>(shareOf(keep, before));
    setInteger(positions, i, getInteger(prompt, i) + before);
    for (int64_t l = 0; l < lists; l++) setInteger(rows, l * batch + i, getInteger(first, l * batch + i) + kept);
    setInteger(counted, i, before + 1);
  }
};

Work advance(const Call& call) {
  const Shape& lists = input(call, 2).shape;
  const Advance a = {integersIn(call, 0),  integersIn(call, 1), integersIn(call, 2), integersOut(call, 0), integersOut(call, 1),
                     integersOut(call, 2), lists.at(0),         lists.at(1),         call.number("keep")};
  return [=](const Launch& launch) { each(launch, a.batch, a); };
}

struct Append {
  View k, v;
  const Cache* caches;
  View rows;
  int64_t width;
  Reporter reporter;
  __device__ void operator()(int64_t i) const {
    const int64_t sequence = i / width;
    const int64_t c = i % width;
    const Cache& cache = caches[sequence];
    const int64_t row = getInteger(rows, sequence);
    if (row < 0 || row >= cache.capacity) {
      reporter.fail(Wrong::row, row, cache.capacity);
      return;
    }
    set(cache.key(row), c, get(k, i));
    set(cache.value(row), c, get(v, i));
  }
};

Work append(const Call& call) {
  const Table<Cache> caches(cachesOf(call, call.outputs, 0));
  const View k = floatsIn(call, 0);
  const View v = floatsIn(call, 1);
  const View rows = listOf(call, 2);
  const int64_t width = widthOf(input(call, 0));
  return [=](const Launch& launch) {
    each(launch, caches.count * width, Append{k, v, caches.data, rows, width, launch.reporter});
  };
}

struct Decoding {
  int64_t heads, kvHeads, headWidth, sequences;
  View q, rows;
  Table<Cache> caches;
  Scalar longest;
};

Decoding decodingOf(const Call& call, size_t firstCache) {
  const Table<Cache> caches(cachesOf(call, call.inputs, firstCache));
  return {call.integer("heads"), call.integer("kvHeads"), call.integer("headWidth"), caches.count,
          floatsIn(call, 0),     listOf(call, 1),         caches,                    call.scalar("longest")};
}

/** What a kernel sees of a decoding call. */
struct Queries {
  int64_t heads, kvHeads, headWidth, longest;
  View q;
  const Cache* caches;
  View rows;
  Reporter reporter;

  /** Rows in use of a sequence's cache; none, and reported, where there is no room for them or the launch was told of fewer. */
  __device__ int64_t length(int64_t sequence) const {
    const int64_t row = getInteger(rows, sequence);
    const int64_t limit = min(caches[sequence].capacity, longest);
    if (row >= 0 && row < limit) return row + 1;
    reporter.fail(Wrong::row, row, limit);
    return 0;
  }
};

Queries queriesOf(const Decoding& d, const Launch& launch) {
  const auto longest = static_cast<int64_t>(d.longest(launch.scalars));
  return {d.heads, d.kvHeads, d.headWidth, longest, d.q, d.caches.data, d.rows, launch.reporter};
}

/** weights[sequence, head, s]: a block per head of a sequence. */
__global__ void __launch_bounds__(256) weigh(Queries d, double* weights) {
  const int64_t head = blockIdx.x;
  const int64_t sequence = blockIdx.y;
  const Cache cache = d.caches[sequence];
  const int64_t length = d.length(sequence);
  const int64_t kvHead = head / (d.heads / d.kvHeads);
  const View q = d.q.at((sequence * d.heads + head) * d.headWidth);
  double* row = weights + (sequence * d.heads + head) * d.longest;
  for (int64_t s = threadIdx.x; s < length; s += 256) {
    row[s] = dotExact(q, cache.view.at(s * cache.width + kvHead * d.headWidth), d.headWidth);
  }
  __syncthreads();
  softmaxExact(row, length, 1 / sqrt(static_cast<double>(d.headWidth)));
}

/** out = sum over rows of weights[s] * value s, in order of rows; a block per head, a thread per column. */
__global__ void mixValues(Queries d, const double* weights, View out) {
  const int64_t head = blockIdx.x;
  const int64_t sequence = blockIdx.y;
  const Cache cache = d.caches[sequence];
  const int64_t kvHead = head / (d.heads / d.kvHeads);
  const int64_t length = d.length(sequence);
  const double* row = weights + (sequence * d.heads + head) * d.longest;
  for (int64_t c = threadIdx.x; c < d.headWidth; c += blockDim.x) {
    double sum = 0;
    for (int64_t s = 0; s < length; s++) {
      sum += row[s] * static_cast<double>(get(cache.value(s), kvHead * d.headWidth + c));
    }
    set(out, (sequence * d.heads + head) * d.headWidth + c, static_cast<float>(sum));
  }
}

constexpr int splitRows = 256;
constexpr int mostShared = 16;

/** One part of the rows of a sequence for all query heads of one key/value head: partial maximum, sum and mix. */
__global__ void __launch_bounds__(128) decodePart(Queries d, int64_t parts, float* partial) {
  __shared__ float queries[mostShared][128];
  __shared__ float scores[mostShared][splitRows];
  const int64_t part = blockIdx.x;
  const int64_t kvHead = blockIdx.y;
  const int64_t sequence = blockIdx.z;
  const int64_t length = d.length(sequence);
  const int64_t first = part * splitRows;
  if (first >= length) return;
  const auto rows = static_cast<int>(min(static_cast<int64_t>(splitRows), length - first));
  const int group = static_cast<int>(d.heads / d.kvHeads);
  const int width = static_cast<int>(d.headWidth);
  const Cache cache = d.caches[sequence];
  const float scale = rsqrtf(static_cast<float>(width));
  for (int i = threadIdx.x; i < group * width; i += 128) {
    queries[i / width][i % width] = scale * get(d.q, (sequence * d.heads + kvHead * group) * width + i);
  }
  __syncthreads();
  // neighbouring threads read the pieces of one row
  const int pieces = width / pack;
  const int perPass = 128 / pieces;
  const int piece = threadIdx.x % pieces;
  for (int start = 0; start < rows; start += perPass) {
    const int row = start + threadIdx.x / pieces;
    float key[pack] = {};
    if (row < rows) getPack(cache.key(first + row), kvHead * width + piece * pack, key);
    for (int g = 0; g < group; g++) {
      float sum = 0;
#pragma unroll
      for (int j = 0; j < pack; j++) sum = fmaf(queries[g][piece * pack + j], key[j], sum);
      for (int offset = pieces / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(allLanes, sum, offset);
      if (piece == 0 && row < rows) scores[g][row] = sum;
    }
  }
  __syncthreads();
  const int lane = threadIdx.x % 32;
  float* own = partial + ((sequence * d.kvHeads + kvHead) * parts + part) * group * (width + 2);
  for (int g = threadIdx.x / 32; g < group; g += 4) {
    float max = -INFINITY;
    for (int s = lane; s < rows; s += 32) max = fmaxf(max, scores[g][s]);
    max = warpReduce(max, Larger{});
    float sum = 0;
    for (int s = lane; s < rows; s += 32) sum += scores[g][s] = expf(scores[g][s] - max);
    sum = warpReduce(sum, Add{});
    if (lane == 0) {
      own[g * (width + 2)] = max;
      own[g * (width + 2) + 1] = sum;
    }
  }
  __syncthreads();
  for (int column = threadIdx.x; column < width; column += 128) {
    float mixes[mostShared] = {};
    for (int s = 0; s < rows; s++) {
      const float value = get(cache.value(first + s), kvHead * width + column);
#pragma unroll
      for (int g = 0; g < mostShared; g++) {
        if (g < group) mixes[g] = fmaf(scores[g][s], value, mixes[g]);
      }
    }
#pragma unroll
    for (int g = 0; g < mostShared; g++) {
      if (g < group) own[g * (width + 2) + 2 + column] = mixes[g];
    }
  }
}

__global__ void decodeTotal(Queries d, int64_t parts, const float* partial, View out) {
  const int64_t head = blockIdx.x;
  const int64_t sequence = blockIdx.y;
  const int64_t group = d.heads / d.kvHeads;
  const int64_t used = (d.length(sequence) + splitRows - 1) / splitRows;
  const int64_t stride = group * (d.headWidth + 2);
  const float* own = partial + (sequence * d.kvHeads + head / group) * parts * stride + head % group * (d.headWidth + 2);
  float max = -INFINITY;
  for (int64_t part = 0; part < used; part++) max = fmaxf(max, own[part * stride]);
  float sum = 0;
  for (int64_t part = 0; part < used; part++) sum += own[part * stride + 1] * expf(own[part * stride] - max);
  for (int64_t c = threadIdx.x; c < d.headWidth; c += blockDim.x) {
    float mix = 0;
    for (int64_t part = 0; part < used; part++) mix = fmaf(own[part * stride + 2 + c], expf(own[part * stride] - max), mix);
    set(out, (sequence * d.heads + head) * d.headWidth + c, mix / sum);
  }
}

Work attention(const Call& call) {
  const Decoding d = decodingOf(call, 2);
  const View out = floatsOut(call, 0);
  const int64_t used = d.sequences * d.heads * d.headWidth;
  const View rest = out.at(used);
  const auto restBytes = static_cast<size_t>((output(call, 0).elements - used) * storedBytes(out.dtype));
  const int64_t group = d.kvHeads == 0 ? 0 : d.heads / d.kvHeads;
  const bool split = (d.headWidth == 64 || d.headWidth == 128) && group <= mostShared;
  const auto grid = dim3(static_cast<unsigned>(d.heads), static_cast<unsigned>(d.sequences));
  return [=](const Launch& launch) {
    if (restBytes > 0) check(cudaMemsetAsync(rest.data, 0, restBytes, launch.stream), "cudaMemsetAsync");
    if (used == 0) return;
    const Queries q = queriesOf(d, launch);
    if (split && q.longest > 0) {
      const int64_t parts = ceilDiv(q.longest, splitRows);
      const Scratch scratch(launch, static_cast<size_t>(d.sequences * d.heads * parts * (d.headWidth + 2)) * sizeof(float));
      const dim3 blocks(static_cast<unsigned>(parts), static_cast<unsigned>(d.kvHeads), static_cast<unsigned>(d.sequences));
      decodePart<<<blocks, 128, 0, launch.stream>>>(q, parts, scratch.as<float>());
      decodeTotal<<<grid, 128, 0, launch.stream>>>(q, parts, scratch.as<float>(), out);
      return;
    }
    const Scratch scratch(launch, static_cast<size_t>(d.sequences * d.heads * q.longest + 1) * sizeof(double));
    weigh<<<grid, 256, 0, launch.stream>>>(q, scratch.as<double>());
    mixValues<<<grid, 128, 0, launch.stream>>>(q, scratch.as<double>(), out);
  };
}

struct Evicting {
  Queries d;
  const Cache* outs;
  View first, generated;
  double keep;
};

/** A block per sequence: the row that all heads together look at least, from `from` on, gives way to the newest. */
__global__ void __launch_bounds__(256) evictRow(Evicting e, const double* weights) {
  __shared__ double lows[256];
  __shared__ int64_t places[256];
  const int64_t sequence = blockIdx.x;
  const int64_t length = e.d.length(sequence);
  const int64_t from = getInteger(e.first, sequence);
  if (length - from <= shareOf(e.keep, getInteger(e.generated, sequence))) return;
  if (from < 0 || from > length - 2) {
    if (threadIdx.x == 0) e.d.reporter.fail(Wrong::row, from, length);
    return;
  }
  double low = INFINITY;
  int64_t place = from;
  for (int64_t s = from + threadIdx.x; s < length - 1; s += 256) {
    double score = 0;
    for (int64_t h = 0; h < e.d.heads; h++) score += weights[(sequence * e.d.heads + h) * e.d.longest + s];
    // among equals the last
    if (score <= low) {
      low = score;
      place = s;
    }
  }
  lows[threadIdx.x] = low;
  places[threadIdx.x] = place;
  __syncthreads();
  for (int half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      const double other = lows[threadIdx.x + half];
      const int64_t otherPlace = places[threadIdx.x + half];
      if (other < lows[threadIdx.x] || (other == lows[threadIdx.x] && otherPlace > places[threadIdx.x])) {
        lows[threadIdx.x] = other;
        places[threadIdx.x] = otherPlace;
      }
    }
    __syncthreads();
  }
  const int64_t lowest = places[0];
  const Cache cache = e.d.caches[sequence];
  const Cache out = e.outs[sequence];
  for (int64_t c = threadIdx.x; c < cache.width; c += 256) {
    set(out.key(lowest), c, get(cache.key(length - 1), c));
    set(out.value(lowest), c, get(cache.value(length - 1), c));
  }
}

Work evict(const Call& call) {
  const Decoding d = decodingOf(call, 4);
  const Table<Cache> outs(cachesOf(call, call.outputs, 0));
  const View first = listOf(call, 2);
  const View generated = integersIn(call, 3);
  const double keep = call.number("keep");
  return [=](const Launch& launch) {
    if (d.sequences == 0 || d.heads == 0) return;
    const Queries q = queriesOf(d, launch);
    const Scratch scratch(launch, static_cast<size_t>(d.sequences * d.heads * q.longest + 1) * sizeof(double));
    auto* weights = scratch.as<double>();
    const auto grid = dim3(static_cast<unsigned>(d.heads), static_cast<unsigned>(d.sequences));
    weigh<<<grid, 256, 0, launch.stream>>>(q, weights);
    evictRow<<<static_cast<unsigned>(d.sequences), 256, 0, launch.stream>>>({q, outs.data, first, generated, keep}, weights);
  };
}

struct Gathering {
  View keys, values, kept;
  Cache cache;
  int64_t time, lists, count, kvHeads, headWidth;
  bool whole;
  Reporter reporter;
};

struct Smaller {
  __device__ int operator()(int a, int b) const { return a < b ? a : b; }
};

/** ends[list]: where the list ends, at its first negative number. */
__global__ void __launch_bounds__(256) endsOfLists(Gathering g, int32_t* ends) {
  int end = static_cast<int>(g.count);
  for (int64_t r = threadIdx.x; r < g.count; r += 256) {
    if (getInteger(g.kept, blockIdx.x * g.count + r) < 0) {
      end = static_cast<int>(r);
      break;
    }
  }
  end = blockReduce(end, Smaller{}, static_cast<int>(g.count));
  if (threadIdx.x == 0) ends[blockIdx.x] = end;
}

/** Eight elements of a row per thread, keys and values. */
struct GatherEach {
  Gathering g;
  const int32_t* ends;
  int64_t packs;
  __device__ void operator()(int64_t i) const {
    const int64_t c = i % packs * pack;
    const int64_t head = i / packs % g.kvHeads;
    const int64_t r = i / packs / g.kvHeads;
    const int64_t list = g.lists == 1 ? 0 : head;
    if (ends != nullptr && r >= ends[list]) return;
    const int64_t token = ends == nullptr ? r : getInteger(g.kept, list * g.count + r);
    if (token >= g.time || r >= g.cache.capacity) {
      reportRow(token, r);
      return;
    }
    const int64_t from = token * g.cache.width + head * g.headWidth;
    float values[pack];
    getSome(g.keys.at(from), c, g.headWidth, g.whole, values);
    setSome(g.cache.key(r).at(head * g.headWidth), c, g.headWidth, g.whole, values);
    getSome(g.values.at(from), c, g.headWidth, g.whole, values);
    setSome(g.cache.value(r).at(head * g.headWidth), c, g.headWidth, g.whole, values);
  }
  __device__ void reportRow(int64_t token, int64_t row) const {
    if (token >= g.time) {
      g.reporter.fail(Wrong::gather, token, g.time);
    } else {
      g.reporter.fail(Wrong::row, row, g.cache.capacity);
    }
  }
};

Work gather(const Call& call) {
  Gathering g{};
  g.keys = floatsIn(call, 0);
  g.values = floatsIn(call, 1);
  const bool listed = call.inputs.size() > 2;
  if (listed) g.kept = integersIn(call, 2);
  g.time = input(call, 0).shape.at(1);
  g.lists = listed ? input(call, 2).shape.at(0) : 1;
  g.count = listed ? input(call, 2).shape.at(1) : g.time;
  g.kvHeads = call.integer("kvHeads");
  g.cache = cacheOf(call, output(call, 0));
  g.headWidth = g.kvHeads == 0 ? 0 : g.cache.width / g.kvHeads;
  g.whole = g.headWidth % pack == 0;
  if (g.lists != 1 && g.lists != g.kvHeads) {
    throw BadCall("kv.gather: " + std::to_string(g.lists) + " lists for " + std::to_string(g.kvHeads) + " key/value heads");
  }
  const int64_t packs = ceilDiv(g.headWidth, pack);
  return [=](const Launch& launch) {
    Gathering with = g;
    with.reporter = launch.reporter;
    const int64_t items = g.count * g.kvHeads * packs;
    if (!listed) return each(launch, items, GatherEach{with, nullptr, packs});
    const Scratch scratch(launch, static_cast<size_t>(g.lists + 1) * sizeof(int32_t));
    auto* ends = scratch.as<int32_t>();
    if (g.lists > 0) endsOfLists<<<static_cast<unsigned>(g.lists), 256, 0, launch.stream>>>(with, ends);
    each(launch, items, GatherEach{with, ends, packs});
  };
}

struct Place {
  Cache from, to;
  __device__ void operator()(int64_t i) const {
    set(to.view, i, get(from.view, i));
    set(to.value(0), i, get(from.value(0), i));
  }
};

Work place(const Call& call) {
  const Cache from = cacheOf(call, input(call, 0));
  const Cache to = cacheOf(call, output(call, 0));
  checkRow(call, from.capacity, to);
  return [=](const Launch& launch) { each(launch, from.capacity * from.width, Place{from, to}); };
}

}  // namespace

const KernelTable kvCacheKernels = {{"kv.advance", advance},
                                    {"kv.append", append},
                                    {"kv.attention", attention},
                                    {"kv.evict", evict},
                                    {"kv.gather", gather},
                                    {"kv.place", place}};

}  // namespace tandem::cuda

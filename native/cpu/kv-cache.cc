// The key/value cache of generation; argument order as core/kernels/kv-cache.ts. A cache is [2, capacity, width]: keys, then
// values. Kernels that touch few rows of it write and round those alone.
#include <algorithm>
#include <numeric>

#include "../share.h"
#include "attend.h"
#include "kernels.h"

namespace tandem {

namespace {

struct Cache {
  float* data;
  int64_t capacity, width;
  Dtype dtype;

  float* key(int64_t row) const { return data + row * width; }
  float* value(int64_t row) const { return data + (capacity + row) * width; }
};

Cache cacheOf(const Call& call, const Operand& operand) {
  return {floatsOf(call, operand), operand.shape.at(1), operand.shape.at(2), operand.dtype};
}

std::vector<Cache> cachesOf(const Call& call, const std::vector<Operand>& operands, size_t first) {
  std::vector<Cache> caches;
  for (size_t i = first; i < operands.size(); i++) caches.push_back(cacheOf(call, operands[i]));
  return caches;
}

void putRow(const float* from, float* to, int64_t width, Dtype dtype) {
  std::copy(from, from + width, to);
  roundInPlace(to, width, dtype);
}

[[noreturn]] void refuseRow(const char* kernel, int64_t row, const Cache& cache) {
  throw BadCall(std::string(kernel) + ": row " + std::to_string(row) + " of a cache of " + std::to_string(cache.capacity));
}

/** Where the newest tokens of a batch stand in its caches: one list of `rows`, an int32 tensor [lists, batch]. */
struct Places {
  const char* kernel;
  const int32_t* rows;
  std::vector<Cache> caches;

  int64_t row(size_t i) const {
    const int64_t row = rows[i];
    if (row < 0 || row >= caches[i].capacity) refuseRow(kernel, row, caches[i]);
    return row;
  }
};

const int32_t* listOf(const Call& call, size_t index) {
  return integersIn(call, index) + call.integer("list") * input(call, index).shape.at(1);
}

Work advance(const Call& call) {
  const int32_t* generated = integersIn(call, 0);
  const int32_t* prompt = integersIn(call, 1);
  const int32_t* first = integersIn(call, 2);
  int32_t* counted = integersOut(call, 0);
  int32_t* positions = integersOut(call, 1);
  int32_t* rows = integersOut(call, 2);
  const int64_t lists = input(call, 2).shape.at(0);
  const int64_t batch = input(call, 2).shape.at(1);
  const double keep = call.number("keep");
  return [=](const double*) {
    for (int64_t i = 0; i < batch; i++) {
      const int32_t before = generated[i];
      const auto kept = static_cast<int32_t>(shareOf(keep, before));
      positions[i] = prompt[i] + before;
      for (int64_t l = 0; l < lists; l++) rows[l * batch + i] = first[l * batch + i] + kept;
      counted[i] = before + 1;
    }
  };
}

Work append(const Call& call) {
  const float* k = floatsIn(call, 0);
  const float* v = floatsIn(call, 1);
  const Places places = {"kv.append", listOf(call, 2), cachesOf(call, call.outputs, 0)};
  return [=](const double*) {
    for (size_t i = 0; i < places.caches.size(); i++) {
      const Cache& cache = places.caches[i];
      const int64_t row = places.row(i);
      const auto at = static_cast<int64_t>(i) * cache.width;
      putRow(k + at, cache.key(row), cache.width, cache.dtype);
      putRow(v + at, cache.value(row), cache.width, cache.dtype);
    }
  };
}

struct Heads {
  int64_t heads, kvHeads, headWidth;

  int64_t kvHead(int64_t head) const { return head / (heads / kvHeads); }
};

struct Decoding {
  Heads heads;
  const float* q;
  Places places;
  Scalar cached, longest;

  /** Rows in use of each sequence's cache; as many at most as the launch was told. */
  std::vector<int64_t> lengths(const double* scalars) const {
    std::vector<int64_t> all(places.caches.size());
    int64_t most = 0;
    for (size_t i = 0; i < all.size(); i++) most = std::max(most, all[i] = places.row(i) + 1);
    told("longest", longest(scalars), most);
    return all;
  }
  void told(const char* what, double number, int64_t counted) const {
    if (number == static_cast<double>(counted)) return;
    throw BadCall(std::string(places.kernel) + ": " + what + " is " + std::to_string(number) + "; it is " +
                  std::to_string(counted));
  }
};

Decoding decodingOf(const char* kernel, const Call& call, size_t firstCache) {
  return {{call.integer("heads"), call.integer("kvHeads"), call.integer("headWidth")},
          floatsIn(call, 0),
          {kernel, listOf(call, 1), cachesOf(call, call.inputs, firstCache)},
          call.scalar("cached"),
          call.scalar("longest")};
}

/** weights[s] = how much head `head` of sequence `i` looks at row s of its cache, of so many. */
TANDEM_SIMD void weigh(const Decoding& d, size_t i, int64_t length, int64_t head, double* weights) {
  const int64_t headWidth = d.heads.headWidth;
  const float* q = d.q + (static_cast<int64_t>(i) * d.heads.heads + head) * headWidth;
  const Cache& cache = d.places.caches[i];
  dotKeys(q, cache.data + d.heads.kvHead(head) * headWidth, cache.width, length, headWidth, weights);
  softmaxScores(weights, length, 1 / std::sqrt(static_cast<double>(headWidth)));
}

/** out = sum over rows of weights[s] * value s, in order of rows. */
TANDEM_SIMD void mixValues(const double* weights, const float* values, int64_t stride, int64_t count, int64_t headWidth,
                           double* sums, float* out) {
  for (int64_t c = 0; c < headWidth; c++) sums[c] = 0;
  for (int64_t s = 0; s < count; s++) {
    const double weight = weights[s];
    const float* value = values + s * stride;
    for (int64_t c = 0; c < headWidth; c++) sums[c] += weight * static_cast<double>(value[c]);
  }
  for (int64_t c = 0; c < headWidth; c++) out[c] = static_cast<float>(sums[c]);
}

Work attention(const Call& call) {
  const Decoding d = decodingOf("kv.attention", call, 2);
  float* out = floatsOut(call, 0);
  const int64_t elements = output(call, 0).elements;
  return [=](const double* scalars) {
    const std::vector<int64_t> lengths = d.lengths(scalars);
    d.told("cached", d.cached(scalars), std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
    std::vector<double> weights(static_cast<size_t>(d.longest(scalars)));
    std::vector<double> sums(static_cast<size_t>(d.heads.headWidth));
    const int64_t headWidth = d.heads.headWidth;
    const auto used = static_cast<int64_t>(lengths.size()) * d.heads.heads * headWidth;
    for (size_t i = 0; i < lengths.size(); i++) {
      const Cache& cache = d.places.caches[i];
      for (int64_t h = 0; h < d.heads.heads; h++) {
        weigh(d, i, lengths[i], h, weights.data());
        mixValues(weights.data(), cache.value(0) + d.heads.kvHead(h) * headWidth, cache.width, lengths[i], headWidth,
                  sums.data(), out + (static_cast<int64_t>(i) * d.heads.heads + h) * headWidth);
      }
    }
    std::fill(out + used, out + elements, 0.0f);
  };
}

Work evict(const Call& call) {
  const Decoding d = decodingOf("kv.evict", call, 4);
  const int32_t* first = listOf(call, 2);
  const int32_t* generated = integersIn(call, 3);
  const std::vector<Cache> outs = cachesOf(call, call.outputs, 0);
  const double keep = call.number("keep");
  const Scalar evicting = call.scalar("evicting");
  return [=](const double* scalars) {
    const std::vector<int64_t> lengths = d.lengths(scalars);
    std::vector<size_t> sequences;
    int64_t looked = 0;
    for (size_t i = 0; i < lengths.size(); i++) {
      if (lengths[i] - first[i] <= shareOf(keep, generated[i])) continue;
      if (first[i] < 0 || first[i] > lengths[i] - 2) refuseRow("kv.evict", first[i], d.places.caches[i]);
      sequences.push_back(i);
      looked += lengths[i];
    }
    d.told("evicting", evicting(scalars), static_cast<int64_t>(sequences.size()));
    d.told("cached", d.cached(scalars), looked);
    std::vector<double> weights(static_cast<size_t>(d.longest(scalars)));
    std::vector<double> scores(static_cast<size_t>(d.longest(scalars)));
    for (const size_t i : sequences) {
      const int64_t length = lengths[i];
      std::fill(scores.begin(), scores.end(), 0.0);
      for (int64_t h = 0; h < d.heads.heads; h++) {
        weigh(d, i, length, h, weights.data());
        for (int64_t s = 0; s < length; s++) scores[static_cast<size_t>(s)] += weights[static_cast<size_t>(s)];
      }
      int64_t lowest = first[i];
      for (int64_t s = lowest; s < length - 1; s++) {
        if (scores[static_cast<size_t>(s)] <= scores[static_cast<size_t>(lowest)]) lowest = s;
      }
      const Cache& cache = d.places.caches[i];
      putRow(cache.key(length - 1), outs[i].key(lowest), cache.width, outs[i].dtype);
      putRow(cache.value(length - 1), outs[i].value(lowest), cache.width, outs[i].dtype);
    }
  };
}

Work gather(const Call& call) {
  const float* sources[2] = {floatsIn(call, 0), floatsIn(call, 1)};
  const int32_t* kept = call.inputs.size() > 2 ? integersIn(call, 2) : nullptr;
  const int64_t time = input(call, 0).shape.at(1);
  const int64_t lists = kept == nullptr ? 1 : input(call, 2).shape.at(0);
  const int64_t count = kept == nullptr ? time : input(call, 2).shape.at(1);
  const int64_t kvHeads = call.integer("kvHeads");
  const Cache cache = cacheOf(call, output(call, 0));
  const int64_t headWidth = kvHeads == 0 ? 0 : cache.width / kvHeads;
  if (lists != 1 && lists != kvHeads) {
    throw BadCall("kv.gather: " + std::to_string(lists) + " lists for " + std::to_string(kvHeads) + " key/value heads");
  }
  const float* keys = sources[0];
  const float* values = sources[1];
  return [=](const double*) {
    for (int64_t half = 0; half < 2; half++) {
      const float* source = half == 0 ? keys : values;
      for (int64_t h = 0; h < kvHeads; h++) {
        const int64_t list = lists == 1 ? 0 : h;
        for (int64_t r = 0; r < count; r++) {
          const int64_t token = kept == nullptr ? r : kept[list * count + r];
          if (token < 0) break;
          if (token >= time || r >= cache.capacity) {
            throw BadCall("kv.gather: token " + std::to_string(token) + " of " + std::to_string(time) + " into row " +
                          std::to_string(r) + " of " + std::to_string(cache.capacity));
          }
          float* row = half == 0 ? cache.key(r) : cache.value(r);
          putRow(source + token * cache.width + h * headWidth, row + h * headWidth, headWidth, cache.dtype);
        }
      }
    }
  };
}

Work place(const Call& call) {
  const Cache from = cacheOf(call, input(call, 0));
  const Cache to = cacheOf(call, output(call, 0));
  if (from.capacity > to.capacity) refuseRow("kv.place", from.capacity - 1, to);
  return [=](const double*) {
    putRow(from.key(0), to.key(0), from.capacity * from.width, to.dtype);
    putRow(from.value(0), to.value(0), from.capacity * from.width, to.dtype);
  };
}

}  // namespace

const KernelTable kvCacheKernels = {{"kv.advance", advance},
                                    {"kv.append", append, true},
                                    {"kv.attention", attention},
                                    {"kv.evict", evict, true},
                                    {"kv.gather", gather, true},
                                    {"kv.place", place, true}};

}  // namespace tandem

// The key/value cache of generation; argument order as core/kernels/kv-cache.ts. A cache is [2, capacity, width]: keys, then
// values. Kernels that touch few rows of it write and round those alone.
#include <algorithm>

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

void checkRow(const Call& call, int64_t row, const Cache& cache) {
  if (row < 0 || row > cache.capacity) {
    throw BadCall(call.kernel + ": row " + std::to_string(row) + " of a cache of " + std::to_string(cache.capacity));
  }
}

Work append(const Call& call) {
  const float* k = floatsIn(call, 0);
  const float* v = floatsIn(call, 1);
  const std::vector<Cache> caches = cachesOf(call, call.outputs, 0);
  const std::vector<int64_t> positions = call.integers("positions");
  if (positions.size() != caches.size()) throw BadCall("kv.append: as many positions as caches");
  for (size_t i = 0; i < caches.size(); i++) checkRow(call, positions[i] + 1, caches[i]);
  return [=](const double*) {
    for (size_t i = 0; i < caches.size(); i++) {
      const Cache& cache = caches[i];
      const auto at = static_cast<int64_t>(i) * cache.width;
      putRow(k + at, cache.key(positions[i]), cache.width, cache.dtype);
      putRow(v + at, cache.value(positions[i]), cache.width, cache.dtype);
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
  std::vector<Cache> caches;
  std::vector<int64_t> lengths;

  int64_t longest() const { return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end()); }
};

Decoding decodingOf(const Call& call) {
  Decoding d;
  d.heads = {call.integer("heads"), call.integer("kvHeads"), call.integer("headWidth")};
  d.q = floatsIn(call, 0);
  d.caches = cachesOf(call, call.inputs, 1);
  d.lengths = call.integers("lengths");
  if (d.lengths.size() != d.caches.size()) throw BadCall(call.kernel + ": as many lengths as caches");
  for (size_t i = 0; i < d.caches.size(); i++) checkRow(call, d.lengths[i], d.caches[i]);
  return d;
}

/** weights[s] = how much head `head` of sequence `i` looks at row s of its cache. */
TANDEM_SIMD void weigh(const Decoding& d, size_t i, int64_t head, double* weights) {
  const int64_t headWidth = d.heads.headWidth;
  const float* q = d.q + (static_cast<int64_t>(i) * d.heads.heads + head) * headWidth;
  const Cache& cache = d.caches[i];
  dotKeys(q, cache.data + d.heads.kvHead(head) * headWidth, cache.width, d.lengths[i], headWidth, weights);
  softmaxScores(weights, d.lengths[i], 1 / std::sqrt(static_cast<double>(headWidth)));
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
  const Decoding d = decodingOf(call);
  float* out = floatsOut(call, 0);
  const int64_t elements = output(call, 0).elements;
  return [=](const double*) {
    std::vector<double> weights(static_cast<size_t>(d.longest()));
    std::vector<double> sums(static_cast<size_t>(d.heads.headWidth));
    const int64_t headWidth = d.heads.headWidth;
    const auto used = static_cast<int64_t>(d.lengths.size()) * d.heads.heads * headWidth;
    for (size_t i = 0; i < d.lengths.size(); i++) {
      for (int64_t h = 0; h < d.heads.heads; h++) {
        weigh(d, i, h, weights.data());
        mixValues(weights.data(), d.caches[i].value(0) + d.heads.kvHead(h) * headWidth, d.caches[i].width, d.lengths[i],
                  headWidth, sums.data(), out + (static_cast<int64_t>(i) * d.heads.heads + h) * headWidth);
      }
    }
    std::fill(out + used, out + elements, 0.0f);
  };
}

Work evict(const Call& call) {
  const Decoding d = decodingOf(call);
  const std::vector<Cache> outs = cachesOf(call, call.outputs, 0);
  const std::vector<int64_t> from = call.integers("from");
  if (from.size() != d.lengths.size()) throw BadCall("kv.evict: as many of \"from\" as of \"lengths\"");
  return [=](const double*) {
    std::vector<double> weights(static_cast<size_t>(d.longest()));
    std::vector<double> scores(static_cast<size_t>(d.longest()));
    for (size_t i = 0; i < from.size(); i++) {
      if (from[i] < 0) continue;
      const int64_t length = d.lengths[i];
      std::fill(scores.begin(), scores.end(), 0.0);
      for (int64_t h = 0; h < d.heads.heads; h++) {
        weigh(d, i, h, weights.data());
        for (int64_t s = 0; s < length; s++) scores[static_cast<size_t>(s)] += weights[static_cast<size_t>(s)];
      }
      int64_t lowest = from[i];
      for (int64_t s = from[i]; s < length - 1; s++) {
        if (scores[static_cast<size_t>(s)] <= scores[static_cast<size_t>(lowest)]) lowest = s;
      }
      const Cache& cache = d.caches[i];
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
  checkRow(call, from.capacity, to);
  return [=](const double*) {
    putRow(from.key(0), to.key(0), from.capacity * from.width, to.dtype);
    putRow(from.value(0), to.value(0), from.capacity * from.width, to.dtype);
  };
}

}  // namespace

const KernelTable kvCacheKernels = {{"kv.append", append, true},
                                    {"kv.attention", attention},
                                    {"kv.evict", evict, true},
                                    {"kv.gather", gather, true},
                                    {"kv.place", place, true}};

}  // namespace tandem

// The tiles of attention (native/cuda/attention-tiles.cuh), block by block on a processor, beside plain loops in float64.
#include "cases.h"
#include "tensors.h"

#include "../../cuda/attention-operands.h"

#include "../../cuda/attention-tiles.cuh"

namespace tandem::cuda {

namespace {

/** What attention reads and writes, side by side in one tensor or not; some elements between rows that nobody may touch. */
struct Case {
  int64_t batch, time, context, heads, kvHeads, headWidth;
  bool causal, packed, pieces, copiesAtOnce;
};

int64_t draw(int64_t least, int64_t most) { return least + static_cast<int64_t>(block.random() % static_cast<unsigned>(most - least + 1)); }
float number() { return static_cast<float>(draw(-1000, 1000)) / 500; }

/** Tokens before or behind an edge of a tile, or any. */
int64_t tokens() { return draw(0, 1) == 0 ? draw(1, 150) : 64 * draw(1, 2) + draw(-2, 2); }

constexpr float untouched = -7777;

/** Heads in memory of their own; `stride` of those that lie side by side. */
struct Tensor {
  std::vector<float> values;
  int64_t stride, from;
  Heads heads() { return {View{values.data(), Dtype::float32}.at(from), stride}; }
  double at(int64_t token, int64_t head, int64_t headWidth, int64_t c) const {
    return static_cast<double>(values[static_cast<size_t>(from + token * stride + head * headWidth + c)]);
  }
};

Tensor tensorOf(int64_t tokensInAll, int64_t width, bool filled) {
  Tensor t{std::vector<float>(static_cast<size_t>(tokensInAll * width), untouched), width, 0};
  if (filled) std::generate(t.values.begin(), t.values.end(), number);
  return t;
}

/** Largest difference over the largest value that plain loops have. */
struct Difference {
  double most = 0, size = 0;
  void take(double value, double expected) {
    const double off = std::abs(value - expected);
    if (most == most && !(off <= most)) most = off;  // NaN stays
    size = std::max(size, std::abs(expected));
  }
  bool small() const { return most <= 1e-5 * std::max(size, 1.0); }
};

bool holds(const Case& c) {
  const int64_t w = c.headWidth;
  const int64_t group = c.heads / c.kvHeads;
  const bool wide = w > 64;
  Tensor q = tensorOf(c.batch * c.time, c.heads * w, true), k = tensorOf(c.batch * c.context, c.kvHeads * w, true), v = k;
  std::generate(v.values.begin(), v.values.end(), number);
  Tensor dq = q, dk = k, dv = v, out = q, dout = q;
  std::generate(dout.values.begin(), dout.values.end(), number);
  for (Tensor* t : {&dq, &dk, &dv, &out}) std::fill(t->values.begin(), t->values.end(), untouched);
  // one tensor, of which q, k and v are stretches of a row
  Tensor packed, dpacked;
  if (c.packed) {
    const int64_t row = (c.heads + 2 * c.kvHeads) * w;
    packed = tensorOf(c.batch * c.time, row, true);
    dpacked = tensorOf(c.batch * c.time, row, false);
    for (Tensor* t : {&q, &k, &v}) *t = packed;
    for (Tensor* t : {&dq, &dk, &dv}) *t = dpacked;
    k.from = dk.from = c.heads * w;
    v.from = dv.from = (c.heads + c.kvHeads) * w;
  }
  std::vector<float> lse(static_cast<size_t>(c.batch * c.heads * c.time), untouched), delta = lse;
  Attention a{};
  a.batch = c.batch, a.time = c.time, a.context = c.context, a.heads = c.heads, a.kvHeads = c.kvHeads, a.headWidth = w;
  a.causal = c.causal;
  a.scale = 1 / std::sqrt(static_cast<float>(w));
  a.q = q.heads(), a.k = k.heads(), a.v = v.heads(), a.out = out.heads(), a.lse = {lse.data(), Dtype::float32};
  a.dout = dout.heads(), a.dq = dq.heads(), a.dk = dk.heads(), a.dv = dv.heads();

  // plain loops, in the order of the reference
  const auto headed = [&](int64_t tokensInAll, int64_t heads) { return std::vector<double>(static_cast<size_t>(tokensInAll * heads * w)); };
  std::vector<double> outs = headed(c.batch * c.time, c.heads), dqs = outs, dks = headed(c.batch * c.context, c.kvHeads), dvs = dks;
  std::vector<double> lses(lse.size());
  std::vector<double> weights(static_cast<size_t>(c.context));
  for (int64_t b = 0; b < c.batch; b++) {
    for (int64_t head = 0; head < c.heads; head++) {
      const int64_t kvHead = head / group;
      for (int64_t t = 0; t < c.time; t++) {
        const int64_t token = b * c.time + t;
        const int64_t seen = c.causal ? c.context - c.time + t + 1 : c.context;
        double largest = -INFINITY, sum = 0, mean = 0;
        for (int64_t s = 0; s < seen; s++) {
          double score = 0;
          for (int64_t i = 0; i < w; i++) score += q.at(token, head, w, i) * k.at(b * c.context + s, kvHead, w, i);
          weights[static_cast<size_t>(s)] = score * static_cast<double>(a.scale);
          largest = std::max(largest, weights[static_cast<size_t>(s)]);
        }
        for (int64_t s = 0; s < seen; s++) sum += weights[static_cast<size_t>(s)] = std::exp(weights[static_cast<size_t>(s)] - largest);
        const auto row = static_cast<size_t>((b * c.heads + head) * c.time + t);
        lses[row] = largest + std::log(sum);
        double* const own = outs.data() + (token * c.heads + head) * w;
        for (int64_t s = 0; s < seen; s++) {
          weights[static_cast<size_t>(s)] /= sum;
          for (int64_t i = 0; i < w; i++) own[i] += weights[static_cast<size_t>(s)] * v.at(b * c.context + s, kvHead, w, i);
        }
        for (int64_t i = 0; i < w; i++) mean += own[i] * dout.at(token, head, w, i);
        delta[row] = static_cast<float>(mean);
        for (int64_t s = 0; s < seen; s++) {
          const int64_t key = b * c.context + s;
          const double weight = weights[static_cast<size_t>(s)];
          double change = 0;
          for (int64_t i = 0; i < w; i++) change += dout.at(token, head, w, i) * v.at(key, kvHead, w, i);
          const double slope = static_cast<double>(a.scale) * weight * (change - mean);
          for (int64_t i = 0; i < w; i++) {
            dqs[static_cast<size_t>((token * c.heads + head) * w + i)] += slope * k.at(key, kvHead, w, i);
            dks[static_cast<size_t>((key * c.kvHeads + kvHead) * w + i)] += slope * q.at(token, head, w, i);
            dvs[static_cast<size_t>((key * c.kvHeads + kvHead) * w + i)] += weight * dout.at(token, head, w, i);
          }
        }
      }
    }
  }

  const auto blocks = [&](int64_t extent, int64_t heads, size_t bytes, const std::function<void(float*)>& body) {
    const int64_t count = (extent + tiled::rows - 1) / tiled::rows * heads * c.batch;
    for (int64_t i = 0; i < count; i++) {
      blockIdx = {static_cast<unsigned>(i), 0, 0};
      block.run(tiled::threads, bytes, c.copiesAtOnce, [&] { body(reinterpret_cast<float*>(block.shared.data())); });
    }
  };
  const auto runAll = [&](auto width, auto pieces) {
    constexpr int n = decltype(width)::value;
    constexpr bool p = decltype(pieces)::value;
    blocks(c.time, c.heads, tiled::forwardBytes<n>, [&](float* memory) { tiled::forwardTile<n, p>(a, memory); });
    blocks(c.time, c.heads, tiled::queryBytes<n>, [&](float* memory) { tiled::queryTile<n, p>(a, delta.data(), memory); });
    blocks(c.context, c.kvHeads, tiled::keyBytes<n>, [&](float* memory) { tiled::keyTile<n, p>(a, delta.data(), memory); });
  };
  using Narrow = std::integral_constant<int, 64>;
  using Wide = std::integral_constant<int, 128>;
  if (wide) {
    c.pieces ? runAll(Wide{}, std::true_type{}) : runAll(Wide{}, std::false_type{});
  } else {
    c.pieces ? runAll(Narrow{}, std::true_type{}) : runAll(Narrow{}, std::false_type{});
  }

  Difference inOut, inLse, inQueries, inKeys, inValues;
  const auto compare = [&](Difference& difference, const Tensor& t, const std::vector<double>& expected, int64_t heads) {
    for (int64_t i = 0; i < static_cast<int64_t>(expected.size()); i++) {
      difference.take(t.at(i / w / heads, i / w % heads, w, i % w), expected[static_cast<size_t>(i)]);
    }
  };
  compare(inOut, out, outs, c.heads);
  compare(inQueries, dq, dqs, c.heads);
  compare(inKeys, dk, dks, c.kvHeads);
  compare(inValues, dv, dvs, c.kvHeads);
  for (size_t i = 0; i < lse.size(); i++) inLse.take(static_cast<double>(lse[i]), lses[i]);
  // of a row that q, k and v share, each wrote its own stretch and nothing else
  const auto kept = [&](const Tensor& t, int64_t heads) {
    int64_t others = 0;
    for (const float x : t.values) others += x == untouched ? 1 : 0;
    return others == static_cast<int64_t>(t.values.size()) - static_cast<int64_t>(t.values.size()) / t.stride * heads * w;
  };
  const bool all = inOut.small() && inLse.small() && inQueries.small() && inKeys.small() && inValues.small();
  if (!all) {
    std::fprintf(stderr, "off by %g (out), %g (lse), %g (dq), %g (dk), %g (dv)\n", inOut.most, inLse.most, inQueries.most, inKeys.most,
                 inValues.most);
  }
  return all && kept(out, c.heads) && kept(dq, c.heads) && kept(dk, c.kvHeads) && kept(dv, c.kvHeads);
}

}  // namespace

bool attentionHolds(int cases) {
  constexpr int64_t widths[] = {64, 128, 16, 32, 80, 96, 20, 1, 7, 100, 65};
  for (int i = 0; i < cases; i++) {
    Case c{};
    c.headWidth = draw(0, 1) == 0 ? widths[static_cast<size_t>(i) % std::size(widths)] : draw(1, 128);
    c.kvHeads = draw(1, 2);
    c.heads = c.kvHeads * draw(1, 3);
    c.batch = draw(1, 2);
    c.causal = draw(0, 2) > 0;
    c.packed = draw(0, 2) == 0;
    c.time = tokens();
    c.context = c.packed ? c.time : !c.causal ? tokens() : c.time + (draw(0, 1) == 0 ? draw(0, 70) : draw(61, 63));
    c.pieces = c.headWidth % 4 == 0 && draw(0, 3) > 0;
    c.copiesAtOnce = draw(0, 1) == 1;
    if (holds(c)) continue;
    std::fprintf(stderr,
                 "attention, case %d: %lld x %lld queries, %lld keys, %lld heads on %lld of %lld, causal %d, packed %d, pieces %d: "
                 "not what plain loops have\n",
                 i, static_cast<long long>(c.batch), static_cast<long long>(c.time), static_cast<long long>(c.context),
                 static_cast<long long>(c.heads), static_cast<long long>(c.kvHeads), static_cast<long long>(c.headWidth), c.causal,
                 c.packed, c.pieces);
    return false;
  }
  return true;
}

}  // namespace tandem::cuda

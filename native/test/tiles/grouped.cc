// The tiles of grouped products (native/cuda/grouped.cuh, grouped-hopper.cuh), block by block on a processor, beside plain loops: sums of
// small whole numbers, which are exact whatever their order.
#include "cases.h"
#include "hopper.h"
#include "tensors.h"

namespace tandem::cuda {

// What tiles see of faults and products: kernels.h, gemm.h.
enum class Wrong { counts };
struct Reporter {
  int* faults;
  void fail(Wrong, int64_t, int64_t) const { ++*faults; }
};

struct Factor {
  View view;
  int64_t row, column;
};
struct Product {
  int64_t m, n, k;
  Factor a, b;
  View c, add;
  bool hasAdd;
};
struct Grouped {
  Product product;
  View counts;
  int64_t groups, rows, groupStride;
  bool sums;
};

}  // namespace tandem::cuda

#include "../../cuda/grouped.cuh"

#include "../../cuda/grouped-hopper.cuh"

namespace tandem::cuda {

namespace {

enum class Way { forward, backwardInput, backwardWeight };

struct Case {
  Way way;
  std::vector<int32_t> counts;
  int64_t width, outs;
  /** `narrow`: results of 16 bits. `hopper`: by wgmma. */
  bool accumulate, copiesAtOnce, narrow, hopper;
  /** A group whose numbers are none; -1: there is no such. */
  int64_t spoilt;
};

int64_t rowsOf(const Case& c) {
  int64_t rows = 0;
  for (const int32_t count : c.counts) rows += count;
  return rows;
}

std::vector<uint16_t> numbers(int64_t count) {
  std::vector<uint16_t> values(static_cast<size_t>(count));
  for (uint16_t& value : values) {
    const float number = static_cast<float>(static_cast<int>(block.random() % 17) - 8);
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    value = static_cast<uint16_t>(bits >> 16);
  }
  return values;
}

constexpr uint16_t notANumber = 0x7fc0;

/** Of a result in its own memory, as numbers. */
struct Out {
  std::vector<float> single;
  std::vector<uint16_t> narrow;

  Out(size_t elements, bool isNarrow, float value) {
    if (isNarrow) {
      narrow.assign(elements, static_cast<uint16_t>(bfloat16Bits(value)));
    } else {
      single.assign(elements, value);
    }
  }
  View view() { return narrow.empty() ? View{single.data(), Dtype::float32} : View{narrow.data(), Dtype::bfloat16}; }
  bool holds(const std::vector<float>& expected) {
    for (size_t i = 0; i < expected.size(); i++) {
      const float wanted = narrow.empty() ? expected[i] : bfloat16Of(bfloat16Bits(expected[i]));
      const float got = get(view(), static_cast<int64_t>(i));
      if (got != wanted && !(std::isnan(got) && std::isnan(wanted))) return false;
    }
    return true;
  }
};

/** By wgmma: so many blocks that stay. */
void runHopper(const Case& c, const Grouped& g, const TensorMap& left, const TensorMap& right, const Reporter& reporter) {
  using namespace grouped::hopper;
  gridDim = {1 + static_cast<unsigned>(block.random() % 5), 1, 1};
  for (unsigned x = 0; x < gridDim.x; x++) {
    blockIdx = {x, 0, 0};
    hopperBlock.begin(c.copiesAtOnce, block.random() % 2 == 0);
    block.run(threads, sharedBytes, c.copiesAtOnce, [&] {
      if (c.way == Way::forward) blockTiles<Bfloat16, false, false>(g, reporter, left, right, 0);
      if (c.way == Way::backwardInput) blockTiles<Bfloat16, false, true>(g, reporter, left, right, 0);
      if (c.way == Way::backwardWeight) blockTiles<Bfloat16, true, true>(g, reporter, left, right, 0);
    });
  }
}

/** Whether every element is what plain loops have, and counts that do not add up are told and nothing else. */
bool holds(const Case& c) {
  const auto experts = static_cast<int64_t>(c.counts.size());
  const int64_t rows = rowsOf(c);
  std::vector<uint16_t> inp = numbers(rows * c.width);
  std::vector<uint16_t> dout = numbers(rows * c.outs);
  std::vector<uint16_t> weight = numbers(experts * c.outs * c.width);
  std::vector<int32_t> counts = c.counts;
  const bool sums = c.way == Way::backwardWeight;
  const auto elements = static_cast<size_t>(sums ? experts * c.outs * c.width : rows * (c.way == Way::forward ? c.outs : c.width));
  std::vector<float> expected(elements, sums && c.accumulate ? 3 : 0);
  Out before(elements, c.narrow, 3), out(elements, c.narrow, -1);
  if (c.spoilt >= 0) {
    int64_t first = 0;
    for (int64_t e = 0; e < c.spoilt; e++) first += c.counts[static_cast<size_t>(e)];
    const int64_t end = first + c.counts[static_cast<size_t>(c.spoilt)];
    const auto spoil = [](std::vector<uint16_t>& values, int64_t from, int64_t to) {
      std::fill(values.begin() + from, values.begin() + to, notANumber);
    };
    spoil(inp, first * c.width, end * c.width);
    spoil(dout, first * c.outs, end * c.outs);
    spoil(weight, c.spoilt * c.outs * c.width, (c.spoilt + 1) * c.outs * c.width);
  }
  int64_t row = 0;
  for (int64_t e = 0; e < experts; e++) {
    for (int64_t end = row + c.counts[static_cast<size_t>(e)]; row < end; row++) {
      for (int64_t o = 0; o < c.outs; o++) {
        for (int64_t i = 0; i < c.width; i++) {
          const auto at = static_cast<size_t>((e * c.outs + o) * c.width + i);
          const float x = bfloat16Of(inp[static_cast<size_t>(row * c.width + i)]);
          const float dy = bfloat16Of(dout[static_cast<size_t>(row * c.outs + o)]);
          const float w = bfloat16Of(weight[at]);
          if (c.way == Way::forward) expected[static_cast<size_t>(row * c.outs + o)] += x * w;
          if (c.way == Way::backwardInput) expected[static_cast<size_t>(row * c.width + i)] += dy * w;
          if (sums) expected[at] += dy * x;
        }
      }
    }
  }
  const auto view = [](std::vector<uint16_t>& values) { return View{values.data(), Dtype::bfloat16}; };
  Product p{};
  p.c = out.view();
  p.add = before.view();
  p.hasAdd = sums && c.accumulate;
  if (c.way == Way::forward) {
    p.n = c.outs, p.k = c.width, p.a = {view(inp), c.width, 1}, p.b = {view(weight), 1, c.width};
  } else if (c.way == Way::backwardInput) {
    p.n = c.width, p.k = c.outs, p.a = {view(dout), c.outs, 1}, p.b = {view(weight), c.width, 1};
  } else {
    p.m = c.outs, p.n = c.width, p.a = {view(dout), 1, c.outs}, p.b = {view(inp), c.width, 1};
  }
  Grouped g{p, {counts.data(), Dtype::float32}, experts, rows, c.outs * c.width, sums};
  // as grouped-hopper.cu describes them
  const auto map = [](const std::vector<uint16_t>& values, int64_t columns, bool terms, int extent) {
    return TensorMap{values.data(), static_cast<int64_t>(values.size()) / columns, columns, grouped::hopper::boxRows(terms, extent)};
  };
  const TensorMap left = map(c.way == Way::forward ? inp : dout, c.way == Way::forward ? c.width : c.outs, sums, grouped::hopper::tileRows);
  const TensorMap right = map(sums ? inp : weight, c.width, c.way != Way::forward, grouped::hopper::tileColumns);
  int faults = 0;
  const auto tiles = [](int64_t extent) { return static_cast<unsigned>((extent + grouped::tile - 1) / grouped::tile); };
  const auto runAll = [&] {
    if (c.hopper) return runHopper(c, g, left, right, Reporter{&faults});
    const unsigned down = sums ? tiles(p.m) : tiles(rows) + static_cast<unsigned>(experts);
    for (unsigned z = 0; z < (sums ? static_cast<unsigned>(experts) : 1); z++) {
      for (unsigned y = 0; y < down; y++) {
        for (unsigned x = 0; x < tiles(p.n); x++) {
          blockIdx = {x, y, z};
          block.run(grouped::threads, grouped::sharedBytes, c.copiesAtOnce, [&] {
            const Reporter reporter{&faults};
            if (c.way == Way::forward) grouped::blockTile<Bfloat16, false, false>(g, reporter, 0);
            if (c.way == Way::backwardInput) grouped::blockTile<Bfloat16, false, true>(g, reporter, 0);
            if (sums) grouped::blockTile<Bfloat16, true, true>(g, reporter, 0);
          });
        }
      }
    }
  };
  if (sums || rows > 0) runAll();
  if (faults != 0 || !out.holds(expected)) return false;
  counts[0]++;
  out = Out(elements, c.narrow, -1);
  p.c = out.view();
  g.product = p;
  blockIdx = {};
  runAll();
  return faults == 1 && out.holds(std::vector<float>(elements, -1));
}

}  // namespace

bool groupedHold(int cases) {
  const auto draw = [](unsigned most) { return static_cast<int32_t>(block.random() % (most + 1)); };
  for (int i = 0; i < cases; i++) {
    Case c{};
    c.way = static_cast<Way>(i % 3);
    c.counts.resize(static_cast<size_t>(1 + draw(3)));
    c.width = 64 * (1 + draw(4));
    c.outs = 64 * (1 + draw(4));
    c.accumulate = draw(1) == 1;
    c.copiesAtOnce = draw(1) == 1;
    c.narrow = draw(1) == 1;
    c.hopper = i / 3 % 2 == 1;
    // some without rows, or with one, some with more than a tile has, some with whole tiles
    for (int32_t& count : c.counts) count = draw(3) == 0 ? draw(1) : draw(3) == 0 ? 64 * draw(4) : draw(draw(1) == 1 ? 20 : 200);
    // or all in one
    if (draw(4) == 0) std::fill(c.counts.begin() + 1, c.counts.end(), 0);
    c.spoilt = draw(1) == 0 ? -1 : draw(static_cast<unsigned>(c.counts.size() - 1));
    if (holds(c)) continue;
    std::fprintf(stderr, "grouped products, case %d, way %d of %lld by %lld%s: not what plain loops have\n", i, i % 3,
                 static_cast<long long>(c.width), static_cast<long long>(c.outs), c.hopper ? " on Hopper" : "");
    return false;
  }
  return true;
}

}  // namespace tandem::cuda

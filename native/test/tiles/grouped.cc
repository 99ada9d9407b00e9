// The tiles of grouped products (native/cuda/grouped.cuh), block by block on a processor, beside plain loops: sums of small whole numbers,
// which are exact whatever their order.
#include "cases.h"
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

namespace tandem::cuda {

namespace {

enum class Way { forward, backwardInput, backwardWeight };

struct Case {
  Way way;
  std::vector<int32_t> counts;
  int64_t width, outs;
  bool accumulate, copiesAtOnce;
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
  std::vector<float> before(elements, 3), out(elements, -1), expected(elements, sums && c.accumulate ? 3 : 0);
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
  p.c = {out.data(), Dtype::float32};
  p.add = {before.data(), Dtype::float32};
  p.hasAdd = sums && c.accumulate;
  if (c.way == Way::forward) {
    p.n = c.outs, p.k = c.width, p.a = {view(inp), c.width, 1}, p.b = {view(weight), 1, c.width};
  } else if (c.way == Way::backwardInput) {
    p.n = c.width, p.k = c.outs, p.a = {view(dout), c.outs, 1}, p.b = {view(weight), c.width, 1};
  } else {
    p.m = c.outs, p.n = c.width, p.a = {view(dout), 1, c.outs}, p.b = {view(inp), c.width, 1};
  }
  Grouped g{p, {counts.data(), Dtype::float32}, experts, rows, c.outs * c.width, sums};
  int faults = 0;
  const auto tiles = [](int64_t extent) { return static_cast<unsigned>((extent + grouped::tile - 1) / grouped::tile); };
  const auto runAll = [&] {
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
  if (faults != 0 || out != expected) return false;
  counts[0]++;
  std::fill(out.begin(), out.end(), -1);
  blockIdx = {};
  runAll();
  return faults == 1 && std::all_of(out.begin(), out.end(), [](float x) { return x == -1; });
}

}  // namespace

bool groupedHold(int cases) {
  const auto draw = [](unsigned most) { return static_cast<int32_t>(block.random() % (most + 1)); };
  for (int i = 0; i < cases; i++) {
    Case c{static_cast<Way>(i % 3), std::vector<int32_t>(static_cast<size_t>(1 + draw(3))), 64 * (1 + draw(4)), 64 * (1 + draw(3)), draw(1) == 1, draw(1) == 1};
    // some without rows, some with more than a tile has
    for (int32_t& count : c.counts) count = draw(2) == 0 ? 0 : draw(draw(1) == 1 ? 20 : 200);
    if (holds(c)) continue;
    std::fprintf(stderr, "grouped products, case %d, way %d of %lld by %lld: not what plain loops have\n", i, i % 3,
                 static_cast<long long>(c.width), static_cast<long long>(c.outs));
    return false;
  }
  return true;
}

}  // namespace tandem::cuda

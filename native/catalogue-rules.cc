// Operands of kernels whose rule no signature can say: any number of them, rows listed in an attribute, extents rounded up.
// The same rules as in core/kernels, kernel by kernel.
#include <algorithm>
#include <functional>
#include <numeric>

#include "catalogue.h"

namespace tandem {

namespace {

constexpr int64_t any = -1;

/** Looks at the operands of one call; every failure names what it found and what it expected. */
class Operands {
 public:
  explicit Operands(const Call& call) : call(call) {}

  [[noreturn]] void refuse(const std::string& what) const { throw BadCall(call.kernel + ": " + what); }

  void count(size_t inputs, size_t outputs) const {
    if (call.inputs.size() != inputs || call.outputs.size() != outputs) {
      refuse(std::to_string(call.inputs.size()) + " inputs and " + std::to_string(call.outputs.size()) + " outputs; expected " +
             std::to_string(inputs) + " and " + std::to_string(outputs));
    }
  }
  void atLeast(size_t inputs, size_t outputs) const {
    if (call.inputs.size() < inputs || call.outputs.size() < outputs) {
      refuse(std::to_string(call.inputs.size()) + " inputs and " + std::to_string(call.outputs.size()) +
             " outputs; expected at least " + std::to_string(inputs) + " and " + std::to_string(outputs));
    }
  }
  const Shape& in(size_t i) const { return call.inputs[i].shape; }
  const Shape& out(size_t i) const { return call.outputs[i].shape; }
  const Shape& in(size_t i, const Shape& expected) const { return shape("input", call.inputs[i], i, expected); }
  const Shape& out(size_t i, const Shape& expected) const { return shape("output", call.outputs[i], i, expected); }

  /** Inputs from `first` on, or all outputs, that hold `rows` rows of one width between them; the width. */
  int64_t partsIn(size_t first, int64_t rows) const { return parts("input", call.inputs, first, rows); }
  int64_t partsOut(int64_t rows) const { return parts("output", call.outputs, 0, rows); }

  const Call& call;

 private:
  const Shape& shape(const char* side, const Operand& operand, size_t index, const Shape& expected) const {
    bool fits = operand.shape.size() == expected.size();
    for (size_t i = 0; fits && i < expected.size(); i++) fits = expected[i] == any || expected[i] == operand.shape[i];
    if (!fits) {
      refuse(std::string(side) + " " + std::to_string(index) + " has shape " + textOf(operand.shape) + "; expected " +
             textOf(expected) + " (-1: any)");
    }
    return operand.shape;
  }
  int64_t parts(const char* side, const std::vector<Operand>& operands, size_t first, int64_t rows) const {
    int64_t width = any;
    int64_t found = 0;
    for (size_t i = first; i < operands.size(); i++) {
      width = shape(side, operands[i], i, {any, width})[1];
      found += operands[i].shape[0];
    }
    if (found != rows) refuse(std::to_string(found) + " rows in its " + side + "s; expected " + std::to_string(rows));
    return width;
  }
};

int64_t upTo(int64_t count, int64_t size) { return (count + size - 1) / size; }
int64_t sum(const std::vector<int64_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

Shape withRows(int64_t rows, const Shape& like) {
  Shape shape = like;
  if (!shape.empty()) shape[0] = rows;
  return shape;
}

int64_t positive(const Operands& o, const char* name) {
  const int64_t value = o.call.integer(name);
  if (value < 1) o.refuse(std::string(name) + " is " + std::to_string(value) + "; expected at least 1");
  return value;
}

std::vector<int64_t> atLeast(const Operands& o, const char* name, int64_t least) {
  std::vector<int64_t> values = o.call.integers(name);
  for (const int64_t value : values) {
    if (value < least) o.refuse(std::string(name) + " has " + std::to_string(value));
  }
  return values;
}

void sameAsInputs(const Operands& o) {
  o.atLeast(1, 1);
  o.count(o.call.inputs.size(), o.call.inputs.size());
  for (size_t i = 0; i < o.call.inputs.size(); i++) o.out(i, o.in(i));
}

void average(const Operands& o) {
  o.atLeast(1, 1);
  o.count(o.call.inputs.size(), 1);
  for (size_t i = 1; i < o.call.inputs.size(); i++) o.in(i, o.in(0));
  o.out(0, o.in(0));
}

void squaredNorm(const Operands& o) {
  o.atLeast(1, 1);
  o.count(o.call.inputs.size(), 1);
  o.out(0, {});
}

void clipByNorm(const Operands& o) {
  o.atLeast(1, 0);
  o.count(o.call.inputs.size(), o.call.inputs.size() - 1);
  o.in(0, {});
  for (size_t i = 0; i < o.call.outputs.size(); i++) o.out(i, o.in(i + 1));
}

int64_t blocksOf(const Operands& o, int64_t elements) {
  const int64_t block = o.call.integer("block");
  if (block < 0) o.refuse("blocks of " + std::to_string(block));
  if (elements == 0) return 0;
  return block == 0 ? 1 : upTo(elements, block);
}

void pack(const Operands& o) {
  o.count(1, 2);
  o.out(0, o.in(0));
  o.out(1, {blocksOf(o, o.call.inputs[0].elements)});
}

void unpack(const Operands& o) {
  o.count(2, 1);
  o.in(1, {blocksOf(o, o.call.inputs[0].elements)});
  o.out(0, o.in(0));
}

void randomNormal(const Operands& o) {
  o.count(0, 1);
  o.out(0, {o.call.integer("rows"), o.call.integer("width")});
}

void concatRows(const Operands& o) {
  o.atLeast(1, 1);
  o.count(o.call.inputs.size(), 1);
  int64_t rows = 0;
  for (size_t i = 0; i < o.call.inputs.size(); i++) {
    if (o.in(i).empty()) o.refuse("input " + std::to_string(i) + " has no rows");
    rows += o.in(i, withRows(any, o.in(0)))[0];
  }
  if (rows > o.out(0, withRows(o.call.integer("rows"), o.in(0)))[0]) o.refuse(std::to_string(rows) + " rows are too many");
}

void splitRows(const Operands& o) {
  const std::vector<int64_t> counts = atLeast(o, "counts", 0);
  o.count(1, counts.size());
  if (o.in(0).empty() || sum(counts) > o.in(0)[0]) o.refuse("counts of more rows than there are");
  for (size_t i = 0; i < counts.size(); i++) o.out(i, withRows(counts[i], o.in(0)));
}

/** Places of a batch at input `at`, and caches from input `first` on, of rows so wide, for its first sequences. */
void caches(const Operands& o, size_t at, size_t first, int64_t batch, int64_t width) {
  const size_t count = o.call.inputs.size() - first;
  const int64_t lists = o.in(at, {any, batch})[0], list = o.call.integer("list");
  if (list < 0 || list >= lists) o.refuse("list " + std::to_string(list) + " of " + std::to_string(lists));
  if (static_cast<int64_t>(count) > batch) {
    o.refuse(std::to_string(count) + " caches for " + std::to_string(batch) + " sequences");
  }
  for (size_t i = 0; i < count; i++) o.in(first + i, {2, any, width});
}

void kvAppend(const Operands& o) {
  o.atLeast(3, 0);
  o.count(o.call.inputs.size(), o.call.inputs.size() - 3);
  const Shape& k = o.in(0, {any, any});
  o.in(1, k);
  caches(o, 2, 3, k[0], k[1]);
  for (size_t i = 0; i < o.call.outputs.size(); i++) o.out(i, o.in(i + 3));
}

void decoding(const Operands& o, size_t first) {
  o.atLeast(first, 0);
  const int64_t heads = positive(o, "heads"), kvHeads = positive(o, "kvHeads"), headWidth = positive(o, "headWidth");
  if (heads % kvHeads != 0) o.refuse(std::to_string(heads) + " heads cannot share " + std::to_string(kvHeads));
  caches(o, 1, first, o.in(0, {any, heads * headWidth})[0], kvHeads * headWidth);
}

void kvAttention(const Operands& o) {
  decoding(o, 2);
  o.count(o.call.inputs.size(), 1);
  o.out(0, o.in(0));
}

void kvEvict(const Operands& o) {
  decoding(o, 4);
  o.count(o.call.inputs.size(), o.call.inputs.size() - 4);
  o.in(2, o.in(1));
  o.in(3, {o.in(0)[0]});
  for (size_t i = 0; i < o.call.outputs.size(); i++) o.out(i, o.in(i + 4));
}

void chunkScores(const Operands& o) {
  o.count(1, 1);
  o.out(0, {upTo(o.in(0, {any, any})[1], positive(o, "chunk"))});
}

/** Starts of shots in a prompt: they rise from 0. */
std::vector<int64_t> starts(const Operands& o, int64_t time) {
  std::vector<int64_t> list = o.call.integers("starts");
  bool fits = !list.empty() && list[0] == 0;
  for (size_t i = 0; fits && i < list.size(); i++) fits = list[i] < time && (i == 0 || list[i] > list[i - 1]);
  if (!fits) o.refuse("starts \"" + o.call.text("starts") + "\" in a prompt of " + std::to_string(time));
  return list;
}

void shotScores(const Operands& o) {
  o.count(1, 1);
  o.out(0, {static_cast<int64_t>(starts(o, o.in(0, {any, any})[1]).size())});
}

void topChunks(const Operands& o) {
  o.count(1, 1);
  const int64_t time = o.call.integer("time"), chunk = positive(o, "chunk");
  o.in(0, {upTo(time, chunk)});
  const int64_t kept = std::min(o.call.integer("limit"), o.call.integer("count") * chunk) + o.call.integer("window");
  o.out(0, {1, std::min(time, kept)});
}

void topShots(const Operands& o) {
  o.count(1, 1);
  o.in(0, {static_cast<int64_t>(starts(o, o.call.integer("time")).size())});
  o.out(0, {1, o.call.integer("budget")});
}

/** Experts times capacity, of a layout that can be. */
int64_t layoutRows(const Operands& o) {
  const int64_t experts = o.call.integer("experts"), ranks = positive(o, "ranks"), chunks = positive(o, "chunks");
  const int64_t capacity = o.call.integer("capacity");
  if (experts < 0 || experts % ranks != 0) o.refuse(std::to_string(experts) + " experts on " + std::to_string(ranks) + " ranks");
  if (capacity < 0 || capacity % chunks != 0) {
    o.refuse("capacity " + std::to_string(capacity) + " in " + std::to_string(chunks) + " chunks");
  }
  return experts * capacity;
}

void moeLayout(const Operands& o) {
  o.count(1, 3);
  const int64_t topK = positive(o, "topK");
  const int64_t tokens = o.in(0, {any, topK})[0];
  const int64_t fixed = layoutRows(o);
  const int64_t rows = o.call.integer("capacity") == 0 ? tokens * topK : fixed;
  o.out(0, {rows});
  o.out(1, {rows});
  o.out(2, {o.call.integer("experts")});
}

void expertChoiceLayout(const Operands& o) {
  o.count(1, 2);
  const int64_t rows = layoutRows(o);
  o.in(0, {o.call.integer("experts"), o.call.integer("capacity")});
  o.out(0, {rows});
  o.out(1, {rows});
}

void softLayout(const Operands& o) {
  o.count(0, 1);
  o.out(0, {layoutRows(o)});
}

/** Outputs as the attribute `rows` names them: so many rows each. */
void partsAsNamed(const Operands& o, int64_t rows, int64_t width) {
  const std::vector<int64_t> parts = atLeast(o, "rows", 0);
  o.count(o.call.inputs.size(), parts.size());
  for (size_t i = 0; i < parts.size(); i++) o.out(i, {parts[i], width});
  if (sum(parts) != rows) o.refuse("rows \"" + o.call.text("rows") + "\" for " + std::to_string(rows));
}

void orderForward(const Operands& o) {
  o.atLeast(2, 0);
  o.count(2, o.call.outputs.size());
  partsAsNamed(o, o.in(1, {any})[0], o.in(0, {any, any})[1]);
}

void orderBackward(const Operands& o) {
  o.atLeast(2, 1);
  o.count(o.call.inputs.size(), 1);
  o.out(0, {o.call.integer("inputs"), o.partsIn(1, o.in(0, {any})[0])});
}

void inverseForward(const Operands& o) {
  o.atLeast(4, 1);
  o.count(o.call.inputs.size(), 1);
  const int64_t rows = o.in(1, {any})[0];
  o.in(2, {rows});
  o.out(0, {o.call.integer("outputs"), o.partsIn(3, rows)});
}

void inverseBackwardInput(const Operands& o) {
  o.atLeast(4, 0);
  o.count(4, o.call.outputs.size());
  const int64_t rows = o.in(2, {any})[0];
  o.in(3, {rows});
  partsAsNamed(o, rows, o.in(0, {any, any})[1]);
}

void inverseBackwardGate(const Operands& o) {
  o.atLeast(5, 1);
  o.count(o.call.inputs.size(), 1);
  const int64_t rows = o.in(2, {any})[0];
  o.in(3, {rows});
  o.in(0, {any, o.partsIn(4, rows)});
  o.out(0, o.in(1));
}

void softOrder(const Operands& o) {
  o.atLeast(3, 0);
  o.count(3, o.call.outputs.size());
  const Shape& inp = o.in(0, {any, any});
  o.in(1, {inp[0], any});
  partsAsNamed(o, o.in(2, {any})[0], inp[1]);
}

void softInverse(const Operands& o) {
  o.atLeast(3, 1);
  o.count(o.call.inputs.size(), 1);
  o.out(0, {o.in(0, {any, any})[0], o.partsIn(2, o.in(1, {any})[0])});
}

void softBackwardMix(const Operands& o) {
  o.atLeast(4, 1);
  o.count(o.call.inputs.size(), 1);
  const Shape& mix = o.in(1, {any, any});
  o.in(0, {mix[0], o.partsIn(3, o.in(2, {any})[0])});
  o.out(0, mix);
}

void rechunk(const Operands& o) {
  o.atLeast(1, 1);
  const int64_t rows = sum(atLeast(o, "blocks", 0));
  o.count(o.call.inputs.size(), static_cast<size_t>(positive(o, "chunks")));
  if (o.partsIn(0, rows) != o.partsOut(rows)) o.refuse("inputs and outputs of different widths");
}

void repack(const Operands& o) {
  o.atLeast(1, 1);
  int64_t balance = 0;
  for (const Operand& in : o.call.inputs) balance += in.elements;
  for (const Operand& out : o.call.outputs) balance -= out.elements;
  if (balance != 0) o.refuse("inputs and outputs of different sizes");
}

void freely(const Operands&) {}

/** Members see to the rest when they meet. */
void pairwise(const Operands& o) {
  o.atLeast(1, 1);
  o.count(o.call.inputs.size(), o.call.inputs.size());
}

using Rule = void (*)(const Operands&);

const std::map<std::string, Rule>& rules() {
  static const std::map<std::string, Rule> all = {
      {"all_gather", pairwise},
      {"all_reduce", sameAsInputs},
      {"all_to_all", pairwise},
      {"average", average},
      {"barrier", freely},
      {"broadcast", sameAsInputs},
      {"clip_by_norm", clipByNorm},
      {"concat_rows", concatRows},
      {"expert_choice_layout", expertChoiceLayout},
      {"kv.append", kvAppend},
      {"kv.attention", kvAttention},
      {"kv.chunk_scores", chunkScores},
      {"kv.evict", kvEvict},
      {"kv.shot_scores", shotScores},
      {"kv.top_chunks", topChunks},
      {"kv.top_shots", topShots},
      {"moe_inverse_order.backward_gate", inverseBackwardGate},
      {"moe_inverse_order.backward_input", inverseBackwardInput},
      {"moe_inverse_order.forward", inverseForward},
      {"moe_layout", moeLayout},
      {"moe_order.backward", orderBackward},
      {"moe_order.forward", orderForward},
      {"moe_rechunk", rechunk},
      {"pack.float4", pack},
      {"pack.float8", pack},
      {"pack.int8", pack},
      {"profiled", freely},
      {"random_normal", randomNormal},
      {"reduce_scatter", pairwise},
      {"repack", repack},
      {"send_recv", freely},
      {"soft_inverse_order.forward", softInverse},
      {"soft_layout", softLayout},
      {"soft_order.backward_mix", softBackwardMix},
      {"soft_order.forward", softOrder},
      {"split_rows", splitRows},
      {"squared_norm", squaredNorm},
      {"unpack.float4", unpack},
      {"unpack.float8", unpack},
      {"unpack.int8", unpack},
  };
  return all;
}

}  // namespace

bool checkByRule(const Call& call) {
  const auto rule = rules().find(call.kernel);
  if (rule == rules().end()) return false;
  rule->second(Operands(call));
  return true;
}

}  // namespace tandem

// The graphs are those that NVIDIA's cudnn-frontend documents for scaled dot-product attention: cuDNN finds its kernels by their form.
#include "cudnn-attention.h"

#include <cmath>
#include <map>
#include <tuple>

namespace tandem::cuda::cudnn {

namespace {

using Tensor = Graph::Tensor;

enum Place { atQ, atK, atV, atOut, atDout, atDq, atDk, atDv };

/** Before this version gradients are right for keys in multiples of 128 alone. */
constexpr size_t anyKeys = 91501;

/** Of one graph: its sizes, and the tensors that it is made of. */
struct Builder {
  Graph& graph;
  const AttentionShape& shape;
  /** Of a score for each query and key. */
  const Extents scores = {shape.batch, shape.heads, shape.time, shape.context};
  /** Of a number for each query. */
  const Extents rows = {shape.batch, shape.heads, shape.time, 1};

  /** [batch, heads, tokens, headWidth] */
  Tensor tokens(Place place, int64_t heads, int64_t count) {
    const int64_t stride = shape.strides[place];
    return graph.given(shape.type, {shape.batch, heads, count, shape.headWidth}, {count * stride, shape.headWidth, stride, 1});
  }

  /** The same memory as [batch, heads, headWidth, tokens]. */
  Tensor turned(Place place, int64_t heads, int64_t count) {
    const int64_t stride = shape.strides[place];
    return graph.given(shape.type, {shape.batch, heads, shape.headWidth, count}, {count * stride, shape.headWidth, 1, stride});
  }

  Tensor queries(Place place) { return tokens(place, shape.heads, shape.time); }
  Tensor keys(Place place) { return tokens(place, shape.kvHeads, shape.context); }
  Tensor turnedKeys(Place place) { return turned(place, shape.kvHeads, shape.context); }

  Tensor like(const Extents& extents) { return graph.between(Type::float32, extents); }

  Tensor apply(Pointwise mode, const Tensor& x) {
    const Tensor out = like(x.extents);
    graph.apply(mode, x, out);
    return out;
  }

  Tensor apply(Pointwise mode, const Tensor& x, const Tensor& b) {
    const Tensor out = like(x.extents);
    graph.apply(mode, x, b, out);
    return out;
  }

  Tensor multiply(const Tensor& left, const Tensor& right) {
    const Tensor out = like(scores);
    graph.multiply(left, right, out);
    return out;
  }

  /** Scores of keys that come after their query become minus infinity. */
  Tensor mask(const Tensor& x) {
    if (!shape.causal) return x;
    const Tensor nothing = graph.value(-INFINITY);
    Tensor row = graph.between(Type::int32, scores);
    graph.apply(Pointwise::index, x, row, 2);
    const Tensor column = graph.between(Type::int32, scores);
    graph.apply(Pointwise::index, x, column, 3);
    if (shape.context != shape.time) {
      row = moved(Pointwise::add, row, shape.context);
      row = moved(Pointwise::subtract, row, shape.time);
    }
    const Tensor seen = graph.between(Type::boolean, scores);
    graph.apply(Pointwise::greaterOrEqual, row, column, seen, Type::boolean);
    const Tensor out = like(scores);
    graph.select(x, nothing, seen, out);
    return out;
  }

  /** Weights or their gradients, rows and columns exchanged and rounded to the tensors' type. */
  Tensor exchanged(const Tensor& x) {
    const auto& [b, h, t, s] = scores;
    const Tensor out = graph.between(shape.type, {b, h, s, t}, {h * t * s, t * s, 1, s});
    graph.reshape(x, out);
    return out;
  }

  /** dk or dv: a product for each head, summed over heads that share a key. */
  void keyGradient(Place place, const Tensor& left, const Tensor& right) {
    if (shape.heads == shape.kvHeads) {
      graph.multiply(left, right, keys(place));
      return;
    }
    const Tensor each = graph.between(shape.type, {shape.batch, shape.heads, shape.context, shape.headWidth});
    graph.multiply(left, right, each);
    graph.reduce(Reduce::sum, each, keys(place));
  }

 private:
  Tensor moved(Pointwise mode, const Tensor& row, int64_t by) {
    const Tensor out = graph.between(Type::int32, scores);
    graph.apply(mode, row, graph.value(static_cast<int32_t>(by)), out, Type::int32);
    return out;
  }
};

size_t roundUp(size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

void AttentionPlan::buildForward(Graph& graph, const AttentionShape& shape) {
  Builder build{graph, shape};
  const Tensor q = build.queries(atQ);
  const Tensor k = build.turnedKeys(atK);
  Tensor x = build.multiply(q, k);
  x = build.apply(Pointwise::multiply, x, graph.value(shape.scale));
  x = build.mask(x);
  const Tensor largest = build.like(build.rows);
  graph.reduce(Reduce::largest, x, largest);
  const Tensor powers = build.apply(Pointwise::exponential, build.apply(Pointwise::subtract, x, largest));
  const Tensor sum = build.like(build.rows);
  graph.reduce(Reduce::sum, powers, sum);
  const Tensor logarithm = build.apply(Pointwise::logarithm, sum);
  const Tensor lse = graph.given(Type::float32, build.rows, rowMajor(build.rows));
  graph.apply(Pointwise::add, largest, logarithm, lse);
  // cuDNN wants weights of the tensors' type
  const Tensor weights = graph.between(shape.type, build.scores);
  graph.apply(Pointwise::divide, powers, sum, weights);
  const Tensor v = build.keys(atV);
  graph.multiply(weights, v, build.queries(atOut));
}

void AttentionPlan::buildBackward(Graph& graph, const AttentionShape& shape) {
  Builder build{graph, shape};
  const auto& [b, h, t, s] = build.scores;
  const int64_t width = shape.headWidth;
  const Tensor q = build.queries(atQ);
  const Tensor k = build.turnedKeys(atK);
  const Tensor v = build.turnedKeys(atV);
  const Tensor out = build.queries(atOut);
  const Tensor dout = build.queries(atDout);
  const Tensor lse = graph.given(Type::float32, build.rows, rowMajor(build.rows));
  const Tensor scale = graph.value(shape.scale);

  // dout . out of each row
  const Tensor products = graph.between(Type::float32, {b, h, t, width}, {h * t * width, t * width, h * width, 1});
  graph.apply(Pointwise::multiply, dout, out, products);
  const Tensor sum = build.like(build.rows);
  graph.reduce(Reduce::sum, products, sum);
  const Tensor delta = graph.given(Type::float32, build.rows, rowMajor(build.rows));
  graph.apply(Pointwise::multiply, sum, graph.value(1.0f), delta);

  // weights, and dv
  Tensor x = build.multiply(q, k);
  x = build.apply(Pointwise::multiply, x, scale);
  x = build.apply(Pointwise::subtract, x, lse);
  const Tensor weights = build.apply(Pointwise::exponential, build.mask(x));
  build.keyGradient(atDv, build.exchanged(weights), dout);

  // gradients of scores, and dk
  x = build.multiply(dout, v);
  x = build.apply(Pointwise::subtract, x, delta);
  x = build.apply(Pointwise::multiply, x, weights);
  const Tensor dscores = build.apply(Pointwise::multiply, x, scale);
  build.keyGradient(atDk, build.exchanged(dscores), q);

  // dq: sums in float32, rounded at the end
  const int64_t stride = shape.strides[atK];
  const Tensor plainK = graph.between(Type::float32, {b, shape.kvHeads, s, width}, {s * stride, width, stride, 1});
  graph.reshape(k, plainK);
  const Extents sums = {b, h, t, width};
  const Tensor dq = graph.given(Type::float32, sums, rowMajor(sums));
  graph.multiply(dscores, plainK, dq);
  graph.apply(Pointwise::identity, dq, build.queries(atDq));

  sumsBytes_ = roundUp(static_cast<size_t>(b * h * t * width) * sizeof(float));
  ownBytes_ = sumsBytes_ + roundUp(static_cast<size_t>(b * h * t) * sizeof(float));
}

bool hasGradients(int64_t keys) { return cudnnVersionNumber() >= anyKeys || keys % 128 == 0; }

AttentionPlan::AttentionPlan(Context& context, const AttentionShape& shape) : backward_(shape.backward) {
  if (shape.headWidth % 8 != 0) {
    throw Refusal("heads " + std::to_string(shape.headWidth) + " wide; expected a multiple of 8");
  }
  if (backward_ && shape.time == 1 && shape.context == 1) throw Refusal("it has no gradients of one query and one key");
  if (backward_ && !hasGradients(shape.context)) {
    throw Refusal(std::to_string(shape.context) + " keys; before 9.15.1 it has gradients for multiples of 128 alone");
  }
  Graph graph(context);
  if (backward_) {
    buildBackward(graph, shape);
  } else {
    buildForward(graph, shape);
  }
  plan_ = graph.plan();
}

void AttentionPlan::run(void* stream, const AttentionMemory& memory, void* workspace) const {
  const auto& at = memory.tensors;
  auto* const own = static_cast<char*>(workspace);
  void* const rest = own + ownBytes_;
  // in the order in which the graphs are given them
  if (!backward_) {
    plan_->run(stream, {at[atQ], at[atK], memory.lse, at[atV], at[atOut]}, rest);
    return;
  }
  plan_->run(stream,
             {at[atQ], at[atK], at[atV], at[atOut], at[atDout], memory.lse, own + sumsBytes_, at[atDv], at[atDk], own, at[atDq]},
             rest);
}

std::shared_ptr<const AttentionPlan> AttentionPlan::of(int device, const AttentionShape& shape) {
  Context& context = contextOf(device);
  using Key = std::tuple<int, bool, Type, std::array<int64_t, 6>, bool, float, std::array<int64_t, 8>>;
  // never destroyed: cuDNN may be gone when a process ends
  static std::mutex mutex;
  static std::map<Key, std::shared_ptr<const AttentionPlan>>& plans =
      *new std::map<Key, std::shared_ptr<const AttentionPlan>>;
  const Key key = {device,
                   shape.backward,
                   shape.type,
                   {shape.batch, shape.time, shape.context, shape.heads, shape.kvHeads, shape.headWidth},
                   shape.causal,
                   shape.scale,
                   shape.strides};
  const std::lock_guard lock(mutex);
  std::shared_ptr<const AttentionPlan>& found = plans[key];
  if (!found) found = std::make_shared<const AttentionPlan>(context, shape);
  return found;
}

}  // namespace tandem::cuda::cudnn

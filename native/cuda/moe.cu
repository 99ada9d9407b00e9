// Mixture of experts: gate, permutation, dispatch and combination, grouped expert layers; argument order as
// core/kernels/moe.ts. Choices and permutations are made as the reference makes them, so they are equal, not close.
#include "gemm.h"
#include "map.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

struct Gate {
  View logits, weights, chosen, probs, dweights, dlogits;
  int64_t rows, experts, topK;
  bool normalize;
};

Gate gateOf(const Call& call, const Operand& experts) {
  Gate g{};
  g.rows = rowsOf(experts);
  g.experts = widthOf(experts);
  g.topK = call.integer("topK");
  g.normalize = call.flag("normalize");
  return g;
}

/** A thread per token, in float64: experts are few. */
struct GateForward {
  Gate g;

  __device__ bool taken(int64_t row, int64_t k, int32_t expert) const {
    for (int64_t i = 0; i < k; i++) {
      if (getInteger(g.chosen, row * g.topK + i) == expert) return true;
    }
    return false;
  }

  __device__ void operator()(int64_t row) const {
    const View x = g.logits.at(row * g.experts);
    double max = -INFINITY;
    for (int64_t e = 0; e < g.experts; e++) max = fmax(max, static_cast<double>(get(x, e)));
    double sum = 0;
    for (int64_t e = 0; e < g.experts; e++) sum += exp(static_cast<double>(get(x, e)) - max);
    const auto probability = [&](int64_t e) { return exp(static_cast<double>(get(x, e)) - max) / sum; };
    double chosenSum = 0;
    for (int64_t k = 0; k < g.topK; k++) {
      int32_t best = -1;
      for (int32_t e = 0; e < g.experts; e++) {
        if (!taken(row, k, e) && (best < 0 || get(x, e) > get(x, best))) best = e;
      }
      setInteger(g.chosen, row * g.topK + k, best);
      chosenSum += probability(best);
    }
    const double scale = g.normalize ? chosenSum : 1;
    for (int64_t k = 0; k < g.topK; k++) {
      const int64_t at = row * g.topK + k;
      set(g.weights, at, static_cast<float>(probability(getInteger(g.chosen, at)) / scale));
    }
    for (int64_t e = 0; e < g.experts; e++) set(g.probs, row * g.experts + e, static_cast<float>(probability(e)));
  }
};

Work topkGateForward(const Call& call) {
  Gate g = gateOf(call, input(call, 0));
  if (g.topK > g.experts) {
    throw BadCall("topk_gate.forward: top " + std::to_string(g.topK) + " of " + std::to_string(g.experts) + " experts");
  }
  g.logits = floatsIn(call, 0);
  g.weights = floatsOut(call, 0);
  g.chosen = integersOut(call, 1);
  g.probs = floatsOut(call, 2);
  return [=](const Launch& launch) { each(launch, g.rows, GateForward{g}); };
}

struct GateBackward {
  Gate g;
  Reporter reporter;

  __device__ void operator()(int64_t row) const {
    const View p = g.probs.at(row * g.experts);
    const auto choice = [&](int64_t k) { return getInteger(g.chosen, row * g.topK + k); };
    const auto gradient = [&](int64_t k) { return static_cast<double>(get(g.dweights, row * g.topK + k)); };
    for (int64_t k = 0; k < g.topK; k++) {
      if (choice(k) >= 0 && choice(k) < g.experts) continue;
      reporter.fail(Wrong::expert, choice(k), g.experts);
      return;
    }
    double scale = 1;
    double shared = 0;
    if (g.normalize) {
      scale = 0;
      for (int64_t k = 0; k < g.topK; k++) scale += static_cast<double>(get(p, choice(k)));
      for (int64_t k = 0; k < g.topK; k++) shared += gradient(k) * static_cast<double>(get(p, choice(k))) / scale;
    }
    const auto dprob = [&](int64_t e) {
      double value = 0;
      for (int64_t k = 0; k < g.topK; k++) {
        if (choice(k) == e) value = (gradient(k) - shared) / scale;
      }
      return value;
    };
    double mean = 0;
    for (int64_t e = 0; e < g.experts; e++) mean += dprob(e) * static_cast<double>(get(p, e));
    for (int64_t e = 0; e < g.experts; e++) {
      set(g.dlogits, row * g.experts + e, static_cast<float>(static_cast<double>(get(p, e)) * (dprob(e) - mean)));
    }
  }
};

Work topkGateBackward(const Call& call) {
  Gate g = gateOf(call, input(call, 1));
  g.dweights = floatsIn(call, 0);
  g.probs = floatsIn(call, 1);
  g.chosen = integersIn(call, 2);
  g.dlogits = floatsOut(call, 0);
  return [=](const Launch& launch) { each(launch, g.rows, GateBackward{g, launch.reporter}); };
}

struct Permutation {
  View chosen, slots, counts;
  int64_t assignments, experts;
  Reporter reporter;
};

/** A block per expert counts its assignments; the first looks for experts that are none. */
__global__ void __launch_bounds__(1024) countExperts(Permutation p) {
  const auto expert = static_cast<int32_t>(blockIdx.x);
  int own = 0;
  for (int64_t i = threadIdx.x; i < p.assignments; i += 1024) {
    const int32_t chosen = getInteger(p.chosen, i);
    own += chosen == expert ? 1 : 0;
    if (expert == 0 && (chosen < 0 || chosen >= p.experts)) p.reporter.fail(Wrong::expert, chosen, p.experts);
  }
  const int total = blockSum(own);
  if (threadIdx.x == 0) setInteger(p.counts, expert, total);
}

/** Each expert's block numbers its assignments in their order: every thread has a stretch of them. */
__global__ void __launch_bounds__(1024) placeAssignments(Permutation p) {
  const auto expert = static_cast<int32_t>(blockIdx.x);
  int first = 0;
  for (int32_t e = 0; e < expert; e++) first += getInteger(p.counts, e);
  const int64_t stretch = (p.assignments + 1023) / 1024;
  const int64_t from = threadIdx.x * stretch;
  const int64_t to = min(p.assignments, from + stretch);
  int own = 0;
  for (int64_t i = from; i < to; i++) own += getInteger(p.chosen, i) == expert ? 1 : 0;
  int total;
  int at = first + blockPrefix(own, total);
  for (int64_t i = from; i < to; i++) {
    if (getInteger(p.chosen, i) == expert) setInteger(p.slots, i, at++);
  }
}

Work permutation(const Call& call) {
  const Permutation p = {integersIn(call, 0),     integersOut(call, 0),      integersOut(call, 1),
                         input(call, 0).elements, output(call, 1).elements, {}};
  return [=](const Launch& launch) {
    if (p.experts == 0) return;
    Permutation with = p;
    with.reporter = launch.reporter;
    countExperts<<<static_cast<unsigned>(p.experts), 1024, 0, launch.stream>>>(with);
    placeAssignments<<<static_cast<unsigned>(p.experts), 1024, 0, launch.stream>>>(with);
  };
}

struct Routes {
  View slots, weights, from, to;
  int64_t rows, topK, width;
  bool weighted;
  Reporter reporter;

  /** Row of the sorted assignments; -1, and a fault, when it is none. */
  __device__ int64_t slot(int64_t assignment) const {
    const int32_t at = getInteger(slots, assignment);
    if (at >= 0 && at < rows * topK) return at;
    reporter.fail(Wrong::slot, at, rows * topK);
    return -1;
  }
};

Routes routesOf(const Call& call, size_t slots, int64_t width) {
  Routes r{};
  r.slots = integersIn(call, slots);
  r.rows = rowsOf(input(call, slots));
  r.topK = call.integer("topK");
  r.width = width;
  return r;
}

/** Row by row to its slots, multiplied by the weight of each in float32. */
struct Send {
  Routes r;
  __device__ void operator()(int64_t i) const {
    const int64_t assignment = i / r.width;
    const int64_t c = i % r.width;
    const int64_t at = r.slot(assignment);
    if (at < 0) return;
    const float value = get(r.from, assignment / r.topK * r.width + c);
    set(r.to, at * r.width + c, r.weighted ? get(r.weights, assignment) * value : value);
  }
};

/** to[token] = sum over choices of weight * from[slot of the choice], in float64. */
struct Gather {
  Routes r;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / r.width;
    const int64_t c = i % r.width;
    double sum = 0;
    for (int64_t k = 0; k < r.topK; k++) {
      const int64_t at = r.slot(row * r.topK + k);
      if (at < 0) return;
      const double weight = r.weighted ? static_cast<double>(get(r.weights, row * r.topK + k)) : 1;
      sum += weight * static_cast<double>(get(r.from, at * r.width + c));
    }
    set(r.to, i, static_cast<float>(sum));
  }
};

template <class F>
Work perElement(const Routes& r, int64_t elements) {
  return [=](const Launch& launch) {
    Routes with = r;
    with.reporter = launch.reporter;
    each(launch, elements, F{with});
  };
}

Work dispatchForward(const Call& call) {
  Routes r = routesOf(call, 1, widthOf(input(call, 0)));
  r.from = floatsIn(call, 0);
  r.to = floatsOut(call, 0);
  return perElement<Send>(r, r.rows * r.topK * r.width);
}

Work dispatchBackward(const Call& call) {
  Routes r = routesOf(call, 1, widthOf(input(call, 0)));
  r.from = floatsIn(call, 0);
  r.to = floatsOut(call, 0);
  return perElement<Gather>(r, r.rows * r.width);
}

Work combineForward(const Call& call) {
  Routes r = routesOf(call, 2, widthOf(input(call, 0)));
  r.from = floatsIn(call, 0);
  r.weights = floatsIn(call, 1);
  r.weighted = true;
  r.to = floatsOut(call, 0);
  return perElement<Gather>(r, r.rows * r.width);
}

Work combineBackwardInput(const Call& call) {
  Routes r = routesOf(call, 2, widthOf(input(call, 0)));
  r.from = floatsIn(call, 0);
  r.weights = floatsIn(call, 1);
  r.weighted = true;
  r.to = floatsOut(call, 0);
  return perElement<Send>(r, r.rows * r.topK * r.width);
}

/** A warp per assignment. */
__global__ void __launch_bounds__(128) combineGate(Routes r, View dout, View inp, View dweights) {
  const int64_t assignment = static_cast<int64_t>(blockIdx.x) * 4 + threadIdx.x / 32;
  if (assignment >= r.rows * r.topK) return;
  const int64_t at = r.slot(assignment);
  if (at < 0) return;
  const View gradient = dout.at(assignment / r.topK * r.width);
  const View from = inp.at(at * r.width);
  double sum = 0;
  for (int64_t c = threadIdx.x % 32; c < r.width; c += 32) {
    sum += static_cast<double>(get(gradient, c)) * static_cast<double>(get(from, c));
  }
  sum = warpReduce(sum, Add{});
  if (threadIdx.x % 32 == 0) set(dweights, assignment, static_cast<float>(sum));
}

Work combineBackwardGate(const Call& call) {
  const Routes r = routesOf(call, 2, widthOf(input(call, 0)));
  const View dout = floatsIn(call, 0);
  const View inp = floatsIn(call, 1);
  const View dweights = floatsOut(call, 0);
  return [=](const Launch& launch) {
    if (r.rows * r.topK == 0) return;
    Routes with = r;
    with.reporter = launch.reporter;
    combineGate<<<static_cast<unsigned>(ceilDiv(r.rows * r.topK, 4)), 128, 0, launch.stream>>>(with, dout, inp, dweights);
  };
}

Work groups(const Grouped& grouped) {
  return [=](const Launch& launch) { multiplyGroups(launch, grouped); };
}

Work groupedForward(const Call& call) {
  const Shape& weight = input(call, 1).shape;
  const int64_t experts = weight.at(0), outs = weight.at(1), width = weight.at(2);
  const Product p = {0,  outs,  width, {floatsIn(call, 0), width, 1}, {floatsIn(call, 1), 1, width}, floatsOut(call, 0),
                     {}, false, {},    false};
  return groups({p, integersIn(call, 2), experts, input(call, 0).shape.at(0), outs * width, false});
}

Work groupedBackwardInput(const Call& call) {
  const Shape& weight = input(call, 1).shape;
  const int64_t experts = weight.at(0), outs = weight.at(1), width = weight.at(2);
  const Product p = {0, width, outs, {floatsIn(call, 0), outs, 1}, {floatsIn(call, 1), width, 1}, floatsOut(call, 0), {}, false, {}, false};
  return groups({p, integersIn(call, 2), experts, input(call, 0).shape.at(0), outs * width, false});
}

Work groupedBackwardWeight(const Call& call) {
  const bool accumulate = call.flag("accumulate");
  const Shape& weight = output(call, 0).shape;
  const int64_t experts = weight.at(0), outs = weight.at(1), width = weight.at(2);
  const Product p = {outs, width, 0, {floatsIn(call, 0), 1, outs}, {floatsIn(call, 1), width, 1}, floatsOut(call, 0),
                     accumulate ? floatsIn(call, 3) : View{}, accumulate, {}, false};
  return groups({p, integersIn(call, 2), experts, input(call, 0).shape.at(0), outs * width, true});
}

}  // namespace

const KernelTable moeKernels = {{"topk_gate.forward", topkGateForward},
                                {"topk_gate.backward", topkGateBackward},
                                {"moe_permutation", permutation},
                                {"moe_dispatch.forward", dispatchForward},
                                {"moe_dispatch.backward", dispatchBackward},
                                {"moe_combine.forward", combineForward},
                                {"moe_combine.backward_input", combineBackwardInput},
                                {"moe_combine.backward_gate", combineBackwardGate},
                                {"grouped_linear.forward", groupedForward},
                                {"grouped_linear.backward_input", groupedBackwardInput},
                                {"grouped_linear.backward_weight", groupedBackwardWeight}};

}  // namespace tandem::cuda

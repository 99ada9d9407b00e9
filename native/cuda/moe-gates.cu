// Gates of mixtures of experts beside the plain top-k softmax; argument order as core/kernels/moe-gates.ts. In float64 and in
// the reference's order: what is chosen must be equal, not close.
#include "../random.h"
#include "map.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

/** One number after another, so the host draws them: once, where the seed is fixed. */
Work randomNormal(const Call& call) {
  const View out = floatsOut(call, 0);
  const int64_t elements = output(call, 0).elements;
  const Scalar seed = call.scalar("seed");
  const auto draw = [=](double from) {
    std::vector<float> values(static_cast<size_t>(elements));
    Random random(from);
    for (float& value : values) value = static_cast<float>(random.normal());
    return values;
  };
  if (seed.index < 0) {
    const Table<float> table(draw(seed.fixed));
    const MapViews<1, 1> views = {{{const_cast<float*>(table.data), Dtype::float32}}, {out}};
    return [=](const Launch& launch) {
      // the table lives as long as the work does
      map(launch, views, table.count, CopyValue{});
    };
  }
  return [=](const Launch& launch) {
    const std::vector<float> values = draw(seed(launch.scalars));
    const Scratch scratch(launch, static_cast<size_t>(elements + 1) * sizeof(float));
    // pageable memory: copied before the call returns
    check(cudaMemcpyAsync(scratch.as<float>(), values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice,
                          launch.stream),
          "cudaMemcpyAsync");
    const MapViews<1, 1> views = {{{scratch.as<float>(), Dtype::float32}}, {out}};
    map(launch, views, elements, CopyValue{});
  };
}

__device__ inline double softplus(double x) { return fmax(x, 0.0) + log1p(exp(-fabs(x))); }
__device__ inline double sigmoid(double x) { return 1 / (1 + exp(-x)); }

struct Noisy {
  __device__ void operator()(const float* x, float* y) const {
    y[0] = static_cast<float>(static_cast<double>(x[0]) + static_cast<double>(x[2]) * softplus(x[1]));
  }
};

struct NoisyGradient {
  __device__ void operator()(const float* x, float* y) const {
    y[0] = static_cast<float>(static_cast<double>(x[0]) * static_cast<double>(x[2]) * sigmoid(x[1]));
  }
};

template <class F>
Work threeToOne(const Call& call) {
  const MapViews<3, 1> views = {{floatsIn(call, 0), floatsIn(call, 1), floatsIn(call, 2)}, {floatsOut(call, 0)}};
  const int64_t elements = output(call, 0).elements;
  return [=](const Launch& launch) { map(launch, views, elements, F{}); };
}

/** The index of the largest value that comes after `last` in falling order, ties to the lower index. */
template <class Value>
__device__ int64_t following(int64_t count, int64_t last, Value value) {
  int64_t best = -1;
  for (int64_t i = 0; i < count; i++) {
    const bool after = last < 0 || value(i) < value(last) || (value(i) == value(last) && i > last);
    if (after && (best < 0 || value(i) > value(best))) best = i;
  }
  return best;
}

struct SigmoidGate {
  View logits, weights, chosen;
  int64_t experts, topK;
  __device__ void operator()(int64_t row) const {
    int64_t last = -1;
    for (int64_t k = 0; k < topK; k++) {
      last = following(experts, last, [&](int64_t e) { return get(logits, row * experts + e); });
      if (last < 0) return;
      setInteger(chosen, row * topK + k, static_cast<int32_t>(last));
      set(weights, row * topK + k, static_cast<float>(sigmoid(get(logits, row * experts + last))));
    }
  }
};

Work sigmoidGateForward(const Call& call) {
  const SigmoidGate g = {floatsIn(call, 0), floatsOut(call, 0), integersOut(call, 1), widthOf(input(call, 0)), call.integer("topK")};
  const int64_t rows = rowsOf(input(call, 0));
  if (g.topK > g.experts) {
    throw BadCall("sigmoid_gate.forward: top " + std::to_string(g.topK) + " of " + std::to_string(g.experts) + " experts");
  }
  return [=](const Launch& launch) { each(launch, rows, g); };
}

struct SigmoidGradient {
  View dweights, weights, chosen, dlogits;
  int64_t experts, topK;
  Reporter reporter;
  __device__ void operator()(int64_t at) const {
    const int32_t expert = getInteger(chosen, at);
    if (expert < 0 || expert >= experts) return reporter.fail(Wrong::expert, expert, experts);
    const double weight = get(weights, at);
    set(dlogits, at / topK * experts + expert, static_cast<float>(static_cast<double>(get(dweights, at)) * weight * (1 - weight)));
  }
};

void clear(const Launch& launch, const View& view, int64_t elements) {
  check(cudaMemsetAsync(view.data, 0, static_cast<size_t>(elements * storedBytes(view.dtype)), launch.stream), "cudaMemsetAsync");
}

Work sigmoidGateBackward(const Call& call) {
  const SigmoidGradient g = {floatsIn(call, 0), floatsIn(call, 1), integersIn(call, 2), floatsOut(call, 0),
                             widthOf(output(call, 0)), call.integer("topK"), {}};
  const int64_t rows = rowsOf(output(call, 0));
  return [=](const Launch& launch) {
    clear(launch, g.dlogits, rows * g.experts);
    SigmoidGradient with = g;
    with.reporter = launch.reporter;
    each(launch, rows * g.topK, with);
  };
}

struct Cosine {
  View inp, weight, dscores, scores, out;
  int64_t rows, experts, width;
  double temperature;

  __device__ double normOf(const View& row) const {
    double sum = 0;
    for (int64_t c = 0; c < width; c++) sum += static_cast<double>(get(row, c)) * static_cast<double>(get(row, c));
    const double size = sqrt(sum);
    // zeros have no direction
    return size == 0 || isnan(size) ? 1 : size;
  }
};

/** norms: of the experts first, then of the rows. */
struct CosineNorms {
  Cosine s;
  double* norms;
  __device__ void operator()(int64_t i) const {
    norms[i] = s.normOf(i < s.experts ? s.weight.at(i * s.width) : s.inp.at((i - s.experts) * s.width));
  }
};

struct CosineScore {
  Cosine s;
  const double* norms;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / s.experts;
    const int64_t e = i % s.experts;
    const View x = s.inp.at(row * s.width);
    const View w = s.weight.at(e * s.width);
    double dot = 0;
    for (int64_t c = 0; c < s.width; c++) dot += static_cast<double>(get(x, c)) * static_cast<double>(get(w, c));
    set(s.out, i, static_cast<float>(dot / (norms[s.experts + row] * norms[e] * s.temperature)));
  }
};

struct CosineInputGradient {
  Cosine s;
  const double* norms;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / s.width;
    const int64_t c = i % s.width;
    const double size = norms[s.experts + row];
    double sum = 0;
    for (int64_t e = 0; e < s.experts; e++) {
      const double cosine = static_cast<double>(get(s.scores, row * s.experts + e)) * s.temperature;
      const double gradient = static_cast<double>(get(s.dscores, row * s.experts + e)) / (size * s.temperature);
      sum += gradient * (static_cast<double>(get(s.weight, e * s.width + c)) / norms[e] -
                         cosine * static_cast<double>(get(s.inp, i)) / size);
    }
    set(s.out, i, static_cast<float>(sum));
  }
};

struct CosineWeightGradient {
  Cosine s;
  const double* norms;
  __device__ void operator()(int64_t i) const {
    const int64_t e = i / s.width;
    const int64_t c = i % s.width;
    const double other = norms[e];
    double sum = 0;
    for (int64_t row = 0; row < s.rows; row++) {
      const double cosine = static_cast<double>(get(s.scores, row * s.experts + e)) * s.temperature;
      const double gradient = static_cast<double>(get(s.dscores, row * s.experts + e)) / (other * s.temperature);
      sum += gradient * (static_cast<double>(get(s.inp, row * s.width + c)) / norms[s.experts + row] -
                         cosine * static_cast<double>(get(s.weight, i)) / other);
    }
    set(s.out, i, static_cast<float>(sum));
  }
};

template <class F>
Work cosine(const Call& call, bool gradient) {
  const size_t first = gradient ? 1 : 0;
  Cosine s{};
  s.inp = floatsIn(call, first);
  s.weight = floatsIn(call, first + 1);
  if (gradient) {
    s.dscores = floatsIn(call, 0);
    s.scores = floatsIn(call, 3);
  }
  s.out = floatsOut(call, 0);
  s.rows = rowsOf(input(call, first));
  s.experts = input(call, first + 1).shape.at(0);
  s.width = widthOf(input(call, first));
  s.temperature = call.number("temperature");
  const int64_t elements = output(call, 0).elements;
  return [=](const Launch& launch) {
    const Scratch scratch(launch, static_cast<size_t>(s.rows + s.experts + 1) * sizeof(double));
    auto* norms = scratch.as<double>();
    each(launch, s.rows + s.experts, CosineNorms{s, norms});
    each(launch, elements, F{s, norms});
  };
}

struct ExpertChoice {
  View logits, weights, chosen;
  int64_t tokens, experts, capacity;
  __device__ void operator()(int64_t e) const {
    const auto logit = [&](int64_t token) { return get(logits, token * experts + e); };
    int64_t last = -1;
    double largest = 0;
    double sum = 0;
    for (int64_t c = 0; c < capacity; c++) {
      last = following(tokens, last, logit);
      if (last < 0) return;
      if (c == 0) largest = logit(last);
      setInteger(chosen, e * capacity + c, static_cast<int32_t>(last));
      sum += exp(static_cast<double>(logit(last)) - largest);
    }
    for (int64_t c = 0; c < capacity; c++) {
      const int32_t token = getInteger(chosen, e * capacity + c);
      set(weights, e * capacity + c, static_cast<float>(exp(static_cast<double>(logit(token)) - largest) / sum));
    }
  }
};

Work expertChoiceForward(const Call& call) {
  const ExpertChoice e = {floatsIn(call, 0),          floatsOut(call, 0),         integersOut(call, 1),
                          input(call, 0).shape.at(0), input(call, 0).shape.at(1), call.integer("capacity")};
  if (e.capacity > e.tokens) {
    throw BadCall("expert_choice.forward: " + std::to_string(e.capacity) + " of only " + std::to_string(e.tokens) + " tokens");
  }
  return [=](const Launch& launch) { each(launch, e.experts, e); };
}

struct ExpertChoiceGradient {
  View dweights, weights, chosen, dlogits;
  int64_t tokens, experts, capacity;
  Reporter reporter;
  __device__ void operator()(int64_t e) const {
    double mean = 0;
    for (int64_t c = e * capacity; c < (e + 1) * capacity; c++) {
      mean += static_cast<double>(get(dweights, c)) * static_cast<double>(get(weights, c));
    }
    for (int64_t c = e * capacity; c < (e + 1) * capacity; c++) {
      const int32_t token = getInteger(chosen, c);
      if (token < 0 || token >= tokens) return reporter.fail(Wrong::choice, token, tokens);
      set(dlogits, token * experts + e,
          static_cast<float>(static_cast<double>(get(weights, c)) * (static_cast<double>(get(dweights, c)) - mean)));
    }
  }
};

Work expertChoiceBackward(const Call& call) {
  const ExpertChoiceGradient g = {floatsIn(call, 0), floatsIn(call, 1), integersIn(call, 2), floatsOut(call, 0),
                                  output(call, 0).shape.at(0), output(call, 0).shape.at(1), call.integer("capacity"), {}};
  return [=](const Launch& launch) {
    clear(launch, g.dlogits, g.tokens * g.experts);
    ExpertChoiceGradient with = g;
    with.reporter = launch.reporter;
    each(launch, g.experts, with);
  };
}

/** Softmax of `count` elements that are `stride` apart. */
struct SoftmaxLine {
  View logits, out;
  int64_t count, stride, lineStride;
  __device__ void operator()(int64_t line) const {
    const auto at = [&](int64_t i) { return line * lineStride + i * stride; };
    double largest = -INFINITY;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, static_cast<double>(get(logits, at(i))));
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += exp(static_cast<double>(get(logits, at(i))) - largest);
    for (int64_t i = 0; i < count; i++) {
      set(out, at(i), static_cast<float>(exp(static_cast<double>(get(logits, at(i))) - largest) / sum));
    }
  }
};

Work softGateForward(const Call& call) {
  const View logits = floatsIn(call, 0);
  const int64_t tokens = input(call, 0).shape.at(0);
  const int64_t slots = input(call, 0).shape.at(1);
  const SoftmaxLine dispatch = {logits, floatsOut(call, 0), tokens, slots, 1};
  const SoftmaxLine combine = {logits, floatsOut(call, 1), slots, 1, slots};
  return [=](const Launch& launch) {
    each(launch, slots, dispatch);
    each(launch, tokens, combine);
  };
}

struct SoftGate {
  View ddispatch, dcombine, dispatch, combine, dlogits;
  int64_t tokens, slots;
};

struct SoftGateMeans {
  SoftGate g;
  double* means;
  __device__ void operator()(int64_t line) const {
    double sum = 0;
    if (line < g.slots) {
      for (int64_t i = line; i < g.tokens * g.slots; i += g.slots) {
        sum += static_cast<double>(get(g.ddispatch, i)) * static_cast<double>(get(g.dispatch, i));
      }
    } else {
      const int64_t first = (line - g.slots) * g.slots;
      for (int64_t i = first; i < first + g.slots; i++) {
        sum += static_cast<double>(get(g.dcombine, i)) * static_cast<double>(get(g.combine, i));
      }
    }
    means[line] = sum;
  }
};

struct SoftGateGradient {
  SoftGate g;
  const double* means;
  __device__ void operator()(int64_t i) const {
    const double overTokens = means[i % g.slots];
    const double overSlots = means[g.slots + i / g.slots];
    set(g.dlogits, i,
        static_cast<float>(static_cast<double>(get(g.dispatch, i)) * (static_cast<double>(get(g.ddispatch, i)) - overTokens) +
                           static_cast<double>(get(g.combine, i)) * (static_cast<double>(get(g.dcombine, i)) - overSlots)));
  }
};

Work softGateBackward(const Call& call) {
  const SoftGate g = {floatsIn(call, 0),  floatsIn(call, 1),           floatsIn(call, 2),          floatsIn(call, 3),
                      floatsOut(call, 0), output(call, 0).shape.at(0), output(call, 0).shape.at(1)};
  return [=](const Launch& launch) {
    const Scratch scratch(launch, static_cast<size_t>(g.tokens + g.slots + 1) * sizeof(double));
    auto* means = scratch.as<double>();
    each(launch, g.tokens + g.slots, SoftGateMeans{g, means});
    each(launch, g.tokens * g.slots, SoftGateGradient{g, means});
  };
}

}  // namespace

const KernelTable moeGateKernels = {{"random_normal", randomNormal, false},
                                    {"noisy_logits.forward", threeToOne<Noisy>},
                                    {"noisy_logits.backward", threeToOne<NoisyGradient>},
                                    {"sigmoid_gate.forward", sigmoidGateForward},
                                    {"sigmoid_gate.backward", sigmoidGateBackward},
                                    {"cosine_scores.forward", [](const Call& call) { return cosine<CosineScore>(call, false); }},
                                    {"cosine_scores.backward_input",
                                     [](const Call& call) { return cosine<CosineInputGradient>(call, true); }},
                                    {"cosine_scores.backward_weight",
                                     [](const Call& call) { return cosine<CosineWeightGradient>(call, true); }},
                                    {"expert_choice.forward", expertChoiceForward},
                                    {"expert_choice.backward", expertChoiceBackward},
                                    {"soft_gate.forward", softGateForward},
                                    {"soft_gate.backward", softGateBackward}};

}  // namespace tandem::cuda

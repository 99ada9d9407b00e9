// Mixture of experts: gate, permutation, dispatch and combination, grouped expert layers; argument order as
// core/kernels/moe.ts. Choices and permutations are made as the reference makes them, so they are equal, not close.
#include <algorithm>
#include <cmath>

#include "gemm.h"
#include "kernels.h"

namespace tandem {

namespace {

struct Gate {
  int64_t rows, experts, topK;
  bool normalize;
};

Gate gateOf(const Call& call, const Operand& experts) {
  return {rowsOf(experts), widthOf(experts), call.integer("topK"), call.flag("normalize")};
}

Work topkGateForward(const Call& call) {
  const float* logits = floatsIn(call, 0);
  float* weights = floatsOut(call, 0);
  int32_t* chosen = integersOut(call, 1);
  float* probs = floatsOut(call, 2);
  const Gate g = gateOf(call, input(call, 0));
  if (g.topK > g.experts) {
    throw BadCall("topk_gate.forward: top " + std::to_string(g.topK) + " of " + std::to_string(g.experts) + " experts");
  }
  return [=](const double*) {
    std::vector<double> probabilities(static_cast<size_t>(g.experts));
    for (int64_t row = 0; row < g.rows; row++) {
      const float* x = logits + row * g.experts;
      int32_t* choice = chosen + row * g.topK;
      const auto max = static_cast<double>(*std::max_element(x, x + g.experts));
      double sum = 0;
      for (int64_t e = 0; e < g.experts; e++) {
        sum += probabilities[static_cast<size_t>(e)] = std::exp(static_cast<double>(x[e]) - max);
      }
      for (int64_t e = 0; e < g.experts; e++) {
        probabilities[static_cast<size_t>(e)] /= sum;
        probs[row * g.experts + e] = static_cast<float>(probabilities[static_cast<size_t>(e)]);
      }
      double chosenSum = 0;
      for (int64_t k = 0; k < g.topK; k++) {
        int32_t best = -1;
        for (int32_t e = 0; e < g.experts; e++) {
          if (std::find(choice, choice + k, e) != choice + k) continue;
          if (best < 0 || x[e] > x[best]) best = e;
        }
        choice[k] = best;
        chosenSum += probabilities[static_cast<size_t>(best)];
      }
      const double scale = g.normalize ? chosenSum : 1;
      for (int64_t k = 0; k < g.topK; k++) {
        weights[row * g.topK + k] = static_cast<float>(probabilities[static_cast<size_t>(choice[k])] / scale);
      }
    }
  };
}

Work topkGateBackward(const Call& call) {
  const float* dweights = floatsIn(call, 0);
  const float* probs = floatsIn(call, 1);
  const int32_t* chosen = integersIn(call, 2);
  float* dlogits = floatsOut(call, 0);
  const Gate g = gateOf(call, input(call, 1));
  return [=](const double*) {
    std::vector<double> dprobs(static_cast<size_t>(g.experts));
    for (int64_t row = 0; row < g.rows; row++) {
      const float* p = probs + row * g.experts;
      const int32_t* choice = chosen + row * g.topK;
      const float* dw = dweights + row * g.topK;
      for (int64_t k = 0; k < g.topK; k++) {
        if (choice[k] >= 0 && choice[k] < g.experts) continue;
        throw BadCall("topk_gate.backward: expert " + std::to_string(choice[k]) + " of " + std::to_string(g.experts));
      }
      double scale = 1;
      double shared = 0;
      if (g.normalize) {
        scale = 0;
        for (int64_t k = 0; k < g.topK; k++) scale += static_cast<double>(p[choice[k]]);
        for (int64_t k = 0; k < g.topK; k++) {
          shared += static_cast<double>(dw[k]) * static_cast<double>(p[choice[k]]) / scale;
        }
      }
      std::fill(dprobs.begin(), dprobs.end(), 0.0);
      for (int64_t k = 0; k < g.topK; k++) {
        dprobs[static_cast<size_t>(choice[k])] = (static_cast<double>(dw[k]) - shared) / scale;
      }
      double mean = 0;
      for (int64_t e = 0; e < g.experts; e++) mean += dprobs[static_cast<size_t>(e)] * static_cast<double>(p[e]);
      for (int64_t e = 0; e < g.experts; e++) {
        dlogits[row * g.experts + e] =
            static_cast<float>(static_cast<double>(p[e]) * (dprobs[static_cast<size_t>(e)] - mean));
      }
    }
  };
}

Work permutation(const Call& call) {
  const int32_t* chosen = integersIn(call, 0);
  int32_t* slots = integersOut(call, 0);
  int32_t* counts = integersOut(call, 1);
  const int64_t assignments = input(call, 0).elements;
  const int64_t experts = output(call, 1).elements;
  return [=](const double*) {
    std::fill(counts, counts + experts, 0);
    for (int64_t i = 0; i < assignments; i++) {
      if (chosen[i] < 0 || chosen[i] >= experts) {
        throw BadCall("moe_permutation: expert " + std::to_string(chosen[i]) + " of " + std::to_string(experts));
      }
      counts[chosen[i]]++;
    }
    std::vector<int32_t> next(static_cast<size_t>(experts), 0);
    for (size_t e = 1; e < next.size(); e++) next[e] = next[e - 1] + counts[e - 1];
    for (int64_t i = 0; i < assignments; i++) slots[i] = next[static_cast<size_t>(chosen[i])]++;
  };
}

struct Routes {
  int64_t rows, topK, width;
  const int32_t* slots;
  const char* kernel;

  /** Row of the sorted assignments; a fault when it is none. */
  int64_t slot(int64_t assignment) const {
    const int32_t at = slots[assignment];
    if (at >= 0 && at < rows * topK) return at;
    throw BadCall(std::string(kernel) + ": slot " + std::to_string(at) + " of " + std::to_string(rows * topK));
  }
};

Routes routesOf(const Call& call, size_t slots, int64_t width, const char* kernel) {
  return {rowsOf(input(call, slots)), call.integer("topK"), width, integersIn(call, slots), kernel};
}

Work dispatchForward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  float* out = floatsOut(call, 0);
  const Routes r = routesOf(call, 1, widthOf(input(call, 0)), "moe_dispatch.forward");
  return [=](const double*) {
    for (int64_t row = 0; row < r.rows; row++) {
      for (int64_t k = 0; k < r.topK; k++) {
        std::copy(inp + row * r.width, inp + (row + 1) * r.width, out + r.slot(row * r.topK + k) * r.width);
      }
    }
  };
}

/** to[token] = sum over choices of weight * from[slot of the choice]; without weights they are one. */
void gather(const Routes& r, const float* from, const float* weights, float* to) {
  std::vector<double> sums(static_cast<size_t>(r.width));
  for (int64_t row = 0; row < r.rows; row++) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int64_t k = 0; k < r.topK; k++) {
      const float* x = from + r.slot(row * r.topK + k) * r.width;
      const double weight = weights == nullptr ? 1 : static_cast<double>(weights[row * r.topK + k]);
      for (int64_t c = 0; c < r.width; c++) sums[static_cast<size_t>(c)] += weight * static_cast<double>(x[c]);
    }
    for (int64_t c = 0; c < r.width; c++) to[row * r.width + c] = static_cast<float>(sums[static_cast<size_t>(c)]);
  }
}

Work dispatchBackward(const Call& call) {
  const float* dout = floatsIn(call, 0);
  float* dinp = floatsOut(call, 0);
  const Routes r = routesOf(call, 1, widthOf(input(call, 0)), "moe_dispatch.backward");
  return [=](const double*) { gather(r, dout, nullptr, dinp); };
}

Work combineForward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  const float* weights = floatsIn(call, 1);
  float* out = floatsOut(call, 0);
  const Routes r = routesOf(call, 2, widthOf(input(call, 0)), "moe_combine.forward");
  return [=](const double*) { gather(r, inp, weights, out); };
}

Work combineBackwardInput(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const float* weights = floatsIn(call, 1);
  float* dinp = floatsOut(call, 0);
  const Routes r = routesOf(call, 2, widthOf(input(call, 0)), "moe_combine.backward_input");
  return [=](const double*) {
    for (int64_t row = 0; row < r.rows; row++) {
      for (int64_t k = 0; k < r.topK; k++) {
        float* to = dinp + r.slot(row * r.topK + k) * r.width;
        const float weight = weights[row * r.topK + k];
        for (int64_t c = 0; c < r.width; c++) to[c] = weight * dout[row * r.width + c];
      }
    }
  };
}

Work combineBackwardGate(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const float* inp = floatsIn(call, 1);
  float* dweights = floatsOut(call, 0);
  const Routes r = routesOf(call, 2, widthOf(input(call, 0)), "moe_combine.backward_gate");
  return [=](const double*) {
    for (int64_t row = 0; row < r.rows; row++) {
      for (int64_t k = 0; k < r.topK; k++) {
        const float* from = inp + r.slot(row * r.topK + k) * r.width;
        double sum = 0;
        for (int64_t c = 0; c < r.width; c++) {
          sum += static_cast<double>(dout[row * r.width + c]) * static_cast<double>(from[c]);
        }
        dweights[row * r.topK + k] = static_cast<float>(sum);
      }
    }
  };
}

struct Experts {
  int64_t assignments, experts, width, outWidth;
  const int32_t* counts;
  const char* kernel;

  /** Calls visit(expert, first row, rows) for each expert; a fault when counts do not add up. */
  template <class Visit>
  void each(Visit visit) const {
    int64_t total = 0;
    bool negative = false;
    for (int64_t e = 0; e < experts; e++) {
      total += counts[e];
      negative |= counts[e] < 0;
    }
    if (negative || total != assignments) {
      throw BadCall(std::string(kernel) + ": counts of " + std::to_string(total) + " for " +
                    std::to_string(assignments) + " rows");
    }
    int64_t row = 0;
    for (int64_t e = 0; e < experts; e++) {
      visit(e, row, static_cast<int64_t>(counts[e]));
      row += counts[e];
    }
  }
};

Work groupedForward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  const float* weight = floatsIn(call, 1);
  float* out = floatsOut(call, 0);
  const Shape& shape = input(call, 1).shape;
  const Experts e = {input(call, 0).shape.at(0), shape.at(0),         shape.at(2), shape.at(1),
                     integersIn(call, 2),        "grouped_linear.forward"};
  return [=](const double*) {
    e.each([&](int64_t expert, int64_t row, int64_t rows) {
      multiply(rows, e.outWidth, e.width, {inp + row * e.width, e.width, 1},
               {weight + expert * e.outWidth * e.width, 1, e.width}, out + row * e.outWidth, e.outWidth, false);
    });
  };
}

Work groupedBackwardInput(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const float* weight = floatsIn(call, 1);
  float* dinp = floatsOut(call, 0);
  const Shape& shape = input(call, 1).shape;
  const Experts e = {input(call, 0).shape.at(0), shape.at(0),         shape.at(2), shape.at(1),
                     integersIn(call, 2),        "grouped_linear.backward_input"};
  return [=](const double*) {
    e.each([&](int64_t expert, int64_t row, int64_t rows) {
      multiply(rows, e.width, e.outWidth, {dout + row * e.outWidth, e.outWidth, 1},
               {weight + expert * e.outWidth * e.width, e.width, 1}, dinp + row * e.width, e.width, false);
    });
  };
}

Work groupedBackwardWeight(const Call& call) {
  const bool accumulate = call.flag("accumulate");
  const float* dout = floatsIn(call, 0);
  const float* inp = floatsIn(call, 1);
  const float* before = accumulate ? floatsIn(call, 3) : nullptr;
  float* dweight = floatsOut(call, 0);
  const Shape& shape = output(call, 0).shape;
  const int64_t elements = output(call, 0).elements;
  const Experts e = {input(call, 0).shape.at(0), shape.at(0),         shape.at(2), shape.at(1),
                     integersIn(call, 2),        "grouped_linear.backward_weight"};
  return [=](const double*) {
    if (accumulate && before != dweight) std::copy(before, before + elements, dweight);
    e.each([&](int64_t expert, int64_t row, int64_t rows) {
      multiply(e.outWidth, e.width, rows, {dout + row * e.outWidth, 1, e.outWidth}, {inp + row * e.width, e.width, 1},
               dweight + expert * e.outWidth * e.width, e.width, accumulate);
    });
  };
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

}  // namespace tandem

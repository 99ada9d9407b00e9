// Gates of mixtures of experts beside the plain top-k softmax; argument order as core/kernels/moe-gates.ts. In float64 and in
// the reference's order: what is chosen must be equal, not close.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "../random.h"
#include "kernels.h"

namespace tandem {

namespace {

Work randomNormal(const Call& call) {
  float* out = floatsOut(call, 0);
  const int64_t elements = output(call, 0).elements;
  const Scalar seed = call.scalar("seed");
  return [=](const double* scalars) {
    Random random(seed(scalars));
    for (int64_t i = 0; i < elements; i++) out[i] = static_cast<float>(random.normal());
  };
}

double softplus(double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

Work noisyLogitsForward(const Call& call) {
  const float* clean = floatsIn(call, 0);
  const float* spread = floatsIn(call, 1);
  const float* noise = floatsIn(call, 2);
  float* out = floatsOut(call, 0);
  const int64_t elements = output(call, 0).elements;
  return [=](const double*) {
    for (int64_t i = 0; i < elements; i++) {
      out[i] = static_cast<float>(static_cast<double>(clean[i]) +
                                  static_cast<double>(noise[i]) * softplus(static_cast<double>(spread[i])));
    }
  };
}

Work noisyLogitsBackward(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const float* spread = floatsIn(call, 1);
  const float* noise = floatsIn(call, 2);
  float* dspread = floatsOut(call, 0);
  const int64_t elements = output(call, 0).elements;
  return [=](const double*) {
    for (int64_t i = 0; i < elements; i++) {
      dspread[i] = static_cast<float>(static_cast<double>(dout[i]) * static_cast<double>(noise[i]) *
                                      sigmoid(static_cast<double>(spread[i])));
    }
  };
}

/** Indices 0 .. count - 1 by value(index), largest first, ties to the lower index; only the first `wanted` are in order. */
template <class Value>
void rank(std::vector<int32_t>& order, int64_t count, int64_t wanted, Value value) {
  order.resize(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + wanted, order.end(), [&](int32_t x, int32_t y) {
    const float a = value(x);
    const float b = value(y);
    return a > b || (!(b > a) && x < y);
  });
}

Work sigmoidGateForward(const Call& call) {
  const float* logits = floatsIn(call, 0);
  float* weights = floatsOut(call, 0);
  int32_t* chosen = integersOut(call, 1);
  const int64_t rows = rowsOf(input(call, 0));
  const int64_t experts = widthOf(input(call, 0));
  const int64_t topK = call.integer("topK");
  if (topK > experts) {
    throw BadCall("sigmoid_gate.forward: top " + std::to_string(topK) + " of " + std::to_string(experts) + " experts");
  }
  return [=](const double*) {
    std::vector<int32_t> order;
    for (int64_t row = 0; row < rows; row++) {
      const float* x = logits + row * experts;
      rank(order, experts, topK, [x](int32_t e) { return x[e]; });
      for (int64_t k = 0; k < topK; k++) {
        const int32_t expert = order[static_cast<size_t>(k)];
        chosen[row * topK + k] = expert;
        weights[row * topK + k] = static_cast<float>(sigmoid(static_cast<double>(x[expert])));
      }
    }
  };
}

/** Throws when an index that came as data is none. */
int64_t checked(const char* kernel, const char* what, int32_t index, int64_t of) {
  if (index >= 0 && index < of) return index;
  throw BadCall(std::string(kernel) + ": " + what + " " + std::to_string(index) + " of " + std::to_string(of));
}

Work sigmoidGateBackward(const Call& call) {
  const float* dweights = floatsIn(call, 0);
  const float* weights = floatsIn(call, 1);
  const int32_t* chosen = integersIn(call, 2);
  float* dlogits = floatsOut(call, 0);
  const int64_t rows = rowsOf(output(call, 0));
  const int64_t experts = widthOf(output(call, 0));
  const int64_t topK = call.integer("topK");
  return [=](const double*) {
    std::fill(dlogits, dlogits + rows * experts, 0.0f);
    for (int64_t at = 0; at < rows * topK; at++) {
      const auto weight = static_cast<double>(weights[at]);
      dlogits[at / topK * experts + checked("sigmoid_gate.backward", "expert", chosen[at], experts)] =
          static_cast<float>(static_cast<double>(dweights[at]) * weight * (1 - weight));
    }
  };
}

double norm(const float* x, int64_t width) {
  double sum = 0;
  for (int64_t c = 0; c < width; c++) sum += static_cast<double>(x[c]) * static_cast<double>(x[c]);
  const double size = std::sqrt(sum);
  // zeros have no direction
  return size == 0 || std::isnan(size) ? 1 : size;
}

struct Cosine {
  const float* inp;
  const float* weight;
  int64_t rows, experts, width;
  double temperature;

  const float* row(int64_t r) const { return inp + r * width; }
  const float* expert(int64_t e) const { return weight + e * width; }
  std::vector<double> expertNorms() const {
    std::vector<double> norms;
    for (int64_t e = 0; e < experts; e++) norms.push_back(norm(expert(e), width));
    return norms;
  }
};

Cosine cosineOf(const Call& call, size_t first) {
  return {floatsIn(call, first),           floatsIn(call, first + 1),       rowsOf(input(call, first)),
          input(call, first + 1).shape.at(0), widthOf(input(call, first)), call.number("temperature")};
}

Work cosineScoresForward(const Call& call) {
  const Cosine s = cosineOf(call, 0);
  float* scores = floatsOut(call, 0);
  return [=](const double*) {
    const std::vector<double> norms = s.expertNorms();
    for (int64_t row = 0; row < s.rows; row++) {
      const float* x = s.row(row);
      const double size = norm(x, s.width);
      for (int64_t e = 0; e < s.experts; e++) {
        double dot = 0;
        for (int64_t c = 0; c < s.width; c++) dot += static_cast<double>(x[c]) * static_cast<double>(s.expert(e)[c]);
        scores[row * s.experts + e] = static_cast<float>(dot / (size * norms[static_cast<size_t>(e)] * s.temperature));
      }
    }
  };
}

Work cosineScoresBackwardInput(const Call& call) {
  const float* dscores = floatsIn(call, 0);
  const Cosine s = cosineOf(call, 1);
  const float* scores = floatsIn(call, 3);
  float* dinp = floatsOut(call, 0);
  return [=](const double*) {
    const std::vector<double> norms = s.expertNorms();
    std::vector<double> sum(static_cast<size_t>(s.width));
    for (int64_t row = 0; row < s.rows; row++) {
      const float* x = s.row(row);
      const double size = norm(x, s.width);
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t e = 0; e < s.experts; e++) {
        const double cosine = static_cast<double>(scores[row * s.experts + e]) * s.temperature;
        const double gradient = static_cast<double>(dscores[row * s.experts + e]) / (size * s.temperature);
        for (int64_t c = 0; c < s.width; c++) {
          sum[static_cast<size_t>(c)] += gradient * (static_cast<double>(s.expert(e)[c]) / norms[static_cast<size_t>(e)] -
                                                     cosine * static_cast<double>(x[c]) / size);
        }
      }
      for (int64_t c = 0; c < s.width; c++) dinp[row * s.width + c] = static_cast<float>(sum[static_cast<size_t>(c)]);
    }
  };
}

Work cosineScoresBackwardWeight(const Call& call) {
  const float* dscores = floatsIn(call, 0);
  const Cosine s = cosineOf(call, 1);
  const float* scores = floatsIn(call, 3);
  float* dweight = floatsOut(call, 0);
  return [=](const double*) {
    const std::vector<double> norms = s.expertNorms();
    std::vector<double> sum(static_cast<size_t>(s.experts * s.width), 0.0);
    for (int64_t row = 0; row < s.rows; row++) {
      const float* x = s.row(row);
      const double size = norm(x, s.width);
      for (int64_t e = 0; e < s.experts; e++) {
        const double other = norms[static_cast<size_t>(e)];
        const double cosine = static_cast<double>(scores[row * s.experts + e]) * s.temperature;
        const double gradient = static_cast<double>(dscores[row * s.experts + e]) / (other * s.temperature);
        for (int64_t c = 0; c < s.width; c++) {
          sum[static_cast<size_t>(e * s.width + c)] +=
              gradient * (static_cast<double>(x[c]) / size - cosine * static_cast<double>(s.expert(e)[c]) / other);
        }
      }
    }
    for (size_t i = 0; i < sum.size(); i++) dweight[i] = static_cast<float>(sum[i]);
  };
}

Work expertChoiceForward(const Call& call) {
  const float* logits = floatsIn(call, 0);
  float* weights = floatsOut(call, 0);
  int32_t* chosen = integersOut(call, 1);
  const int64_t tokens = input(call, 0).shape.at(0);
  const int64_t experts = input(call, 0).shape.at(1);
  const int64_t capacity = call.integer("capacity");
  if (capacity > tokens) {
    throw BadCall("expert_choice.forward: " + std::to_string(capacity) + " of only " + std::to_string(tokens) + " tokens");
  }
  return [=](const double*) {
    std::vector<int32_t> order;
    for (int64_t e = 0; e < experts; e++) {
      const auto logit = [=](int32_t token) { return logits[token * experts + e]; };
      rank(order, tokens, capacity, logit);
      const double largest = capacity == 0 ? 0 : static_cast<double>(logit(order[0]));
      double sum = 0;
      for (int64_t c = 0; c < capacity; c++) sum += std::exp(static_cast<double>(logit(order[static_cast<size_t>(c)])) - largest);
      for (int64_t c = 0; c < capacity; c++) {
        const int32_t token = order[static_cast<size_t>(c)];
        chosen[e * capacity + c] = token;
        weights[e * capacity + c] = static_cast<float>(std::exp(static_cast<double>(logit(token)) - largest) / sum);
      }
    }
  };
}

Work expertChoiceBackward(const Call& call) {
  const float* dweights = floatsIn(call, 0);
  const float* weights = floatsIn(call, 1);
  const int32_t* chosen = integersIn(call, 2);
  float* dlogits = floatsOut(call, 0);
  const int64_t tokens = output(call, 0).shape.at(0);
  const int64_t experts = output(call, 0).shape.at(1);
  const int64_t capacity = call.integer("capacity");
  return [=](const double*) {
    std::fill(dlogits, dlogits + tokens * experts, 0.0f);
    for (int64_t e = 0; e < experts; e++) {
      double mean = 0;
      for (int64_t c = e * capacity; c < (e + 1) * capacity; c++) {
        mean += static_cast<double>(dweights[c]) * static_cast<double>(weights[c]);
      }
      for (int64_t c = e * capacity; c < (e + 1) * capacity; c++) {
        dlogits[checked("expert_choice.backward", "token", chosen[c], tokens) * experts + e] =
            static_cast<float>(static_cast<double>(weights[c]) * (static_cast<double>(dweights[c]) - mean));
      }
    }
  };
}

/** Softmax of `count` elements that are `stride` apart. */
void softmaxLine(const float* logits, float* out, int64_t stride, int64_t count) {
  double largest = -HUGE_VAL;
  for (int64_t i = 0; i < count; i++) largest = std::fmax(largest, static_cast<double>(logits[i * stride]));
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += std::exp(static_cast<double>(logits[i * stride]) - largest);
  for (int64_t i = 0; i < count; i++) {
    out[i * stride] = static_cast<float>(std::exp(static_cast<double>(logits[i * stride]) - largest) / sum);
  }
}

Work softGateForward(const Call& call) {
  const float* logits = floatsIn(call, 0);
  float* dispatch = floatsOut(call, 0);
  float* combine = floatsOut(call, 1);
  const int64_t tokens = input(call, 0).shape.at(0);
  const int64_t slots = input(call, 0).shape.at(1);
  return [=](const double*) {
    for (int64_t slot = 0; slot < slots; slot++) softmaxLine(logits + slot, dispatch + slot, slots, tokens);
    for (int64_t token = 0; token < tokens; token++) {
      softmaxLine(logits + token * slots, combine + token * slots, 1, slots);
    }
  };
}

Work softGateBackward(const Call& call) {
  const float* ddispatch = floatsIn(call, 0);
  const float* dcombine = floatsIn(call, 1);
  const float* dispatch = floatsIn(call, 2);
  const float* combine = floatsIn(call, 3);
  float* dlogits = floatsOut(call, 0);
  const int64_t tokens = output(call, 0).shape.at(0);
  const int64_t slots = output(call, 0).shape.at(1);
  return [=](const double*) {
    std::vector<double> overTokens(static_cast<size_t>(slots), 0.0);
    std::vector<double> overSlots(static_cast<size_t>(tokens), 0.0);
    for (int64_t i = 0; i < tokens * slots; i++) {
      overTokens[static_cast<size_t>(i % slots)] += static_cast<double>(ddispatch[i]) * static_cast<double>(dispatch[i]);
      overSlots[static_cast<size_t>(i / slots)] += static_cast<double>(dcombine[i]) * static_cast<double>(combine[i]);
    }
    for (int64_t i = 0; i < tokens * slots; i++) {
      dlogits[i] = static_cast<float>(
          static_cast<double>(dispatch[i]) *
              (static_cast<double>(ddispatch[i]) - overTokens[static_cast<size_t>(i % slots)]) +
          static_cast<double>(combine[i]) * (static_cast<double>(dcombine[i]) - overSlots[static_cast<size_t>(i / slots)]));
    }
  };
}

}  // namespace

const KernelTable moeGateKernels = {{"random_normal", randomNormal},
                                    {"noisy_logits.forward", noisyLogitsForward},
                                    {"noisy_logits.backward", noisyLogitsBackward},
                                    {"sigmoid_gate.forward", sigmoidGateForward},
                                    {"sigmoid_gate.backward", sigmoidGateBackward},
                                    {"cosine_scores.forward", cosineScoresForward},
                                    {"cosine_scores.backward_input", cosineScoresBackwardInput},
                                    {"cosine_scores.backward_weight", cosineScoresBackwardWeight},
                                    {"expert_choice.forward", expertChoiceForward},
                                    {"expert_choice.backward", expertChoiceBackward},
                                    {"soft_gate.forward", softGateForward},
                                    {"soft_gate.backward", softGateBackward}};

}  // namespace tandem

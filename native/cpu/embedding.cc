// Token embedding and learned positions; argument order as core/kernels/embedding.ts.
#include <algorithm>

#include "kernels.h"

namespace tandem {

namespace {

Work embeddingForward(const Call& call) {
  const int32_t* tokens = integersIn(call, 0);
  const float* weight = floatsIn(call, 1);
  float* out = floatsOut(call, 0);
  const int64_t rows = input(call, 0).elements;
  const int64_t vocabulary = input(call, 1).shape.at(0);
  const int64_t width = input(call, 1).shape.at(1);
  return [=](const double*) {
    for (int64_t row = 0; row < rows; row++) {
      const int32_t token = tokens[row];
      if (token < 0 || token >= vocabulary) {
        throw BadCall("embedding.forward: token " + std::to_string(token) + " outside the vocabulary of " +
                      std::to_string(vocabulary));
      }
      std::copy(weight + token * width, weight + (token + 1) * width, out + row * width);
    }
  };
}

/** dweight[token] += dout, in order of position, in float64 from what was there: as the reference. */
void scatterAdd(const float* dout, const int32_t* rowOf, int64_t rows, int64_t width, const float* before,
                float* dweight, int64_t elements) {
  thread_local std::vector<double> sums;
  sums.assign(static_cast<size_t>(elements), 0.0);
  for (int64_t i = 0; before != nullptr && i < elements; i++) sums[static_cast<size_t>(i)] = static_cast<double>(before[i]);
  for (int64_t row = 0; row < rows; row++) {
    double* to = sums.data() + rowOf[row] * width;
    const float* from = dout + row * width;
    for (int64_t c = 0; c < width; c++) to[c] += static_cast<double>(from[c]);
  }
  for (int64_t i = 0; i < elements; i++) dweight[i] = static_cast<float>(sums[static_cast<size_t>(i)]);
}

Work embeddingBackwardWeight(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const int32_t* tokens = integersIn(call, 1);
  const float* before = call.flag("accumulate") ? floatsIn(call, 2) : nullptr;
  float* dweight = floatsOut(call, 0);
  const int64_t rows = input(call, 1).elements;
  const int64_t vocabulary = output(call, 0).shape.at(0);
  const int64_t width = output(call, 0).shape.at(1);
  return [=](const double*) {
    for (int64_t row = 0; row < rows; row++) {
      if (tokens[row] >= 0 && tokens[row] < vocabulary) continue;
      throw BadCall("embedding.backward_weight: token " + std::to_string(tokens[row]) + " outside the vocabulary of " +
                    std::to_string(vocabulary));
    }
    scatterAdd(dout, tokens, rows, width, before, dweight, vocabulary * width);
  };
}

struct Positions {
  int64_t batch, time, width, available;
  Scalar given;
  const char* kernel;

  int64_t offset(const double* scalars) const {
    const double first = given(scalars);
    if (first >= 0 && first <= static_cast<double>(available - time)) return static_cast<int64_t>(first);
    throw BadCall(std::string(kernel) + ": positions " + std::to_string(first) + " and " + std::to_string(time - 1) +
                  " more of " + std::to_string(available));
  }
};

Positions positionsOf(const Call& call, const Shape& tokens, int64_t available, const char* kernel) {
  return {tokens.at(0), tokens.at(1), tokens.at(2), available, call.scalar("offset"), kernel};
}

Work positionAddForward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  const float* weight = floatsIn(call, 1);
  float* out = floatsOut(call, 0);
  const Positions p = positionsOf(call, input(call, 0).shape, input(call, 1).shape.at(0), "position_add.forward");
  return [=](const double* scalars) {
    const float* position = weight + p.offset(scalars) * p.width;
    for (int64_t b = 0; b < p.batch; b++) {
      const int64_t row = b * p.time * p.width;
#pragma GCC ivdep
      for (int64_t i = 0; i < p.time * p.width; i++) out[row + i] = inp[row + i] + position[i];
    }
  };
}

Work positionAddBackwardWeight(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const float* before = call.flag("accumulate") ? floatsIn(call, 1) : nullptr;
  float* dweight = floatsOut(call, 0);
  const Positions p = positionsOf(call, input(call, 0).shape, output(call, 0).shape.at(0), "position_add.backward_weight");
  const int64_t elements = output(call, 0).elements;
  return [=](const double* scalars) {
    const int64_t offset = p.offset(scalars);
    std::vector<int32_t> rowOf(static_cast<size_t>(p.batch * p.time));
    for (size_t i = 0; i < rowOf.size(); i++) {
      rowOf[i] = static_cast<int32_t>(offset + static_cast<int64_t>(i) % p.time);
    }
    scatterAdd(dout, rowOf.data(), p.batch * p.time, p.width, before, dweight, elements);
  };
}

}  // namespace

const KernelTable embeddingKernels = {{"embedding.forward", embeddingForward},
                                      {"embedding.backward_weight", embeddingBackwardWeight},
                                      {"position_add.forward", positionAddForward},
                                      {"position_add.backward_weight", positionAddBackwardWeight}};

}  // namespace tandem

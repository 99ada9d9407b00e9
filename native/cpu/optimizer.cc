// Optimizer steps; argument order as core/kernels/optimizer.ts. In float64 per element, as the reference: a step is bound by
// memory, and equal bits on every backend keep replicas equal.
#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "simd.h"

namespace tandem {

namespace {

/** The new parameters in a narrower dtype, where they are wanted; rounded as every output is. */
float* shadowOf(const Call& call, size_t index) { return call.flag("shadow") ? floatsOut(call, index) : nullptr; }

void cast(const float* params, int64_t count, float* shadow) {
  if (shadow != nullptr) std::copy(params, params + count, shadow);
}

/** What `loss_scale` says of this step; nothing is scaled where there is none. */
struct Scaling {
  double factor = 1, skipped = 0;
};

/** Read at the launch: `scaling` is the input after the others, where the call has one. */
const float* scalingOf(const Call& call, size_t index) { return call.flag("scaled") ? floatsIn(call, index) : nullptr; }

Scaling scalingNow(const float* scaling) {
  return scaling == nullptr ? Scaling{} : Scaling{static_cast<double>(scaling[1]), static_cast<double>(scaling[3])};
}

/** Of a step that is skipped. */
void keep(const float* from, float* to, int64_t count) {
  if (from != to) std::copy(from, from + count, to);
}

struct Sgd {
  double learningRate, momentum, dampening, weightDecay;
  bool nesterov, first;
  double factor;
};

TANDEM_SIMD void sgdStep(const Sgd& a, int64_t count, const float* params, const float* grads, const float* buffer,
                         float* newParams, float* newBuffer) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    const double gradient = static_cast<double>(grads[i]) * a.factor + a.weightDecay * static_cast<double>(params[i]);
    const double moment =
        a.first ? gradient : a.momentum * static_cast<double>(buffer[i]) + (1 - a.dampening) * gradient;
    newBuffer[i] = static_cast<float>(moment);
    const double change = a.nesterov ? gradient + a.momentum * moment : moment;
    newParams[i] = static_cast<float>(static_cast<double>(params[i]) - a.learningRate * change);
  }
}

TANDEM_SIMD void plainSgdStep(const Sgd& a, int64_t count, const float* params, const float* grads, float* newParams) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    const double gradient = static_cast<double>(grads[i]) * a.factor + a.weightDecay * static_cast<double>(params[i]);
    newParams[i] = static_cast<float>(static_cast<double>(params[i]) - a.learningRate * gradient);
  }
}

Work sgd(const Call& call) {
  Sgd fixed{0, call.number("momentum"), call.number("dampening"), call.number("weightDecay"), call.flag("nesterov"), false, 1};
  const Scalar learningRate = call.scalar("learningRate");
  const Scalar step = call.scalar("step");
  const auto at = [=](const double* scalars, const Scaling& scaling) {
    Sgd a = fixed;
    a.learningRate = learningRate(scalars);
    a.first = step(scalars) - scaling.skipped == 1;
    a.factor = scaling.factor;
    return a;
  };
  if (fixed.nesterov && (fixed.momentum == 0 || fixed.dampening != 0)) {
    throw BadCall("sgd: nesterov needs a momentum and zero dampening");
  }
  const float* params = floatsIn(call, 0);
  const float* grads = floatsIn(call, 1);
  float* newParams = floatsOut(call, 0);
  const int64_t count = input(call, 0).elements;
  float* shadow = shadowOf(call, fixed.momentum == 0 ? 1 : 2);
  const float* scaling = scalingOf(call, fixed.momentum == 0 ? 2 : 3);
  if (fixed.momentum == 0) {
    return [=](const double* scalars) {
      const Scaling now = scalingNow(scaling);
      if (now.factor == 0) {
        keep(params, newParams, count);
      } else {
        plainSgdStep(at(scalars, now), count, params, grads, newParams);
      }
      cast(newParams, count, shadow);
    };
  }
  const float* buffer = floatsIn(call, 2);
  float* newBuffer = floatsOut(call, 1);
  return [=](const double* scalars) {
    const Scaling now = scalingNow(scaling);
    if (now.factor == 0) {
      keep(params, newParams, count);
      keep(buffer, newBuffer, count);
    } else {
      sgdStep(at(scalars, now), count, params, grads, buffer, newParams, newBuffer);
    }
    cast(newParams, count, shadow);
  };
}

struct Adamw {
  double learningRate, beta1, beta2, epsilon, weightDecay, correction1, correction2, factor;
};

TANDEM_SIMD void adamwStep(const Adamw& a, int64_t count, const float* params, const float* grads, const float* m,
                           const float* v, float* newParams, float* newM, float* newV) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    const double gradient = static_cast<double>(grads[i]) * a.factor;
    const double first = a.beta1 * static_cast<double>(m[i]) + (1 - a.beta1) * gradient;
    const double second = a.beta2 * static_cast<double>(v[i]) + (1 - a.beta2) * gradient * gradient;
    const double decayed = static_cast<double>(params[i]) * (1 - a.learningRate * a.weightDecay);
    const double denominator = std::sqrt(second / a.correction2) + a.epsilon;
    newM[i] = static_cast<float>(first);
    newV[i] = static_cast<float>(second);
    newParams[i] = static_cast<float>(decayed - (a.learningRate * (first / a.correction1)) / denominator);
  }
}

Work adamw(const Call& call) {
  Adamw fixed{};
  fixed.beta1 = call.number("beta1");
  fixed.beta2 = call.number("beta2");
  fixed.epsilon = call.number("epsilon");
  fixed.weightDecay = call.number("weightDecay");
  const Scalar learningRate = call.scalar("learningRate");
  const Scalar steps = call.scalar("step");
  const float* params = floatsIn(call, 0);
  const float* grads = floatsIn(call, 1);
  const float* m = floatsIn(call, 2);
  const float* v = floatsIn(call, 3);
  float* newParams = floatsOut(call, 0);
  float* newM = floatsOut(call, 1);
  float* newV = floatsOut(call, 2);
  float* shadow = shadowOf(call, 3);
  const float* scaling = scalingOf(call, 4);
  const int64_t count = input(call, 0).elements;
  return [=](const double* scalars) {
    const double step = steps(scalars);
    if (!(step >= 1)) throw BadCall("adamw: step is " + std::to_string(step) + "; the first step is 1");
    const Scaling now = scalingNow(scaling);
    if (now.factor == 0) {
      keep(params, newParams, count);
      keep(m, newM, count);
      keep(v, newV, count);
    } else {
      Adamw a = fixed;
      a.learningRate = learningRate(scalars);
      a.correction1 = 1 - std::pow(a.beta1, step - now.skipped);
      a.correction2 = 1 - std::pow(a.beta2, step - now.skipped);
      a.factor = now.factor;
      adamwStep(a, count, params, grads, m, v, newParams, newM, newV);
    }
    cast(newParams, count, shadow);
  };
}

TANDEM_SIMD void nesterovStep(double learningRate, double momentum, int64_t count, const float* params,
                              const float* buffer, const float* delta, float* newParams, float* newBuffer) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    const auto change = static_cast<double>(delta[i]);
    const double moment = momentum * static_cast<double>(buffer[i]) + change;
    newParams[i] = static_cast<float>(static_cast<double>(params[i]) - learningRate * (change + momentum * moment));
    newBuffer[i] = static_cast<float>(moment);
  }
}

Work outerNesterov(const Call& call) {
  const Scalar learningRate = call.scalar("learningRate");
  const double momentum = call.number("momentum");
  const float* params = floatsIn(call, 0);
  const float* buffer = floatsIn(call, 1);
  const float* delta = floatsIn(call, 2);
  float* newParams = floatsOut(call, 0);
  float* newBuffer = floatsOut(call, 1);
  const int64_t count = input(call, 0).elements;
  return [=](const double* scalars) { nesterovStep(learningRate(scalars), momentum, count, params, buffer, delta, newParams, newBuffer); };
}

struct Slice {
  const float* from;
  float* to;
  int64_t count;
};

TANDEM_SIMD double squares(const float* values, int64_t count) {
  return sumOf(count, [=](int64_t i) { return static_cast<double>(values[i]) * static_cast<double>(values[i]); });
}

Work squaredNorm(const Call& call) {
  std::vector<Slice> slices;
  for (size_t i = 0; i < call.inputs.size(); i++) slices.push_back({floatsIn(call, i), nullptr, call.inputs[i].elements});
  float* sum = floatsOut(call, 0);
  return [=](const double*) {
    double total = 0;
    for (const Slice& slice : slices) total += squares(slice.from, slice.count);
    sum[0] = static_cast<float>(total);
  };
}

TANDEM_SIMD void scaleBy(double factor, const Slice& slice) {
  const float* from = slice.from;
  float* to = slice.to;
#pragma GCC ivdep
  for (int64_t i = 0; i < slice.count; i++) to[i] = static_cast<float>(factor * static_cast<double>(from[i]));
}

Work clipByNorm(const Call& call) {
  const double maxNorm = call.number("maxNorm");
  const float* sum = floatsIn(call, 0);
  std::vector<Slice> slices;
  for (size_t i = 0; i < call.outputs.size(); i++) {
    slices.push_back({floatsIn(call, i + 1), floatsOut(call, i), call.outputs[i].elements});
  }
  return [=](const double*) {
    // Math.min: NaN if the norm is
    const double ratio = maxNorm / (std::sqrt(static_cast<double>(sum[0])) + 1e-6);
    const double factor = std::isnan(ratio) ? ratio : ratio < 1 ? ratio : 1;
    for (const Slice& slice : slices) scaleBy(factor, slice);
  };
}

Work lossScale(const Call& call) {
  const double maxNorm = call.number("maxNorm");
  const double growthInterval = call.number("growthInterval");
  const double growthFactor = call.number("growthFactor");
  const double backoffFactor = call.number("backoffFactor");
  const double leastScale = call.number("leastScale");
  const float* sum = floatsIn(call, 0);
  const float* scaling = floatsIn(call, 1);
  float* next = floatsOut(call, 0);
  return [=](const double*) {
    const auto scale = static_cast<double>(scaling[0]);
    const auto squares = static_cast<double>(sum[0]);
    const float taken = scaling[2] + 1;
    const float skipped = scaling[3];
    if (!std::isfinite(squares)) {
      next[0] = static_cast<float>(std::max(leastScale, scale * backoffFactor));
      next[1] = 0;
      next[2] = 0;
      next[3] = skipped + 1;
      return;
    }
    const double clip = maxNorm > 0 ? std::min(1.0, maxNorm / (std::sqrt(squares) / scale + 1e-6)) : 1;
    const auto grown = static_cast<float>(scale * growthFactor);
    const bool grows = static_cast<double>(taken) >= growthInterval;
    next[0] = grows && std::isfinite(grown) ? grown : static_cast<float>(scale);
    next[1] = static_cast<float>(clip / scale);
    next[2] = grows ? 0 : taken;
    next[3] = skipped;
  };
}

}  // namespace

const KernelTable optimizerKernels = {{"sgd", sgd},
                                      {"adamw", adamw},
                                      {"outer_nesterov", outerNesterov},
                                      {"squared_norm", squaredNorm},
                                      {"clip_by_norm", clipByNorm},
                                      {"loss_scale", lossScale}};

}  // namespace tandem

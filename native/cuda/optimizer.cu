// Optimizer steps; argument order as core/kernels/optimizer.ts. In float64 per element, as the reference, but AdamW, whose
// roots and divisions would outweigh its memory: that is float32.
#include "map.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

/** A run of the elements of one tensor of a list, and of those that go with it, which one block takes. */
template <int In, int Out>
struct Stretch {
  MapViews<In, Out> views;
  int64_t count;
  /** What `loss_scale` has made of the gradients, where the call has it. */
  View scaling;
};

constexpr int64_t stretchElements = 256 * pack * 8;

template <int In, int Out, class F>
__global__ void __launch_bounds__(256) stretchKernel(const Stretch<In, Out>* stretches, F f) {
  const Stretch<In, Out>& own = stretches[blockIdx.x];
  for (int64_t i = threadIdx.x * pack; i < own.count; i += 256 * pack) mapPack(own.views, i, own.count, f);
}

/** The same of scaled gradients: `f.at(factor, skipped)` is the step, `f.keep` what a skipped one leaves. */
template <int In, int Out, class F>
__global__ void __launch_bounds__(256) scaledKernel(const Stretch<In, Out>* stretches, F f) {
  const Stretch<In, Out>& own = stretches[blockIdx.x];
  const float factor = get(own.scaling, 1);
  if (factor == 0) {
    const auto keep = [](const float* x, float* y) { F::keep(x, y); };
    for (int64_t i = threadIdx.x * pack; i < own.count; i += 256 * pack) mapPack(own.views, i, own.count, keep);
    return;
  }
  const auto step = f.at(factor, get(own.scaling, 3));
  for (int64_t i = threadIdx.x * pack; i < own.count; i += 256 * pack) mapPack(own.views, i, own.count, step);
}

/** Tensors in lists: all first inputs, then all second ones; outputs likewise. `scaled`: last, what scales each one's gradient. */
template <int In, int Out>
class Lists {
 public:
  explicit Lists(const Call& call, bool scaled = false) : table_(stretches(call, scaled)) {}

  template <class F>
  void map(const Launch& launch, F f) const {
    if (table_.count == 0) return;
    stretchKernel<In, Out, F><<<static_cast<unsigned>(table_.count), 256, 0, launch.stream>>>(table_.data, f);
  }

  template <class F>
  void mapScaled(const Launch& launch, F f) const {
    if (table_.count == 0) return;
    scaledKernel<In, Out, F><<<static_cast<unsigned>(table_.count), 256, 0, launch.stream>>>(table_.data, f);
  }

 private:
  static std::vector<Stretch<In, Out>> stretches(const Call& call, bool scaled) {
    const size_t reads = In + (scaled ? 1 : 0);
    const size_t length = call.inputs.size() / reads;
    if (length == 0 || call.inputs.size() != length * reads || call.outputs.size() != length * Out) {
      throw BadCall(call.kernel + ": " + std::to_string(call.inputs.size()) + " inputs and " +
                    std::to_string(call.outputs.size()) + " outputs; expected " + std::to_string(reads) + " and " +
                    std::to_string(Out) + " for each tensor of a list");
    }
    std::vector<Stretch<In, Out>> all;
    for (size_t i = 0; i < length; i++) {
      const int64_t elements = input(call, i).elements;
      for (int64_t at = 0; at < elements; at += stretchElements) {
        Stretch<In, Out> one{};
        for (size_t k = 0; k < In; k++) one.views.in[k] = floatsIn(call, k * length + i).at(at);
        for (size_t k = 0; k < Out; k++) one.views.out[k] = floatsOut(call, k * length + i).at(at);
        one.count = std::min(stretchElements, elements - at);
        if (scaled) one.scaling = floatsIn(call, In * length + i);
        all.push_back(one);
      }
    }
    return all;
  }

  const Table<Stretch<In, Out>> table_;
};

/** The new parameters, `out` 0, once more in the dtype of the last output. */
template <class F, int out>
struct WithShadow {
  F step;
  __device__ void operator()(const float* x, float* y) const {
    step(x, y);
    y[out] = y[0];
  }
};

/** A step that a device knows when it has read what scales its gradient. */
template <class F, int out>
struct ScaledShadow {
  F step;
  __device__ auto at(float factor, float skipped) const {
    return WithShadow<decltype(step.at(factor, skipped)), out>{step.at(factor, skipped)};
  }
  static __device__ void keep(const float* x, float* y) {
    F::keep(x, y);
    y[out] = y[0];
  }
};

/** `stepOf(scalars)` of each element, and a shadow of the parameters where the call wants one; `scaledOf` where it is scaled. */
template <int In, int Out, class StepOf, class ScaledOf>
Work stepLists(const Call& call, StepOf stepOf, ScaledOf scaledOf) {
  using Step = decltype(stepOf(nullptr));
  using Scaled = decltype(scaledOf(nullptr));
  const bool shadow = call.flag("shadow");
  const bool scaled = call.flag("scaled");
  if (!shadow) {
    const Lists<In, Out> lists(call, scaled);
    if (scaled) return [=](const Launch& launch) { lists.mapScaled(launch, scaledOf(launch.scalars)); };
    return [=](const Launch& launch) { lists.map(launch, stepOf(launch.scalars)); };
  }
  const Lists<In, Out + 1> lists(call, scaled);
  if (scaled) {
    return [=](const Launch& launch) { lists.mapScaled(launch, ScaledShadow<Scaled, Out>{scaledOf(launch.scalars)}); };
  }
  return [=](const Launch& launch) { lists.map(launch, WithShadow<Step, Out>{stepOf(launch.scalars)}); };
}

/** A gradient as it is; `Times` is one whose loss was scaled. */
struct AsItIs {
  __device__ double operator()(float gradient) const { return static_cast<double>(gradient); }
};

struct Times {
  double factor;
  __device__ double operator()(float gradient) const { return static_cast<double>(gradient) * factor; }
};

struct Sgd {
  double learningRate, momentum, dampening, weightDecay;
  bool nesterov, first;
};

template <class Gradient>
struct SgdStep {
  Sgd a;
  Gradient of;
  __device__ void operator()(const float* x, float* y) const {
    const double params = x[0];
    const double gradient = of(x[1]) + a.weightDecay * params;
    const double moment = a.first ? gradient : a.momentum * static_cast<double>(x[2]) + (1 - a.dampening) * gradient;
    const double change = a.nesterov ? gradient + a.momentum * moment : moment;
    y[0] = static_cast<float>(params - a.learningRate * change);
    y[1] = static_cast<float>(moment);
  }
};

struct ScaledSgd {
  Sgd a;
  double step;
  __device__ SgdStep<Times> at(float factor, float skipped) const {
    Sgd with = a;
    with.first = step - static_cast<double>(skipped) == 1;
    return {with, {static_cast<double>(factor)}};
  }
  static __device__ void keep(const float* x, float* y) {
    y[0] = x[0];
    y[1] = x[2];
  }
};

template <class Gradient>
struct PlainSgdStep {
  double learningRate, weightDecay;
  Gradient of;
  __device__ void operator()(const float* x, float* y) const {
    const double params = x[0];
    y[0] = static_cast<float>(params - learningRate * (of(x[1]) + weightDecay * params));
  }
};

struct ScaledPlainSgd {
  double learningRate, weightDecay;
  __device__ PlainSgdStep<Times> at(float factor, float) const {
    return {learningRate, weightDecay, {static_cast<double>(factor)}};
  }
  static __device__ void keep(const float* x, float* y) { y[0] = x[0]; }
};

Work sgd(const Call& call) {
  const Sgd a = {0, call.number("momentum"), call.number("dampening"), call.number("weightDecay"), call.flag("nesterov"), false};
  const Scalar learningRate = call.scalar("learningRate");
  const Scalar step = call.scalar("step");
  if (a.nesterov && (a.momentum == 0 || a.dampening != 0)) {
    throw BadCall("sgd: nesterov needs a momentum and zero dampening");
  }
  if (a.momentum == 0) {
    return stepLists<2, 1>(
        call, [=](const double* scalars) { return PlainSgdStep<AsItIs>{learningRate(scalars), a.weightDecay, {}}; },
        [=](const double* scalars) { return ScaledPlainSgd{learningRate(scalars), a.weightDecay}; });
  }
  const auto at = [=](const double* scalars) {
    Sgd with = a;
    with.learningRate = learningRate(scalars);
    with.first = step(scalars) == 1;
    return with;
  };
  return stepLists<3, 2>(
      call, [=](const double* scalars) { return SgdStep<AsItIs>{at(scalars), {}}; },
      [=](const double* scalars) { return ScaledSgd{at(scalars), step(scalars)}; });
}

struct AdamwStep {
  float rate, decay, beta1, rest1, beta2, rest2, epsilon, root2;

  __device__ void operator()(const float* x, float* y) const {
    const float gradient = x[1];
    const float first = beta1 * x[2] + rest1 * gradient;
    const float second = beta2 * x[3] + rest2 * (gradient * gradient);
    y[1] = first;
    y[2] = second;
    y[0] = x[0] - decay * x[0] - rate * first / (sqrtf(second) * root2 + epsilon);
  }
};

struct Adamw {
  double beta1, beta2, epsilon, weightDecay;

  __host__ __device__ AdamwStep at(double rate, double step) const {
    return {static_cast<float>(rate / (1 - pow(beta1, step))),
            static_cast<float>(rate * weightDecay),
            static_cast<float>(beta1),
            static_cast<float>(1 - beta1),
            static_cast<float>(beta2),
            static_cast<float>(1 - beta2),
            static_cast<float>(epsilon),
            static_cast<float>(1 / sqrt(1 - pow(beta2, step)))};
  }
};

struct ScaledAdamwStep {
  AdamwStep step;
  float factor;
  __device__ void operator()(const float* x, float* y) const {
    const float scaled[4] = {x[0], x[1] * factor, x[2], x[3]};
    step(scaled, y);
  }
};

struct ScaledAdamw {
  Adamw a;
  double rate, step;
  __device__ ScaledAdamwStep at(float factor, float skipped) const {
    return {a.at(rate, step - static_cast<double>(skipped)), factor};
  }
  static __device__ void keep(const float* x, float* y) {
    y[0] = x[0];
    y[1] = x[2];
    y[2] = x[3];
  }
};

Work adamw(const Call& call) {
  const Scalar learningRate = call.scalar("learningRate");
  const Scalar step = call.scalar("step");
  const Adamw a = {call.number("beta1"), call.number("beta2"), call.number("epsilon"), call.number("weightDecay")};
  const auto checked = [](double at) {
    if (!(at >= 1)) throw BadCall("adamw: step is " + std::to_string(at) + "; the first step is 1");
    return at;
  };
  if (step.index < 0) checked(step.fixed);
  return stepLists<4, 3>(
      call, [=](const double* scalars) { return a.at(learningRate(scalars), checked(step(scalars))); },
      [=](const double* scalars) { return ScaledAdamw{a, learningRate(scalars), checked(step(scalars))}; });
}

struct NesterovStep {
  double learningRate, momentum;
  __device__ void operator()(const float* x, float* y) const {
    const double change = x[2];
    const double moment = momentum * static_cast<double>(x[1]) + change;
    y[0] = static_cast<float>(static_cast<double>(x[0]) - learningRate * (change + momentum * moment));
    y[1] = static_cast<float>(moment);
  }
};

Work outerNesterov(const Call& call) {
  const Scalar learningRate = call.scalar("learningRate");
  const double momentum = call.number("momentum");
  const Lists<3, 2> lists(call);
  return [=](const Launch& launch) { lists.map(launch, NesterovStep{learningRate(launch.scalars), momentum}); };
}

/** A run of elements of one tensor, which one block takes. */
struct Slice {
  View from, to;
  int64_t count;
};

constexpr int64_t sliceElements = 256 * pack * 8;

void slice(std::vector<Slice>& slices, const View& from, const View& to, int64_t elements) {
  for (int64_t at = 0; at < elements; at += sliceElements) {
    slices.push_back({from.at(at), to.data == nullptr ? to : to.at(at), std::min(sliceElements, elements - at)});
  }
}

__global__ void __launch_bounds__(256) sliceSquares(const Slice* slices, double* sums) {
  const Slice own = slices[blockIdx.x];
  double sum = 0;
  for (int64_t i = threadIdx.x * pack; i < own.count; i += 256 * pack) {
    float values[pack];
    getSome(own.from, i, own.count, i + pack <= own.count, values);
#pragma unroll
    for (int j = 0; j < pack; j++) sum += static_cast<double>(values[j]) * static_cast<double>(values[j]);
  }
  const double total = blockSum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

__global__ void sumSquares(const double* sums, int64_t count, View out) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
  const double total = blockSum(sum);
  if (threadIdx.x == 0) set(out, 0, static_cast<float>(total));
}

Work squaredNorm(const Call& call) {
  std::vector<Slice> slices;
  for (size_t i = 0; i < call.inputs.size(); i++) slice(slices, floatsIn(call, i), View{}, call.inputs[i].elements);
  const Table<Slice> table(slices);
  const View out = floatsOut(call, 0);
  return [=](const Launch& launch) {
    const Scratch scratch(launch, static_cast<size_t>(table.count + 1) * sizeof(double));
    auto* sums = scratch.as<double>();
    if (table.count > 0) sliceSquares<<<static_cast<unsigned>(table.count), 256, 0, launch.stream>>>(table.data, sums);
    sumSquares<<<1, 1024, 0, launch.stream>>>(sums, table.count, out);
  };
}

__global__ void __launch_bounds__(256) clipSlices(const Slice* slices, View sum, double maxNorm) {
  const Slice own = slices[blockIdx.x];
  // Math.min: NaN if the norm is
  const double ratio = maxNorm / (sqrt(static_cast<double>(get(sum, 0))) + 1e-6);
  const double factor = isnan(ratio) ? ratio : ratio < 1 ? ratio : 1;
  for (int64_t i = threadIdx.x * pack; i < own.count; i += 256 * pack) {
    float values[pack];
    const bool whole = i + pack <= own.count;
    getSome(own.from, i, own.count, whole, values);
#pragma unroll
    for (int j = 0; j < pack; j++) values[j] = static_cast<float>(factor * static_cast<double>(values[j]));
    setSome(own.to, i, own.count, whole, values);
  }
}

Work clipByNorm(const Call& call) {
  const double maxNorm = call.number("maxNorm");
  const View sum = floatsIn(call, 0);
  std::vector<Slice> slices;
  for (size_t i = 0; i < call.outputs.size(); i++) {
    slice(slices, floatsIn(call, i + 1), floatsOut(call, i), call.outputs[i].elements);
  }
  const Table<Slice> table(slices);
  return [=](const Launch& launch) {
    if (table.count == 0) return;
    clipSlices<<<static_cast<unsigned>(table.count), 256, 0, launch.stream>>>(table.data, sum, maxNorm);
  };
}

struct LossScale {
  double maxNorm, growthInterval, growthFactor, backoffFactor, leastScale;
};

__global__ void nextScale(LossScale a, View sum, const float* scaling, float* next) {
  const double scale = scaling[0];
  const double squares = get(sum, 0);
  const float taken = scaling[2] + 1;
  const float skipped = scaling[3];
  if (!isfinite(squares)) {
    next[0] = static_cast<float>(fmax(a.leastScale, scale * a.backoffFactor));
    next[1] = 0;
    next[2] = 0;
    next[3] = skipped + 1;
    return;
  }
  const double clip = a.maxNorm > 0 ? fmin(1.0, a.maxNorm / (sqrt(squares) / scale + 1e-6)) : 1;
  const auto grown = static_cast<float>(scale * a.growthFactor);
  const bool grows = static_cast<double>(taken) >= a.growthInterval;
  next[0] = grows && isfinite(grown) ? grown : static_cast<float>(scale);
  next[1] = static_cast<float>(clip / scale);
  next[2] = grows ? 0 : taken;
  next[3] = skipped;
}

Work lossScale(const Call& call) {
  const LossScale a = {call.number("maxNorm"), call.number("growthInterval"), call.number("growthFactor"), call.number("backoffFactor"),
                       call.number("leastScale")};
  const View sum = floatsIn(call, 0);
  const auto* scaling = static_cast<const float*>(floatsIn(call, 1).data);
  auto* next = static_cast<float*>(floatsOut(call, 0).data);
  return [=](const Launch& launch) { nextScale<<<1, 1, 0, launch.stream>>>(a, sum, scaling, next); };
}

}  // namespace

const KernelTable optimizerKernels = {{"sgd", sgd},
                                      {"adamw", adamw},
                                      {"outer_nesterov", outerNesterov},
                                      {"squared_norm", squaredNorm},
                                      {"clip_by_norm", clipByNorm},
                                      {"loss_scale", lossScale}};

}  // namespace tandem::cuda

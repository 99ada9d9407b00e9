// Elementwise arithmetic; argument order as core/kernels/elementwise.ts. Results equal the reference's bit for bit. Every
// kernel may run in place.
#include "map.cuh"

namespace tandem::cuda {

namespace {

bool anyInteger(const Call& call) {
  for (const Operand& operand : call.inputs) {
    if (isInteger(operand.dtype)) return true;
  }
  for (const Operand& operand : call.outputs) {
    if (isInteger(operand.dtype)) return true;
  }
  return false;
}

struct CopyEach {
  View to, from;
  __device__ void operator()(int64_t i) const { copyElement(to, i, from, i); }
};

Work copyValues(const Call& call) {
  const View from = viewOf(input(call, 0));
  const View to = viewOf(output(call, 0));
  const int64_t count = output(call, 0).elements;
  if (from.data == to.data) return [](const Launch&) {};
  if (from.dtype == to.dtype) {
    const auto bytes = static_cast<size_t>(count * storedBytes(to.dtype));
    return [=](const Launch& launch) {
      check(cudaMemcpyAsync(to.data, from.data, bytes, cudaMemcpyDeviceToDevice, launch.stream), "cudaMemcpyAsync");
    };
  }
  return [=](const Launch& launch) { each(launch, count, CopyEach{to, from}); };
}

Work zero(const Call& call) {
  const View out = viewOf(output(call, 0));
  const auto bytes = static_cast<size_t>(output(call, 0).elements * storedBytes(out.dtype));
  return [=](const Launch& launch) { check(cudaMemsetAsync(out.data, 0, bytes, launch.stream), "cudaMemsetAsync"); };
}

/** a x + b y in float64, which for a and b of one is what float32 gives. */
struct Combine {
  double a, b;
  __device__ void operator()(const float* x, float* y) const {
    y[0] = static_cast<float>(a * static_cast<double>(x[0]) + b * static_cast<double>(x[1]));
  }
};

struct Sum {
  float sign;
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] + sign * x[1]; }
};

struct CombineNumbers {
  double a, b;
  View x, y, out;
  __device__ void operator()(int64_t i) const { setNumber(out, i, a * getNumber(x, i) + b * getNumber(y, i)); }
};

/** `factors(scalars)`: a and b of a launch. */
template <class Factors>
Work combineBy(const Call& call, Factors factors) {
  const View x = viewOf(input(call, 0));
  const View y = viewOf(input(call, 1));
  const View out = viewOf(output(call, 0));
  const int64_t count = output(call, 0).elements;
  if (anyInteger(call)) {
    return [=](const Launch& launch) {
      const Combine by = factors(launch.scalars);
      each(launch, count, CombineNumbers{by.a, by.b, x, y, out});
    };
  }
  const MapViews<2, 1> views = {{x, y}, {out}};
  return [=](const Launch& launch) { map(launch, views, count, factors(launch.scalars)); };
}

/** x + y, or x - y. */
Work combine(const Call& call, double sign) {
  if (anyInteger(call)) return combineBy(call, [=](const double*) { return Combine{1, sign}; });
  const MapViews<2, 1> views = {{viewOf(input(call, 0)), viewOf(input(call, 1))}, {viewOf(output(call, 0))}};
  const int64_t count = output(call, 0).elements;
  return [=](const Launch& launch) { map(launch, views, count, Sum{static_cast<float>(sign)}); };
}

Work add(const Call& call) { return combine(call, 1); }
Work subtract(const Call& call) { return combine(call, -1); }
Work lerp(const Call& call) {
  const Scalar weight = call.scalar("weight");
  return combineBy(call, [=](const double* scalars) { return Combine{1 - weight(scalars), weight(scalars)}; });
}

struct Scale {
  double factor;
  __device__ void operator()(const float* x, float* y) const {
    y[0] = static_cast<float>(factor * static_cast<double>(x[0]));
  }
};

struct ScaleNumbers {
  double factor;
  View x, out;
  __device__ void operator()(int64_t i) const { setNumber(out, i, factor * getNumber(x, i)); }
};

Work scale(const Call& call) {
  const Scalar factor = call.scalar("factor");
  const View x = viewOf(input(call, 0));
  const View out = viewOf(output(call, 0));
  const int64_t count = output(call, 0).elements;
  if (anyInteger(call)) {
    return [=](const Launch& launch) { each(launch, count, ScaleNumbers{factor(launch.scalars), x, out}); };
  }
  const MapViews<1, 1> views = {{x}, {out}};
  return [=](const Launch& launch) { map(launch, views, count, Scale{factor(launch.scalars)}); };
}

struct AverageEach {
  const View* inputs;
  int64_t of;
  View out;
  __device__ void operator()(int64_t i) const {
    double sum = 0;
    for (int64_t k = 0; k < of; k++) sum += getNumber(inputs[k], i);
    setNumber(out, i, sum / static_cast<double>(of));
  }
};

Work average(const Call& call) {
  std::vector<View> inputs;
  for (const Operand& operand : call.inputs) inputs.push_back(viewOf(operand));
  const Table<View> table(inputs);
  const View out = viewOf(output(call, 0));
  const int64_t count = output(call, 0).elements;
  return [=](const Launch& launch) { each(launch, count, AverageEach{table.data, table.count, out}); };
}

struct Spread {
  __device__ void operator()(const float* x, float* y) const { y[0] = y[1] = x[0]; }
};

/** Both gradients of a residual addition are its output's. */
Work spread(const Call& call) {
  const MapViews<1, 2> views = {{floatsIn(call, 0)}, {floatsOut(call, 0), floatsOut(call, 1)}};
  const int64_t count = input(call, 0).elements;
  return [=](const Launch& launch) { map(launch, views, count, Spread{}); };
}

}  // namespace

const KernelTable elementwiseKernels = {
    {"copy", copyValues}, {"zero", zero},       {"add", add},              {"subtract", subtract},       {"scale", scale},
    {"lerp", lerp},       {"average", average}, {"residual.forward", add}, {"residual.backward", spread}};

}  // namespace tandem::cuda

// Elementwise arithmetic; argument order as core/kernels/elementwise.ts. In float64, so that results equal the reference's bit
// for bit. Every kernel may run in place.
#include <cstring>

#include "kernels.h"
#include "simd.h"

namespace tandem {

namespace {

Work copyValues(const Call& call) {
  const Values from = valuesOf(input(call, 0));
  const Values to = valuesOf(output(call, 0));
  const int64_t count = output(call, 0).elements;
  return [=](const double*) {
    if (from.data == to.data || count == 0) return;
    if (from.integers == to.integers) {
      std::memcpy(to.data, from.data, static_cast<size_t>(count) * 4);
    } else {
      for (int64_t i = 0; i < count; i++) to.set(i, from.get(i));
    }
  };
}

Work zero(const Call& call) {
  void* out = output(call, 0).data;
  const auto bytes = static_cast<size_t>(output(call, 0).elements) * 4;
  return [=](const double*) {
    if (bytes > 0) std::memset(out, 0, bytes);
  };
}

/** a * x + b * y; with a or b of 1 or -1 the products are exact. */
TANDEM_SIMD void combineFloats(int64_t count, double a, const float* x, double b, const float* y, float* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    out[i] = static_cast<float>(a * static_cast<double>(x[i]) + b * static_cast<double>(y[i]));
  }
}

/** out = a x + b y; what a launch says of a and b is asked for when it runs. */
template <class Factors>
Work combine(const Call& call, Factors factors) {
  const Values x = valuesOf(input(call, 0));
  const Values y = valuesOf(input(call, 1));
  const Values out = valuesOf(output(call, 0));
  const int64_t count = output(call, 0).elements;
  return [=](const double* scalars) {
    const auto [a, b] = factors(scalars);
    if (!x.integers && !y.integers && !out.integers) {
      combineFloats(count, a, static_cast<const float*>(x.data), b, static_cast<const float*>(y.data),
                    static_cast<float*>(out.data));
    } else {
      for (int64_t i = 0; i < count; i++) out.set(i, a * x.get(i) + b * y.get(i));
    }
  };
}

using Pair = std::pair<double, double>;

Work add(const Call& call) {
  return combine(call, [](const double*) { return Pair{1, 1}; });
}
Work subtract(const Call& call) {
  return combine(call, [](const double*) { return Pair{1, -1}; });
}
Work lerp(const Call& call) {
  return combine(call, [weight = call.scalar("weight")](const double* scalars) {
    return Pair{1 - weight(scalars), weight(scalars)};
  });
}

TANDEM_SIMD void scaleFloats(int64_t count, double factor, const float* x, float* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) out[i] = static_cast<float>(factor * static_cast<double>(x[i]));
}

Work scale(const Call& call) {
  const Scalar given = call.scalar("factor");
  const Values x = valuesOf(input(call, 0));
  const Values out = valuesOf(output(call, 0));
  const int64_t count = output(call, 0).elements;
  return [=](const double* scalars) {
    const double factor = given(scalars);
    if (!x.integers && !out.integers) {
      scaleFloats(count, factor, static_cast<const float*>(x.data), static_cast<float*>(out.data));
    } else {
      for (int64_t i = 0; i < count; i++) out.set(i, factor * x.get(i));
    }
  };
}

Work average(const Call& call) {
  std::vector<Values> inputs;
  for (const Operand& operand : call.inputs) inputs.push_back(valuesOf(operand));
  const Values out = valuesOf(output(call, 0));
  const int64_t count = output(call, 0).elements;
  return [=](const double*) {
    for (int64_t i = 0; i < count; i++) {
      double sum = 0;
      for (const Values& values : inputs) sum += values.get(i);
      out.set(i, sum / static_cast<double>(inputs.size()));
    }
  };
}

/** Both gradients of a residual addition are its output's. */
Work spread(const Call& call) {
  const Values from = valuesOf(input(call, 0));
  const Values first = valuesOf(output(call, 0));
  const Values second = valuesOf(output(call, 1));
  const int64_t count = input(call, 0).elements;
  return [=](const double*) {
    for (int64_t i = 0; i < count; i++) {
      const double value = from.get(i);
      first.set(i, value);
      second.set(i, value);
    }
  };
}

}  // namespace

const KernelTable elementwiseKernels = {
    {"copy", copyValues},  {"zero", zero}, {"add", add},         {"subtract", subtract},     {"scale", scale},
    {"lerp", lerp}, {"average", average}, {"residual.forward", add}, {"residual.backward", spread}};

}  // namespace tandem

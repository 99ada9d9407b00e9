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
  return [=] {
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
  return [=] {
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

Work combine(const Call& call, double a, double b) {
  const Values x = valuesOf(input(call, 0));
  const Values y = valuesOf(input(call, 1));
  const Values out = valuesOf(output(call, 0));
  const int64_t count = output(call, 0).elements;
  return [=] {
    if (!x.integers && !y.integers && !out.integers) {
      combineFloats(count, a, static_cast<const float*>(x.data), b, static_cast<const float*>(y.data),
                    static_cast<float*>(out.data));
    } else {
      for (int64_t i = 0; i < count; i++) out.set(i, a * x.get(i) + b * y.get(i));
    }
  };
}

Work add(const Call& call) { return combine(call, 1, 1); }
Work subtract(const Call& call) { return combine(call, 1, -1); }
Work lerp(const Call& call) { return combine(call, 1 - call.number("weight"), call.number("weight")); }

TANDEM_SIMD void scaleFloats(int64_t count, double factor, const float* x, float* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) out[i] = static_cast<float>(factor * static_cast<double>(x[i]));
}

Work scale(const Call& call) {
  const double factor = call.number("factor");
  const Values x = valuesOf(input(call, 0));
  const Values out = valuesOf(output(call, 0));
  const int64_t count = output(call, 0).elements;
  return [=] {
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
  return [=] {
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
  return [=] {
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

// Non-linearities of feed-forward layers; argument order as core/kernels/activation.ts. In float32.
#include "kernels.h"
#include "simd.h"

namespace tandem {

namespace {

constexpr float root = 0.7978845608f;  // sqrt(2 / pi)
constexpr float cubic = 0.044715f;

TANDEM_INLINE float sigmoid(float x) { return 1.0f / (1.0f + expOf(-x)); }

/** 0.5 x (1 + tanh(u)) = x sigmoid(2 u). */
TANDEM_SIMD void gelu(int64_t count, const float* inp, float* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    const float x = inp[i];
    out[i] = x * sigmoid(2 * root * (x + cubic * x * x * x));
  }
}

Work geluForward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  float* out = floatsOut(call, 0);
  const int64_t count = input(call, 0).elements;
  return [=](const double*) { gelu(count, inp, out); };
}

/** d/dx x s(2u) = s + 2 x s (1 - s) u', u' = root (1 + 3 cubic x^2). */
TANDEM_SIMD void geluGradient(int64_t count, const float* inp, const float* dout, float* dinp) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    const float x = inp[i];
    const float s = sigmoid(2 * root * (x + cubic * x * x * x));
    const float rest = sigmoid(-2 * root * (x + cubic * x * x * x));
    const float slope = root * (1 + 3 * cubic * x * x);
    dinp[i] = dout[i] * (s + 2 * x * s * rest * slope);
  }
}

Work geluBackward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  const float* dout = floatsIn(call, 1);
  float* dinp = floatsOut(call, 0);
  const int64_t count = input(call, 0).elements;
  return [=](const double*) { geluGradient(count, inp, dout, dinp); };
}

/** Where a row's gate and up elements lie: side by side in one tensor, or in two. */
struct GateUp {
  const float* gate;
  const float* up;
  int64_t stride, rows, width;
};

GateUp gateUpOf(const Call& call, bool packed) {
  const Operand& first = input(call, 0);
  const int64_t width = packed ? widthOf(first) / 2 : widthOf(first);
  const float* gate = floatsIn(call, 0);
  return {gate, packed ? gate + width : floatsIn(call, 1), packed ? 2 * width : width, rowsOf(first), width};
}

TANDEM_SIMD void swiglu(const GateUp& in, float* out) {
  for (int64_t row = 0; row < in.rows; row++) {
    const float* gate = in.gate + row * in.stride;
    const float* up = in.up + row * in.stride;
    float* y = out + row * in.width;
#pragma GCC ivdep
    for (int64_t c = 0; c < in.width; c++) y[c] = gate[c] * sigmoid(gate[c]) * up[c];
  }
}

Work swigluForward(const Call& call) {
  const GateUp in = gateUpOf(call, call.flag("packed"));
  float* out = floatsOut(call, 0);
  return [=](const double*) { swiglu(in, out); };
}

TANDEM_SIMD void swigluGradient(const GateUp& in, const float* dout, float* dgate, float* dup) {
  for (int64_t row = 0; row < in.rows; row++) {
    const float* gate = in.gate + row * in.stride;
    const float* up = in.up + row * in.stride;
    const float* dy = dout + row * in.width;
    float* dg = dgate + row * in.stride;
    float* du = dup + row * in.stride;
#pragma GCC ivdep
    for (int64_t c = 0; c < in.width; c++) {
      const float x = gate[c];
      const float y = up[c];
      const float gradient = dy[c];
      const float s = sigmoid(x);
      dg[c] = gradient * y * s * (1 + x * (1 - s));
      du[c] = gradient * x * s;
    }
  }
}

Work swigluBackward(const Call& call) {
  const bool packed = call.flag("packed");
  const GateUp in = gateUpOf(call, packed);
  const float* dout = floatsIn(call, packed ? 1 : 2);
  float* dgate = floatsOut(call, 0);
  float* dup = packed ? dgate + in.width : floatsOut(call, 1);
  return [=](const double*) { swigluGradient(in, dout, dgate, dup); };
}

}  // namespace

const KernelTable activationKernels = {{"gelu.forward", geluForward},
                                       {"gelu.backward", geluBackward},
                                       {"swiglu.forward", swigluForward},
                                       {"swiglu.backward", swigluBackward}};

}  // namespace tandem

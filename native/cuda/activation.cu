// Non-linearities of feed-forward layers; argument order as core/kernels/activation.ts. In float32.
#include "gelu.cuh"
#include "map.cuh"

namespace tandem::cuda {

namespace {

struct Gelu {
  __device__ void operator()(const float* in, float* out) const {
    out[0] = gelu(in[0]);
  }
};

Work geluForward(const Call& call) {
  const MapViews<1, 1> views = {{floatsIn(call, 0)}, {floatsOut(call, 0)}};
  const int64_t count = input(call, 0).elements;
  return [=](const Launch& launch) { map(launch, views, count, Gelu{}); };
}

struct GeluGradient {
  __device__ void operator()(const float* in, float* out) const {
    out[0] = in[1] * geluSlope(in[0]);
  }
};

Work geluBackward(const Call& call) {
  const MapViews<2, 1> views = {{floatsIn(call, 0), floatsIn(call, 1)}, {floatsOut(call, 0)}};
  const int64_t count = input(call, 0).elements;
  return [=](const Launch& launch) { map(launch, views, count, GeluGradient{}); };
}

/** Where a row's gate and up elements lie: side by side in one tensor, or in two. */
struct GateUp {
  View gate, up;
  int64_t gateStride, upStride, rows, width;
  bool whole;
};

GateUp gateUpOf(const Call& call, const std::vector<Operand>& operands, bool packed) {
  const Operand& first = operands.at(0);
  const int64_t width = packed ? widthOf(first) / 2 : widthOf(first);
  const View gate = floatsOf(call, first);
  const View up = packed ? gate.at(width) : floatsOf(call, operands.at(1));
  const int64_t stride = packed ? 2 * width : width;
  return {gate, up, stride, stride, rowsOf(first), width, width % pack == 0};
}

struct Swiglu {
  GateUp in;
  View out;
  int64_t packs;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / packs;
    const int64_t c = i % packs * pack;
    float gate[pack], up[pack], y[pack];
    getSome(in.gate.at(row * in.gateStride), c, in.width, in.whole, gate);
    getSome(in.up.at(row * in.upStride), c, in.width, in.whole, up);
#pragma unroll
    for (int j = 0; j < pack; j++) y[j] = gate[j] * sigmoid(gate[j]) * up[j];
    setSome(out.at(row * in.width), c, in.width, in.whole, y);
  }
};

Work swigluForward(const Call& call) {
  const GateUp in = gateUpOf(call, call.inputs, call.flag("packed"));
  const View out = floatsOut(call, 0);
  const int64_t packs = ceilDiv(in.width, pack);
  return [=](const Launch& launch) { each(launch, in.rows * packs, Swiglu{in, out, packs}); };
}

struct SwigluGradient {
  GateUp in, to;
  View dout;
  int64_t packs;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / packs;
    const int64_t c = i % packs * pack;
    float gate[pack], up[pack], dy[pack], dgate[pack], dup[pack];
    getSome(in.gate.at(row * in.gateStride), c, in.width, in.whole, gate);
    getSome(in.up.at(row * in.upStride), c, in.width, in.whole, up);
    getSome(dout.at(row * in.width), c, in.width, in.whole, dy);
#pragma unroll
    for (int j = 0; j < pack; j++) {
      const float s = sigmoid(gate[j]);
      dgate[j] = dy[j] * up[j] * s * (1 + gate[j] * (1 - s));
      dup[j] = dy[j] * gate[j] * s;
    }
    setSome(to.gate.at(row * to.gateStride), c, in.width, in.whole, dgate);
    setSome(to.up.at(row * to.upStride), c, in.width, in.whole, dup);
  }
};

Work swigluBackward(const Call& call) {
  const bool packed = call.flag("packed");
  const GateUp in = gateUpOf(call, call.inputs, packed);
  const GateUp to = gateUpOf(call, call.outputs, packed);
  const View dout = floatsIn(call, packed ? 1 : 2);
  const int64_t packs = ceilDiv(in.width, pack);
  return [=](const Launch& launch) { each(launch, in.rows * packs, SwigluGradient{in, to, dout, packs}); };
}

}  // namespace

const KernelTable activationKernels = {{"gelu.forward", geluForward},
                                       {"gelu.backward", geluBackward},
                                       {"swiglu.forward", swigluForward},
                                       {"swiglu.backward", swigluBackward}};

}  // namespace tandem::cuda

// Narrow formats for values that travel; argument order as core/kernels/packing.ts, and equal to it bit for bit.
#include "map.cuh"
#include "packing.cuh"

namespace tandem::cuda {

namespace {

int64_t blockSize(const Call& call, int64_t elements) {
  const int64_t block = call.integer("block");
  return block == 0 ? std::max<int64_t>(1, elements) : block;
}

struct PackEach {
  View inp, out, scales;
  int64_t size;
  Scaled format;
  __device__ void operator()(int64_t i) const {
    const float code = codeOf(get(inp, i), get(scales, i / size), format);
    if (format == Scaled::int8) {
      setInteger(out, i, static_cast<int32_t>(code));
    } else {
      set(out, i, code);
    }
  }
};

template <Scaled format>
Work packTo(const Call& call) {
  const int64_t elements = input(call, 0).elements;
  const int64_t size = blockSize(call, elements);
  const View inp = floatsIn(call, 0);
  const View out = format == Scaled::int8 ? integersOut(call, 0) : floatsOut(call, 0);
  const View scales = floatsOut(call, 1);
  return [=](const Launch& launch) {
    scaleBlocks(launch, inp, elements, size, scales, format);
    each(launch, elements, PackEach{inp, out, scales, size, format});
  };
}

struct UnpackEach {
  View inp, scales, out;
  int64_t size;
  __device__ void operator()(int64_t i) const {
    set(out, i, static_cast<float>(getNumber(inp, i) * static_cast<double>(get(scales, i / size))));
  }
};

Work unpack(const Call& call) {
  const int64_t elements = input(call, 0).elements;
  const int64_t size = blockSize(call, elements);
  const View inp = viewOf(input(call, 0));
  const View scales = floatsIn(call, 1);
  const View out = floatsOut(call, 0);
  return [=](const Launch& launch) { each(launch, elements, UnpackEach{inp, scales, out, size}); };
}

/** To or from bfloat16: the rounding of the output to its dtype does the work. */
Work bfloat16(const Call& call) {
  const MapViews<1, 1> views = {{floatsIn(call, 0)}, {floatsOut(call, 0)}};
  const int64_t elements = input(call, 0).elements;
  return [=](const Launch& launch) { map(launch, views, elements, CopyValue{}); };
}

}  // namespace

const KernelTable packingKernels = {
    {"pack.float4", packTo<Scaled::float4>}, {"unpack.float4", unpack},
    {"pack.float8", packTo<Scaled::float8>}, {"unpack.float8", unpack},
    {"pack.int8", packTo<Scaled::int8>},     {"unpack.int8", unpack},
    {"pack.bfloat16", bfloat16},             {"unpack.bfloat16", bfloat16}};

}  // namespace tandem::cuda

// Narrow formats for values that travel; argument order as core/kernels/packing.ts, and equal to it bit for bit.
#include <algorithm>

#include "kernels.h"
#include "rounding.h"

namespace tandem {

namespace {

int64_t blockSize(const Call& call, int64_t elements) {
  const int64_t block = call.integer("block");
  return block == 0 ? std::max<int64_t>(1, elements) : block;
}

/** Codes of a block at a time, in a cache. */
constexpr int64_t tileValues = 1024;

template <class T>
void packBlocks(const float* inp, T* out, float* scales, int64_t elements, int64_t size, Scaled format) {
  float codes[tileValues];
  for (int64_t start = 0, index = 0; start < elements; start += size, index++) {
    const int64_t end = std::min(elements, start + size);
    const float scale = scaleOf(inp + start, end - start, format);
    scales[index] = scale;
    for (int64_t first = start; first < end; first += tileValues) {
      const int64_t count = std::min(tileValues, end - first);
      codesOf(inp + first, count, scale, format, codes);
      for (int64_t i = 0; i < count; i++) out[first + i] = static_cast<T>(codes[i]);
    }
  }
}

template <Scaled format>
Work pack(const Call& call) {
  const float* inp = floatsIn(call, 0);
  float* scales = floatsOut(call, 1);
  const int64_t elements = input(call, 0).elements;
  const int64_t size = blockSize(call, elements);
  if constexpr (format == Scaled::int8) {
    int32_t* out = integersOut(call, 0);
    return [=](const double*) { packBlocks(inp, out, scales, elements, size, format); };
  } else {
    float* out = floatsOut(call, 0);
    return [=](const double*) { packBlocks(inp, out, scales, elements, size, format); };
  }
}

template <class T>
void unpackBlocks(const T* inp, const float* scales, float* out, int64_t elements, int64_t size) {
  for (int64_t start = 0, index = 0; start < elements; start += size, index++) {
    const int64_t end = std::min(elements, start + size);
    const auto scale = static_cast<double>(scales[index]);
    for (int64_t i = start; i < end; i++) out[i] = static_cast<float>(static_cast<double>(inp[i]) * scale);
  }
}

template <Scaled format>
Work unpack(const Call& call) {
  const float* scales = floatsIn(call, 1);
  float* out = floatsOut(call, 0);
  const int64_t elements = input(call, 0).elements;
  const int64_t size = blockSize(call, elements);
  if constexpr (format == Scaled::int8) {
    const int32_t* inp = integersIn(call, 0);
    return [=](const double*) { unpackBlocks(inp, scales, out, elements, size); };
  } else {
    const float* inp = floatsIn(call, 0);
    return [=](const double*) { unpackBlocks(inp, scales, out, elements, size); };
  }
}

/** To or from bfloat16: the rounding of the output to its dtype does the work. */
Work bfloat16(const Call& call) {
  const float* inp = floatsIn(call, 0);
  float* out = floatsOut(call, 0);
  const int64_t elements = input(call, 0).elements;
  return [=](const double*) { std::copy(inp, inp + elements, out); };
}

}  // namespace

const KernelTable packingKernels = {
    {"pack.float4", pack<Scaled::float4>},     {"unpack.float4", unpack<Scaled::float4>},
    {"pack.float8", pack<Scaled::float8>},     {"unpack.float8", unpack<Scaled::float8>},
    {"pack.int8", pack<Scaled::int8>},         {"unpack.int8", unpack<Scaled::int8>},
    {"pack.bfloat16", bfloat16},               {"unpack.bfloat16", bfloat16}};

}  // namespace tandem

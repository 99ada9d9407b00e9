#include "ordered-sum.h"

#include "rounding.h"
#include "simd.h"

namespace tandem {

namespace {

template <typename Value>
TANDEM_INLINE void add(double* __restrict sums, const Value* __restrict values, int64_t count) {
  for (int64_t i = 0; i < count; i++) sums[i] += static_cast<double>(values[i]);
}

TANDEM_SIMD void addFloats(double* sums, const float* values, int64_t count) { add(sums, values, count); }
TANDEM_SIMD void addIntegers(double* sums, const int32_t* values, int64_t count) { add(sums, values, count); }

TANDEM_SIMD void storeFloats(const double* __restrict sums, int64_t count, double over, float* __restrict to) {
  for (int64_t i = 0; i < count; i++) to[i] = static_cast<float>(sums[i] / over);
}

}  // namespace

void addTo(double* sums, const void* values, int64_t count, bool integers) {
  if (integers) {
    addIntegers(sums, static_cast<const int32_t*>(values), count);
  } else {
    addFloats(sums, static_cast<const float*>(values), count);
  }
}

void storeSums(const double* sums, int64_t count, double over, Dtype dtype, void* to) {
  if (isInteger(dtype)) {
    auto* const data = static_cast<int32_t*>(to);
    for (int64_t i = 0; i < count; i++) data[i] = toInt32(sums[i] / over);
    roundInPlace(data, count, dtype);
  } else {
    auto* const data = static_cast<float*>(to);
    storeFloats(sums, count, over, data);
    roundInPlace(data, count, dtype);
  }
}

}  // namespace tandem

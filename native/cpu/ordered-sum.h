// The sum that every reduction is, among threads and among processes: in float64, one member after another.
#pragma once

#include <cstdint>

#include "../backend.h"

namespace tandem {

/** So many sums stay in the nearest cache while members are added one after another. Even: two values of float4 are a byte. */
constexpr int64_t sumTile = 1024;

/** Adds `count` stored floats or int32s to the sums. Who begins has zeros there: 0 + -0 is 0. */
void addTo(double* sums, const void* values, int64_t count, bool integers);

/** The sums divided by `over`, as a tensor of that dtype stores them. */
void storeSums(const double* sums, int64_t count, double over, Dtype dtype, void* to);

}  // namespace tandem

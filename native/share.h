// How many tokens stay where a share of them does: the rule of core/kernels/kv-cache.ts, on every backend.
#pragma once

#include <cmath>
#include <cstdint>

#include "anywhere.h"

namespace tandem {

/** One at least, where there are any; the slack is for products such as 0.7 * 10, which fall just short of a whole number. */
TANDEM_ANYWHERE inline int64_t shareOf(double keep, int64_t tokens) {
  if (tokens == 0) return 0;
  const auto whole = static_cast<int64_t>(std::floor(keep * static_cast<double>(tokens) + 1e-9));
  return whole < 1 ? 1 : whole;
}

}  // namespace tandem

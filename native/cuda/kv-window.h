// Scores of a window of queries over a whole prompt.
#pragma once

#include "kernels.h"

namespace tandem::cuda {

struct Window {
  View q, k, scores;
  int64_t time, heads, kvHeads, headWidth, window;
  bool softmax;
  /** Of each head's queries the logarithm of the sum of exponentials, where attention has left it. */
  const float* lse;
};

/** On tensor cores, in float32: 16-bit queries and keys, heads 64 or 128 wide, with softmax. False when it is not of that kind. */
bool windowOnTensorCores(const Window& w, Work& work);

}  // namespace tandem::cuda

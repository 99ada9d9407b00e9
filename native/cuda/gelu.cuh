// GELU by its tanh approximation, and its slope; in float32.
#pragma once

namespace tandem::cuda {

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/** sqrt(2 / pi) (x + 0.044715 x^3), twice. */
__device__ inline float geluInner(float x) { return 2 * 0.7978845608f * (x + 0.044715f * x * x * x); }

/** 0.5 x (1 + tanh(u)) = x sigmoid(2 u). */
__device__ inline float gelu(float x) { return x * sigmoid(geluInner(x)); }

/** d/dx x s(2u) = s + 2 x s (1 - s) u', u' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2). */
__device__ inline float geluSlope(float x) {
  const float s = sigmoid(geluInner(x));
  return s + 2 * x * s * (1 - s) * 0.7978845608f * (1 + 3 * 0.044715f * x * x);
}

}  // namespace tandem::cuda

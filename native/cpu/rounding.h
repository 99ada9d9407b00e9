// Rounding to the grid of each dtype, as core/kernels/rounding.ts defines it: to nearest, ties to even, bit for bit.
#pragma once

#include <cstdint>
#include <string>

#include "../backend.h"

namespace tandem {

/** Nearest number of the dtype's grid. Floats overflow to infinity (bfloat16, float16) or saturate (float8, float4). */
double roundTo(Dtype dtype, double x);

/** Rounds every element of a float tensor; float32 is left as it is. */
void roundInPlace(float* data, int64_t count, Dtype dtype);
/** `values` rounded to TF32 where `rounded`; else as they lie. Rounded ones last until the next call of this thread with that `place`. */
const float* asTf32(const float* values, int64_t count, bool rounded, int place);
/** Saturates to int8, if that is what the dtype is. */
void roundInPlace(int32_t* data, int64_t count, Dtype dtype);

/** What JavaScript does when it stores a number in an Int32Array: drop the fraction, wrap. */
int32_t toInt32(double x);

enum class Scaled { float4, float8, int8 };

/**
 * Scale of a block: largest magnitude over the largest grid number, in float32; 0 for a block of zeros, NaN where there is
 * a NaN or an infinity.
 */
float scaleOf(const float* values, int64_t count, Scaled format);
/** The grid numbers of values under that scale, of a block that it is of or a part of one; zeros where the scale is 0 or NaN. */
void codesOf(const float* values, int64_t count, float scale, Scaled format, float* codes);
/** What grid numbers stand for under a scale: the product, which is rounded once. In place is allowed not. */
void valuesOf(const float* codes, int64_t count, float scale, float* values);

/** The dtype of that name. */
Dtype dtypeNamed(const std::string& name);

}  // namespace tandem

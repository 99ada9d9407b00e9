// Rotary position embedding, "rotate half"; argument order as core/kernels/rope.ts.
#include <cmath>

#include "kernels.h"
#include "simd.h"

namespace tandem {

namespace {

struct Rotation {
  int64_t batch, time, heads, half, offset;
  double base;
};

TANDEM_SIMD void rotateTokens(const Rotation& r, const float* inp, float* out, double direction, double* cosines,
                              double* sines) {
  const int64_t headWidth = 2 * r.half;
  for (int64_t t = 0; t < r.time; t++) {
    for (int64_t i = 0; i < r.half; i++) {
      const double angle = static_cast<double>(r.offset + t) *
                           std::pow(r.base, -2.0 * static_cast<double>(i) / static_cast<double>(headWidth));
      cosines[i] = std::cos(angle);
      sines[i] = direction * std::sin(angle);
    }
    for (int64_t b = 0; b < r.batch; b++) {
      for (int64_t h = 0; h < r.heads; h++) {
        const int64_t at = ((b * r.time + t) * r.heads + h) * headWidth;
#pragma GCC ivdep
        for (int64_t i = 0; i < r.half; i++) {
          const auto x = static_cast<double>(inp[at + i]);
          const auto y = static_cast<double>(inp[at + r.half + i]);
          out[at + i] = static_cast<float>(x * cosines[i] - y * sines[i]);
          out[at + r.half + i] = static_cast<float>(y * cosines[i] + x * sines[i]);
        }
      }
    }
  }
}

template <int direction>
Work rotate(const Call& call) {
  const float* inp = floatsIn(call, 0);
  float* out = floatsOut(call, 0);
  const Shape& shape = input(call, 0).shape;
  const int64_t headWidth = call.integer("headWidth");
  const Rotation fixed = {shape.at(0),   shape.at(1), headWidth == 0 ? 0 : shape.at(2) / headWidth,
                          headWidth / 2, 0,           call.number("base")};
  const Scalar offset = call.scalar("offset");
  return [=](const double* scalars) {
    Rotation r = fixed;
    r.offset = static_cast<int64_t>(offset(scalars));
    std::vector<double> angles(static_cast<size_t>(2 * r.half));
    rotateTokens(r, inp, out, direction, angles.data(), angles.data() + r.half);
  };
}

/** Decoding: each row's token at its own position. */
Work rotateRows(const Call& call) {
  const float* inp = floatsIn(call, 0);
  float* out = floatsOut(call, 0);
  const int64_t width = input(call, 0).shape.at(1);
  const int64_t rows = input(call, 0).shape.at(0);
  const int64_t headWidth = call.integer("headWidth");
  const double base = call.number("base");
  const int32_t* positions = integersIn(call, 1);
  return [=](const double*) {
    std::vector<double> angles(static_cast<size_t>(headWidth));
    for (int64_t row = 0; row < rows; row++) {
      const Rotation r = {1, 1, headWidth == 0 ? 0 : width / headWidth, headWidth / 2, positions[row], base};
      const int64_t at = row * width;
      rotateTokens(r, inp + at, out + at, 1, angles.data(), angles.data() + r.half);
    }
  };
}

}  // namespace

const KernelTable ropeKernels = {{"rope.forward", rotate<1>}, {"rope.backward", rotate<-1>}, {"rope.rows", rotateRows}};

}  // namespace tandem

// core/random.ts, on a processor for either backend: sfc32 seeded by a number of up to 53 bits, and a normal number as a sum of twelve
// uniforms.
#pragma once

#include <cmath>
#include <cstdint>

namespace tandem {

class Random {
 public:
  explicit Random(double seed) {
    a_ = low32(seed);
    b_ = low32(std::floor(seed / 4294967296.0));
    for (int i = 0; i < 12; i++) next();
  }

  double normal() {
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += next() / 4294967296.0;
    return sum;
  }

 private:
  static uint32_t low32(double x) {
    if (!std::isfinite(x)) return 0;
    return static_cast<uint32_t>(static_cast<int64_t>(std::fmod(std::trunc(x), 4294967296.0)));
  }

  uint32_t next() {
    const uint32_t t = a_ + b_ + counter_++;
    a_ = b_ ^ (b_ >> 9);
    b_ = c_ + (c_ << 3);
    c_ = ((c_ << 21) | (c_ >> 11)) + t;
    return t;
  }

  uint32_t a_, b_;
  uint32_t c_ = 0x9e3779b9u;
  uint32_t counter_ = 1;
};

}  // namespace tandem

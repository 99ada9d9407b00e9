// What is drawn on the device by counting: batches of a corpus, as core/kernels/token-windows.ts, and initial values, as
// core/kernels/initial-values.ts. Equal to them bit for bit.
#include <algorithm>
#include <cmath>

#include "../drawn.h"
#include "kernels.h"
#include "simd.h"

namespace tandem {

namespace {

Work tokenWindows(const Call& call) {
  const int32_t* corpus = integersIn(call, 0);
  int32_t* tokens = integersOut(call, 0);
  int32_t* targets = integersOut(call, 1);
  const int64_t batch = call.integer("batch");
  const int64_t time = call.integer("time");
  const int64_t places = input(call, 0).elements - time;
  const uint32_t state = mix(low32(call.integer("seed"))) + low32(call.integer("stream"));
  const Scalar step = call.scalar("step");
  return [=, length = input(call, 0).elements](const double* scalars) {
    const uint32_t drawn = mix(mix(state) + low32(static_cast<int64_t>(step(scalars))));
    if (places < 1) {
      throw BadCall("token_windows: a corpus of " + std::to_string(length) + " tokens; a window needs " +
                    std::to_string(time + 1));
    }
    for (int64_t b = 0; b < batch; b++) {
      const int32_t* window = corpus + mix(drawn + low32(b)) % static_cast<uint64_t>(places);
      std::copy(window, window + time, tokens + b * time);
      std::copy(window + 1, window + time + 1, targets + b * time);
    }
  };
}

/** draw(walk, low half of the index, count, to) for stretches of numbers whose high halves are alike. */
template <class Draw>
Work drawing(const Call& call, Draw draw) {
  const Window w = windowOf(call, output(call, 0).elements);
  const Numbers numbers = numbersOf(call.integer("seed"));
  float* out = floatsOut(call, 0);
  return [=](const double*) {
    for (int64_t row = 0; row * w.columns < w.count; row++) {
      const int64_t from = row * w.columns;
      const int64_t columns = std::min(w.columns, w.count - from);
      for (int64_t at = 0; at < columns;) {
        const int64_t index = w.first + row * w.stride + at;
        const int64_t count = std::min(columns - at, (((index >> 32) + 1) << 32) - index);
        draw(numbers.walk(index), low32(index), count, out + w.at + from + at);
        at += count;
      }
    }
  };
}

TANDEM_SIMD void drawNormals(const Numbers& n, uint32_t walk, uint32_t first, int64_t count, double deviation, float* out) {
  const uint32_t keys[6] = {n.keys[0], n.keys[1], n.keys[2], n.keys[3], n.keys[4], n.keys[5]};
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    const uint32_t own = mix(walk + first + static_cast<uint32_t>(i));
    uint32_t sum = 0;
    for (const uint32_t key : keys) {
      const uint32_t drawn = mix(own + key);
      sum += (drawn & 0xffffu) + (drawn >> 16);
    }
    const auto centred = static_cast<int32_t>(2 * sum) - 12 * 0xffff;
    out[i] = static_cast<float>(deviation * (static_cast<double>(centred) / 0x20000));
  }
}

Work normalValues(const Call& call) {
  const Numbers n = numbersOf(call.integer("seed"));
  const double deviation = call.number("deviation");
  return drawing(call, [=](uint32_t walk, uint32_t first, int64_t count, float* out) {
    drawNormals(n, walk, first, count, deviation, out);
  });
}

TANDEM_SIMD void drawUniforms(uint32_t key, uint32_t walk, uint32_t first, int64_t count, double low, double range, float* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    const uint32_t drawn = mix(mix(walk + first + static_cast<uint32_t>(i)) + key);
    out[i] = static_cast<float>(low + range * (static_cast<double>(drawn) / 4294967296.0));
  }
}

Work uniformValues(const Call& call) {
  const uint32_t key = numbersOf(call.integer("seed")).keys[0];
  const double low = call.number("low");
  const double range = call.number("high") - low;
  return drawing(call, [=](uint32_t walk, uint32_t first, int64_t count, float* out) {
    drawUniforms(key, walk, first, count, low, range, out);
  });
}

Work constantValues(const Call& call) {
  const Window w = windowOf(call, output(call, 0).elements);
  const auto value = static_cast<float>(call.number("value"));
  float* out = floatsOut(call, 0);
  return [=](const double*) { std::fill_n(out + w.at, w.count, value); };
}

}  // namespace

const KernelTable drawnKernels = {{"token_windows", tokenWindows},
                                  {"normal_values", normalValues},
                                  {"uniform_values", uniformValues},
                                  {"constant_values", constantValues}};

}  // namespace tandem

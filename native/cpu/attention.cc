// Grouped-query attention; argument order as core/kernels/attention.ts. A tile of queries at a time: its scores are one
// product with the keys it may see, so memory grows with the context and not with its square.
#include <algorithm>
#include <cmath>

#include "gemm.h"
#include "kernels.h"
#include "simd.h"

namespace tandem {

namespace {

constexpr int64_t tileQueries = 64;

/** One of q, k, v or their gradients: head h of token t begins at data + t * stride + h * headWidth. */
struct View {
  float* data;
  int64_t stride;

  float* at(int64_t token, int64_t head, int64_t headWidth) const { return data + token * stride + head * headWidth; }
  Matrix matrix(int64_t token, int64_t head, int64_t headWidth) const { return {at(token, head, headWidth), stride, 1}; }
};

struct Attention {
  int64_t batch, time, context, heads, kvHeads, headWidth;
  bool causal;
  float scale;
  View q, k, v;

  int64_t kvHead(int64_t head) const { return head / (heads / kvHeads); }
  /** How many keys query t sees. */
  int64_t visible(int64_t t) const { return causal ? context - time + t + 1 : context; }
};

Attention attentionOf(const Call& call, size_t first) {
  Attention a{};
  a.heads = call.integer("heads");
  a.kvHeads = call.integer("kvHeads");
  a.headWidth = call.integer("headWidth");
  a.causal = call.flag("causal");
  a.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(a.headWidth)));
  const bool packed = call.flag("packed");
  const Operand& q = input(call, first);
  a.batch = q.shape.at(0);
  a.time = q.shape.at(1);
  a.context = packed ? a.time : input(call, first + 1).shape.at(1);
  if (a.causal && a.context < a.time) {
    throw BadCall("attention: causal attention of " + std::to_string(a.time) + " queries over only " +
                  std::to_string(a.context) + " keys");
  }
  return a;
}

/** q, k and v in three arrays, or side by side in one. */
void place(Attention& a, bool packed, float* q, float* k, float* v) {
  const int64_t width = a.heads * a.headWidth;
  const int64_t kvWidth = a.kvHeads * a.headWidth;
  const int64_t stride = width + 2 * kvWidth;
  if (packed) {
    a.q = {q, stride};
    a.k = {q + width, stride};
    a.v = {q + width + kvWidth, stride};
  } else {
    a.q = {q, width};
    a.k = {k, kvWidth};
    a.v = {v, kvWidth};
  }
}

float* mutableIn(const Call& call, size_t index) { return floatsOf(call, input(call, index)); }

void placeInputs(Attention& a, const Call& call, size_t first) {
  const bool packed = call.flag("packed");
  place(a, packed, mutableIn(call, first), packed ? nullptr : mutableIn(call, first + 1),
        packed ? nullptr : mutableIn(call, first + 2));
}

/** Scores become weights that sum to one; beyond `visible` they are zero. Returns the log of the sum of exponentials. */
TANDEM_SIMD float softmaxRow(float* scores, int64_t visible, int64_t columns, float scale) {
  for (int64_t s = 0; s < visible; s++) scores[s] *= scale;
  const float max = maxOf(scores, visible);
  for (int64_t s = 0; s < visible; s++) scores[s] = expOf(scores[s] - max);
  const double sum = sumOf(visible, [=](int64_t s) { return static_cast<double>(scores[s]); });
  const auto over = static_cast<float>(1 / sum);
  for (int64_t s = 0; s < visible; s++) scores[s] *= over;
  for (int64_t s = visible; s < columns; s++) scores[s] = 0;
  return static_cast<float>(static_cast<double>(max) + std::log(sum));
}

void attend(const Attention& a, float* out, float* lse) {
  thread_local std::vector<float> scores;
  scores.resize(static_cast<size_t>(tileQueries * a.context));
  const int64_t width = a.heads * a.headWidth;
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t h = 0; h < a.heads; h++) {
      const Matrix keys = a.k.matrix(b * a.context, a.kvHead(h), a.headWidth);
      const Matrix values = a.v.matrix(b * a.context, a.kvHead(h), a.headWidth);
      for (int64_t t = 0; t < a.time; t += tileQueries) {
        const int64_t rows = std::min(tileQueries, a.time - t);
        const int64_t columns = a.visible(t + rows - 1);
        multiply(rows, columns, a.headWidth, a.q.matrix(b * a.time + t, h, a.headWidth), keys.transposed(), scores.data(),
                 columns, false);
        for (int64_t r = 0; r < rows; r++) {
          lse[(b * a.heads + h) * a.time + t + r] =
              softmaxRow(scores.data() + r * columns, a.visible(t + r), columns, a.scale);
        }
        multiply(rows, a.headWidth, columns, {scores.data(), columns, 1}, values,
                 out + (b * a.time + t) * width + h * a.headWidth, width, false);
      }
    }
  }
}

Work forward(const Call& call) {
  Attention a = attentionOf(call, 0);
  placeInputs(a, call, 0);
  float* out = floatsOut(call, 0);
  float* lse = floatsOut(call, 1);
  return [=](const double*) { attend(a, out, lse); };
}

/** From scores and dweights of one row: its weights, and the gradient of its scores (the scale included) in dweights. */
TANDEM_SIMD void scoreGradient(float* weights, float* dweights, int64_t visible, int64_t columns, float scale, float lse,
                               float mean) {
#pragma GCC ivdep
  for (int64_t s = 0; s < visible; s++) {
    weights[s] = expOf(weights[s] * scale - lse);
    dweights[s] = scale * weights[s] * (dweights[s] - mean);
  }
  for (int64_t s = visible; s < columns; s++) weights[s] = dweights[s] = 0;
}

TANDEM_SIMD double dot(const float* x, const float* y, int64_t count) {
  return sumOf(count, [=](int64_t i) { return static_cast<double>(x[i]) * static_cast<double>(y[i]); });
}

void clear(const View& view, int64_t tokens, int64_t width) {
  for (int64_t token = 0; token < tokens; token++) {
    std::fill(view.data + token * view.stride, view.data + token * view.stride + width, 0.0f);
  }
}

void attendBackward(const Attention& a, const Attention& d, const float* dout, const float* out, const float* lse) {
  thread_local std::vector<float> scores;
  thread_local std::vector<float> dscores;
  scores.resize(static_cast<size_t>(tileQueries * a.context));
  dscores.resize(static_cast<size_t>(tileQueries * a.context));
  const int64_t width = a.heads * a.headWidth;
  clear(d.k, a.batch * a.context, a.kvHeads * a.headWidth);
  clear(d.v, a.batch * a.context, a.kvHeads * a.headWidth);
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t h = 0; h < a.heads; h++) {
      const int64_t kvHead = a.kvHead(h);
      const Matrix keys = a.k.matrix(b * a.context, kvHead, a.headWidth);
      const Matrix values = a.v.matrix(b * a.context, kvHead, a.headWidth);
      for (int64_t t = 0; t < a.time; t += tileQueries) {
        const int64_t rows = std::min(tileQueries, a.time - t);
        const int64_t columns = a.visible(t + rows - 1);
        const Matrix queries = a.q.matrix(b * a.time + t, h, a.headWidth);
        const int64_t outAt = (b * a.time + t) * width + h * a.headWidth;
        const Matrix gradients = {dout + outAt, width, 1};
        multiply(rows, columns, a.headWidth, queries, keys.transposed(), scores.data(), columns, false);
        multiply(rows, columns, a.headWidth, gradients, values.transposed(), dscores.data(), columns, false);
        for (int64_t r = 0; r < rows; r++) {
          const double mean = dot(dout + outAt + r * width, out + outAt + r * width, a.headWidth);
          scoreGradient(scores.data() + r * columns, dscores.data() + r * columns, a.visible(t + r), columns, a.scale,
                        lse[(b * a.heads + h) * a.time + t + r], static_cast<float>(mean));
        }
        const Matrix weights = {scores.data(), columns, 1};
        const Matrix changes = {dscores.data(), columns, 1};
        multiply(rows, a.headWidth, columns, changes, keys, d.q.at(b * a.time + t, h, a.headWidth), d.q.stride, false);
        multiply(columns, a.headWidth, rows, changes.transposed(), queries, d.k.at(b * a.context, kvHead, a.headWidth),
                 d.k.stride, true);
        multiply(columns, a.headWidth, rows, weights.transposed(), gradients,
                 d.v.at(b * a.context, kvHead, a.headWidth), d.v.stride, true);
      }
    }
  }
}

Work backward(const Call& call) {
  const bool packed = call.flag("packed");
  const float* dout = floatsIn(call, 0);
  Attention a = attentionOf(call, 1);
  placeInputs(a, call, 1);
  const float* out = floatsIn(call, packed ? 2 : 4);
  const float* lse = floatsIn(call, packed ? 3 : 5);
  Attention d = a;
  place(d, packed, floatsOut(call, 0), packed ? nullptr : floatsOut(call, 1), packed ? nullptr : floatsOut(call, 2));
  return [=](const double*) { attendBackward(a, d, dout, out, lse); };
}

}  // namespace

const KernelTable attentionKernels = {{"attention.forward", forward}, {"attention.backward", backward}};

}  // namespace tandem

// How much each token of a prompt is attended to; argument order as core/kernels/kv-scores.ts. In float64 and in the
// reference's order, for what is kept is decided by it.
#include <algorithm>

#include "attend.h"
#include "kernels.h"

namespace tandem {

namespace {

struct Window {
  const float* q;
  const float* k;
  /** Of each head's queries the logarithm of the sum of exponentials, where attention has left it. */
  const float* lse;
  float* scores;
  int64_t time, heads, kvHeads, headWidth, window;
  bool softmax;
};

TANDEM_SIMD void windowRow(const Window& w, int64_t head, int64_t t, double* row) {
  const int64_t kvHead = head / (w.heads / w.kvHeads);
  dotKeys(w.q + (t * w.heads + head) * w.headWidth, w.k + kvHead * w.headWidth, w.kvHeads * w.headWidth, w.time,
          w.headWidth, row);
}

Work windowScores(const Call& call) {
  const Window w = {floatsIn(call, 0),       floatsIn(call, 1),           call.inputs.size() > 2 ? floatsIn(call, 2) : nullptr,
                    floatsOut(call, 0),      input(call, 0).shape.at(1), call.integer("heads"),
                    call.integer("kvHeads"), call.integer("headWidth"),  call.integer("window"),
                    call.flag("softmax")};
  if (w.window < 1 || w.window > w.time) {
    throw BadCall("kv.window_scores: a window of " + std::to_string(w.window) + " in a prompt of " + std::to_string(w.time));
  }
  return [=](const double*) {
    std::vector<double> totals(static_cast<size_t>(w.kvHeads * w.time), 0.0);
    std::vector<double> row(static_cast<size_t>(w.time));
    const int64_t group = w.heads / w.kvHeads;
    for (int64_t h = 0; h < w.heads; h++) {
      for (int64_t t = w.time - w.window; t < w.time; t++) {
        windowRow(w, h, t, row.data());
        if (w.softmax) {
          const double scale = 1 / std::sqrt(static_cast<double>(w.headWidth));
          if (w.lse == nullptr) {
            softmaxScores(row.data(), t + 1, scale);
          } else {
            const double lse = static_cast<double>(w.lse[h * w.time + t]);
            for (int64_t s = 0; s <= t; s++) row[static_cast<size_t>(s)] = std::exp(scale * row[static_cast<size_t>(s)] - lse);
          }
          std::fill(row.begin() + t + 1, row.end(), 0.0);
        }
        double* total = totals.data() + h / group * w.time;
        for (int64_t s = 0; s < w.time; s++) total[s] += row[static_cast<size_t>(s)];
      }
    }
    const double over = w.softmax ? static_cast<double>(w.window * group) : 1;
    for (size_t i = 0; i < totals.size(); i++) w.scores[i] = static_cast<float>(totals[i] / over);
  };
}

Work poolScores(const Call& call) {
  const float* scores = floatsIn(call, 0);
  float* pooled = floatsOut(call, 0);
  const int64_t lists = input(call, 0).shape.at(0);
  const int64_t time = input(call, 0).shape.at(1);
  const int64_t window = call.integer("window");
  const int64_t kernel = call.integer("kernel");
  const std::string& mode = call.text("mode");
  if (mode != "avg" && mode != "max") {
    throw BadCall("kv.pool_scores: mode is \"" + mode + "\"; expected \"avg\" or \"max\"");
  }
  if (kernel < 1 || kernel % 2 == 0 || window > time) {
    throw BadCall("kv.pool_scores: kernel " + std::to_string(kernel) + " and window " + std::to_string(window) + " over " +
                  std::to_string(time) + " tokens");
  }
  const bool average = mode == "avg";
  return [=](const double*) {
    const int64_t prefix = time - window;
    const int64_t reach = (kernel - 1) / 2;
    double largest = prefix == 0 ? 0 : -HUGE_VAL;
    for (int64_t list = 0; list < lists; list++) {
      for (int64_t t = 0; t < prefix; t++) {
        double total = 0;
        double max = -HUGE_VAL;
        for (int64_t s = std::max<int64_t>(0, t - reach); s <= std::min(prefix - 1, t + reach); s++) {
          const auto score = static_cast<double>(scores[list * time + s]);
          total += score;
          max = std::max(max, score);
        }
        const auto value = static_cast<float>(average ? total / static_cast<double>(kernel) : max);
        pooled[list * time + t] = value;
        largest = std::max(largest, static_cast<double>(value));
      }
    }
    for (int64_t list = 0; list < lists; list++) {
      for (int64_t t = prefix; t < time; t++) pooled[list * time + t] = static_cast<float>(largest + 1);
    }
  };
}

struct Scores {
  const float* data;
  int64_t lists, time;

  /** Over all lists, tokens [from, to). */
  double sum(int64_t from, int64_t to) const {
    double total = 0;
    for (int64_t list = 0; list < lists; list++) {
      for (int64_t t = from; t < to; t++) total += static_cast<double>(data[list * time + t]);
    }
    return total;
  }
};

Scores scoresOf(const Call& call) { return {floatsIn(call, 0), input(call, 0).shape.at(0), input(call, 0).shape.at(1)}; }

Work chunkScores(const Call& call) {
  const Scores scores = scoresOf(call);
  float* chunks = floatsOut(call, 0);
  const int64_t chunk = call.integer("chunk");
  const std::string& reduce = call.text("reduce");
  if (reduce != "sum" && reduce != "mean") {
    throw BadCall("kv.chunk_scores: reduce is \"" + reduce + "\"; expected \"sum\" or \"mean\"");
  }
  const bool mean = reduce == "mean";
  return [=](const double*) {
    for (int64_t c = 0; c * chunk < scores.time; c++) {
      const int64_t end = std::min(scores.time, (c + 1) * chunk);
      const double total = scores.sum(c * chunk, end);
      chunks[c] = static_cast<float>(mean ? total / static_cast<double>(end - c * chunk) : total);
    }
  };
}

Work shotScores(const Call& call) {
  const Scores scores = scoresOf(call);
  float* shots = floatsOut(call, 0);
  const std::vector<int64_t> starts = call.integers("starts");
  return [=](const double*) {
    for (size_t i = 0; i < starts.size(); i++) {
      const int64_t end = i + 1 < starts.size() ? starts[i + 1] : scores.time;
      shots[i] = static_cast<float>(scores.sum(starts[i], end) / static_cast<double>(end - starts[i]));
    }
  };
}

}  // namespace

const KernelTable kvScoreKernels = {{"kv.window_scores", windowScores},
                                    {"kv.pool_scores", poolScores},
                                    {"kv.chunk_scores", chunkScores},
                                    {"kv.shot_scores", shotScores}};

}  // namespace tandem

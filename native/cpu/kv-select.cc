// Which tokens of a prompt stay in the cache; argument order as core/kernels/kv-select.ts. Ties go to the lower index, lists
// are in ascending order, -1 ends a list that is shorter than its room.
#include <algorithm>
#include <numeric>

#include "kernels.h"

namespace tandem {

namespace {

/** All indices, largest score first. */
std::vector<int64_t> ranked(const float* scores, int64_t count) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [scores](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  return order;
}

/** Indices of the `count` largest, ascending. */
std::vector<int64_t> largest(const float* scores, int64_t of, int64_t count) {
  std::vector<int64_t> order = ranked(scores, of);
  order.resize(static_cast<size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

void checkCount(const Call& call, int64_t count, int64_t of) {
  if (count < 1 || count > of) throw BadCall(call.kernel + ": " + std::to_string(count) + " of " + std::to_string(of));
}

void write(std::vector<int64_t>& tokens, int32_t* kept, int64_t room) {
  std::sort(tokens.begin(), tokens.end());
  if (static_cast<int64_t>(tokens.size()) > room) throw BadCall("kv: more tokens than room for them");
  std::fill(kept, kept + room, -1);
  for (size_t i = 0; i < tokens.size(); i++) kept[i] = static_cast<int32_t>(tokens[i]);
}

Work topTokens(const Call& call) {
  const float* scores = floatsIn(call, 0);
  int32_t* kept = integersOut(call, 0);
  const int64_t lists = input(call, 0).shape.at(0);
  const int64_t time = input(call, 0).shape.at(1);
  const int64_t count = call.integer("count");
  checkCount(call, count, time);
  return [=](const double*) {
    for (int64_t list = 0; list < lists; list++) {
      const std::vector<int64_t> tokens = largest(scores + list * time, time, count);
      for (int64_t i = 0; i < count; i++) kept[list * count + i] = static_cast<int32_t>(tokens[static_cast<size_t>(i)]);
    }
  };
}

Work sinkTokens(const Call& call) {
  int32_t* kept = integersOut(call, 0);
  const int64_t time = call.integer("time");
  const int64_t sinks = call.integer("sinks");
  const int64_t count = call.integer("count");
  checkCount(call, count, time);
  return [=](const double*) {
    for (int64_t i = 0; i < count; i++) kept[i] = static_cast<int32_t>(i < sinks ? i : time - count + i);
  };
}

Work topChunks(const Call& call) {
  const float* chunks = floatsIn(call, 0);
  int32_t* kept = integersOut(call, 0);
  const int64_t room = output(call, 0).elements;
  const int64_t chunkCount = input(call, 0).elements;
  const int64_t time = call.integer("time");
  const int64_t chunk = call.integer("chunk");
  const int64_t count = call.integer("count");
  const int64_t limit = call.integer("limit");
  const int64_t window = call.integer("window");
  checkCount(call, count, chunkCount);
  return [=](const double*) {
    std::vector<int64_t> tokens;
    for (const int64_t c : largest(chunks, chunkCount, count)) {
      for (int64_t t = c * chunk; t < std::min(time, (c + 1) * chunk); t++) {
        if (static_cast<int64_t>(tokens.size()) < limit) tokens.push_back(t);
      }
    }
    // ascending so far
    const auto before = tokens.size();
    for (int64_t t = std::max<int64_t>(0, time - window); t < time; t++) {
      if (!std::binary_search(tokens.begin(), tokens.begin() + static_cast<int64_t>(before), t)) tokens.push_back(t);
    }
    write(tokens, kept, room);
  };
}

Work topShots(const Call& call) {
  const float* shots = floatsIn(call, 0);
  int32_t* kept = integersOut(call, 0);
  const std::vector<int64_t> starts = call.integers("starts");
  const int64_t time = call.integer("time");
  const int64_t budget = call.integer("budget");
  return [=](const double*) {
    std::vector<int64_t> tokens;
    for (const int64_t shot : ranked(shots, static_cast<int64_t>(starts.size()))) {
      const auto at = static_cast<size_t>(shot);
      const int64_t end = at + 1 < starts.size() ? starts[at + 1] : time;
      if (static_cast<int64_t>(tokens.size()) + end - starts[at] > budget) continue;
      for (int64_t t = starts[at]; t < end; t++) tokens.push_back(t);
    }
    write(tokens, kept, budget);
  };
}

}  // namespace

const KernelTable kvSelectKernels = {{"kv.top_tokens", topTokens},
                                     {"kv.sink_tokens", sinkTokens},
                                     {"kv.top_chunks", topChunks},
                                     {"kv.top_shots", topShots}};

}  // namespace tandem

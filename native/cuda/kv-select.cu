// Which tokens of a prompt stay in the cache; argument order as core/kernels/kv-select.ts. Ties go to the lower index, lists
// are in ascending order, -1 ends a list that is shorter than its room.
#include "map.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

constexpr int threads = 1024;

/** Bits that rise with the number; both zeros are one. */
__device__ inline unsigned keyOf(const View& scores, int64_t i) {
  const float score = get(scores, i);
  const unsigned bits = __float_as_uint(score == 0 ? 0.0f : score);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/** What is chosen: keys above the threshold, and of those equal to it the first `ties`. */
struct Choice {
  unsigned threshold;
  int ties;
};

/** So many are compared each with each rather than sorted by digits. Assumed, not measured. */
constexpr int fewScores = 512;

/** The same for few scores: the one that as many as are wanted stand before or at. */
__device__ Choice largestOfFew(const View& scores, int of, int count) {
  __shared__ unsigned keys[fewScores];
  __shared__ Choice found;
  for (int i = threadIdx.x; i < of; i += threads) keys[i] = keyOf(scores, i);
  __syncthreads();
  for (int i = threadIdx.x; i < of; i += threads) {
    const unsigned own = keys[i];
    int above = 0;
    int equal = 0;
    for (int j = 0; j < of; j++) {
      above += keys[j] > own ? 1 : 0;
      equal += keys[j] == own ? 1 : 0;
    }
    // whoever finds it finds the same
    if (above < count && above + equal >= count) found = {own, count - above};
  }
  __syncthreads();
  return found;
}

/** The `count` largest of `of` scores by one block, eight bits of their keys at a time from the top. */
__device__ Choice largestOf(const View& scores, int64_t of, int64_t count) {
  if (of <= fewScores) return largestOfFew(scores, static_cast<int>(of), static_cast<int>(count));
  __shared__ int histogram[256];
  __shared__ Choice found;
  unsigned prefix = 0;
  int wanted = static_cast<int>(count);
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (threadIdx.x < 256) histogram[threadIdx.x] = 0;
    __syncthreads();
    const unsigned above = shift == 24 ? 0u : ~0u << (shift + 8);
    for (int64_t i = threadIdx.x; i < of; i += threads) {
      const unsigned key = keyOf(scores, i);
      if ((key & above) == prefix) atomicAdd(&histogram[key >> shift & 255u], 1);
    }
    __syncthreads();
    // the digit at which as many are found as are wanted, counted from the top
    const int digit = 255 - static_cast<int>(threadIdx.x);
    const int own = digit >= 0 ? histogram[digit] : 0;
    int total;
    const int before = blockPrefix(own, total);
    if (digit >= 0 && before < wanted && before + own >= wanted) {
      found = {prefix | static_cast<unsigned>(digit) << shift, wanted - before};
    }
    __syncthreads();
    prefix = found.threshold;
    wanted = found.ties;
  }
  return {prefix, wanted};
}

/** visit(index, place) for each chosen index in ascending order; each thread has a stretch. Returns how many there are. */
template <class Visit>
__device__ int eachChosen(const View& scores, int64_t of, const Choice& choice, Visit visit) {
  const int64_t stretch = (of + threads - 1) / threads;
  const int64_t from = min(of, threadIdx.x * stretch);
  const int64_t to = min(of, from + stretch);
  int above = 0;
  int equal = 0;
  for (int64_t i = from; i < to; i++) {
    const unsigned key = keyOf(scores, i);
    above += key > choice.threshold ? 1 : 0;
    equal += key == choice.threshold ? 1 : 0;
  }
  int total;
  const int equalBefore = blockPrefix(equal, total);
  const int ties = max(0, min(equal, choice.ties - equalBefore));
  int place = blockPrefix(above + ties, total);
  int tie = equalBefore;
  for (int64_t i = from; i < to; i++) {
    const unsigned key = keyOf(scores, i);
    if (key > choice.threshold || (key == choice.threshold && tie++ < choice.ties)) visit(i, place++);
  }
  return total;
}

void checkCount(const Call& call, int64_t count, int64_t of) {
  if (count < 1 || count > of) throw BadCall(call.kernel + ": " + std::to_string(count) + " of " + std::to_string(of));
}

__global__ void __launch_bounds__(threads) topTokensOf(View scores, int64_t time, int64_t count, View kept) {
  const View own = scores.at(blockIdx.x * time);
  const Choice choice = largestOf(own, time, count);
  eachChosen(own, time, choice, [&](int64_t token, int place) {
    setInteger(kept, blockIdx.x * count + place, static_cast<int32_t>(token));
  });
}

Work topTokens(const Call& call) {
  const View scores = floatsIn(call, 0);
  const View kept = integersOut(call, 0);
  const int64_t lists = input(call, 0).shape.at(0);
  const int64_t time = input(call, 0).shape.at(1);
  const int64_t count = call.integer("count");
  checkCount(call, count, time);
  return [=](const Launch& launch) {
    if (lists > 0) topTokensOf<<<static_cast<unsigned>(lists), threads, 0, launch.stream>>>(scores, time, count, kept);
  };
}

struct Sinks {
  View kept;
  int64_t time, sinks, count;
  __device__ void operator()(int64_t i) const {
    setInteger(kept, i, static_cast<int32_t>(i < sinks ? i : time - count + i));
  }
};

Work sinkTokens(const Call& call) {
  const Sinks s = {integersOut(call, 0), call.integer("time"), call.integer("sinks"), call.integer("count")};
  checkCount(call, s.count, s.time);
  return [=](const Launch& launch) { each(launch, s.count, s); };
}

struct Chunks {
  View scores, kept;
  int64_t room, chunks, time, chunk, count, limit, window;
};

/**
 * Tokens of the chosen chunks, as many as the limit lets, and those of the window; one block. What stays of a chunk are its first
 * tokens, and those in the window: each thread has some chunks one after another.
 */
__global__ void __launch_bounds__(threads) topChunksOf(Chunks c, uint8_t* chosen) {
  const Choice choice = largestOf(c.scores, c.chunks, c.count);
  for (int64_t i = threadIdx.x; i < c.chunks; i += threads) chosen[i] = 0;
  __syncthreads();
  eachChosen(c.scores, c.chunks, choice, [&](int64_t chunk, int) { chosen[chunk] = 1; });
  __syncthreads();
  const auto time = static_cast<int>(c.time);
  const auto size = static_cast<int>(c.chunk);
  const auto limit = static_cast<int>(c.limit);
  const int windowStart = max(0, static_cast<int>(c.time - c.window));
  const auto chunks = static_cast<int>(c.chunks);
  const int stretch = (chunks + threads - 1) / threads;
  const int from = min(chunks, static_cast<int>(threadIdx.x) * stretch);
  const int to = min(chunks, from + stretch);
  const auto endOf = [&](int chunk) { return min(time, (chunk + 1) * size); };
  int inChunks = 0;
  for (int i = from; i < to; i++) inChunks += chosen[i] != 0 ? endOf(i) - i * size : 0;
  int total;
  const int before = blockPrefix(inChunks, total);
  // visit(first token, end, first of the window's) of each chunk
  const auto each = [&](auto visit) {
    int used = before;
    for (int i = from; i < to; i++) {
      const int own = chosen[i] != 0 ? endOf(i) - i * size : 0;
      const int kept = min(own, max(0, limit - used));
      used += own;
      visit(i * size, i * size + kept, max(windowStart, i * size + kept), endOf(i));
    }
  };
  int count = 0;
  each([&](int first, int end, int window, int last) { count += end - first + max(0, last - window); });
  int place = blockPrefix(count, total);
  const auto put = [&](int token) {
    if (place < c.room) setInteger(c.kept, place, token);
    place++;
  };
  each([&](int first, int end, int window, int last) {
    for (int t = first; t < end; t++) put(t);
    for (int t = window; t < last; t++) put(t);
  });
  for (int64_t i = total + threadIdx.x; i < c.room; i += threads) setInteger(c.kept, i, -1);
}

Work topChunks(const Call& call) {
  const Chunks c = {floatsIn(call, 0),         integersOut(call, 0),      output(call, 0).elements,
                    input(call, 0).elements,   call.integer("time"),      call.integer("chunk"),
                    call.integer("count"),     call.integer("limit"),     call.integer("window")};
  checkCount(call, c.count, c.chunks);
  return [=](const Launch& launch) {
    const Scratch scratch(launch, static_cast<size_t>(c.chunks));
    topChunksOf<<<1, threads, 0, launch.stream>>>(c, scratch.as<uint8_t>());
  };
}

struct Shots {
  View scores, kept;
  const int64_t* starts;
  int64_t count, time, budget;

  __device__ int64_t endOf(int64_t shot) const { return shot + 1 < count ? starts[shot + 1] : time; }
};

constexpr int rankThreads = 256;

/** order[rank] = shot: by falling score, ties by index. Each thread compares its own with all. */
__global__ void __launch_bounds__(rankThreads) rankShots(Shots s, int32_t* order) {
  __shared__ unsigned keys[rankThreads];
  const int64_t own = static_cast<int64_t>(blockIdx.x) * rankThreads + threadIdx.x;
  const unsigned key = own < s.count ? keyOf(s.scores, own) : 0;
  int rank = 0;
  for (int64_t first = 0; first < s.count; first += rankThreads) {
    if (first + threadIdx.x < s.count) keys[threadIdx.x] = keyOf(s.scores, first + threadIdx.x);
    __syncthreads();
    const auto here = static_cast<int>(min(s.count - first, int64_t{rankThreads}));
    for (int i = 0; i < here; i++) rank += keys[i] > key || (keys[i] == key && first + i < own) ? 1 : 0;
    __syncthreads();
  }
  if (own < s.count) order[rank] = static_cast<int32_t>(own);
}

/**
 * Shots by falling score, each taken if it fits what is left. One thread chooses, for each choice depends on those before; the others
 * bring it what it looks at, and write down the tokens. `taken` has a byte per shot.
 */
__global__ void __launch_bounds__(threads) topShotsOf(Shots s, const int32_t* order, uint8_t* taken) {
  __shared__ int sizes[threads];
  __shared__ uint8_t fits[threads];
  int64_t used = 0;
  for (int64_t first = 0; first < s.count; first += threads) {
    const int64_t rank = first + threadIdx.x;
    const int64_t shot = rank < s.count ? order[rank] : 0;
    sizes[threadIdx.x] = static_cast<int>(s.endOf(shot) - s.starts[shot]);
    __syncthreads();
    if (threadIdx.x == 0) {
      const auto here = static_cast<int>(min(s.count - first, int64_t{threads}));
      for (int i = 0; i < here; i++) {
        fits[i] = used + sizes[i] <= s.budget ? 1 : 0;
        if (fits[i] != 0) used += sizes[i];
      }
    }
    __syncthreads();
    if (rank < s.count) taken[shot] = fits[threadIdx.x];
    __syncthreads();
  }
  const int64_t stretch = (s.count + threads - 1) / threads;
  const int64_t from = min(s.count, threadIdx.x * stretch);
  const int64_t to = min(s.count, from + stretch);
  int tokens = 0;
  for (int64_t i = from; i < to; i++) tokens += taken[i] != 0 ? static_cast<int>(s.endOf(i) - s.starts[i]) : 0;
  int total;
  int64_t place = blockPrefix(tokens, total);
  for (int64_t i = from; i < to; i++) {
    for (int64_t t = s.starts[i]; taken[i] != 0 && t < s.endOf(i); t++) setInteger(s.kept, place++, static_cast<int32_t>(t));
  }
  for (int64_t i = total + threadIdx.x; i < s.budget; i += threads) setInteger(s.kept, i, -1);
}

Work topShots(const Call& call) {
  const Table<int64_t> starts(call.integers("starts"));
  const View shots = floatsIn(call, 0);
  const View kept = integersOut(call, 0);
  const int64_t time = call.integer("time");
  const int64_t budget = call.integer("budget");
  return [=](const Launch& launch) {
    const auto count = static_cast<size_t>(starts.count);
    const Scratch scratch(launch, count * (sizeof(int32_t) + 1) + 1);
    auto* order = scratch.as<int32_t>();
    const Shots s = {shots, kept, starts.data, starts.count, time, budget};
    if (count > 0) {
      rankShots<<<static_cast<unsigned>(ceilDiv(starts.count, rankThreads)), rankThreads, 0, launch.stream>>>(s, order);
    }
    topShotsOf<<<1, threads, 0, launch.stream>>>(s, order, scratch.as<uint8_t>(count * sizeof(int32_t)));
  };
}

}  // namespace

const KernelTable kvSelectKernels = {{"kv.top_tokens", topTokens},
                                     {"kv.sink_tokens", sinkTokens},
                                     {"kv.top_chunks", topChunks},
                                     {"kv.top_shots", topShots}};

}  // namespace tandem::cuda

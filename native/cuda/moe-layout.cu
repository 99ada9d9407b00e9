// Which token takes which row of an expert-parallel MoE layer; argument order as core/kernels/moe-order.ts. A row that no token
// takes is -1.
#include "../chunks.h"
#include "map.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

struct Layout {
  int64_t experts, ranks, chunks, capacity;

  /** The expert in place `i` of a chunk. */
  __host__ __device__ int64_t expertAt(int64_t i) const { return i % ranks * (experts / ranks) + i / ranks; }
  __host__ __device__ int64_t placeOf(int64_t expert) const {
    return expert % (experts / ranks) * ranks + expert / (experts / ranks);
  }
};

Layout layoutOf(const Call& call) {
  const Layout layout = {call.integer("experts"), call.integer("ranks"), call.integer("chunks"), call.integer("capacity")};
  if (layout.ranks <= 0 || layout.experts % layout.ranks != 0) {
    throw BadCall(call.kernel + ": " + std::to_string(layout.experts) + " experts on " + std::to_string(layout.ranks) + " ranks");
  }
  if (layout.chunks <= 0) throw BadCall(call.kernel + ": " + std::to_string(layout.chunks) + " chunks");
  return layout;
}

struct Layer {
  Layout layout;
  View chosen, tokens, assignments, counts;
  int64_t choices, topK, rows;
  Reporter reporter;

  __device__ int64_t rowsOf(int64_t expert) const {
    return layout.capacity == 0 ? getInteger(counts, expert) : layout.capacity;
  }
};

/** A block per expert counts its choices; the first looks for experts that are none. */
__global__ void __launch_bounds__(1024) countChoices(Layer a) {
  const auto expert = static_cast<int32_t>(blockIdx.x);
  int own = 0;
  for (int64_t i = threadIdx.x; i < a.choices; i += 1024) {
    const int32_t chosen = getInteger(a.chosen, i);
    own += chosen == expert ? 1 : 0;
    if (expert == 0 && (chosen < 0 || chosen >= a.layout.experts)) a.reporter.fail(Wrong::expert, chosen, a.layout.experts);
  }
  const int total = blockSum(own);
  if (threadIdx.x == 0) setInteger(a.counts, expert, total);
}

/** Each expert's block gives its choices rows, first choices of all tokens first; rows that stay empty are -1. */
__global__ void __launch_bounds__(1024) layOut(Layer a) {
  const auto expert = static_cast<int32_t>(blockIdx.x);
  const Layout& l = a.layout;
  // the row of a position: its chunk's rows before this expert's, all chunks before it
  const auto rowAt = [&](int64_t position) {
    const int64_t own = a.rowsOf(expert);
    int64_t row = 0;
    for (int64_t chunk = 0; chunk < l.chunks; chunk++) {
      const int64_t from = chunkStart(own, chunk, l.chunks);
      const int64_t to = chunkStart(own, chunk + 1, l.chunks);
      const bool here = position >= from && position < to;
      for (int64_t place = 0; place < l.experts; place++) {
        if (here && place == l.placeOf(expert)) return row + position - from;
        const int64_t rows = a.rowsOf(l.expertAt(place));
        row += chunkStart(rows, chunk + 1, l.chunks) - chunkStart(rows, chunk, l.chunks);
      }
    }
    return int64_t{-1};
  };
  const auto put = [&](int64_t position, int64_t assignment) {
    const int64_t row = rowAt(position);
    if (row < 0 || row >= a.rows) return;
    setInteger(a.assignments, row, static_cast<int32_t>(assignment));
    setInteger(a.tokens, row, static_cast<int32_t>(assignment < 0 ? -1 : assignment / a.topK));
  };
  const int64_t tokens = a.topK == 0 ? 0 : a.choices / a.topK;
  const int64_t stretch = (a.choices + 1023) / 1024;
  const int64_t from = min(a.choices, threadIdx.x * stretch);
  const int64_t to = min(a.choices, from + stretch);
  // in the order of visits: choice by choice, and within one by token
  const auto at = [&](int64_t i) { return i % tokens * a.topK + i / tokens; };
  int own = 0;
  for (int64_t i = from; i < to; i++) own += getInteger(a.chosen, at(i)) == expert ? 1 : 0;
  int total;
  int position = blockPrefix(own, total);
  const int64_t rows = a.rowsOf(expert);
  for (int64_t i = from; i < to; i++) {
    if (getInteger(a.chosen, at(i)) != expert) continue;
    if (position < rows) put(position, at(i));
    position++;
  }
  for (int64_t empty = total + threadIdx.x; empty < rows; empty += 1024) put(empty, -1);
}

Work moeLayout(const Call& call) {
  const Layer a = {layoutOf(call),
                   integersIn(call, 0),
                   integersOut(call, 0),
                   integersOut(call, 1),
                   integersOut(call, 2),
                   input(call, 0).elements,
                   call.integer("topK"),
                   output(call, 0).elements,
                   {}};
  return [=](const Launch& launch) {
    if (a.layout.experts == 0) return;
    Layer with = a;
    with.reporter = launch.reporter;
    countChoices<<<static_cast<unsigned>(a.layout.experts), 1024, 0, launch.stream>>>(with);
    layOut<<<static_cast<unsigned>(a.layout.experts), 1024, 0, launch.stream>>>(with);
  };
}

/** Expert * capacity + position of every row, when all experts have as many rows: known without looking at values. */
std::vector<int32_t> evenPlaces(const Layout& l) {
  std::vector<int32_t> places;
  for (int64_t chunk = 0; chunk < l.chunks; chunk++) {
    for (int64_t place = 0; place < l.experts; place++) {
      const int64_t end = chunkStart(l.capacity, chunk + 1, l.chunks);
      for (int64_t position = chunkStart(l.capacity, chunk, l.chunks); position < end; position++) {
        places.push_back(static_cast<int32_t>(l.expertAt(place) * l.capacity + position));
      }
    }
  }
  return places;
}

struct EvenLayout {
  const int32_t* places;
  View chosen, tokens, assignments;
  __device__ void operator()(int64_t row) const {
    setInteger(assignments, row, places[row]);
    setInteger(tokens, row, getInteger(chosen, places[row]));
  }
};

Work expertChoiceLayout(const Call& call) {
  const Table<int32_t> places(evenPlaces(layoutOf(call)));
  const EvenLayout layout = {places.data, integersIn(call, 0), integersOut(call, 0), integersOut(call, 1)};
  return [=](const Launch& launch) { each(launch, places.count, layout); };
}

struct SoftLayout {
  const int32_t* places;
  View columns;
  __device__ void operator()(int64_t row) const { setInteger(columns, row, places[row]); }
};

Work softLayout(const Call& call) {
  const Table<int32_t> places(evenPlaces(layoutOf(call)));
  const View columns = integersOut(call, 0);
  return [=](const Launch& launch) { each(launch, places.count, SoftLayout{places.data, columns}); };
}

}  // namespace

const KernelTable moeLayoutKernels = {{"moe_layout", moeLayout},
                                      {"expert_choice_layout", expertChoiceLayout},
                                      {"soft_layout", softLayout}};

}  // namespace tandem::cuda

// Order and I-Order of an expert-parallel MoE layer; argument order as core/kernels/moe-order.ts. Rows lie in as many tensors
// as there are messages; a row that no token takes is -1, and zero.
#include "../chunks.h"
#include "map.cuh"
#include "reduce.cuh"

namespace tandem::cuda {

namespace {

/** Rows of one width over several tensors: one view per row. */
struct Rows {
  std::vector<View> at;
  int64_t width = 1;
};

Rows rowsIn(const Call& call, const std::vector<Operand>& operands, size_t first) {
  Rows rows;
  for (size_t i = first; i < operands.size(); i++) {
    const View view = floatsOf(call, operands[i]);
    rows.width = operands[i].shape.at(1);
    for (int64_t row = 0; row < operands[i].shape.at(0); row++) rows.at.push_back(view.at(row * rows.width));
  }
  return rows;
}

/** Index lists, weights and rows of the kernels below; what one does not need is empty. */
struct Routing {
  const View* rows;
  int64_t count, width;
  View tokens, assignments, weights, dense;
  int64_t denseRows, weightCount;
  Reporter reporter;

  /** Row of the dense tensor; -1 where no token takes the row, or where there is no such row, which is a fault. */
  __device__ int64_t denseRow(int64_t row) const {
    const int32_t at = getInteger(tokens, row);
    if (at < denseRows) return at < 0 ? -1 : at;
    reporter.fail(Wrong::row, at, denseRows);
    return -1;
  }
  __device__ int64_t assignment(int64_t row) const {
    const int32_t at = getInteger(assignments, row);
    if (at >= 0 && at < weightCount) return at;
    reporter.fail(Wrong::row, at, weightCount);
    return -1;
  }
};

/** A routing whose list of rows lives as long as the work. */
template <class Launches>
Work routed(const Rows& rows, Routing routing, Launches launches) {
  const Table<View> table(rows.at);
  routing.rows = table.data;
  routing.count = table.count;
  routing.width = rows.width;
  return [table, routing, launches](const Launch& launch) {
    Routing with = routing;
    with.reporter = launch.reporter;
    launches(launch, with);
  };
}

struct ToRows {
  Routing r;
  bool weighted;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / r.width;
    const int64_t c = i % r.width;
    const int64_t from = r.denseRow(row);
    float value = 0;
    if (from >= 0) {
      value = get(r.dense, from * r.width + c);
      if (weighted) {
        const int64_t at = r.assignment(row);
        if (at < 0) return;
        value = get(r.weights, at) * value;
      }
    }
    set(r.rows[row], c, value);
  }
};

/** A block per row of the dense tensor adds all rows that name it, in their order, in float64. */
__global__ void __launch_bounds__(256) fromRows(Routing r, bool weighted) {
  __shared__ int32_t list[256];
  const int64_t own = blockIdx.x;
  for (int64_t strip = 0; strip < r.width; strip += 1024) {
    double sums[4] = {};
    for (int64_t start = 0; start < r.count; start += 256) {
      const int64_t row = start + threadIdx.x;
      const bool mine = row < r.count && r.denseRow(row) == own;
      int found;
      const int at = blockPrefix(mine ? 1 : 0, found);
      if (mine) list[at] = static_cast<int32_t>(row);
      __syncthreads();
      for (int k = 0; k < found; k++) {
        double weight = 1;
        if (weighted) {
          const int64_t assignment = r.assignment(list[k]);
          weight = assignment < 0 ? 0 : static_cast<double>(get(r.weights, assignment));
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int64_t c = strip + j * 256 + threadIdx.x;
          if (c < r.width) sums[j] += weight * static_cast<double>(get(r.rows[list[k]], c));
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int64_t c = strip + j * 256 + threadIdx.x;
      if (c < r.width) set(r.dense, own * r.width + c, static_cast<float>(sums[j]));
    }
  }
}

Work toRows(const Rows& rows, const Routing& routing, bool weighted) {
  return routed(rows, routing, [=](const Launch& launch, const Routing& r) { each(launch, r.count * r.width, ToRows{r, weighted}); });
}

Work sumRows(const Rows& rows, const Routing& routing, bool weighted, int64_t width) {
  return routed(rows, routing, [=](const Launch& launch, Routing r) {
    r.width = width;
    if (r.denseRows > 0) fromRows<<<static_cast<unsigned>(r.denseRows), 256, 0, launch.stream>>>(r, weighted);
  });
}

Work orderForward(const Call& call) {
  Routing r{};
  r.dense = floatsIn(call, 0);
  r.denseRows = input(call, 0).shape.at(0);
  r.tokens = integersIn(call, 1);
  return toRows(rowsIn(call, call.outputs, 0), r, false);
}

Work orderBackward(const Call& call) {
  Routing r{};
  r.tokens = integersIn(call, 0);
  r.dense = floatsOut(call, 0);
  r.denseRows = output(call, 0).shape.at(0);
  return sumRows(rowsIn(call, call.inputs, 1), r, false, output(call, 0).shape.at(1));
}

Work inverseOrderForward(const Call& call) {
  Routing r{};
  r.weights = floatsIn(call, 0);
  r.weightCount = input(call, 0).elements;
  r.tokens = integersIn(call, 1);
  r.assignments = integersIn(call, 2);
  r.dense = floatsOut(call, 0);
  r.denseRows = output(call, 0).shape.at(0);
  return sumRows(rowsIn(call, call.inputs, 3), r, true, output(call, 0).shape.at(1));
}

Work inverseOrderBackwardInput(const Call& call) {
  Routing r{};
  r.dense = floatsIn(call, 0);
  r.denseRows = input(call, 0).shape.at(0);
  r.weights = floatsIn(call, 1);
  r.weightCount = input(call, 1).elements;
  r.tokens = integersIn(call, 2);
  r.assignments = integersIn(call, 3);
  return toRows(rowsIn(call, call.outputs, 0), r, true);
}

/** One after another, as the reference adds: this gradient is held to it bit for bit. */
__device__ inline double dotInOrder(const View& x, const View& y, int64_t width) {
  double sum = 0;
  for (int64_t c = 0; c < width; c++) sum += static_cast<double>(get(x, c)) * static_cast<double>(get(y, c));
  return sum;
}

struct GateGradient {
  Routing r;
  View dweights;
  __device__ void operator()(int64_t row) const {
    const int64_t from = r.denseRow(row);
    if (from < 0) return;
    const int64_t at = r.assignment(row);
    if (at >= 0) set(dweights, at, static_cast<float>(dotInOrder(r.dense.at(from * r.width), r.rows[row], r.width)));
  }
};

Work inverseOrderBackwardGate(const Call& call) {
  Routing r{};
  r.dense = floatsIn(call, 0);
  r.denseRows = input(call, 0).shape.at(0);
  r.tokens = integersIn(call, 2);
  r.assignments = integersIn(call, 3);
  r.weightCount = output(call, 0).elements;
  const View dweights = floatsOut(call, 0);
  const auto bytes = static_cast<size_t>(r.weightCount * storedBytes(dweights.dtype));
  return routed(rowsIn(call, call.inputs, 4), r, [=](const Launch& launch, const Routing& with) {
    if (bytes > 0) check(cudaMemsetAsync(dweights.data, 0, bytes, launch.stream), "cudaMemsetAsync");
    each(launch, with.count, GateGradient{with, dweights});
  });
}

/** The mixing matrix [tokens, slots] of SoftMoE and the column of each row. */
struct Mix {
  View data, columns;
  int64_t tokens, slots;
  Reporter reporter;

  __device__ int64_t column(int64_t row) const {
    const int32_t at = getInteger(columns, row);
    if (at >= 0 && at < slots) return at;
    reporter.fail(at < 0 ? Wrong::column : Wrong::row, at, slots);
    return -1;
  }
  __device__ double weight(int64_t token, int64_t column) const {
    return static_cast<double>(get(data, token * slots + column));
  }
};

Mix mixOf(const Call& call, size_t mix, size_t columns) {
  const Shape& shape = input(call, mix).shape;
  return {floatsIn(call, mix), integersIn(call, columns), shape.at(0), shape.at(1), {}};
}

struct SoftOrder {
  Routing r;
  Mix mix;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / r.width;
    const int64_t c = i % r.width;
    const int64_t column = mix.column(row);
    if (column < 0) return;
    double sum = 0;
    for (int64_t t = 0; t < mix.tokens; t++) sum += mix.weight(t, column) * static_cast<double>(get(r.dense, t * r.width + c));
    set(r.rows[row], c, static_cast<float>(sum));
  }
};

Work softOrderForward(const Call& call) {
  Routing r{};
  r.dense = floatsIn(call, 0);
  const Mix mix = mixOf(call, 1, 2);
  return routed(rowsIn(call, call.outputs, 0), r, [=](const Launch& launch, const Routing& with) {
    Mix own = mix;
    own.reporter = launch.reporter;
    each(launch, with.count * with.width, SoftOrder{with, own});
  });
}

struct SoftInverseOrder {
  Routing r;
  Mix mix;
  __device__ void operator()(int64_t i) const {
    const int64_t token = i / r.width;
    const int64_t c = i % r.width;
    double sum = 0;
    for (int64_t row = 0; row < r.count; row++) {
      const int64_t column = mix.column(row);
      if (column < 0) return;
      sum += mix.weight(token, column) * static_cast<double>(get(r.rows[row], c));
    }
    set(r.dense, i, static_cast<float>(sum));
  }
};

Work softInverseOrderForward(const Call& call) {
  Routing r{};
  r.dense = floatsOut(call, 0);
  const Mix mix = mixOf(call, 0, 1);
  const int64_t elements = output(call, 0).elements;
  const int64_t width = output(call, 0).shape.at(1);
  return routed(rowsIn(call, call.inputs, 2), r, [=](const Launch& launch, Routing with) {
    Mix own = mix;
    own.reporter = launch.reporter;
    with.width = width;
    each(launch, elements, SoftInverseOrder{with, own});
  });
}

struct MixGradient {
  Routing r;
  Mix mix;
  View dmix;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / mix.tokens;
    const int64_t t = i % mix.tokens;
    const int64_t column = mix.column(row);
    if (column < 0) return;
    set(dmix, t * mix.slots + column, static_cast<float>(dotInOrder(r.dense.at(t * r.width), r.rows[row], r.width)));
  }
};

Work softOrderBackwardMix(const Call& call) {
  Routing r{};
  r.dense = floatsIn(call, 0);
  const Mix mix = mixOf(call, 1, 2);
  const View dmix = floatsOut(call, 0);
  const auto bytes = static_cast<size_t>(output(call, 0).elements * storedBytes(dmix.dtype));
  return routed(rowsIn(call, call.inputs, 3), r, [=](const Launch& launch, const Routing& with) {
    Mix own = mix;
    own.reporter = launch.reporter;
    if (bytes > 0) check(cudaMemsetAsync(dmix.data, 0, bytes, launch.stream), "cudaMemsetAsync");
    each(launch, with.count * mix.tokens, MixGradient{with, own, dmix});
  });
}

struct RowPair {
  View to, from;
};

struct MoveRow {
  const RowPair* pairs;
  int64_t width;
  __device__ void operator()(int64_t i) const {
    const RowPair& pair = pairs[i / width];
    set(pair.to, i % width, get(pair.from, i % width));
  }
};

Work rechunk(const Call& call) {
  const Rows from = rowsIn(call, call.inputs, 0);
  const Rows to = rowsIn(call, call.outputs, 0);
  const std::vector<int64_t> counts = call.integers("blocks");
  const std::vector<int64_t> fromPlaces = placesOf(counts, static_cast<int64_t>(call.inputs.size()));
  const std::vector<int64_t> toPlaces = placesOf(counts, call.integer("chunks"));
  if (fromPlaces.size() != from.at.size() || toPlaces.size() != to.at.size()) {
    throw BadCall("moe_rechunk: blocks \"" + call.text("blocks") + "\" for " + std::to_string(from.at.size()) + " rows");
  }
  std::vector<View> source(fromPlaces.size());
  for (size_t row = 0; row < fromPlaces.size(); row++) source[static_cast<size_t>(fromPlaces[row])] = from.at[row];
  std::vector<RowPair> pairs;
  for (size_t row = 0; row < toPlaces.size(); row++) pairs.push_back({to.at[row], source[static_cast<size_t>(toPlaces[row])]});
  const Table<RowPair> table(pairs);
  const int64_t width = to.width;
  return [=](const Launch& launch) { each(launch, table.count * width, MoveRow{table.data, width}); };
}

}  // namespace

const KernelTable moeOrderKernels = {{"moe_order.forward", orderForward},
                                     {"moe_order.backward", orderBackward},
                                     {"moe_inverse_order.forward", inverseOrderForward},
                                     {"moe_inverse_order.backward_input", inverseOrderBackwardInput},
                                     {"moe_inverse_order.backward_gate", inverseOrderBackwardGate},
                                     {"soft_order.forward", softOrderForward},
                                     {"soft_inverse_order.forward", softInverseOrderForward},
                                     {"soft_order.backward_mix", softOrderBackwardMix},
                                     {"moe_rechunk", rechunk}};

}  // namespace tandem::cuda

// Order and I-Order of an expert-parallel MoE layer; argument order as core/kernels/moe-order.ts. Rows lie in as many tensors
// as there are messages; a row that no token takes is -1, and zero.
#include <algorithm>

#include "../chunks.h"
#include "kernels.h"

namespace tandem {

namespace {

struct Layout {
  int64_t experts, ranks, chunks, capacity;

  /** visit(row, expert, position) for every row in order of memory; `rowsOf(expert)` says how many each expert has. */
  template <class RowsOf, class Visit>
  void each(RowsOf rowsOf, Visit visit) const {
    const int64_t local = experts / ranks;
    int64_t row = 0;
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
      for (int64_t j = 0; j < local; j++) {
        for (int64_t rank = 0; rank < ranks; rank++) {
          const int64_t expert = rank * local + j;
          const int64_t end = chunkStart(rowsOf(expert), chunk + 1, chunks);
          for (int64_t position = chunkStart(rowsOf(expert), chunk, chunks); position < end; position++) {
            visit(row++, expert, position);
          }
        }
      }
    }
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

Work moeLayout(const Call& call) {
  const Layout layout = layoutOf(call);
  const int32_t* chosen = integersIn(call, 0);
  int32_t* tokens = integersOut(call, 0);
  int32_t* assignments = integersOut(call, 1);
  int32_t* counts = integersOut(call, 2);
  const int64_t choices = input(call, 0).elements;
  const int64_t topK = call.integer("topK");
  return [=](const double*) {
    std::fill(counts, counts + layout.experts, 0);
    std::vector<std::vector<int32_t>> taken(static_cast<size_t>(layout.experts));
    for (int64_t k = 0; k < topK; k++) {
      for (int64_t at = k; at < choices; at += topK) {
        const int32_t expert = chosen[at];
        if (expert < 0 || expert >= layout.experts) {
          throw BadCall("moe_layout: expert " + std::to_string(expert) + " of " + std::to_string(layout.experts));
        }
        counts[expert]++;
        taken[static_cast<size_t>(expert)].push_back(static_cast<int32_t>(at));
      }
    }
    const auto rowsOf = [&](int64_t expert) { return layout.capacity == 0 ? counts[expert] : layout.capacity; };
    layout.each(rowsOf, [&](int64_t row, int64_t expert, int64_t position) {
      const auto& own = taken[static_cast<size_t>(expert)];
      const int32_t assignment = position < static_cast<int64_t>(own.size()) ? own[static_cast<size_t>(position)] : -1;
      assignments[row] = assignment;
      tokens[row] = assignment < 0 ? -1 : static_cast<int32_t>(assignment / topK);
    });
  };
}

Work expertChoiceLayout(const Call& call) {
  const Layout layout = layoutOf(call);
  const int32_t* chosen = integersIn(call, 0);
  int32_t* tokens = integersOut(call, 0);
  int32_t* assignments = integersOut(call, 1);
  return [=](const double*) {
    layout.each([&](int64_t) { return layout.capacity; },
                [&](int64_t row, int64_t expert, int64_t position) {
                  const int64_t assignment = expert * layout.capacity + position;
                  assignments[row] = static_cast<int32_t>(assignment);
                  tokens[row] = chosen[assignment];
                });
  };
}

Work softLayout(const Call& call) {
  const Layout layout = layoutOf(call);
  int32_t* columns = integersOut(call, 0);
  return [=](const double*) {
    layout.each([&](int64_t) { return layout.capacity; },
                [&](int64_t row, int64_t expert, int64_t position) {
                  columns[row] = static_cast<int32_t>(expert * layout.capacity + position);
                });
  };
}

/** Rows of one width over several tensors, by their addresses. */
struct Rows {
  std::vector<float*> at;
  int64_t width = 1;
};

Rows rowsIn(const Call& call, const std::vector<Operand>& operands, size_t first) {
  Rows rows;
  for (size_t i = first; i < operands.size(); i++) {
    float* data = floatsOf(call, operands[i]);
    rows.width = operands[i].shape.at(1);
    for (int64_t row = 0; row < operands[i].shape.at(0); row++) rows.at.push_back(data + row * rows.width);
  }
  return rows;
}

/** An index that came as data, or a negative one for no row at all. */
int64_t rowOrNone(const char* kernel, int32_t index, int64_t of) {
  if (index < of) return index;
  throw BadCall(std::string(kernel) + ": row " + std::to_string(index) + " of " + std::to_string(of));
}

/** An index that came as data where there must be one. */
int64_t rowOf(const char* kernel, int32_t index, int64_t of) {
  if (index >= 0 && index < of) return index;
  throw BadCall(std::string(kernel) + ": row " + std::to_string(index) + " of " + std::to_string(of));
}

Work orderForward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  const int32_t* tokens = integersIn(call, 1);
  const Rows out = rowsIn(call, call.outputs, 0);
  const int64_t inputs = input(call, 0).shape.at(0);
  return [=](const double*) {
    for (size_t row = 0; row < out.at.size(); row++) {
      const int64_t from = rowOrNone("moe_order.forward", tokens[row], inputs);
      if (from < 0) {
        std::fill(out.at[row], out.at[row] + out.width, 0.0f);
      } else {
        std::copy(inp + from * out.width, inp + (from + 1) * out.width, out.at[row]);
      }
    }
  };
}

/** sums[to] += weight * row, in float64; written at the end. */
struct Sums {
  explicit Sums(int64_t elements) : values(static_cast<size_t>(elements), 0.0) {}

  void add(int64_t at, double weight, const float* row, int64_t width) {
    double* to = values.data() + at * width;
    for (int64_t c = 0; c < width; c++) to[c] += weight * static_cast<double>(row[c]);
  }
  void store(float* out) const {
    for (size_t i = 0; i < values.size(); i++) out[i] = static_cast<float>(values[i]);
  }

  std::vector<double> values;
};

Work orderBackward(const Call& call) {
  const int32_t* tokens = integersIn(call, 0);
  const Rows dout = rowsIn(call, call.inputs, 1);
  float* dinp = floatsOut(call, 0);
  const int64_t inputs = output(call, 0).shape.at(0);
  const int64_t elements = output(call, 0).elements;
  return [=](const double*) {
    Sums sums(elements);
    for (size_t row = 0; row < dout.at.size(); row++) {
      const int64_t to = rowOrNone("moe_order.backward", tokens[row], inputs);
      if (to >= 0) sums.add(to, 1, dout.at[row], dout.width);
    }
    sums.store(dinp);
  };
}

Work inverseOrderForward(const Call& call) {
  const float* weights = floatsIn(call, 0);
  const int64_t weightCount = input(call, 0).elements;
  const int32_t* tokens = integersIn(call, 1);
  const int32_t* assignments = integersIn(call, 2);
  const Rows rows = rowsIn(call, call.inputs, 3);
  float* out = floatsOut(call, 0);
  const int64_t outputs = output(call, 0).shape.at(0);
  const int64_t elements = output(call, 0).elements;
  return [=](const double*) {
    Sums sums(elements);
    for (size_t row = 0; row < rows.at.size(); row++) {
      const int64_t to = rowOrNone("moe_inverse_order.forward", tokens[row], outputs);
      if (to < 0) continue;
      const int64_t assignment = rowOf("moe_inverse_order.forward", assignments[row], weightCount);
      sums.add(to, static_cast<double>(weights[assignment]), rows.at[row], rows.width);
    }
    sums.store(out);
  };
}

Work inverseOrderBackwardInput(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const float* weights = floatsIn(call, 1);
  const int64_t weightCount = input(call, 1).elements;
  const int32_t* tokens = integersIn(call, 2);
  const int32_t* assignments = integersIn(call, 3);
  const Rows dinp = rowsIn(call, call.outputs, 0);
  const int64_t outputs = input(call, 0).shape.at(0);
  return [=](const double*) {
    for (size_t row = 0; row < dinp.at.size(); row++) {
      const int64_t from = rowOrNone("moe_inverse_order.backward_input", tokens[row], outputs);
      float* to = dinp.at[row];
      if (from < 0) {
        std::fill(to, to + dinp.width, 0.0f);
        continue;
      }
      const float weight = weights[rowOf("moe_inverse_order.backward_input", assignments[row], weightCount)];
      for (int64_t c = 0; c < dinp.width; c++) to[c] = weight * dout[from * dinp.width + c];
    }
  };
}

double dot(const float* x, const float* y, int64_t width) {
  double sum = 0;
  for (int64_t c = 0; c < width; c++) sum += static_cast<double>(x[c]) * static_cast<double>(y[c]);
  return sum;
}

Work inverseOrderBackwardGate(const Call& call) {
  const float* dout = floatsIn(call, 0);
  const int32_t* tokens = integersIn(call, 2);
  const int32_t* assignments = integersIn(call, 3);
  const Rows rows = rowsIn(call, call.inputs, 4);
  float* dweights = floatsOut(call, 0);
  const int64_t weightCount = output(call, 0).elements;
  const int64_t outputs = input(call, 0).shape.at(0);
  return [=](const double*) {
    std::fill(dweights, dweights + weightCount, 0.0f);
    for (size_t row = 0; row < rows.at.size(); row++) {
      const int64_t from = rowOrNone("moe_inverse_order.backward_gate", tokens[row], outputs);
      if (from < 0) continue;
      dweights[rowOf("moe_inverse_order.backward_gate", assignments[row], weightCount)] =
          static_cast<float>(dot(dout + from * rows.width, rows.at[row], rows.width));
    }
  };
}

/** The mixing matrix [tokens, slots] of SoftMoE and the column of each row. */
struct Mix {
  const float* data;
  int64_t tokens, slots;
  const int32_t* columns;

  int64_t column(const char* kernel, size_t row) const {
    return rowOf(kernel, columns[row], slots);
  }
};

Mix mixOf(const Call& call, size_t mix, size_t columns) {
  const Shape& shape = input(call, mix).shape;
  return {floatsIn(call, mix), shape.at(0), shape.at(1), integersIn(call, columns)};
}

Work softOrderForward(const Call& call) {
  const float* inp = floatsIn(call, 0);
  const Mix mix = mixOf(call, 1, 2);
  const Rows out = rowsIn(call, call.outputs, 0);
  return [=](const double*) {
    std::vector<double> sums(static_cast<size_t>(out.width));
    for (size_t row = 0; row < out.at.size(); row++) {
      const int64_t column = mix.column("soft_order.forward", row);
      std::fill(sums.begin(), sums.end(), 0.0);
      for (int64_t t = 0; t < mix.tokens; t++) {
        const auto weight = static_cast<double>(mix.data[t * mix.slots + column]);
        for (int64_t c = 0; c < out.width; c++) {
          sums[static_cast<size_t>(c)] += weight * static_cast<double>(inp[t * out.width + c]);
        }
      }
      for (int64_t c = 0; c < out.width; c++) out.at[row][c] = static_cast<float>(sums[static_cast<size_t>(c)]);
    }
  };
}

Work softInverseOrderForward(const Call& call) {
  const Mix mix = mixOf(call, 0, 1);
  const Rows rows = rowsIn(call, call.inputs, 2);
  float* out = floatsOut(call, 0);
  const int64_t elements = output(call, 0).elements;
  return [=](const double*) {
    Sums sums(elements);
    for (size_t row = 0; row < rows.at.size(); row++) {
      const int64_t column = mix.column("soft_inverse_order.forward", row);
      for (int64_t t = 0; t < mix.tokens; t++) {
        sums.add(t, static_cast<double>(mix.data[t * mix.slots + column]), rows.at[row], rows.width);
      }
    }
    sums.store(out);
  };
}

Work softOrderBackwardMix(const Call& call) {
  const float* side = floatsIn(call, 0);
  const Mix mix = mixOf(call, 1, 2);
  const Rows rows = rowsIn(call, call.inputs, 3);
  float* dmix = floatsOut(call, 0);
  const int64_t elements = output(call, 0).elements;
  return [=](const double*) {
    std::fill(dmix, dmix + elements, 0.0f);
    for (size_t row = 0; row < rows.at.size(); row++) {
      const int64_t column = mix.column("soft_order.backward_mix", row);
      for (int64_t t = 0; t < mix.tokens; t++) {
        dmix[t * mix.slots + column] = static_cast<float>(dot(side + t * rows.width, rows.at[row], rows.width));
      }
    }
  };
}

Work rechunk(const Call& call) {
  const Rows from = rowsIn(call, call.inputs, 0);
  const Rows to = rowsIn(call, call.outputs, 0);
  const std::vector<int64_t> counts = call.integers("blocks");
  const std::vector<int64_t> fromPlaces = placesOf(counts, static_cast<int64_t>(call.inputs.size()));
  const std::vector<int64_t> toPlaces = placesOf(counts, call.integer("chunks"));
  if (fromPlaces.size() != from.at.size() || toPlaces.size() != to.at.size()) {
    throw BadCall("moe_rechunk: blocks \"" + call.text("blocks") + "\" for " + std::to_string(from.at.size()) + " rows");
  }
  std::vector<const float*> source(fromPlaces.size());
  for (size_t row = 0; row < fromPlaces.size(); row++) source[static_cast<size_t>(fromPlaces[row])] = from.at[row];
  return [=](const double*) {
    for (size_t row = 0; row < toPlaces.size(); row++) {
      const float* values = source[static_cast<size_t>(toPlaces[row])];
      std::copy(values, values + to.width, to.at[row]);
    }
  };
}

}  // namespace

const KernelTable moeOrderKernels = {{"moe_layout", moeLayout},
                                     {"expert_choice_layout", expertChoiceLayout},
                                     {"soft_layout", softLayout},
                                     {"moe_order.forward", orderForward},
                                     {"moe_order.backward", orderBackward},
                                     {"moe_inverse_order.forward", inverseOrderForward},
                                     {"moe_inverse_order.backward_input", inverseOrderBackwardInput},
                                     {"moe_inverse_order.backward_gate", inverseOrderBackwardGate},
                                     {"soft_order.forward", softOrderForward},
                                     {"soft_inverse_order.forward", softInverseOrderForward},
                                     {"soft_order.backward_mix", softOrderBackwardMix},
                                     {"moe_rechunk", rechunk}};

}  // namespace tandem

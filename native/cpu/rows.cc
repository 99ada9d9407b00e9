// Moving rows between tensors; argument order as core/kernels/rows.ts, and repack of moe-order.ts.
#include <algorithm>
#include <cstring>

#include "kernels.h"

namespace tandem {

namespace {

/** A run of elements, four bytes each whatever they are. */
struct Run {
  char* data;
  int64_t elements;
};

std::vector<Run> runsOf(const Call& call, const std::vector<Operand>& operands, bool integers) {
  std::vector<Run> runs;
  for (const Operand& operand : operands) {
    if (isInteger(operand.dtype) != integers) throw BadCall(call.kernel + ": integer and float tensors do not mix");
    runs.push_back({static_cast<char*>(operand.data), operand.elements});
  }
  return runs;
}

void copyElements(char* to, const char* from, int64_t elements) {
  if (elements > 0) std::memmove(to, from, static_cast<size_t>(elements) * 4);
}

Work concatRows(const Call& call) {
  const bool integers = isInteger(output(call, 0).dtype);
  const std::vector<Run> inputs = runsOf(call, call.inputs, integers);
  const Run out = runsOf(call, call.outputs, integers).at(0);
  return [=](const double*) {
    int64_t at = 0;
    for (const Run& run : inputs) {
      copyElements(out.data + at * 4, run.data, run.elements);
      at += run.elements;
    }
    if (at < out.elements) std::memset(out.data + at * 4, 0, static_cast<size_t>(out.elements - at) * 4);
  };
}

Work splitRows(const Call& call) {
  const bool integers = isInteger(input(call, 0).dtype);
  const Run inp = runsOf(call, call.inputs, integers).at(0);
  const std::vector<Run> outputs = runsOf(call, call.outputs, integers);
  return [=](const double*) {
    int64_t at = 0;
    for (const Run& run : outputs) {
      copyElements(run.data, inp.data + at * 4, run.elements);
      at += run.elements;
    }
  };
}

Work lastToken(const Call& call) {
  const bool integers = isInteger(input(call, 0).dtype);
  const Run inp = runsOf(call, call.inputs, integers).at(0);
  const Run out = runsOf(call, call.outputs, integers).at(0);
  const Shape& shape = input(call, 0).shape;
  const int64_t batch = shape.at(0), time = shape.at(1), width = shape.at(2);
  return [=](const double*) {
    for (int64_t b = 0; b < batch; b++) {
      copyElements(out.data + b * width * 4, inp.data + ((b + 1) * time - 1) * width * 4, width);
    }
  };
}

Work argmax(const Call& call) {
  const Values inp = valuesOf(input(call, 0));
  int32_t* out = integersOut(call, 0);
  const int64_t rows = rowsOf(input(call, 0));
  const int64_t width = widthOf(input(call, 0));
  return [=](const double*) {
    for (int64_t row = 0; row < rows; row++) {
      int64_t best = 0;
      for (int64_t c = 1; c < width; c++) {
        if (inp.get(row * width + c) > inp.get(row * width + best)) best = c;
      }
      out[row] = static_cast<int32_t>(best);
    }
  };
}

/** All inputs' values in order, over all outputs in order. */
Work repack(const Call& call) {
  int64_t elements = 0;
  for (const Operand& in : call.inputs) elements += in.elements;
  int64_t wanted = 0;
  for (const Operand& out : call.outputs) wanted += out.elements;
  if (elements != wanted) {
    throw BadCall("repack: " + std::to_string(elements) + " values into " + std::to_string(wanted));
  }
  const std::vector<Operand> inputs = call.inputs;
  const std::vector<Operand> outputs = call.outputs;
  return [=](const double*) {
    size_t from = 0;
    int64_t used = 0;
    for (const Operand& out : outputs) {
      for (int64_t at = 0; at < out.elements;) {
        while (used == inputs[from].elements) {
          from++;
          used = 0;
        }
        const Operand& in = inputs[from];
        const int64_t count = std::min(out.elements - at, in.elements - used);
        if (isInteger(in.dtype) == isInteger(out.dtype)) {
          copyElements(static_cast<char*>(out.data) + at * 4, static_cast<const char*>(in.data) + used * 4, count);
        } else {
          for (int64_t i = 0; i < count; i++) valuesOf(out).set(at + i, valuesOf(in).get(used + i));
        }
        at += count;
        used += count;
      }
    }
  };
}

}  // namespace

const KernelTable rowKernels = {{"concat_rows", concatRows},
                                {"split_rows", splitRows},
                                {"last_token", lastToken},
                                {"argmax", argmax},
                                {"repack", repack}};

}  // namespace tandem

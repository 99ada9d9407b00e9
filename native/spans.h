// Which values of an op's tensors a message takes: what collectives between processes are made of, over connections and over
// NCCL. Knows nothing of either.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend.h"

namespace tandem {

/** Values [from, from + count) of one of an op's tensors. */
struct Span {
  size_t tensor;
  int64_t from;
  int64_t count;
  bool operator==(const Span& other) const { return tensor == other.tensor && from == other.from && count == other.count; }
};
using Spans = std::vector<Span>;

inline int64_t sumOf(const std::vector<int64_t>& counts, size_t first = 0, size_t last = SIZE_MAX) {
  int64_t sum = 0;
  for (size_t i = first; i < std::min(last, counts.size()); i++) sum += counts[i];
  return sum;
}

inline int64_t elementsOf(const std::vector<Operand>& tensors) {
  int64_t elements = 0;
  for (const Operand& tensor : tensors) elements += tensor.elements;
  return elements;
}

/** All values of the tensors. */
inline Spans allOf(const std::vector<Operand>& tensors) {
  Spans spans;
  for (size_t i = 0; i < tensors.size(); i++) spans.push_back({i, 0, tensors[i].elements});
  return spans;
}

/** A member's rows of each tensor, where members have `counts` rows; none where nobody has any. */
inline Spans rowsOf(const std::vector<Operand>& tensors, const std::vector<int64_t>& counts, size_t member) {
  Spans spans;
  const int64_t rows = sumOf(counts);
  for (size_t i = 0; rows > 0 && i < tensors.size(); i++) {
    const int64_t unit = tensors[i].elements / rows;
    spans.push_back({i, sumOf(counts, 0, member) * unit, counts[member] * unit});
  }
  return spans;
}

/** Values [first, last) of the tensors laid end to end. */
inline Spans stretchOf(const std::vector<Operand>& tensors, int64_t first, int64_t last) {
  Spans spans;
  int64_t before = 0;
  for (size_t i = 0; i < tensors.size(); i++) {
    const int64_t from = std::max(first, before);
    const int64_t to = std::min(last, before + tensors[i].elements);
    if (from < to) spans.push_back({i, from - before, to - from});
    before += tensors[i].elements;
  }
  return spans;
}

}  // namespace tandem

// A graph, operation by operation as it is described, in float64 and on memory of the host; what a tensor holds is of its type.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "descriptor.h"

namespace cudnn_test {

using Extents = std::array<int64_t, 4>;

inline Extents extentsOf(const Descriptor& tensor, int name = CUDNN_ATTR_TENSOR_DIMENSIONS) {
  const auto values = tensor.all<int64_t>(name);
  return {values[0], values[1], values[2], values[3]};
}

inline int64_t idOf(const Descriptor& tensor) { return tensor.one<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID); }
inline bool isVirtual(const Descriptor& tensor) { return tensor.flag(CUDNN_ATTR_TENSOR_IS_VIRTUAL); }
inline bool isValue(const Descriptor& tensor) { return tensor.flag(CUDNN_ATTR_TENSOR_IS_BY_VALUE); }
inline int64_t productOf(const Extents& e) { return e[0] * e[1] * e[2] * e[3]; }

inline uint16_t narrow(double value, int type) {
  if (type == CUDNN_DATA_HALF) {
    const auto half = static_cast<_Float16>(static_cast<float>(value));
    uint16_t bits;
    std::memcpy(&bits, &half, sizeof bits);
    return bits;
  }
  const auto single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline double wide(uint16_t stored, int type) {
  if (type == CUDNN_DATA_HALF) {
    _Float16 half;
    std::memcpy(&half, &stored, sizeof half);
    return static_cast<double>(half);
  }
  const uint32_t bits = static_cast<uint32_t>(stored) << 16;
  float single;
  std::memcpy(&single, &bits, sizeof single);
  return single;
}

inline double rounded(double value, int type) {
  switch (type) {
    case CUDNN_DATA_FLOAT: return static_cast<float>(value);
    case CUDNN_DATA_HALF:
    case CUDNN_DATA_BFLOAT16: return wide(narrow(value, type), type);
    default: return value;
  }
}

inline double loadFrom(const void* memory, int64_t at, int type) {
  switch (type) {
    case CUDNN_DATA_FLOAT: return static_cast<const float*>(memory)[at];
    case CUDNN_DATA_INT32: return static_cast<const int32_t*>(memory)[at];
    default: return wide(static_cast<const uint16_t*>(memory)[at], type);
  }
}

inline void storeTo(void* memory, int64_t at, int type, double value) {
  if (type == CUDNN_DATA_FLOAT) {
    static_cast<float*>(memory)[at] = static_cast<float>(value);
  } else {
    static_cast<uint16_t*>(memory)[at] = narrow(value, type);
  }
}

/** of(position in row-major order, index along each axis) */
template <class Of>
void forEach(const Extents& extents, const Of& of) {
  int64_t at = 0;
  for (int64_t b = 0; b < extents[0]; b++) {
    for (int64_t h = 0; h < extents[1]; h++) {
      for (int64_t i = 0; i < extents[2]; i++) {
        for (int64_t j = 0; j < extents[3]; j++) of(at++, Extents{b, h, i, j});
      }
    }
  }
}

inline int64_t offsetOf(const Extents& index, const Extents& strides) {
  int64_t offset = 0;
  for (size_t axis = 0; axis < 4; axis++) offset += index[axis] * strides[axis];
  return offset;
}

inline int64_t rowMajorAt(const Extents& index, const Extents& extents) {
  return ((index[0] * extents[1] + index[1]) * extents[2] + index[2]) * extents[3] + index[3];
}

struct Values {
  Extents extents;
  std::vector<double> data;
  /** Where an index of a larger tensor falls: neighbours share an element along an axis that has fewer. */
  double at(const Extents& index, const Extents& of) const {
    Extents own;
    for (size_t axis = 0; axis < 4; axis++) own[axis] = index[axis] * extents[axis] / of[axis];
    return data[static_cast<size_t>(rowMajorAt(own, extents))];
  }
};

/** One run of a graph. */
class Run {
 public:
  Run(const Descriptor& graph, const Descriptor& pack) : graph_(graph) {
    const auto ids = pack.all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const auto memory = pack.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    if (ids.size() != memory.size()) fail("as many ids as memory");
    for (size_t i = 0; i < ids.size(); i++) {
      if (!memory_.emplace(ids[i], memory[i]).second) fail("an id twice");
    }
    workspace_ = pack.one<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  }

  void all() {
    for (const auto* operation : graph_.all<const Descriptor*>(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
      run(*operation);
      // what lies there is the library's
      std::memset(workspace_, 0xff, 512);
    }
    if (touched_.size() != memory_.size()) fail("memory of tensors that the graph has not");
  }

 private:
  void run(const Descriptor& operation) {
    switch (operation.kind) {
      case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR: multiply(operation); break;
      case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: pointwise(operation); break;
      case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR: reduce(operation); break;
      case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR: reshape(operation); break;
      default: fail("an operation of kind " + std::to_string(operation.kind));
    }
  }

  /** Of what has memory always what lies there now. */
  Values read(const Descriptor& tensor) {
    const int64_t id = idOf(tensor);
    const auto found = values_.find(id);
    if (found != values_.end()) return found->second;
    const auto memory = memory_.find(id);
    if (isVirtual(tensor) || memory == memory_.end()) fail("tensor " + std::to_string(id) + " is read, and nothing made it");
    touched_.insert(id);
    const int type = tensor.one<int>(CUDNN_ATTR_TENSOR_DATA_TYPE);
    const Extents extents = extentsOf(tensor);
    const Extents strides = extentsOf(tensor, CUDNN_ATTR_TENSOR_STRIDES);
    Values values{extents, std::vector<double>(static_cast<size_t>(productOf(extents)))};
    forEach(extents, [&](int64_t at, const Extents& index) {
      values.data[static_cast<size_t>(at)] = loadFrom(memory->second, offsetOf(index, strides), type);
    });
    return values;
  }

  void write(const Descriptor& tensor, Values values) {
    const int64_t id = idOf(tensor);
    const int type = tensor.one<int>(CUDNN_ATTR_TENSOR_DATA_TYPE);
    if (values.extents != extentsOf(tensor)) fail("a result that has not the extents of tensor " + std::to_string(id));
    if (!made_.insert(id).second) fail("tensor " + std::to_string(id) + " is made twice");
    if (isVirtual(tensor)) {
      for (double& value : values.data) value = rounded(value, type);
      values_.emplace(id, std::move(values));
      return;
    }
    const auto memory = memory_.find(id);
    if (memory == memory_.end()) fail("no memory of tensor " + std::to_string(id));
    touched_.insert(id);
    const Extents strides = extentsOf(tensor, CUDNN_ATTR_TENSOR_STRIDES);
    forEach(values.extents, [&](int64_t at, const Extents& index) {
      const int64_t offset = offsetOf(index, strides);
      const char* const address = static_cast<const char*>(memory->second) + offset * (type == CUDNN_DATA_FLOAT ? 4 : 2);
      if (owners_.emplace(address, id).first->second != id) fail("tensor " + std::to_string(id) + " lies where another does");
      storeTo(memory->second, offset, type, values.data[static_cast<size_t>(at)]);
    });
  }

  void multiply(const Descriptor& operation) {
    const Values left = read(operation.of(CUDNN_ATTR_OPERATION_MATMUL_ADESC));
    const Values right = read(operation.of(CUDNN_ATTR_OPERATION_MATMUL_BDESC));
    const int64_t depth = left.extents[3];
    if (right.extents[2] != depth) fail("a product of matrices that do not fit");
    Values out{{std::max(left.extents[0], right.extents[0]), std::max(left.extents[1], right.extents[1]), left.extents[2],
                right.extents[3]},
               {}};
    out.data.resize(static_cast<size_t>(productOf(out.extents)));
    const Extents ofLeft = {out.extents[0], out.extents[1], out.extents[2], depth};
    const Extents ofRight = {out.extents[0], out.extents[1], depth, out.extents[3]};
    forEach(out.extents, [&](int64_t at, const Extents& i) {
      double sum = 0;
      for (int64_t d = 0; d < depth; d++) sum += left.at({i[0], i[1], i[2], d}, ofLeft) * right.at({i[0], i[1], d, i[3]}, ofRight);
      out.data[static_cast<size_t>(at)] = sum;
    });
    write(operation.of(CUDNN_ATTR_OPERATION_MATMUL_CDESC), std::move(out));
  }

  void pointwise(const Descriptor& operation) {
    const Descriptor& how = operation.of(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    const int mode = how.one<int>(CUDNN_ATTR_POINTWISE_MODE);
    const Values x = read(operation.of(CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
    const auto other = [&](int name) -> std::optional<Values> {
      if (operation.set.count(name) == 0) return std::nullopt;
      return read(operation.of(name));
    };
    const std::optional<Values> b = other(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    const std::optional<Values> t = other(CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
    const bool unary = mode == CUDNN_POINTWISE_EXP || mode == CUDNN_POINTWISE_LOG || mode == CUDNN_POINTWISE_IDENTITY ||
                       mode == CUDNN_POINTWISE_GEN_INDEX;
    if (unary == b.has_value() || (mode == CUDNN_POINTWISE_BINARY_SELECT) != t.has_value()) fail("operands that the mode has not");
    Values out{x.extents, std::vector<double>(x.data.size())};
    for (const std::optional<Values>* one : {&b, &t}) {
      for (size_t axis = 0; one->has_value() && axis < 4; axis++) {
        if ((*one)->extents[axis] != 1 && (*one)->extents[axis] != x.extents[axis]) fail("extents that do not fit");
      }
    }
    forEach(out.extents, [&](int64_t at, const Extents& index) {
      const double u = x.data[static_cast<size_t>(at)];
      const double v = !b ? 0 : b->at(index, out.extents);
      double& to = out.data[static_cast<size_t>(at)];
      switch (mode) {
        case CUDNN_POINTWISE_ADD: to = u + v; break;
        case CUDNN_POINTWISE_MUL: to = u * v; break;
        case CUDNN_POINTWISE_DIV: to = u / v; break;
        case CUDNN_POINTWISE_SUB: to = u - v; break;
        case CUDNN_POINTWISE_EXP: to = std::exp(u); break;
        case CUDNN_POINTWISE_LOG: to = std::log(u); break;
        case CUDNN_POINTWISE_IDENTITY: to = u; break;
        case CUDNN_POINTWISE_CMP_GE: to = u >= v ? 1 : 0; break;
        case CUDNN_POINTWISE_GEN_INDEX:
          to = static_cast<double>(index[static_cast<size_t>(how.one<int64_t>(CUDNN_ATTR_POINTWISE_AXIS))]);
          break;
        case CUDNN_POINTWISE_BINARY_SELECT: to = t->at(index, out.extents) != 0 ? u : v; break;
        default: fail("mode " + std::to_string(mode));
      }
    });
    write(operation.of(CUDNN_ATTR_OPERATION_POINTWISE_YDESC), std::move(out));
  }

  void reduce(const Descriptor& operation) {
    const int mode = operation.of(CUDNN_ATTR_OPERATION_REDUCTION_DESC).one<int>(CUDNN_ATTR_REDUCTION_OPERATOR);
    if (mode != CUDNN_REDUCE_TENSOR_ADD && mode != CUDNN_REDUCE_TENSOR_MAX) fail("reduction " + std::to_string(mode));
    const Values x = read(operation.of(CUDNN_ATTR_OPERATION_REDUCTION_XDESC));
    const Descriptor& to = operation.of(CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
    const bool sum = mode == CUDNN_REDUCE_TENSOR_ADD;
    Values out{extentsOf(to), {}};
    out.data.assign(static_cast<size_t>(productOf(out.extents)), sum ? 0 : -INFINITY);
    for (size_t axis = 0; axis < 4; axis++) {
      if (x.extents[axis] % out.extents[axis] != 0) fail("a reduction in uneven groups");
    }
    forEach(x.extents, [&](int64_t at, const Extents& index) {
      Extents own;
      for (size_t axis = 0; axis < 4; axis++) own[axis] = index[axis] * out.extents[axis] / x.extents[axis];
      double& into = out.data[static_cast<size_t>(rowMajorAt(own, out.extents))];
      const double value = x.data[static_cast<size_t>(at)];
      into = sum ? into + value : std::max(into, value);
    });
    write(to, std::move(out));
  }

  /** The same memory: an element of y is that of x at its offset. */
  void reshape(const Descriptor& operation) {
    const Descriptor& from = operation.of(CUDNN_ATTR_OPERATION_RESHAPE_XDESC);
    const Descriptor& to = operation.of(CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
    const Values x = read(from);
    const Extents strides = extentsOf(from, CUDNN_ATTR_TENSOR_STRIDES);
    std::map<int64_t, double> memory;
    forEach(x.extents, [&](int64_t at, const Extents& index) { memory[offsetOf(index, strides)] = x.data[static_cast<size_t>(at)]; });
    Values out{extentsOf(to), {}};
    out.data.resize(static_cast<size_t>(productOf(out.extents)));
    const Extents newStrides = extentsOf(to, CUDNN_ATTR_TENSOR_STRIDES);
    forEach(out.extents, [&](int64_t at, const Extents& index) {
      const auto found = memory.find(offsetOf(index, newStrides));
      if (found == memory.end()) fail("a reshape to memory that is not there");
      out.data[static_cast<size_t>(at)] = found->second;
    });
    write(to, std::move(out));
  }

  const Descriptor& graph_;
  std::map<int64_t, void*> memory_;
  std::set<int64_t> touched_;
  void* workspace_ = nullptr;
  std::set<int64_t> made_;
  /** Of what was written, by address. */
  std::map<const char*, int64_t> owners_;
  /** Of virtual tensors. */
  std::map<int64_t, Values> values_;
};

}  // namespace cudnn_test

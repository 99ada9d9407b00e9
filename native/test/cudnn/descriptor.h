// What a descriptor of cuDNN's holds, and what its attributes take.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "names.h"

namespace cudnn_test {

inline thread_local std::string lastError;

struct Failure {
  int status;
  std::string words;
};

[[noreturn]] inline void fail(const std::string& words, int status = CUDNN_STATUS_BAD_PARAM) { throw Failure{status, words}; }

template <class Of>
int guarded(const Of& of) {
  try {
    of();
    return CUDNN_STATUS_SUCCESS;
  } catch (const Failure& failure) {
    lastError = failure.words + "\n";
    return failure.status;
  }
}

inline size_t bytesOf(int attributeType) {
  switch (attributeType) {
    case CUDNN_TYPE_BOOLEAN: return sizeof(bool);
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    default: return 4;
  }
}

struct Rule {
  int kind, type;
  /** Elements; 0 for any number. */
  int64_t count = 1;
  bool required = true;
};

/** Whose attribute it is, and what it takes. */
inline const std::map<int, Rule>& rules() {
  constexpr int descriptor = CUDNN_TYPE_BACKEND_DESCRIPTOR;
  static const std::map<int, Rule> all = {
      {CUDNN_ATTR_POINTWISE_MODE, {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_TYPE_POINTWISE_MODE}},
      {CUDNN_ATTR_POINTWISE_MATH_PREC, {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE}},
      {CUDNN_ATTR_POINTWISE_AXIS, {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_TYPE_INT64, 1, false}},
      {CUDNN_ATTR_ENGINEHEUR_MODE, {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_TYPE_HEUR_MODE}},
      {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, descriptor, 1, false}},
      {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_TYPE_FLOAT, 1, false}},
      {CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_TYPE_FLOAT, 1, false}},
      {CUDNN_ATTR_OPERATION_POINTWISE_TDESC, {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, descriptor, 1, false}},
      {CUDNN_ATTR_OPERATIONGRAPH_HANDLE, {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_TYPE_HANDLE}},
      {CUDNN_ATTR_OPERATIONGRAPH_OPS, {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, descriptor, 0}},
      {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64}},
      {CUDNN_ATTR_TENSOR_DATA_TYPE, {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE}},
      {CUDNN_ATTR_TENSOR_DIMENSIONS, {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64, 4}},
      {CUDNN_ATTR_TENSOR_STRIDES, {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64, 4}},
      {CUDNN_ATTR_TENSOR_UNIQUE_ID, {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64}},
      {CUDNN_ATTR_TENSOR_IS_VIRTUAL, {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_BOOLEAN, 1, false}},
      {CUDNN_ATTR_TENSOR_IS_BY_VALUE, {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_BOOLEAN, 1, false}},
      {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_TYPE_INT64, 0}},
      {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_TYPE_VOID_PTR, 0}},
      {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_TYPE_VOID_PTR}},
      {CUDNN_ATTR_MATMUL_COMP_TYPE, {CUDNN_BACKEND_MATMUL_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE}},
      {CUDNN_ATTR_OPERATION_MATMUL_ADESC, {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_OPERATION_MATMUL_BDESC, {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_OPERATION_MATMUL_CDESC, {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_OPERATION_MATMUL_DESC, {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_REDUCTION_OPERATOR, {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE}},
      {CUDNN_ATTR_REDUCTION_COMP_TYPE, {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE}},
      {CUDNN_ATTR_OPERATION_REDUCTION_XDESC, {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_OPERATION_REDUCTION_YDESC, {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_OPERATION_REDUCTION_DESC, {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_OPERATION_RESHAPE_XDESC, {CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, descriptor}},
      {CUDNN_ATTR_OPERATION_RESHAPE_YDESC, {CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, descriptor}}};
  return all;
}

struct Descriptor {
  int kind;
  bool final = false;
  std::map<int, std::vector<uint8_t>> set{};
  /** Of a way to run a graph: whether a plan can be made of it. */
  bool works = false;

  template <class T>
  std::vector<T> all(int name) const {
    const auto found = set.find(name);
    if (found == set.end()) return {};
    std::vector<T> values(found->second.size() / sizeof(T));
    std::memcpy(values.data(), found->second.data(), found->second.size());
    return values;
  }

  template <class T>
  T one(int name) const {
    const auto values = all<T>(name);
    if (values.empty()) fail("attribute " + std::to_string(name) + " was not set");
    return values[0];
  }

  const Descriptor& of(int name) const { return *one<const Descriptor*>(name); }
  bool flag(int name) const { return set.count(name) > 0 && set.at(name)[0] != 0; }
};

}  // namespace cudnn_test

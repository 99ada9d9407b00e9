// A cuDNN for processors: the functions of its graph interface that this project calls, on memory of the host. It holds what it is given to
// the types and kinds that cuDNN's documentation has, and computes a graph as it is described, operation by operation. So what is built
// here is known to mean attention; whether the real one has a kernel for it only a GPU tells.
// TANDEM_TEST_CUDNN_VERSION: the version that it says it has, 91900 unless given.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "run.h"

using namespace cudnn_test;

namespace {

/** Kernels of attention have heads of at most 128 here, as on some GPUs. */
void checkWidth(const Descriptor& graph) {
  const auto* first = graph.all<const Descriptor*>(CUDNN_ATTR_OPERATIONGRAPH_OPS).front();
  const int name = first->kind == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR ? CUDNN_ATTR_OPERATION_MATMUL_ADESC
                                                                            : CUDNN_ATTR_OPERATION_POINTWISE_XDESC;
  if (extentsOf(first->of(name))[3] > 128) fail("heads wider than 128", CUDNN_STATUS_NOT_SUPPORTED);
}

struct Handle {
  void* stream = nullptr;
};

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED size_t cudnnGetVersion() {
  const char* wish = std::getenv("TANDEM_TEST_CUDNN_VERSION");
  return wish == nullptr ? 91900 : static_cast<size_t>(std::atoll(wish));
}

EXPORTED const char* cudnnGetErrorString(int status) {
  return status == CUDNN_STATUS_SUCCESS     ? "CUDNN_STATUS_SUCCESS"
         : status == CUDNN_STATUS_BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM"
                                            : "CUDNN_STATUS_NOT_SUPPORTED";
}

EXPORTED void cudnnGetLastErrorString(char* message, size_t size) {
  std::strncpy(message, lastError.c_str(), size);
  lastError.clear();
}

EXPORTED int cudnnCreate(void** handle) {
  // one for each device, which are never given back
  static std::vector<Handle*>& all = *new std::vector<Handle*>;
  all.push_back(new Handle);
  *handle = all.back();
  return CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnSetStream(void* handle, void* stream) {
  static_cast<Handle*>(handle)->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendCreateDescriptor(int kind, void** descriptor) {
  return guarded([&] {
    const bool known = kind == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR ||
                       std::any_of(rules().begin(), rules().end(), [&](const auto& rule) { return rule.second.kind == kind; });
    if (!known) fail("a descriptor of kind " + std::to_string(kind));
    *descriptor = new Descriptor{kind};
  });
}

EXPORTED int cudnnBackendDestroyDescriptor(void* descriptor) {
  delete static_cast<Descriptor*>(descriptor);
  return CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendSetAttribute(void* to, int name, int type, int64_t count, const void* values) {
  return guarded([&] {
    auto& descriptor = *static_cast<Descriptor*>(to);
    const std::string what = "attribute " + std::to_string(name);
    const auto rule = rules().find(name);
    if (descriptor.final) fail(what + " of what is finalized");
    if (rule == rules().end() || rule->second.kind != descriptor.kind) {
      fail(what + " of a descriptor of kind " + std::to_string(descriptor.kind));
    }
    if (rule->second.type != type) fail(what + " of type " + std::to_string(type));
    if (count < 1 || (rule->second.count != 0 && rule->second.count != count)) fail(what + " of " + std::to_string(count) + " elements");
    const auto* bytes = static_cast<const uint8_t*>(values);
    descriptor.set[name].assign(bytes, bytes + static_cast<size_t>(count) * bytesOf(type));
    if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR) return;
    for (const auto* other : descriptor.all<const Descriptor*>(name)) {
      if (!other->final) fail(what + " that is not finalized");
    }
  });
}

EXPORTED int cudnnBackendFinalize(void* of) {
  return guarded([&] {
    auto& descriptor = *static_cast<Descriptor*>(of);
    for (const auto& [name, rule] : rules()) {
      if (rule.kind == descriptor.kind && rule.required && descriptor.set.count(name) == 0) {
        fail("attribute " + std::to_string(name) + " is missing");
      }
    }
    if (descriptor.kind == CUDNN_BACKEND_TENSOR_DESCRIPTOR) {
      for (const int64_t extent : extentsOf(descriptor)) {
        if (extent < 1) fail("a tensor without elements");
      }
      if (isVirtual(descriptor) && isValue(descriptor)) fail("a tensor that is virtual and a value");
    }
    if (descriptor.kind == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && !descriptor.of(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG).works) {
      fail("a way that does not work", CUDNN_STATUS_NOT_SUPPORTED);
    }
    if (descriptor.kind == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR) checkWidth(descriptor.of(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH));
    descriptor.final = true;
  });
}

/** Two ways, the first of which does not work. */
EXPORTED int cudnnBackendGetAttribute(void* of, int name, int type, int64_t wanted, int64_t* count, void* values) {
  return guarded([&] {
    const auto& descriptor = *static_cast<Descriptor*>(of);
    if (!descriptor.final) fail("what is not finalized");
    if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64) {
      *static_cast<int64_t*>(values) = 512;
      *count = 1;
      return;
    }
    if (name != CUDNN_ATTR_ENGINEHEUR_RESULTS || type != CUDNN_TYPE_BACKEND_DESCRIPTOR) fail("attribute " + std::to_string(name));
    *count = 2;
    if (values == nullptr) return;
    *count = std::min<int64_t>(wanted, 2);
    for (int64_t i = 0; i < *count; i++) {
      Descriptor& way = *static_cast<Descriptor**>(values)[i];
      if (way.kind != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR) fail("a way in a descriptor of another kind");
      way.works = i == 1 && descriptor.one<int>(CUDNN_ATTR_ENGINEHEUR_MODE) == CUDNN_HEUR_MODE_A;
      way.set[CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH] = descriptor.set.at(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
      way.final = true;
    }
  });
}

EXPORTED int cudnnBackendExecute(void*, void* plan, void* pack) {
  return guarded([&] {
    const auto& made = *static_cast<Descriptor*>(plan);
    const auto& with = *static_cast<Descriptor*>(pack);
    if (!made.final || !with.final) fail("what is not finalized");
    const Descriptor& way = made.of(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    Run(way.of(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH), with).all();
  });
}

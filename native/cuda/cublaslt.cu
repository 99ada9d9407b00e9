#include "cublaslt.h"

#include <cstring>
#include <map>
#include <mutex>

#include "library.h"

namespace tandem::cuda {

namespace {

// Names and values of cuBLASLt's own header, as its documentation has them.
using Handle = void*;
using Descriptor = void*;
using Layout = void*;
using Preference = void*;
enum Attribute { transposeA = 3, transposeB = 4, epilogue = 7, biasPointer = 8, auxPointer = 11, auxStride = 12, biasType = 26 };
enum Epilogue : uint32_t { plain = 1, addBias = 4, geluAux = 160, geluAuxBias = 164, geluSlopeAux = 192, sumsOfB = 512 };
enum { maxWorkspace = 1, reductionSchemes = 3, computeFloat32 = 68, computeTf32 = 77 };
/** Parts of a sum are added in float32 before they are rounded, wherever a sum is split. */
constexpr uint32_t sumInComputeType = 2;

struct Algorithm {
  uint64_t data[8];
};

struct Heuristic {
  Algorithm algorithm;
  size_t workspaceBytes;
  int status;
  float waves;
  int reserved[4];
};

struct Functions {
  int (*create)(Handle*);
  int (*descCreate)(Descriptor*, int, cudaDataType);
  int (*descDestroy)(Descriptor);
  int (*descSet)(Descriptor, int, const void*, size_t);
  int (*layoutCreate)(Layout*, cudaDataType, uint64_t, uint64_t, int64_t);
  int (*layoutDestroy)(Layout);
  int (*preferenceCreate)(Preference*);
  int (*preferenceDestroy)(Preference);
  int (*preferenceSet)(Preference, int, const void*, size_t);
  int (*heuristic)(Handle, Descriptor, Layout, Layout, Layout, Layout, Preference, int, Heuristic*, int*);
  int (*matmul)(Handle, Descriptor, const void*, const void*, Layout, const void*, Layout, const void*, const void*, Layout,
                void*, Layout, const Algorithm*, void*, size_t, cudaStream_t);
};

struct Lt {
  Functions call{};
  std::string missing;

  Lt() {
    const Library library("TANDEM_CUBLASLT", {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"});
    if (!library.found()) {
      missing = "cuBLASLt, for faster matrix products (" + library.error() +
                "); put its folder into LD_LIBRARY_PATH, or its path into TANDEM_CUBLASLT";
      return;
    }
    const bool all = library.bind(call.create, "cublasLtCreate") && library.bind(call.descCreate, "cublasLtMatmulDescCreate") &&
                     library.bind(call.descDestroy, "cublasLtMatmulDescDestroy") &&
                     library.bind(call.descSet, "cublasLtMatmulDescSetAttribute") &&
                     library.bind(call.layoutCreate, "cublasLtMatrixLayoutCreate") &&
                     library.bind(call.layoutDestroy, "cublasLtMatrixLayoutDestroy") &&
                     library.bind(call.preferenceCreate, "cublasLtMatmulPreferenceCreate") &&
                     library.bind(call.preferenceDestroy, "cublasLtMatmulPreferenceDestroy") &&
                     library.bind(call.preferenceSet, "cublasLtMatmulPreferenceSetAttribute") &&
                     library.bind(call.heuristic, "cublasLtMatmulAlgoGetHeuristic") &&
                     library.bind(call.matmul, "cublasLtMatmul");
    if (!all) missing = "cuBLASLt: the library that was found lacks functions of version 11 and later";
  }
};

const Lt& lt() {
  static const Lt instance;
  return instance;
}

/** One handle per device; it may be used from any thread. */
Handle handleOf(int device) {
  static std::mutex mutex;
  static std::map<int, Handle> handles;
  const std::lock_guard lock(mutex);
  const auto found = handles.find(device);
  if (found != handles.end()) return found->second;
  Handle handle = nullptr;
  if (lt().call.create(&handle) != 0) return nullptr;
  return handles[device] = handle;
}

/** -1 for a dtype that has no products. */
int typeOf(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32: return CUDA_R_32F;
    case Dtype::bfloat16: return CUDA_R_16BF;
    case Dtype::float16: return CUDA_R_16F;
    default: return -1;
  }
}

constexpr size_t workspaceLimit = size_t{32} << 20;

/** cuBLASLt's matrices are columns after columns: its A is our right, its B our left. */
class Product : public LtProduct {
 public:
  explicit Product(const LtCall& call)
      : right_(call.right.view.data), left_(call.left.view), add_(call.hasAdd ? call.add.data : nullptr), out_(call.out.view),
        beta_(call.hasAdd ? 1.0f : 0.0f) {}

  ~Product() override {
    const Functions& f = lt().call;
    if (descriptor_ != nullptr) f.descDestroy(descriptor_);
    for (Layout layout : {a_, b_, c_}) {
      if (layout != nullptr) f.layoutDestroy(layout);
    }
  }

  bool prepare(const LtCall& call) {
    const Functions& f = lt().call;
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    handle_ = handleOf(device);
    if (handle_ == nullptr) return false;
    const int compute = call.tf32 && isFloat32(call.left.view) ? computeTf32 : computeFloat32;
    if (f.descCreate(&descriptor_, compute, CUDA_R_32F) != 0) return false;
    const int32_t transA = call.transposeRight ? 1 : 0;
    const int32_t transB = call.transposeLeft ? 1 : 0;
    uint32_t after = plain;
    if (call.hasBias) after = addBias;
    if (call.hasLeftSums) after = sumsOfB;
    if (call.gelu == LtGelu::forward) after = call.hasBias ? geluAuxBias : geluAux;
    if (call.gelu == LtGelu::backward) after = geluSlopeAux;
    bool done = set(transposeA, transA) && set(transposeB, transB) && set(epilogue, after);
    if (call.hasBias || call.hasLeftSums) {
      const View& vector = call.hasBias ? call.bias : call.leftSums;
      done = done && set(biasPointer, vector.data) && set(biasType, static_cast<int32_t>(typeOf(vector.dtype)));
    }
    if (call.gelu != LtGelu::none) done = done && set(auxPointer, call.aux.data) && set(auxStride, call.out.width);
    done = done && layout(a_, call.right) && layout(b_, call.left) && layout(c_, call.out);
    if (!done) return false;

    Preference preference = nullptr;
    if (f.preferenceCreate(&preference) != 0) return false;
    f.preferenceSet(preference, maxWorkspace, &workspaceLimit, sizeof workspaceLimit);
    f.preferenceSet(preference, reductionSchemes, &sumInComputeType, sizeof sumInComputeType);
    Heuristic found{};
    int count = 0;
    const int status = f.heuristic(handle_, descriptor_, a_, b_, c_, c_, preference, 1, &found, &count);
    f.preferenceDestroy(preference);
    if (status != 0 || count == 0) return false;
    algorithm_ = found.algorithm;
    workspaceBytes_ = found.workspaceBytes;
    return true;
  }

  void run(const Launch& launch) const override { run(launch, left_, out_); }

  void run(const Launch& launch, const View& left, const View& out) const override {
    const float one = 1;
    const Scratch workspace(launch, workspaceBytes_);
    const void* add = add_ == nullptr ? out.data : add_;
    const int status = lt().call.matmul(handle_, descriptor_, &one, right_, a_, left.data, b_, &beta_, add, c_, out.data, c_,
                                        &algorithm_, workspace.as<void>(), workspaceBytes_, launch.stream);
    if (status != 0) throw std::runtime_error("cublasLtMatmul failed with status " + std::to_string(status));
  }

 private:
  template <class T>
  bool set(Attribute attribute, const T& value) {
    return lt().call.descSet(descriptor_, attribute, &value, sizeof value) == 0;
  }

  static bool layout(Layout& to, const LtMatrix& matrix) {
    return lt().call.layoutCreate(&to, static_cast<cudaDataType>(typeOf(matrix.view.dtype)), static_cast<uint64_t>(matrix.width),
                                  static_cast<uint64_t>(matrix.rows), matrix.stride == 0 ? matrix.width : matrix.stride) == 0;
  }

  const void* const right_;
  const View left_;
  /** Null: nothing is added. */
  const void* const add_;
  const View out_;
  const float beta_;
  Handle handle_ = nullptr;
  Descriptor descriptor_ = nullptr;
  Layout a_ = nullptr, b_ = nullptr, c_ = nullptr;
  Algorithm algorithm_{};
  size_t workspaceBytes_ = 0;
};

}  // namespace

std::string ltMissing() { return lt().missing; }

std::shared_ptr<const LtProduct> ltProduct(const LtCall& call) {
  if (!lt().missing.empty()) return nullptr;
  const Dtype factors = call.left.view.dtype;
  const Dtype out = call.out.view.dtype;
  if (call.right.view.dtype != factors || typeOf(factors) < 0 || typeOf(out) < 0) return nullptr;
  if (out != factors && out != Dtype::float32) return nullptr;
  if (call.hasAdd && call.add.dtype != out) return nullptr;
  if ((call.hasBias && call.bias.dtype != out) || (call.hasLeftSums && call.leftSums.dtype != out)) return nullptr;
  // cuBLASLt wants strides of eight there, and has GELU for 16-bit results alone
  if (call.gelu != LtGelu::none && (call.aux.dtype != out || call.out.width % 8 != 0 || storedBytes(out) != 2)) return nullptr;
  for (const LtMatrix* matrix : {&call.left, &call.right, &call.out}) {
    if (matrix->rows == 0 || matrix->width == 0) return nullptr;
  }
  auto product = std::make_shared<Product>(call);
  if (!product->prepare(call)) return nullptr;
  return product;
}

}  // namespace tandem::cuda

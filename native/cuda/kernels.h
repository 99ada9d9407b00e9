// How the cuda backend's kernels are declared: one table per family, one entry per kernel of the catalogue. An entry looks
// at a call once and returns what to launch at every submission. Faults that only values can show are written by the
// device into a slot that the host reads.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "values.cuh"

namespace tandem::cuda {

/** What a kernel found wrong in its values; the texts are in stream.cu, and those of the cpu backend. */
enum class Wrong : int32_t { none, token, target, expert, slot, row, column, counts, gather, choice };

/** In host memory that the device sees: the first fault of a rank. `state` is 2 once all of it is written. */
struct FaultSlot {
  int32_t state;
  int32_t op;
  Wrong kind;
  const char* kernel;
  int64_t value, limit;
};

/** Where a kernel reports. */
struct Reporter {
  FaultSlot* slot;
  int32_t op;
  /** The kernel's name, in the host's memory. */
  const char* kernel;
  /** In a graph: on the device, what `op` counts from; else null. */
  const int32_t* first = nullptr;

  __device__ void fail(Wrong kind, int64_t value, int64_t limit) const {
    if (atomicCAS_system(&slot->state, 0, 1) != 0) return;
    slot->op = first == nullptr ? op : op + *first;
    slot->kind = kind;
    slot->kernel = kernel;
    slot->value = value;
    slot->limit = limit;
    __threadfence_system();
    *const_cast<volatile int32_t*>(&slot->state) = 2;
  }
};

/** Where scratch of a task lies that is captured, and how much of it a task takes that is launched by itself. */
struct ScratchSpace {
  /** Null: from the driver, in the stream's order. */
  char* data = nullptr;
  size_t bytes = 0;
  size_t used = 0;
};

/** Thrown where a task that is captured takes more than it did before. */
class ScratchShort : public std::runtime_error {
 public:
  ScratchShort() : std::runtime_error("more scratch than was set aside") {}
};

/** One submission. */
struct Launch {
  cudaStream_t stream;
  /** Values given at this launch, in the order of `Call::scalars`. */
  const double* scalars;
  Reporter reporter;
  /** Null where nobody counts it. */
  ScratchSpace* space = nullptr;
};

using Work = std::function<void(const Launch&)>;
using Prepare = Work (*)(const Call&);

struct Kernel {
  const char* name;
  Prepare prepare;
  /** Its work may be captured in a graph: it reads no memory of the host's that is gone after the launch, and prepares nothing. */
  bool capturable = true;
};

using KernelTable = std::vector<Kernel>;

extern const KernelTable activationKernels;
extern const KernelTable attentionKernels;
extern const KernelTable drawnKernels;
extern const KernelTable elementwiseKernels;
extern const KernelTable embeddingKernels;
extern const KernelTable expertFfnKernels;
extern const KernelTable fusedKernels;
extern const KernelTable kvCacheKernels;
extern const KernelTable kvScoreKernels;
extern const KernelTable kvSelectKernels;
extern const KernelTable linearKernels;
extern const KernelTable lossKernels;
extern const KernelTable moeGateKernels;
extern const KernelTable moeKernels;
extern const KernelTable moeLayoutKernels;
extern const KernelTable moeOrderKernels;
extern const KernelTable normalizationKernels;
extern const KernelTable optimizerKernels;
extern const KernelTable packingKernels;
extern const KernelTable ropeKernels;
extern const KernelTable rowKernels;

/** The entry of that name; null when there is none. */
const Kernel* kernelNamed(const std::string& name);
/** All that the backend has, copies and collectives included. */
std::vector<std::string> kernelNames();

/** Throws std::runtime_error that names the call of the runtime that failed. */
void check(cudaError_t status, const char* what);

/** Raised once per kernel and device: tiles need more than the 48 KB that a block may have unasked. */
template <class K>
void allowShared(K kernel, size_t bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
}

/** Memory of one submission: taken and given back in the stream's order. */
class Scratch {
 public:
  Scratch(const Launch& launch, size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* as(size_t byteOffset = 0) const {
    return reinterpret_cast<T*>(static_cast<char*>(data_) + byteOffset);
  }

 private:
  void* data_ = nullptr;
  cudaStream_t stream_;
  /** The driver's, to be given back. */
  bool own_ = false;
};

/** A list that a kernel reads, copied to the device when an op is prepared. */
template <class T>
class Table {
 public:
  explicit Table(const std::vector<T>& items) : count(static_cast<int64_t>(items.size())) {
    if (items.empty()) return;
    void* memory = nullptr;
    check(cudaMalloc(&memory, items.size() * sizeof(T)), "cudaMalloc");
    memory_ = std::shared_ptr<void>(memory, [](void* data) { cudaFree(data); });
    check(cudaMemcpy(memory, items.data(), items.size() * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
    // a copy out of pageable memory may still be on its way when the call returns, and lanes do not wait for this stream
    check(cudaStreamSynchronize(cudaStreamLegacy), "cudaStreamSynchronize");
    data = static_cast<const T*>(memory);
  }

  const T* data = nullptr;
  int64_t count;

 private:
  std::shared_ptr<void> memory_;
};

inline const Operand& input(const Call& call, size_t index) {
  if (index < call.inputs.size()) return call.inputs[index];
  throw BadCall(call.kernel + ": input " + std::to_string(index) + " is missing");
}

inline const Operand& output(const Call& call, size_t index) {
  if (index < call.outputs.size()) return call.outputs[index];
  throw BadCall(call.kernel + ": output " + std::to_string(index) + " is missing");
}

inline View viewOf(const Operand& operand) { return {operand.data, operand.dtype}; }

inline View floatsOf(const Call& call, const Operand& operand) {
  if (!isInteger(operand.dtype)) return viewOf(operand);
  throw BadCall(call.kernel + ": the cuda backend takes no integer tensor there");
}

inline View floatsIn(const Call& call, size_t index) { return floatsOf(call, input(call, index)); }
inline View floatsOut(const Call& call, size_t index) { return floatsOf(call, output(call, index)); }

inline View integersOf(const Call& call, const Operand& operand) {
  if (isInteger(operand.dtype)) return viewOf(operand);
  throw BadCall(call.kernel + ": the cuda backend takes no float tensor there");
}

inline View integersIn(const Call& call, size_t index) { return integersOf(call, input(call, index)); }
inline View integersOut(const Call& call, size_t index) { return integersOf(call, output(call, index)); }

inline bool isFloat32(const View& v) { return v.dtype == Dtype::float32; }

/** Extent of the last axis. */
inline int64_t widthOf(const Operand& operand) { return operand.shape.empty() ? 1 : operand.shape.back(); }
/** Product of all other extents. */
inline int64_t rowsOf(const Operand& operand) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < operand.shape.size(); i++) rows *= operand.shape[i];
  return rows;
}

inline int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

/** Blocks for a loop that strides over the grid. */
inline int blocksFor(int64_t items, int64_t perBlock) {
  const int64_t blocks = ceilDiv(items, perBlock);
  return static_cast<int>(blocks < 1 ? 1 : blocks > 4096 ? 4096 : blocks);
}

}  // namespace tandem::cuda

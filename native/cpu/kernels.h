// How the cpu backend's kernels are declared: one table per family, one entry per kernel of the catalogue. An entry looks at
// a call once, and returns the work to do at every submission. Work throws for a fault that only values can show.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "../backend.h"
#include "rounding.h"

namespace tandem {

/** `scalars` is what the launch gave: for Scalar alone. */
using Work = std::function<void(const double* scalars)>;
using Prepare = Work (*)(const Call&);

struct Kernel {
  const char* name;
  Prepare prepare;
  /** The work writes few elements of large outputs, and rounds what it writes; otherwise whole outputs are rounded after it. */
  bool roundsItself = false;
};

using KernelTable = std::vector<Kernel>;

extern const KernelTable activationKernels;
extern const KernelTable attentionKernels;
extern const KernelTable drawnKernels;
extern const KernelTable elementwiseKernels;
extern const KernelTable embeddingKernels;
extern const KernelTable expertFfnKernels;
extern const KernelTable kvCacheKernels;
extern const KernelTable kvScoreKernels;
extern const KernelTable kvSelectKernels;
extern const KernelTable linearKernels;
extern const KernelTable lossKernels;
extern const KernelTable moeGateKernels;
extern const KernelTable moeKernels;
extern const KernelTable moeOrderKernels;
extern const KernelTable normalizationKernels;
extern const KernelTable optimizerKernels;
extern const KernelTable packingKernels;
extern const KernelTable ropeKernels;
extern const KernelTable rowKernels;

/** The entry of that name; null when there is none. */
const Kernel* kernelNamed(const std::string& name);
/** The work of a composite kernel's parts. */
Work compositeWork(const Call& call);
/** Names of the kernels that the cpu backends have, collectives and copies among them. */
std::vector<std::string> cpuKernels();

/** Bytes of memory that this process may have. */
double memoryBytes();

inline const Operand& input(const Call& call, size_t index) {
  if (index < call.inputs.size()) return call.inputs[index];
  throw BadCall(call.kernel + ": input " + std::to_string(index) + " is missing");
}

inline const Operand& output(const Call& call, size_t index) {
  if (index < call.outputs.size()) return call.outputs[index];
  throw BadCall(call.kernel + ": output " + std::to_string(index) + " is missing");
}

inline float* floatsOf(const Call& call, const Operand& operand) {
  if (!isInteger(operand.dtype)) return static_cast<float*>(operand.data);
  throw BadCall(call.kernel + ": the cpu backend takes no integer tensor there");
}

/** Values of a float operand. */
inline const float* floatsIn(const Call& call, size_t index) { return floatsOf(call, input(call, index)); }
inline float* floatsOut(const Call& call, size_t index) { return floatsOf(call, output(call, index)); }

inline int32_t* integersOf(const Call& call, const Operand& operand) {
  if (isInteger(operand.dtype)) return static_cast<int32_t*>(operand.data);
  throw BadCall(call.kernel + ": the cpu backend takes no float tensor there");
}

inline const int32_t* integersIn(const Call& call, size_t index) { return integersOf(call, input(call, index)); }
inline int32_t* integersOut(const Call& call, size_t index) { return integersOf(call, output(call, index)); }

/** A tensor of either storage, read and written as the references do: numbers in, truncated to integers out. */
struct Values {
  void* data;
  bool integers;

  double get(int64_t i) const {
    return integers ? static_cast<const int32_t*>(data)[i] : static_cast<double>(static_cast<const float*>(data)[i]);
  }
  void set(int64_t i, double x) const {
    if (integers) {
      static_cast<int32_t*>(data)[i] = toInt32(x);
    } else {
      static_cast<float*>(data)[i] = static_cast<float>(x);
    }
  }
};

inline Values valuesOf(const Operand& operand) { return {operand.data, isInteger(operand.dtype)}; }

/** Extent of the last axis. */
inline int64_t widthOf(const Operand& operand) { return operand.shape.empty() ? 1 : operand.shape.back(); }
/** Product of all other extents. */
inline int64_t rowsOf(const Operand& operand) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < operand.shape.size(); i++) rows *= operand.shape[i];
  return rows;
}

}  // namespace tandem

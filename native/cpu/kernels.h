// How the cpu backend's kernels are declared: one table per family, one entry per kernel of the catalogue. An entry looks at
// a call once, and returns the work to do at every submission. Work throws for a fault that only values can show.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "../backend.h"

namespace tandem {

using Work = std::function<void()>;
using Prepare = Work (*)(const Call&);
using KernelTable = std::vector<std::pair<const char*, Prepare>>;

extern const KernelTable activationKernels;
extern const KernelTable attentionKernels;
extern const KernelTable elementwiseKernels;
extern const KernelTable embeddingKernels;
extern const KernelTable linearKernels;
extern const KernelTable lossKernels;
extern const KernelTable moeKernels;
extern const KernelTable normalizationKernels;
extern const KernelTable optimizerKernels;
extern const KernelTable packingKernels;
extern const KernelTable ropeKernels;
extern const KernelTable tokenWindowKernels;

/** The entry of that name; null when there is none. */
Prepare kernelNamed(const std::string& name);

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

/** Extent of the last axis. */
inline int64_t widthOf(const Operand& operand) { return operand.shape.empty() ? 1 : operand.shape.back(); }
/** Product of all other extents. */
inline int64_t rowsOf(const Operand& operand) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < operand.shape.size(); i++) rows *= operand.shape[i];
  return rows;
}

}  // namespace tandem

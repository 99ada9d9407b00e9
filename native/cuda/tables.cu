// The kernels of the cuda backend, by name.
#include <map>

#include "collectives.h"

namespace tandem::cuda {

namespace {

std::vector<const KernelTable*> tables() {
  return {&activationKernels, &attentionKernels, &drawnKernels,     &elementwiseKernels,   &embeddingKernels, &expertFfnKernels,
          &fusedKernels,      &kvCacheKernels,   &kvScoreKernels,   &kvSelectKernels,      &linearKernels,    &lossKernels,
          &moeGateKernels,    &moeKernels,       &moeLayoutKernels, &moeOrderKernels,      &normalizationKernels,
          &optimizerKernels,  &packingKernels,   &ropeKernels,      &rowKernels};
}

}  // namespace

const Kernel* kernelNamed(const std::string& name) {
  static const std::map<std::string, const Kernel*> byName = [] {
    std::map<std::string, const Kernel*> entries;
    for (const KernelTable* table : tables()) {
      for (const Kernel& kernel : *table) entries.emplace(kernel.name, &kernel);
    }
    return entries;
  }();
  const auto found = byName.find(name);
  return found == byName.end() ? nullptr : found->second;
}

std::vector<std::string> kernelNames() {
  std::vector<std::string> names = collectiveNames;
  for (const char* name : {"h2d", "d2h", "d2d", "barrier", "profiled"}) names.emplace_back(name);
  for (const KernelTable* table : tables()) {
    for (const Kernel& kernel : *table) names.emplace_back(kernel.name);
  }
  return names;
}

}  // namespace tandem::cuda

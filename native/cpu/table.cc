// The kernels that the cpu backends have, of all families.
#include "collectives.h"
#include "kernels.h"

namespace tandem {

namespace {

std::vector<const KernelTable*> tables() {
  return {&activationKernels, &attentionKernels,  &elementwiseKernels, &embeddingKernels,     &expertFfnKernels,
          &kvCacheKernels,    &kvScoreKernels,    &kvSelectKernels,    &linearKernels,        &lossKernels,
          &moeGateKernels,    &moeKernels,        &moeOrderKernels,    &normalizationKernels, &optimizerKernels,
          &packingKernels,    &ropeKernels,       &rowKernels,         &drawnKernels};
}

}  // namespace

std::vector<std::string> cpuKernels() {
  std::vector<std::string> names = collectiveNames;
  for (const char* name : {"h2d", "d2h", "d2d", "barrier", "profiled"}) names.emplace_back(name);
  for (const KernelTable* table : tables()) {
    for (const Kernel& kernel : *table) names.emplace_back(kernel.name);
  }
  return names;
}

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

}  // namespace tandem

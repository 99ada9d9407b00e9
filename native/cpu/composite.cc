// Composite kernels that this backend has no own kernel for: their parts in order. What passes between parts is float32 (or
// int32), unrounded, in scratch that lives as long as the launch.
#include <cstddef>
#include <memory>
#include <utility>

#include "kernels.h"

namespace tandem {

namespace {

std::vector<Work> worksOf(const Call& call) {
  std::vector<Work> works;
  for (const Part& part : call.parts) {
    const Kernel* kernel = kernelNamed(part.kernel);
    if (kernel == nullptr) throw BadCall(call.kernel + ": the cpu backend has no " + part.kernel + ", which is part of it");
    works.push_back(kernel->prepare(partOf(call, part)));
  }
  return works;
}

}  // namespace

Work compositeWork(const Call& call) {
  // What does not fit is found now, not when the op runs.
  std::vector<Work> works = worksOf(call);
  if (call.inner.empty()) {
    return [works = std::move(works)](const double* scalars) {
      for (const Work& work : works) work(scalars);
    };
  }
  size_t elements = 0;
  for (const Operand& inner : call.inner) elements += static_cast<size_t>(inner.elements);
  const auto whole = std::make_shared<const Call>(call);
  return [whole, elements](const double* scalars) {
    const std::unique_ptr<float[]> scratch(new float[elements]);
    Call placed = *whole;
    size_t at = 0;
    for (Operand& inner : placed.inner) {
      inner.data = scratch.get() + at;
      at += static_cast<size_t>(inner.elements);
    }
    for (const Work& work : worksOf(placed)) work(scalars);
  };
}

}  // namespace tandem

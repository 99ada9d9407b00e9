// The tasks of the cuda backend that are neither copies nor collectives.
#pragma once

#include <functional>
#include <utility>

#include "stream.h"

namespace tandem::cuda {

/** Of a kernel of the catalogue. */
class KernelTask : public CudaTask {
 public:
  KernelTask(const Kernel& kernel, const Call& call) : kernel_(kernel), work_(kernel.prepare(call)) { scalars = call.scalars.size(); }

  bool capturable() const override { return kernel_.capturable; }

  void run(Run& run) override {
    run.launch.reporter.kernel = kernel_.name;
    work_(run.launch);
  }

 private:
  const Kernel& kernel_;
  const Work work_;
};

/** Whatever the layer itself puts into a lane. */
class BodyTask : public CudaTask {
 public:
  explicit BodyTask(std::function<void(const Launch&)> body) : body_(std::move(body)) {}
  void run(Run& run) override { body_(run.launch); }

 private:
  const std::function<void(const Launch&)> body_;
};

}  // namespace tandem::cuda

// Values from one memory to another, and memory filled with zeros. Knows operands and a stream.
#pragma once

#include <string>

#include "map.cuh"
#include "stream.h"

namespace tandem::cuda {

struct Convert {
  View to, from;
  __device__ void operator()(int64_t i) const { copyElement(to, i, from, i); }
};

/** Values from one memory to another: bytes as they are, or through the grid of the other dtype. */
inline void transfer(const Launch& launch, const View& to, const View& from, int64_t elements) {
  if (elements == 0 || to.data == from.data) return;
  if (to.dtype != from.dtype) return each(launch, elements, Convert{to, from});
  check(cudaMemcpyAsync(to.data, from.data, static_cast<size_t>(elements * storedBytes(to.dtype)), cudaMemcpyDefault, launch.stream),
        "cudaMemcpyAsync");
}

class CopyTask : public CudaTask {
 public:
  explicit CopyTask(const Call& call) : from_(input(call, 0)), to_(output(call, 0)) {
    if (isInteger(from_.dtype) != isInteger(to_.dtype)) {
      throw BadCall(call.kernel + ": integer and float tensors do not mix");
    }
    if (from_.elements != to_.elements) {
      throw BadCall(call.kernel + ": " + std::to_string(from_.elements) + " values into " + std::to_string(to_.elements));
    }
  }

  bool capturable() const override { return true; }
  void run(Run& run) override { transfer(run.launch, viewOf(to_), viewOf(from_), from_.elements); }

 private:
  const Operand from_;
  const Operand to_;
};

struct Zero {
  View to;
  __device__ void operator()(int64_t i) const { static_cast<uint8_t*>(to.data)[i] = 0; }
};

}  // namespace tandem::cuda

// Parts of composite kernels, for whoever checks or runs them one by one.
#include "backend.h"

namespace tandem {

Call partOf(const Call& whole, const Part& part) {
  const auto take = [&](const std::vector<int>& places, std::vector<Operand>& operands) {
    for (const int place : places) {
      auto at = static_cast<size_t>(place);
      const std::vector<Operand>* side = &whole.inputs;
      if (place >= 0 && at >= side->size()) {
        at -= side->size();
        side = &whole.outputs;
        if (at >= side->size()) {
          at -= side->size();
          side = &whole.inner;
        }
      }
      if (place < 0 || at >= side->size()) {
        throw BadCall(whole.kernel + ": its part " + part.kernel + " names operand " + std::to_string(place) + ", which is not there");
      }
      operands.push_back((*side)[at]);
    }
  };
  Call call;
  call.kernel = part.kernel;
  call.lane = whole.lane;
  call.attributes = part.attributes;
  call.scalars = whole.scalars;
  take(part.inputs, call.inputs);
  take(part.outputs, call.outputs);
  return call;
}

}  // namespace tandem

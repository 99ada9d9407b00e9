// Which items of a rank its lanes are to launch together. Told of whatever is submitted and waited for, on the program's thread, where
// the order over all lanes is known. Knows nothing of CUDA.
#pragma once

#include <array>
#include <functional>
#include <utility>

#include "../backend.h"
#include "stretches.h"

namespace tandem::cuda {

class Plan {
 public:
  /** What is about to be handed to a lane. */
  struct Placed {
    int64_t task;
    Point at;
    /** What it waits for. */
    const Events& after;
    /** A graph may hold it. */
    bool capturable;
    /** An op of the program, not what the layer itself puts between. */
    bool ofProgram;
  };

  /** `wanted`: false where everything is launched op by op. `broken`: the rest of that ticket of that lane will not come. */
  Plan(bool wanted, std::function<void(int lane, int64_t ticket)> broken) : wanted_(wanted), broken_(std::move(broken)) {}

  Planned place(int index, const Placed& placed) {
    if (!wanted_) return {};
    Before before = placed.capturable ? Before::nothing : placed.ofProgram ? Before::program : Before::layer;
    for (int other = 0; other < laneCount; other++) {
      const Point point = placed.after[static_cast<size_t>(other)];
      if (point == noPoint || other == index) continue;
      const bool ofProgram = placed.ofProgram && other < programLanes;
      if (before != Before::program) before = ofProgram ? Before::program : Before::layer;
      tell(other, stretches_[static_cast<size_t>(other)].await(opOf(point), ofProgram));
    }
    Planned planned = stretches_[static_cast<size_t>(index)].submit(placed.task, opOf(placed.at), placed.capturable, before);
    tell(index, planned.broken);
    return planned;
  }

  /** The host waits for that point. */
  void awaited(int index, Point point) {
    if (wanted_) tell(index, stretches_[static_cast<size_t>(index)].await(opOf(point), false));
  }

  void endStep() {
    for (int index = 0; wanted_ && index < laneCount; index++) tell(index, stretches_[static_cast<size_t>(index)].close());
  }

 private:
  void tell(int index, int64_t ticket) {
    if (ticket != 0) broken_(index, ticket);
  }

  const bool wanted_;
  const std::function<void(int, int64_t)> broken_;
  std::array<Stretches, laneCount> stretches_;
};

}  // namespace tandem::cuda

// Which items of a rank its lanes are to launch together. Told of whatever is submitted and waited for, on the program's thread, where
// the order over all lanes is known.
#pragma once

#include <array>
#include <utility>

#include "stream.h"

namespace tandem::cuda {

/** Does nothing where stretches do not become graphs. */
class Plan {
 public:
  explicit Plan(RankState& state) : state_(state) {}

  /** An item that is about to be handed to that lane, which is there. */
  void place(int index, Item& item) {
    if (state_.graphs == nullptr) return;
    bool waits = false;
    for (int other = 0; other < laneCount; other++) {
      const Point point = item.after[static_cast<size_t>(other)];
      if (point == noPoint || other == index) continue;
      waits = true;
      awaited(other, point);
    }
    const bool capturable = item.task->capturable() && !item.more && !item.task->unfit.load(std::memory_order_relaxed);
    Planned planned = stretches_[static_cast<size_t>(index)].submit(item.task->number, opOf(item.at), capturable, waits);
    broken(index, planned.broken);
    item.opens = std::move(planned.opens);
    item.ticket = planned.ticket;
    item.completes = planned.completes;
  }

  /** Somebody waits for that point. */
  void awaited(int index, Point point) {
    if (state_.graphs != nullptr) broken(index, stretches_[static_cast<size_t>(index)].await(opOf(point)));
  }

  void endStep() {
    for (int index = 0; state_.graphs != nullptr && index < laneCount; index++) {
      broken(index, stretches_[static_cast<size_t>(index)].close());
    }
  }

 private:
  void broken(int index, int64_t ticket) {
    if (ticket != 0) state_.lanes[static_cast<size_t>(index)]->broken(ticket);
  }

  RankState& state_;
  std::array<Stretches, laneCount> stretches_;
};

}  // namespace tandem::cuda

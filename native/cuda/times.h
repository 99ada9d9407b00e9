// Times of ops by a GPU's events, put into the order in which the ops ran.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

#include "../backend.h"

namespace tandem::cuda {

/** When an op ran by the GPU's events, and what it waited for. */
struct TimedOp {
  OpTime time;
  Events after;
};

/**
 * Events tell time to a fraction of a microsecond, by which an op can seem to start before what it waited for has ended: it
 * then starts where that ends.
 */
class OrderedTimes {
 public:
  /** `ops` ended since the last call. */
  std::vector<OpTime> inOrder(std::vector<TimedOp> ops) {
    std::sort(ops.begin(), ops.end(), [](const TimedOp& a, const TimedOp& b) { return a.time.op < b.time.op; });
    std::array<size_t, laneCount> old{};
    for (size_t lane = 0; lane < laneCount; lane++) old[lane] = ends_[lane].size();
    std::vector<OpTime> times;
    for (TimedOp& op : ops) {
      auto& lane = ends_[static_cast<size_t>(op.time.lane)];
      int64_t from = std::max(op.time.start, lane.empty() ? op.time.start : lane.back().second);
      for (size_t other = 0; other < laneCount; other++) from = std::max(from, endAt(other, op.after[other], from));
      op.time.start = from;
      op.time.end = std::max(op.time.end, from);
      lane.emplace_back(op.time.op, op.time.end);
      times.push_back(op.time);
    }
    for (size_t lane = 0; lane < laneCount; lane++) {
      auto& ends = ends_[lane];
      if (ends.size() > old[lane]) ends.erase(ends.begin(), ends.begin() + static_cast<std::ptrdiff_t>(old[lane]));
    }
    return times;
  }

 private:
  /**
   * When the lane's last op up to the point ended, as far as is known; otherwise `unknown`. Points of values that come and go lie between
   * those of ops: the op before such a point may be another lane's, which nobody waited for.
   */
  int64_t endAt(size_t lane, Point point, int64_t unknown) const {
    const auto& ends = ends_[lane];
    const auto later = std::upper_bound(ends.begin(), ends.end(), point, [](Point at, const auto& end) { return at < pointOf(end.first); });
    return later == ends.begin() ? unknown : std::prev(later)->second;
  }

  /** By lane: its ops of the last call that had any, in order, with their ends. */
  std::array<std::vector<std::pair<int32_t, int64_t>>, laneCount> ends_;
};

}  // namespace tandem::cuda

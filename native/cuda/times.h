// Times of ops by a GPU's events, put into the order in which the ops ran.
#pragma once

#include <algorithm>
#include <map>
#include <vector>

#include "stream.h"

namespace tandem::cuda {

/**
 * Events tell time to a fraction of a microsecond, by which an op can seem to start before what it waited for has ended: it
 * then starts where that ends.
 */
class OrderedTimes {
 public:
  /** `ops` ended since the last call. */
  std::vector<OpTime> inOrder(std::vector<TimedOp> ops) {
    std::sort(ops.begin(), ops.end(), [](const TimedOp& a, const TimedOp& b) { return a.time.op < b.time.op; });
    std::map<int32_t, int64_t> ends;
    std::vector<OpTime> times;
    for (TimedOp& op : ops) {
      const auto notBefore = [&](int64_t end) {
        op.time.start = std::max(op.time.start, end);
        op.time.end = std::max(op.time.end, op.time.start);
      };
      int64_t& laneEnd = laneEnds_[static_cast<size_t>(op.time.lane)];
      notBefore(laneEnd);
      for (const Point point : op.after) {
        for (const auto* known : {&ends, &lastEnds_}) {
          const auto found = point == noPoint ? known->end() : known->find(opOf(point));
          if (found != known->end()) notBefore(found->second);
        }
      }
      laneEnd = ends[op.time.op] = op.time.end;
      times.push_back(op.time);
    }
    if (!ends.empty()) lastEnds_ = std::move(ends);
    return times;
  }

 private:
  /** The last end of each lane, and those of all ops of the last call. */
  std::array<int64_t, laneCount> laneEnds_{};
  std::map<int32_t, int64_t> lastEnds_;
};

}  // namespace tandem::cuda

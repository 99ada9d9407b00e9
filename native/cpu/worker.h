// One lane with a thread of its own that runs prepared ops first in, first out, each when its events are reached.
// Knows nothing of kernels, memory or other ranks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "lane.h"

namespace tandem {

class Worker : public Lane {
 public:
  /** Throws std::system_error when the system gives no thread. */
  Worker(RankLanes& lanes, int lane, const std::function<void()>& onProgress);
  /** Ends the thread once everything queued has passed: after a fault that is soon. */
  ~Worker() override;

  void submit(Item item) override;
  bool watch(Point point) override;
  void takeTimes(std::vector<OpTime>& into) override;

 private:
  void loop();
  bool take(std::vector<Item>& batch);
  void runOne(const Item& item);

  RankLanes& lanes_;
  const int lane_;
  const std::function<void()>& onProgress_;

  std::mutex mutex_;
  std::condition_variable submitted_;
  std::vector<Item> queue_;
  // How many are queued, for a look without the lock.
  std::atomic<size_t> queued_{0};
  bool asleep_ = false;
  bool ending_ = false;

  static constexpr Point nobody = std::numeric_limits<Point>::max();
  /** Whoever watches is told when the lane has reached this point. */
  std::atomic<Point> watched_{nobody};

  std::mutex timesMutex_;
  std::vector<OpTime> times_;

  std::thread thread_;
};

/** A lane that the system gave no thread: the machine has failed, and whatever is submitted has ended. */
class DeadLane : public Lane {
 public:
  DeadLane(RankLanes& lanes, int lane) : progress_(lanes.progress[static_cast<size_t>(lane)]) {}
  void submit(Item item) override {
    if (!item.more) progress_.raise(item.at);
  }
  bool watch(Point) override { return true; }
  void takeTimes(std::vector<OpTime>&) override {}

 private:
  Progress& progress_;
};

}  // namespace tandem

// One lane: a thread that runs prepared ops first in, first out, each when its events are reached.
// Knows nothing of kernels, memory or other ranks.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "../backend.h"
#include "progress.h"
#include "shared.h"

namespace tandem {

/** What a running op may know and change of its run. */
struct Run {
  Shared& shared;
  /** The op's place in its communicator's order; collectives only. */
  int64_t position;
  /** When the op started; a collective starts when all members are in place. */
  int64_t start;
};

/** An op of the cpu backend. Throws for a fault that only values can show. */
class CpuTask : public Task {
 public:
  virtual void run(Run& run) = 0;
  /** Called at submission, from the program's thread: the position that the run will be given. */
  virtual int64_t nextPosition() { return 0; }
};

class Worker {
 public:
  /** `peers` are all lanes of the rank, this one among them. */
  Worker(Shared& shared, int rank, int lane, std::array<Progress, laneCount>& peers, bool timed,
         const std::function<void()>& onProgress);
  /** Ends the thread once everything queued has passed: after a fault that is soon. */
  ~Worker();

  void submit(CpuTask& task, int32_t op, const Events& after);
  bool watch(int32_t op);
  void takeTimes(std::vector<OpTime>& into);

 private:
  struct Item {
    CpuTask* task;
    int32_t op;
    Events after;
    int64_t position;
  };

  void loop();
  bool take(std::vector<Item>& batch);
  void runOne(const Item& item);

  Shared& shared_;
  const int rank_;
  const int lane_;
  std::array<Progress, laneCount>& peers_;
  const bool timed_;
  const std::function<void()>& onProgress_;

  std::mutex mutex_;
  std::condition_variable submitted_;
  std::vector<Item> queue_;
  // How many are queued, for a look without the lock.
  std::atomic<size_t> queued_{0};
  bool asleep_ = false;
  bool ending_ = false;

  static constexpr int32_t nobody = std::numeric_limits<int32_t>::max();
  /** Whoever watches is told when the lane has ended this op. */
  std::atomic<int32_t> watched_{nobody};

  std::mutex timesMutex_;
  std::vector<OpTime> times_;

  std::thread thread_;
};

}  // namespace tandem

#include "worker.h"

#include <string>

#ifdef __linux__
#include <pthread.h>
#include <sys/prctl.h>
#endif

namespace tandem {

namespace {

const char* const laneNames[laneCount] = {"compute", "inter", "intra", "h2d", "d2h"};

/** Names the thread for debuggers, and lets it sleep to the microsecond: emulated links need it. */
void introduce(int rank, int lane) {
#ifdef __linux__
  const std::string name = "rank" + std::to_string(rank) + " " + laneNames[lane];
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
  prctl(PR_SET_TIMERSLACK, 1UL);
#else
  (void)rank;
  (void)lane;
#endif
}

}  // namespace

Worker::Worker(Shared& shared, int rank, int lane, std::array<Progress, laneCount>& peers, bool timed,
               const std::function<void()>& onProgress)
    : shared_(shared),
      rank_(rank),
      lane_(lane),
      peers_(peers),
      timed_(timed),
      onProgress_(onProgress),
      thread_([this] { loop(); }) {}

Worker::~Worker() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  submitted_.notify_all();
  thread_.join();
}

void Worker::submit(CpuTask& task, int32_t op, const Events& after) {
  const int64_t position = task.nextPosition();
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back({&task, op, after, position});
    queued_.store(queue_.size(), std::memory_order_release);
    wake = asleep_;
    asleep_ = false;
  }
  if (wake) submitted_.notify_one();
}

bool Worker::take(std::vector<Item>& batch) {
  for (int i = 0; i < spins && queued_.load(std::memory_order_acquire) == 0; i++) pause();
  std::unique_lock lock(mutex_);
  while (queue_.empty() && !ending_) {
    asleep_ = true;
    submitted_.wait(lock);
  }
  asleep_ = false;
  batch.swap(queue_);
  queued_.store(0, std::memory_order_release);
  return !batch.empty();
}

void Worker::loop() {
  introduce(rank_, lane_);
  std::vector<Item> batch;
  while (take(batch)) {
    for (const Item& item : batch) runOne(item);
    batch.clear();
  }
}

void Worker::runOne(const Item& item) {
  for (int lane = 0; lane < laneCount; lane++) {
    if (item.after[static_cast<size_t>(lane)] >= 0) peers_[static_cast<size_t>(lane)].wait(item.after[static_cast<size_t>(lane)]);
  }
  Run run{shared_, item.position, timed_ ? shared_.now() : 0};
  if (!shared_.faulted()) {
    try {
      item.task->run(run);
    } catch (const std::exception& error) {
      shared_.fail("rank " + std::to_string(rank_) + ", op " + std::to_string(item.op) + ": " + error.what());
    }
  }
  if (timed_) {
    const int64_t end = shared_.now();
    const std::lock_guard lock(timesMutex_);
    times_.push_back({item.op, lane_, run.start, end});
  }
  peers_[static_cast<size_t>(lane_)].raise(item.op);
  // Whoever arms the watch looks at the progress afterwards: one of the two sees the other.
  if (item.op >= watched_.load(std::memory_order_seq_cst)) {
    watched_.store(nobody, std::memory_order_seq_cst);
    onProgress_();
  }
}

bool Worker::watch(int32_t op) {
  const Progress& own = peers_[static_cast<size_t>(lane_)];
  if (own.reached() >= op) return true;
  // A watch that is lost to the worker's reset was armed before its notification, which makes every watch be armed anew.
  if (op < watched_.load(std::memory_order_seq_cst)) watched_.store(op, std::memory_order_seq_cst);
  return own.reached() >= op;
}

void Worker::takeTimes(std::vector<OpTime>& into) {
  const std::lock_guard lock(timesMutex_);
  into.insert(into.end(), times_.begin(), times_.end());
  times_.clear();
}

}  // namespace tandem

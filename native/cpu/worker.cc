#include "worker.h"

#include "../thread-name.h"

#ifdef __linux__
#include <sys/prctl.h>
#endif

namespace tandem {

namespace {

const char* const laneNames[laneCount] = {"compute", "inter", "intra", "h2d", "d2h", "values"};

/** Names the thread, and lets it sleep to the microsecond: emulated links need it. */
void introduce(int rank, int lane) {
  nameThread(rank, laneNames[lane]);
#ifdef __linux__
  prctl(PR_SET_TIMERSLACK, 1UL);
#endif
}

}  // namespace

Worker::Worker(RankLanes& lanes, int lane, const std::function<void()>& onProgress)
    : lanes_(lanes), lane_(lane), onProgress_(onProgress), thread_([this] { loop(); }) {}

Worker::~Worker() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  submitted_.notify_all();
  thread_.join();
}

void Worker::submit(Item item) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(item));
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
  introduce(lanes_.rank, lane_);
  std::vector<Item> batch;
  while (take(batch)) {
    for (Item& item : batch) {
      runOne(item);
      item.own.reset();
    }
    batch.clear();
  }
}

void Worker::runOne(const Item& item) {
  for (size_t lane = 0; lane < laneCount; lane++) {
    if (item.after[lane] != noPoint) lanes_.progress[lane].wait(item.after[lane]);
  }
  const int64_t start = runItem(item, lanes_);
  if (item.more) return;
  if (lanes_.timed && pointOf(opOf(item.at)) == item.at) {
    const int64_t end = lanes_.shared.now();
    const std::lock_guard lock(timesMutex_);
    times_.push_back({opOf(item.at), lane_, start, end});
  }
  lanes_.progress[static_cast<size_t>(lane_)].raise(item.at);
  // Whoever arms the watch looks at the progress afterwards: one of the two sees the other.
  if (item.at >= watched_.load(std::memory_order_seq_cst)) {
    watched_.store(nobody, std::memory_order_seq_cst);
    onProgress_();
  }
}

bool Worker::watch(Point point) {
  const Progress& own = lanes_.progress[static_cast<size_t>(lane_)];
  if (own.reached() >= point) return true;
  // A watch that is lost to the worker's reset was armed before its notification, which makes every watch be armed anew.
  if (point < watched_.load(std::memory_order_seq_cst)) watched_.store(point, std::memory_order_seq_cst);
  return own.reached() >= point;
}

void Worker::takeTimes(std::vector<OpTime>& into) {
  const std::lock_guard lock(timesMutex_);
  into.insert(into.end(), times_.begin(), times_.end());
  times_.clear();
}

}  // namespace tandem

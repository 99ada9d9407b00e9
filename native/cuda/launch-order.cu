#include "launch-order.h"

namespace tandem::cuda {

bool LaunchOrder::await(int64_t place) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return next_ == place || closed_ || shared_.faulted(); });
  running_ = next_ == place && !closed_ && !shared_.faulted();
  return running_;
}

bool LaunchOrder::close() {
  bool running = false;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    running = running_;
  }
  changed_.notify_all();
  return running;
}

void LaunchOrder::passed() {
  {
    const std::lock_guard lock(mutex_);
    next_++;
    running_ = false;
  }
  changed_.notify_all();
}

void LaunchOrder::wake() {
  { const std::lock_guard lock(mutex_); }
  changed_.notify_all();
}

}  // namespace tandem::cuda

// What a lane's thread has to launch: items in order, one by one, or all of a stretch at once. Knows nothing of CUDA.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

namespace tandem::cuda {

/** `Item` has a `planned`, a `Planned` of stretches.h. */
template <class Item>
class LaunchQueue {
 public:
  /** How long the thread waits for the next task of a stretch before it launches what is there. */
  explicit LaunchQueue(std::chrono::microseconds patience = std::chrono::microseconds(1000)) : patience_(patience) {}

  void push(Item item) {
    bool tell = false;
    {
      const std::lock_guard lock(mutex_);
      // whoever waits for a stretch has no use for a part of it
      const auto& planned = item.planned;
      tell = planned.ticket == 0 || planned.opens != nullptr || planned.completes || planned.ticket <= givenUp_ || interrupted_;
      if (planned.completes) complete_ = planned.ticket;
      queue_.push_back(std::move(item));
    }
    if (tell) changed_.notify_one();
  }

  /** The rest of that stretch will not come, or not before the thread has launched what is there. */
  void broken(int64_t ticket) {
    {
      const std::lock_guard lock(mutex_);
      broken_ = ticket;
    }
    changed_.notify_one();
  }

  /** From here on nobody waits for the rest of a stretch. */
  void interrupt() {
    {
      const std::lock_guard lock(mutex_);
      interrupted_ = true;
    }
    changed_.notify_one();
  }

  /** No item will come any more. */
  void end() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = interrupted_ = true;
    }
    changed_.notify_one();
  }

  /** The next item, or all items of the next stretch; false where none will come any more. Sleeps until then. */
  bool next(std::vector<Item>& items) {
    items.clear();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !queue_.empty() || ending_; });
    if (queue_.empty()) return false;
    const size_t count = queue_.front().planned.opens == nullptr ? 1 : gathered(lock);
    for (size_t i = 0; i < count; i++) {
      items.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
    return true;
  }

 private:
  /** Items to take of the stretch that the first one begins: all, or that one alone. */
  size_t gathered(std::unique_lock<std::mutex>& lock) {
    const int64_t ticket = queue_.front().planned.ticket;
    const auto stretch = queue_.front().planned.opens;
    const size_t count = stretch->tasks.size();
    const auto there = [&] {
      return queue_.size() >= count && queue_[count - 1].planned.ticket == ticket && queue_[count - 1].planned.completes;
    };
    // tickets rise: of one that is past it is known what became of it
    while (!there() && broken_ < ticket && complete_ < ticket && !interrupted_) {
      const size_t before = queue_.size();
      changed_.wait_for(lock, patience_, [&] { return broken_ >= ticket || complete_ >= ticket || interrupted_; });
      if (queue_.size() > before || there() || broken_ >= ticket || interrupted_) continue;
      givenUp_ = ticket;
      stretch->givenUp++;
      return 1;
    }
    return there() && !interrupted_ ? count : 1;
  }

  const std::chrono::microseconds patience_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  /** The last tickets of either kind. */
  int64_t complete_ = 0;
  int64_t broken_ = 0;
  int64_t givenUp_ = 0;
  bool interrupted_ = false;
  bool ending_ = false;
};

}  // namespace tandem::cuda

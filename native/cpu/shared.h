// What all lanes of a machine share: one clock, the first fault, and sleep that a fault ends.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace tandem {

class Shared {
 public:
  Shared() : epoch_(std::chrono::steady_clock::now()) {}

  int64_t now() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - epoch_).count();
  }

  bool faulted() const { return faulted_.load(std::memory_order_acquire); }

  std::optional<std::string> fault() const {
    const std::lock_guard lock(mutex_);
    return fault_;
  }

  /** Keeps the first fault, and wakes whoever sleeps or has asked to be told. */
  void fail(const std::string& what) {
    {
      const std::lock_guard lock(mutex_);
      if (!fault_) fault_ = what;
      faulted_.store(true, std::memory_order_release);
    }
    woken_.notify_all();
    const std::lock_guard lock(toTell_);
    for (const auto& tell : listeners_) tell();
  }

  /** `tell` is called at every fault, from any thread. */
  void onFault(std::function<void()> tell) {
    const std::lock_guard lock(toTell_);
    listeners_.push_back(std::move(tell));
  }

  /** Sleeps until `now()` is at least `nanoseconds`, or something failed. */
  void sleepUntil(int64_t nanoseconds) {
    const auto until = epoch_ + std::chrono::nanoseconds(nanoseconds);
    std::unique_lock lock(mutex_);
    woken_.wait_until(lock, until, [this] { return faulted_.load(std::memory_order_relaxed); });
  }

 private:
  const std::chrono::steady_clock::time_point epoch_;
  std::atomic<bool> faulted_{false};
  mutable std::mutex mutex_;
  std::condition_variable woken_;
  std::optional<std::string> fault_;
  std::mutex toTell_;
  std::vector<std::function<void()>> listeners_;
};

/** A way that bytes take, one after another: what comes later is sent when what came before has passed. */
class Link {
 public:
  explicit Link(double bytesPerSecond) : bytesPerSecond_(bytesPerSecond) {}

  /** When the last of `bytes`, ready at `now`, has passed. */
  int64_t reserve(double bytes, int64_t now) {
    const std::lock_guard lock(mutex_);
    const double start = std::max(static_cast<double>(now), freeAt_);
    freeAt_ = start + bytes / bytesPerSecond_ * 1e9;
    return static_cast<int64_t>(freeAt_);
  }

 private:
  const double bytesPerSecond_;
  double freeAt_ = 0;
  std::mutex mutex_;
};

}  // namespace tandem

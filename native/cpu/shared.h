// What all lanes of a machine share: one clock and the first fault.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "../backend.h"

namespace tandem {

class Shared {
 public:
  Shared() : epoch_(std::chrono::steady_clock::now()) {}

  int64_t now() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - epoch_).count();
  }

  bool faulted() const { return faulted_.load(std::memory_order_acquire); }

  std::optional<Fault> fault() const {
    const std::lock_guard lock(mutex_);
    return fault_;
  }

  /** Keeps the first fault, and wakes whoever has asked to be told. */
  void fail(const Fault& fault) {
    {
      const std::lock_guard lock(mutex_);
      if (!fault_) fault_ = fault;
      faulted_.store(true, std::memory_order_release);
    }
    const std::lock_guard lock(toTell_);
    for (const auto& tell : listeners_) tell();
  }

  /** `tell` is called at every fault, from any thread. */
  void onFault(std::function<void()> tell) {
    const std::lock_guard lock(toTell_);
    listeners_.push_back(std::move(tell));
  }

 private:
  const std::chrono::steady_clock::time_point epoch_;
  std::atomic<bool> faulted_{false};
  mutable std::mutex mutex_;
  std::optional<Fault> fault_;
  std::mutex toTell_;
  std::vector<std::function<void()>> listeners_;
};

}  // namespace tandem

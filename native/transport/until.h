// How long somebody waits, and what ends the wait before: for whoever connects while a program may give up.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "fd.h"

namespace tandem {

/** Ends waits, once and for all, from any thread. */
class Cancellation {
 public:
  Cancellation() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  void cancel() {
    cancelled_ = true;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
  }
  bool cancelled() const { return cancelled_; }
  /** Readable from then on; -1 where the system gave none. */
  int fd() const { return event_.get(); }

 private:
  const Fd event_;
  std::atomic<bool> cancelled_{false};
};

struct Until {
  using Clock = std::chrono::steady_clock;
  // A point of time alone is one, too.
  Until(Clock::time_point deadline, const Cancellation* by = nullptr) : deadline(deadline), by(by) {}
  /** From now on. */
  static Until in(double seconds, const Cancellation* by) {
    return {Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)), by};
  }
  bool cancelled() const { return by != nullptr && by->cancelled(); }
  bool over() const { return cancelled() || Clock::now() >= deadline; }
  Until orSooner(Clock::duration left) const { return {std::min(deadline, Clock::now() + left), by}; }
  /** Whether it holds by then; a cancellation, which wakes nobody, is seen within a twentieth of a second. */
  template <class Holds>
  bool await(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, const Holds& holds) const {
    while (!holds()) {
      if (over()) return false;
      changed.wait_until(lock, std::min(deadline, Clock::now() + std::chrono::milliseconds(50)));
    }
    return true;
  }
  Clock::time_point deadline;
  const Cancellation* by;
};

}  // namespace tandem

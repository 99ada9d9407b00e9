// A counter that one thread raises and others wait for: what the cpu backend's events are made of.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace tandem {

/** Tells the processor that this thread spins. */
inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/** Rounds of spinning before a thread sleeps: some microseconds, about what a futex costs, so that no core burns. */
constexpr int spins = 100;

class Progress {
 public:
  int64_t reached() const { return reached_.load(std::memory_order_seq_cst); }

  void raise(int64_t to) {
    reached_.store(to, std::memory_order_seq_cst);
    // Either this sees the waiter, or the waiter, which counts itself first, sees the new value.
    if (waiters_.load(std::memory_order_seq_cst) == 0) return;
    const std::lock_guard lock(mutex_);
    raised_.notify_all();
  }

  void wait(int64_t until) {
    for (int i = 0; i < spins; i++) {
      if (reached() >= until) return;
      pause();
    }
    waiters_.fetch_add(1, std::memory_order_seq_cst);
    {
      std::unique_lock lock(mutex_);
      raised_.wait(lock, [&] { return reached() >= until; });
    }
    waiters_.fetch_sub(1, std::memory_order_seq_cst);
  }

 private:
  std::atomic<int64_t> reached_{0};
  std::atomic<int32_t> waiters_{0};
  std::mutex mutex_;
  std::condition_variable raised_;
};

}  // namespace tandem

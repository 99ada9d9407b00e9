// Whether the thread that runs the program has gone to sleep, by what the system says of it and not by a clock: a thread that is
// slow, has no core, or waits for another thread of its process has not. Knows nothing of what is called.
#pragma once

#include <atomic>

#ifdef __linux__
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#endif

namespace tandem {

class ProgramThread {
 public:
  /** The calling thread is the program's. */
  void here() {
#ifdef __linux__
    thread_local const int self = static_cast<int>(syscall(SYS_gettid));
    id_ = self;
#endif
  }

  /** Whether it waits in the kernel for a time or for events, and not for a lock or for memory. Where the system does not say: true. */
  bool sleeps() const {
#ifdef __linux__
    char path[64];
    std::snprintf(path, sizeof path, "/proc/self/task/%d/syscall", id_.load());
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return true;
    // The number of the call that it is blocked in; "running".
    char text[32];
    const ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    if (size <= 0) return true;
    text[size] = 0;
    char* end = nullptr;
    const long call = std::strtol(text, &end, 10);
    return end != text && isSleep(call);
#else
    return true;
#endif
  }

 private:
#ifdef __linux__
  static bool isSleep(long call) {
    switch (call) {
#ifdef SYS_epoll_wait
      case SYS_epoll_wait:
      case SYS_poll:
      case SYS_select:
#endif
#ifdef SYS_epoll_pwait2
      case SYS_epoll_pwait2:
#endif
      case SYS_epoll_pwait:
      case SYS_ppoll:
      case SYS_pselect6:
      case SYS_nanosleep:
      case SYS_clock_nanosleep:
        return true;
      default:
        return false;
    }
  }

#endif
  std::atomic<int> id_ = 0;
};

}  // namespace tandem

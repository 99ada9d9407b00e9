// The order in which collectives with other processes are launched: that of the program, whatever lanes they are in. Knows no
// collective.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "stream.h"

namespace tandem::cuda {

/** One after another, whatever lane they are in: NCCL wants one order of launches on all ranks. */
class LaunchOrder {
 public:
  explicit LaunchOrder(Shared& shared) : shared_(shared) {}
  /** The next place; from the program's thread. */
  int64_t take() { return taken_++; }
  /** False when something failed meanwhile, or the order is closed; else launching lasts until `passed`. */
  bool await(int64_t place);
  void passed();
  /** From here on nobody's turn comes. Whether somebody is launching. */
  bool close();
  void wake();

 private:
  Shared& shared_;
  int64_t taken_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t next_ = 0;
  bool closed_ = false;
  bool running_ = false;
};

}  // namespace tandem::cuda

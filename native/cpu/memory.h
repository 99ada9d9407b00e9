// One rank's memory in one place: blocks that return when the events after their last use are reached, and are used again.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "../backend.h"
#include "../transport/lent-memory.h"

namespace tandem {

class Memory {
 public:
  /**
   * Eager memory is handed out again while earlier uses of it are queued, and filled with bytes that no value has once they
   * have ended: whoever does not wait, or keeps on reading, is found out. Blocks that are long lie in `lent`, where that is not null.
   */
  Memory(bool eager, double capacityBytes, LentMemory* lent = nullptr) : eager_(eager), capacityBytes_(capacityBytes), lent_(lent) {}
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /** 256-byte aligned; data is null when there is none. */
  Block allocate(size_t bytes, const Events& ended);
  /** The block may be used again once `after` is reached. */
  void deallocate(void* block, const Events& after, const Events& ended);
  /** Fills what came free by now; for eager memory. */
  void poison(const Events& ended);
  double capacityBytes() const { return capacityBytes_; }

 private:
  struct Waiting {
    void* block;
    size_t bytes;
    Events after;
  };

  void* fresh(size_t bytes) const;
  void giveBack(void* block) const;
  Block waitingBlock(size_t bytes);
  void collect(const Events& ended);
  void trim();
  void poisonLocked(const Events& ended);

  const bool eager_;
  const double capacityBytes_;
  LentMemory* const lent_;
  std::mutex mutex_;
  std::unordered_map<void*, size_t> used_;
  /** In the order in which they were freed. */
  std::vector<Waiting> waiting_;
  /** To be filled once their events are reached, handed out again or not. */
  std::vector<Waiting> toPoison_;
  /** Blocks ready for use, by size. */
  std::map<size_t, std::vector<void*>> ready_;
  size_t usedBytes_ = 0;
  size_t readyBytes_ = 0;
};

}  // namespace tandem

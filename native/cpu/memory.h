// One rank's memory in one place: blocks that return when the events after their last use are reached, and are used again.
#pragma once

#include <cstddef>
#include <map>
#include <unordered_map>
#include <vector>

#include "../backend.h"

namespace tandem {

class Memory {
 public:
  Memory() = default;
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /** 64-byte aligned; null when the system has none. */
  void* allocate(size_t bytes, const Events& ended);
  /** The block may be used again once `ended` has reached `after`. */
  void deallocate(void* block, const Events& after, const Events& ended);

 private:
  struct Waiting {
    void* block;
    size_t bytes;
    Events after;
  };

  void collect(const Events& ended);
  void trim();

  std::unordered_map<void*, size_t> used_;
  std::vector<Waiting> waiting_;
  /** Blocks ready for use, by size. */
  std::map<size_t, std::vector<void*>> ready_;
  size_t usedBytes_ = 0;
  size_t readyBytes_ = 0;
};

}  // namespace tandem

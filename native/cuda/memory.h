// One memory of a rank: blocks of the driver's that are used again. What was freed may be used again at once, by whoever waits
// for the events of its last uses.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "../backend.h"

namespace tandem::cuda {

class Memory {
 public:
  /** `place` decides between the GPU's memory and pinned memory of the host. */
  Memory(int device, Place place) : device_(device), place_(place) {}
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /** data is null when there is none. With `idle`, memory that nobody has to be waited for. */
  Block allocate(size_t bytes, const Events& reached, bool idle = false);
  void deallocate(void* data, const Events& after);

 private:
  struct Free {
    void* data;
    Events after;
  };

  void* take(size_t bytes) const;
  void give(void* data) const;
  void trim(const Events& reached);

  const int device_;
  const Place place_;
  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;
  /** By size. */
  std::multimap<size_t, Free> free_;
};

}  // namespace tandem::cuda

#include "memory.h"

#include "kernels.h"

namespace tandem::cuda {

namespace {

bool passed(const Events& after, const Events& reached) {
  for (size_t lane = 0; lane < laneCount; lane++) {
    if (reached[lane] < after[lane]) return false;
  }
  return true;
}

/** Steps of an eighth, so that blocks of about the same size serve each other. */
size_t roundUp(size_t bytes) {
  size_t step = 256;
  while (step * 16 < bytes) step *= 2;
  return bytes == 0 ? 256 : (bytes + step - 1) / step * step;
}

}  // namespace

Memory::~Memory() {
  for (const auto& [data, bytes] : sizes_) give(data);
}

void* Memory::take(size_t bytes) const {
  void* data = nullptr;
  cudaSetDevice(device_);
  const cudaError_t status = place_ == Place::device ? cudaMalloc(&data, bytes) : cudaHostAlloc(&data, bytes, cudaHostAllocPortable);
  if (status == cudaSuccess) return data;
  cudaGetLastError();
  if (status == cudaErrorMemoryAllocation) return nullptr;
  throw std::runtime_error(std::string("memory of the ") + (place_ == Place::device ? "GPU" : "host") + ": " +
                           cudaGetErrorString(status));
}

void Memory::give(void* data) const {
  if (place_ == Place::device) {
    cudaFree(data);
  } else {
    cudaFreeHost(data);
  }
}

/** Back to the driver goes what nobody uses any more. */
void Memory::trim(const Events& reached) {
  for (auto entry = free_.begin(); entry != free_.end();) {
    if (passed(entry->second.after, reached)) {
      give(entry->second.data);
      sizes_.erase(entry->second.data);
      entry = free_.erase(entry);
    } else {
      ++entry;
    }
  }
}

Block Memory::allocate(size_t bytes, const Events& reached, bool idle) {
  const size_t size = roundUp(bytes);
  const std::lock_guard lock(mutex_);
  // one that is idle before one that is to be waited for
  const auto [first, last] = free_.equal_range(size);
  auto found = last;
  for (auto entry = first; entry != last; ++entry) {
    if (found == last || passed(entry->second.after, reached)) found = entry;
    if (passed(found->second.after, reached)) break;
  }
  if (found != last && idle && !passed(found->second.after, reached)) found = last;
  if (found != last) {
    Block block = {found->second.data, found->second.after};
    if (passed(block.readyAfter, reached)) block.readyAfter = noEvents;
    free_.erase(found);
    return block;
  }
  void* data = take(size);
  if (data == nullptr) {
    trim(reached);
    data = take(size);
  }
  if (data != nullptr) sizes_[data] = size;
  return {data, noEvents};
}

void Memory::deallocate(void* data, const Events& after) {
  const std::lock_guard lock(mutex_);
  free_.emplace(sizes_.at(data), Free{data, after});
}

}  // namespace tandem::cuda

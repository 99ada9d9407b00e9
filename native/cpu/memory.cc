#include "memory.h"

#include <algorithm>
#include <cstdlib>

namespace tandem {

namespace {

constexpr size_t alignment = 64;
/** Unused blocks are kept up to this, or up to as much as is in use. */
constexpr size_t keptBytes = size_t{64} << 20;

/** Up to the next of eight sizes per power of two, so that blocks of similar sizes serve each other. */
size_t rounded(size_t bytes) {
  size_t step = alignment;
  while (step * 16 <= bytes) step *= 2;
  return std::max(alignment, (bytes + step - 1) / step * step);
}

bool passed(const Events& ended, const Events& after) {
  for (int lane = 0; lane < laneCount; lane++) {
    if (ended[lane] < after[lane]) return false;
  }
  return true;
}

}  // namespace

Memory::~Memory() {
  for (const auto& [block, bytes] : used_) std::free(block);
  for (const Waiting& one : waiting_) std::free(one.block);
  for (const auto& [bytes, blocks] : ready_) {
    for (void* block : blocks) std::free(block);
  }
}

void* Memory::allocate(size_t bytes, const Events& ended) {
  bytes = rounded(bytes);
  collect(ended);
  void* block = nullptr;
  const auto found = ready_.find(bytes);
  if (found != ready_.end() && !found->second.empty()) {
    block = found->second.back();
    found->second.pop_back();
    readyBytes_ -= bytes;
  } else {
    block = std::aligned_alloc(alignment, bytes);
    if (block == nullptr) return nullptr;
  }
  used_.emplace(block, bytes);
  usedBytes_ += bytes;
  return block;
}

void Memory::deallocate(void* block, const Events& after, const Events& ended) {
  const auto found = used_.find(block);
  if (found == used_.end()) throw BadCall("memory: freed twice");
  waiting_.push_back({block, found->second, after});
  usedBytes_ -= found->second;
  used_.erase(found);
  collect(ended);
}

void Memory::collect(const Events& ended) {
  const auto first = std::partition(waiting_.begin(), waiting_.end(),
                                    [&](const Waiting& one) { return !passed(ended, one.after); });
  for (auto one = first; one != waiting_.end(); ++one) {
    ready_[one->bytes].push_back(one->block);
    readyBytes_ += one->bytes;
  }
  waiting_.erase(first, waiting_.end());
  if (readyBytes_ > std::max(keptBytes, usedBytes_)) trim();
}

void Memory::trim() {
  for (const auto& [bytes, blocks] : ready_) {
    for (void* block : blocks) std::free(block);
  }
  ready_.clear();
  readyBytes_ = 0;
}

}  // namespace tandem

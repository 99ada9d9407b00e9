#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace tandem {

namespace {

constexpr size_t alignment = 256;
/** Unused blocks are kept up to this, or up to as much as is in use. */
constexpr size_t keptBytes = size_t{64} << 20;
/** As a float of any storage: no number. As an integer: -1. */
constexpr int poisonByte = 0xff;

/** Up to the next of eight sizes per power of two, so that blocks of similar sizes serve each other. */
size_t rounded(size_t bytes) {
  size_t step = alignment;
  while (step * 16 <= bytes) step *= 2;
  return std::max(alignment, (bytes + step - 1) / step * step);
}

bool passed(const Events& ended, const Events& after) {
  for (size_t lane = 0; lane < laneCount; lane++) {
    if (ended[lane] < after[lane]) return false;
  }
  return true;
}

}  // namespace

Memory::~Memory() {
  for (const auto& [block, bytes] : used_) giveBack(block);
  for (const Waiting& one : waiting_) giveBack(one.block);
  trim();
}

/** Null where the system has no more. */
void* Memory::fresh(size_t bytes) const {
  void* const lent = lent_ != nullptr && bytes >= lentBytesMin ? lent_->allocate(bytes) : nullptr;
  return lent != nullptr ? lent : std::aligned_alloc(alignment, bytes);
}

void Memory::giveBack(void* block) const {
  if (lent_ == nullptr || !lent_->deallocate(block)) std::free(block);
}

Block Memory::allocate(size_t bytes, const Events& ended) {
  const std::lock_guard lock(mutex_);
  if (static_cast<double>(bytes) > capacityBytes_ - static_cast<double>(usedBytes_)) return {};
  bytes = rounded(bytes);
  Block block;
  if (eager_) block = waitingBlock(bytes);
  if (block.data == nullptr) {
    collect(ended);
    const auto found = ready_.find(bytes);
    if (found != ready_.end() && !found->second.empty()) {
      block.data = found->second.back();
      found->second.pop_back();
      readyBytes_ -= bytes;
    } else {
      block.data = fresh(bytes);
      if (block.data == nullptr) block = waitingBlock(bytes);
      if (block.data == nullptr) return {};
    }
  }
  used_.emplace(block.data, bytes);
  usedBytes_ += bytes;
  return block;
}

/** The block freed last that is large enough, while earlier uses of it may be queued. */
Block Memory::waitingBlock(size_t bytes) {
  for (size_t i = waiting_.size(); i-- > 0;) {
    if (waiting_[i].bytes != bytes) continue;
    const Block block = {waiting_[i].block, waiting_[i].after};
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
    return block;
  }
  return {};
}

void Memory::deallocate(void* block, const Events& after, const Events& ended) {
  const std::lock_guard lock(mutex_);
  const auto found = used_.find(block);
  if (found == used_.end()) throw BadCall("memory: freed twice");
  waiting_.push_back({block, found->second, after});
  if (eager_) {
    toPoison_.push_back(waiting_.back());
    poisonLocked(ended);
  }
  usedBytes_ -= found->second;
  used_.erase(found);
  if (!eager_) collect(ended);
}

void Memory::poison(const Events& ended) {
  const std::lock_guard lock(mutex_);
  poisonLocked(ended);
}

void Memory::poisonLocked(const Events& ended) {
  const auto first = std::partition(toPoison_.begin(), toPoison_.end(),
                                    [&](const Waiting& one) { return !passed(ended, one.after); });
  for (auto one = first; one != toPoison_.end(); ++one) std::memset(one->block, poisonByte, one->bytes);
  toPoison_.erase(first, toPoison_.end());
}

void Memory::collect(const Events& ended) {
  const auto first = std::stable_partition(waiting_.begin(), waiting_.end(),
                                           [&](const Waiting& one) { return !passed(ended, one.after); });
  for (auto one = first; one != waiting_.end(); ++one) {
    ready_[one->bytes].push_back(one->block);
    readyBytes_ += one->bytes;
  }
  waiting_.erase(first, waiting_.end());
  if (readyBytes_ > std::max(keptBytes, usedBytes_) && !eager_) trim();
}

void Memory::trim() {
  for (const auto& [bytes, blocks] : ready_) {
    for (void* block : blocks) giveBack(block);
  }
  ready_.clear();
  readyBytes_ = 0;
}

}  // namespace tandem

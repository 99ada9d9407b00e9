// Memory in which messages are put together and taken apart. What was used is kept for the next: fresh memory costs a page fault for
// every 4 KiB, which is more than to receive them (docs/processes.md).
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "lent-memory.h"

namespace tandem {

/** Gives back what was taken from the heap, or from memory that others read. */
struct GiveBack {
  LentMemory* from = nullptr;
  void operator()(char* bytes) const {
    if (from == nullptr || !from->deallocate(bytes)) delete[] bytes;
  }
};

class Staging {
  using Bytes = std::unique_ptr<char[], GiveBack>;

 public:
  /** A piece of it, with anything in it. Of one thread at a time; must not outlive its staging. */
  class Piece {
   public:
    Piece() = default;
    Piece(Piece&& other) noexcept { *this = std::move(other); }
    Piece& operator=(Piece&& other) noexcept {
      std::swap(from_, other.from_);
      std::swap(data_, other.data_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Piece() { release(); }

    char* data() const { return data_.get(); }
    size_t size() const { return bytes_; }
    bool empty() const { return bytes_ == 0; }
    void release() {
      if (data_ && from_ != nullptr) from_->keep(std::move(data_));
      data_.reset();
      from_ = nullptr;
      bytes_ = 0;
    }

   private:
    friend class Staging;
    /** Null for what is not kept. */
    Staging* from_ = nullptr;
    Bytes data_;
    size_t bytes_ = 0;
  };

  /** `blockBytes`: what most ask for, or a little less. At most so many that nobody uses are kept. */
  Staging(size_t blockBytes, size_t keptMax) : blockBytes_(blockBytes), keptMax_(keptMax) {}

  Piece take(size_t bytes) {
    Piece piece;
    piece.bytes_ = bytes;
    // The heap keeps small ones itself, and one of more than a block would stay as large.
    if (bytes > blockBytes_ / 8 && bytes <= blockBytes_) {
      piece.from_ = this;
      const std::lock_guard lock(mutex_);
      if (!kept_.empty()) {
        piece.data_ = std::move(kept_.back());
        kept_.pop_back();
        return piece;
      }
    }
    if (bytes > 0) piece.data_ = fresh(piece.from_ == nullptr ? bytes : blockBytes_);
    return piece;
  }

  /** What is long is taken there from now on, where others can read it. Before anything is taken. */
  void takeFrom(LentMemory* lent) { lent_ = lent; }

 private:
  Bytes fresh(size_t bytes) const {
    void* const lent = lent_ != nullptr && bytes >= lentBytesMin ? lent_->allocate(bytes) : nullptr;
    return lent != nullptr ? Bytes(static_cast<char*>(lent), {lent_}) : Bytes(new char[bytes]);
  }
  void keep(Bytes block) {
    const std::lock_guard lock(mutex_);
    if (kept_.size() < keptMax_) kept_.push_back(std::move(block));
  }

  /** Null for the heap alone. */
  LentMemory* lent_ = nullptr;
  const size_t blockBytes_;
  const size_t keptMax_;
  std::mutex mutex_;
  /** The last that was used is the first to be used again: it may be in a cache yet. */
  std::vector<Bytes> kept_;
};

}  // namespace tandem

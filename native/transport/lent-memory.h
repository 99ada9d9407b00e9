// Memory of this process that others of its host may read: tensors and messages lie in it, and whoever is to have them copies them from
// where they lie. Knows nothing of what the bytes mean, or of who is told where they are.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "fd.h"

namespace tandem {

/**
 * Shorter messages go by connections, and shorter blocks come from the heap: to say where bytes lie, and that they have been taken,
 * costs about what it costs to send so many. Assumed.
 */
constexpr size_t lentBytesMin = size_t{64} << 10;

/** One file in memory, which all blocks are pieces of. It only grows; pages that nobody has are the system's again. */
class LentMemory {
 public:
  /**
   * That of this process; null where the system has none, and where it promises no more memory than it has (vm.overcommit_memory is 2):
   * a page of a file that is refused ends a process. Never ends: others may read it while this process does.
   */
  static LentMemory* here();

  /** Page-aligned zeros; null where there is no more. From any thread, as all of this. */
  void* allocate(size_t bytes);
  /** False for what is no block of it. */
  bool deallocate(void* data);
  /** Where these bytes lie for whoever borrows; nothing where they lie elsewhere. */
  std::optional<uint64_t> placeOf(const void* data, size_t bytes) const;
  /** By which others find it. */
  int fd() const { return fd_.get(); }

 private:
  explicit LentMemory(Fd fd) : fd_(std::move(fd)) {}

  struct Block {
    size_t bytes = 0;
    uint64_t place = 0;
  };

  const Fd fd_;
  mutable std::mutex mutex_;
  uint64_t end_ = 0;
  std::map<const char*, Block> blocks_;
  /** Places that are free again, by length. */
  std::map<size_t, std::vector<uint64_t>> free_;
};

/**
 * What a mesh lends: a page with a mark by which its peers know the file for the right one, and a word that says that what was lent may
 * have changed since.
 */
class LentPage {
 public:
  /** Null where the system lends nothing. */
  static std::unique_ptr<LentPage> make(const std::string& mark);
  ~LentPage();
  LentPage(const LentPage&) = delete;
  LentPage& operator=(const LentPage&) = delete;

  uint64_t place() const { return place_; }
  /** From now on nobody takes what they copy for what was lent. */
  void withdraw();

 private:
  LentPage(void* page, uint64_t place) : page_(page), place_(place) {}
  void* const page_;
  const uint64_t place_;
};

/** Another process's memory, to be read. */
class BorrowedMemory {
 public:
  /** Throws std::runtime_error where it cannot be read, or is not what it is said to be. */
  BorrowedMemory(pid_t process, int fd, uint64_t page, const std::string& mark);
  ~BorrowedMemory();
  BorrowedMemory(const BorrowedMemory&) = delete;
  BorrowedMemory& operator=(const BorrowedMemory&) = delete;

  enum class Reach {
    whole,
    /** The file has no such place. */
    nowhere,
    /** This process has no room for it among its addresses. */
    noRoom
  };
  /** What of a place can be read from now on. From any thread. */
  Reach reaches(uint64_t place, size_t bytes);
  /** What can be reached; false where its owner has taken it back, and what was copied may be anything. From any thread. */
  bool copy(uint64_t place, void* to, size_t bytes);

 private:
  const char* window(uint64_t number);

  Fd fd_;
  const void* page_ = nullptr;
  std::mutex mutex_;
  uint64_t end_ = 0;
  std::map<uint64_t, const char*> windows_;
};

}  // namespace tandem

#include "lent-memory.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>

namespace tandem {

namespace {

const size_t pageBytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
/** Others' files are mapped piece by piece, as they are read: so much at a time. Assumed. */
constexpr uint64_t windowBytes = uint64_t{64} << 20;

/** What a page begins with. */
struct PageHead {
  char mark[16];
  std::atomic<uint32_t> withdrawn;
};
static_assert(std::atomic<uint32_t>::is_always_lock_free, "processes share it");

/** A file in memory that can only grow: nobody who reads it is surprised by its end. None where the system refuses, or is strict. */
Fd growingFile() {
  int overcommit = 0;
  std::ifstream("/proc/sys/vm/overcommit_memory") >> overcommit;
  if (overcommit == 2) return Fd();
  Fd fd(::memfd_create("tandem", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.get() >= 0 && ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) return Fd();
  return fd;
}

size_t inPages(size_t bytes) { return (bytes + pageBytes - 1) / pageBytes * pageBytes; }

std::runtime_error problem(const std::string& what) { return std::runtime_error(what + ": " + std::strerror(errno)); }

}  // namespace

// What is lent

LentMemory* LentMemory::here() {
  static LentMemory* const here = [] {
    Fd fd = growingFile();
    return fd.get() < 0 ? nullptr : new LentMemory(std::move(fd));
  }();
  return here;
}

void* LentMemory::allocate(size_t bytes) {
  if (bytes == 0 || bytes > SIZE_MAX / 4) return nullptr;
  bytes = inPages(bytes);
  const std::lock_guard lock(mutex_);
  const auto found = free_.find(bytes);
  const bool again = found != free_.end() && !found->second.empty();
  const uint64_t place = again ? found->second.back() : end_;
  if (!again && ::ftruncate(fd_.get(), static_cast<off_t>(place + bytes)) != 0) return nullptr;
  void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), static_cast<off_t>(place));
  if (data == MAP_FAILED) return nullptr;
  again ? found->second.pop_back() : static_cast<void>(end_ = place + bytes);
  blocks_[static_cast<const char*>(data)] = {bytes, place};
  return data;
}

bool LentMemory::deallocate(void* data) {
  const std::lock_guard lock(mutex_);
  const auto found = blocks_.find(static_cast<const char*>(data));
  if (found == blocks_.end()) return false;
  const Block block = found->second;
  blocks_.erase(found);
  ::munmap(data, block.bytes);
  ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(block.place),
              static_cast<off_t>(block.bytes));
  free_[block.bytes].push_back(block.place);
  return true;
}

std::optional<uint64_t> LentMemory::placeOf(const void* data, size_t bytes) const {
  const auto* const from = static_cast<const char*>(data);
  const std::lock_guard lock(mutex_);
  auto block = blocks_.upper_bound(from);
  if (block == blocks_.begin()) return std::nullopt;
  block--;
  const auto offset = static_cast<size_t>(from - block->first);
  if (offset >= block->second.bytes || bytes > block->second.bytes - offset) return std::nullopt;
  return block->second.place + offset;
}

std::unique_ptr<LentPage> LentPage::make(const std::string& mark) {
  LentMemory* const memory = LentMemory::here();
  void* const page = memory == nullptr ? nullptr : memory->allocate(pageBytes);
  if (page == nullptr) return nullptr;
  auto* const head = new (page) PageHead();
  std::memcpy(head->mark, mark.data(), std::min(mark.size(), sizeof head->mark));
  head->withdrawn.store(0, std::memory_order_release);
  return std::unique_ptr<LentPage>(new LentPage(page, *memory->placeOf(page, pageBytes)));
}

LentPage::~LentPage() {
  withdraw();
  // The page stays: whoever still reads here is to see that word, not another mesh's.
}

void LentPage::withdraw() {
  static_cast<PageHead*>(page_)->withdrawn.store(1, std::memory_order_seq_cst);
  // Before whatever is written into lent memory from now on.
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

// What is borrowed

BorrowedMemory::BorrowedMemory(pid_t process, int fd, uint64_t page, const std::string& mark) {
  const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(fd);
  fd_ = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd_.get() < 0) throw problem("its memory cannot be opened");
  const int seals = ::fcntl(fd_.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) throw std::runtime_error("its memory may shrink");
  struct stat now {};
  const uint64_t end = ::fstat(fd_.get(), &now) == 0 ? static_cast<uint64_t>(now.st_size) : 0;
  if (page % pageBytes != 0 || page >= end || end - page < pageBytes) throw std::runtime_error("its memory is not what it says");
  void* const mapped = ::mmap(nullptr, pageBytes, PROT_READ, MAP_SHARED, fd_.get(), static_cast<off_t>(page));
  if (mapped == MAP_FAILED) throw problem("its memory cannot be mapped");
  page_ = mapped;
  const char* const written = static_cast<const PageHead*>(page_)->mark;
  if (mark.size() == sizeof(PageHead::mark) && std::memcmp(written, mark.data(), mark.size()) == 0) return;
  ::munmap(mapped, pageBytes);
  throw std::runtime_error("its memory is not what it says");
}

BorrowedMemory::~BorrowedMemory() {
  for (const auto& [number, window] : windows_) ::munmap(const_cast<char*>(window), windowBytes);
  ::munmap(const_cast<void*>(page_), pageBytes);
}

/** Null where there is no room. */
const char* BorrowedMemory::window(uint64_t number) {
  const std::lock_guard lock(mutex_);
  const auto found = windows_.find(number);
  if (found != windows_.end()) return found->second;
  // It may reach beyond the end that the file has now; nobody reads there.
  void* const mapped = ::mmap(nullptr, windowBytes, PROT_READ, MAP_SHARED, fd_.get(), static_cast<off_t>(number * windowBytes));
  if (mapped == MAP_FAILED) return nullptr;
  return windows_[number] = static_cast<const char*>(mapped);
}

BorrowedMemory::Reach BorrowedMemory::reaches(uint64_t place, size_t bytes) {
  if (place > UINT64_MAX - bytes) return Reach::nowhere;
  const uint64_t end = place + bytes;
  {
    const std::lock_guard lock(mutex_);
    struct stat now {};
    if (end > end_ && ::fstat(fd_.get(), &now) == 0) end_ = static_cast<uint64_t>(now.st_size);
    if (end > end_) return Reach::nowhere;
  }
  for (uint64_t number = place / windowBytes; number * windowBytes < end; number++) {
    if (window(number) == nullptr) return Reach::noRoom;
  }
  return Reach::whole;
}

bool BorrowedMemory::copy(uint64_t place, void* to, size_t bytes) {
  auto* into = static_cast<char*>(to);
  while (bytes > 0) {
    const uint64_t at = place % windowBytes;
    const auto part = static_cast<size_t>(std::min<uint64_t>(bytes, windowBytes - at));
    std::memcpy(into, window(place / windowBytes) + at, part);
    into += part;
    place += part;
    bytes -= part;
  }
  // After what was copied: who has withdrawn before it changed anything has said so by now.
  std::atomic_thread_fence(std::memory_order_acquire);
  return static_cast<const PageHead*>(page_)->withdrawn.load(std::memory_order_acquire) == 0;
}

}  // namespace tandem

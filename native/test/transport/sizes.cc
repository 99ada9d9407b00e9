// More values and bytes than 32 bits count, of which few are real; and how many bytes a second go from mesh to mesh.
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

#include "../../transport/collective-plan.h"
#include "../../transport/staging.h"
#include "meshes.h"

namespace tandem {

namespace {

/** So many bytes of address space over one small piece of memory, again and again, and a page of their own at the end. */
class Folded {
 public:
  explicit Folded(size_t bytes) : bytes_(bytes) {
    const int fd = ::memfd_create("folded", MFD_CLOEXEC);
    check(fd >= 0 && ::ftruncate(fd, windowBytes) == 0, "memory to fold");
    start_ = static_cast<char*>(::mmap(nullptr, bytes + windowBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (size_t at = 0; at < bytes; at += windowBytes) {
      ::mmap(start_ + at, windowBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    }
    ::mmap(last(), pageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    ::close(fd);
  }
  ~Folded() { ::munmap(start_, bytes_ + windowBytes); }
  char* data() const { return start_; }
  char* last() const { return start_ + bytes_ - pageBytes; }
  static constexpr size_t pageBytes = 4096;

 private:
  static constexpr size_t windowBytes = size_t{16} << 20;
  const size_t bytes_;
  char* start_;
};

}  // namespace

/** What goes to whom of more values than 32 bits count; no memory stands behind them. */
void largePlans() {
  for (const int64_t elements : {(int64_t{1} << 31) - 1, (int64_t{1} << 31) + 1, (int64_t{1} << 32) - 1,
                                 (int64_t{1} << 32) + 7, (int64_t{1} << 34) + 3}) {
    Operand one;
    one.dtype = Dtype::float32;
    one.elements = elements;
    one.shape = {elements};
    one.sizeBytes = elements * 4;
    Call call;
    call.kernel = "all_reduce";
    call.group = Group{"world", {0, 1, 2}};
    call.attributes["wire"] = std::string();
    call.attributes["reduce"] = std::string("sum");
    call.inputs = {one, one};
    call.outputs = {one, one};
    const CollectivePlan plan(call, 1);
    int64_t next[] = {0, 0};
    for (size_t member = 0; member < 3; member++) {
      for (const Span& span : plan.share(plan.inputs, member)) {
        check(span.from == next[span.tensor] && span.count > 0, "shares follow each other");
        next[span.tensor] += span.count;
      }
    }
    check(next[0] == elements && next[1] == elements, "shares are all there is");
    check(packedBytes(Packing::words, elements) == static_cast<size_t>(elements) * 4, "bytes of words");
    check(packedBytes(Packing::scaledFloat4, elements) == 4 + (static_cast<size_t>(elements) + 1) / 2, "bytes of float4");
  }
}

/** Memory for messages comes back, as much of it as is to be kept, and none of another length. */
void staging() {
  Staging staging(4096, 1);
  Staging::Piece first = staging.take(4000);
  Staging::Piece second = staging.take(4096);
  const char* const kept = first.data();
  check(kept != second.data() && first.size() == 4000, "pieces in use are apart");
  first.release();
  second.release();
  check(first.empty() && staging.take(8192).data() != kept, "what is longer than a block is its own");
  const Staging::Piece again = staging.take(3000);
  const Staging::Piece other = staging.take(3000);
  check(again.data() == kept && again.size() == 3000 && other.data() != kept, "what was used first is kept, and no more");
  check(staging.take(0).empty(), "nothing takes nothing");
}

/** A message of so many GiB and a page, of which 32 MiB are real. */
void large(size_t gibibytes) {
  const size_t bytes = (gibibytes << 30) + Folded::pageBytes;
  const Folded from(bytes);
  const Folded to(bytes);
  std::memset(from.last(), 7, Folded::pageBytes);
  const Meshes meshes = meshesOf(2, 2);
  std::thread sender([&] {
    Exchange exchange(*meshes[0], 1, 0, {1, "large"}, {0, 1});
    exchange.send(1, 0, from.data(), bytes, 0);
    check(exchange.waitAll(), "a large message leaves");
  });
  Exchange exchange(*meshes[1], 1, 0, {1, "large"}, {0, 1});
  exchange.receive(0, 0, to.data(), bytes, 0);
  check(exchange.waitAll(), "a large message comes");
  sender.join();
  check(std::memcmp(from.last(), to.last(), Folded::pageBytes) == 0, "the end of a large message");
  check(to.data()[0] == 0 && to.last()[-1] == 0, "what is before its end");
  check(meshes[0]->sentBytes(1) == bytes, "bytes are counted in 64 bits");
}

void throughput() {
  const int64_t count = int64_t{1} << 24;
  for (const int streams : {1, 2, 4}) {
    const Meshes meshes = meshesOf(2, streams);
    Floats from(count, 1.0f);
    Floats to(count);
    double best = 1e9;
    for (uint32_t round = 0; round < 10; round++) {
      const auto start = std::chrono::steady_clock::now();
      std::thread sender([&] {
        Exchange exchange(*meshes[0], 1, round, {1, "copy"});
        exchange.send(1, 0, from.data(), from.size() * 4, 0);
        exchange.wait(0);
      });
      Exchange exchange(*meshes[1], 1, round, {1, "copy"});
      exchange.receive(0, 0, to.data(), to.size() * 4, 0);
      exchange.wait(0);
      sender.join();
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      best = std::min(best, seconds);
    }
    std::printf("one way, %d streams: %.2f GB/s\n", streams, static_cast<double>(count) * 4 / best / 1e9);
  }
}

}  // namespace tandem

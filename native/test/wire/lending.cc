// Memory that processes of a host read of each other: what a carrier takes from a neighbour that does not keep to the protocol, and what
// it does for one that cannot read there.
#include <sys/mman.h>
#include <sys/socket.h>

#include <map>
#include <mutex>
#include <random>

#include "../../transport/tcp-carrier.h"
#include "raw-peer.h"

namespace tandem {

namespace {

const TransferKey key{1, 2, 0};

/** A carrier of rank 0 with one connection to a neighbour, whose end of it the test has; the neighbour's memory is this process's own. */
class Neighbour : private Carrier::Owner {
 public:
  Neighbour() {
    int ends[2];
    check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0, "a connection");
    fd = ends[1];
    const std::string mark(16, 'm');
    theirs = LentPage::make(mark);
    check(theirs != nullptr, "memory to lend");
    Neighbours neighbours;
    neighbours.page = LentPage::make(mark);
    neighbours.memory.resize(2);
    neighbours.memory[1] = std::make_unique<BorrowedMemory>(::getpid(), LentMemory::here()->fd(), theirs->place(), mark);
    Carrier::Owner& owner = *this;
    carrier = std::make_unique<TcpCarrier>(owner, std::vector<std::vector<int>>{{-1, ends[0]}}, 10'000'000, std::move(neighbours));
    carrier->start();
  }
  ~Neighbour() override {
    carrier.reset();
    ::close(fd);
  }

  /** Memory for a message of that transfer. */
  void await(size_t bytes) {
    into.assign(bytes, '\0');
    const std::lock_guard lock(mutex);
    incoming = std::make_shared<Incoming>(nullptr, into.data(), bytes, 0);
  }

  void say(const std::string& bytes) const {
    check(sendWhole(fd, bytes, std::chrono::steady_clock::now() + std::chrono::seconds(3)), "the carrier hears");
  }
  /** The next frame, with so much behind it as it says. */
  RawFrame hear(std::string& behind) const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(3);
    std::string head(sizeof(RawFrame), '\0');
    check(receiveWhole(fd, head, deadline), "the carrier says something");
    RawFrame frame;
    std::memcpy(&frame, head.data(), sizeof frame);
    behind.assign(frame.textBytes + (frame.type == rawData ? frame.length : 0), '\0');
    check(receiveWhole(fd, behind, deadline), "all of it");
    return frame;
  }
  void lend(uint64_t place, uint64_t offset, uint64_t length) const {
    RawFrame frame = about(rawLent, offset, length);
    say(textFrame(frame, std::string(reinterpret_cast<const char*>(&place), sizeof place)));
  }
  static RawFrame about(RawType type, uint64_t offset, uint64_t length) {
    RawFrame frame;
    frame.type = type;
    frame.communicator = key.communicator;
    frame.position = key.position;
    frame.offset = offset;
    frame.length = length;
    return frame;
  }
  template <class Holds>
  bool soon(Holds holds) {
    for (int i = 0; i < 300; i++) {
      {
        const std::lock_guard lock(mutex);
        if (holds()) return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  void refused(const std::string& what, const std::string& says) {
    check(soon([&] { return !problem.empty(); }), what + " is refused");
    const std::lock_guard lock(mutex);
    check(problem.find(says) != std::string::npos, what + ": " + problem);
  }

  int fd = -1;
  std::unique_ptr<LentPage> theirs;
  std::unique_ptr<TcpCarrier> carrier;
  std::mutex mutex;
  std::vector<char> into;
  std::shared_ptr<Incoming> incoming;
  std::string problem;
  int came = 0;
  int left = 0;

 private:
  std::shared_ptr<Incoming> awaited(int, const TransferKey& which, uint64_t offset, uint64_t length) override {
    const std::lock_guard lock(mutex);
    const bool known = !(which < key) && !(key < which) && incoming != nullptr;
    return known && incoming->begins(offset, length) ? incoming : nullptr;
  }
  void sent(const std::shared_ptr<Outgoing>&) override {
    const std::lock_guard lock(mutex);
    left++;
  }
  void received(int, const TransferKey&, const std::shared_ptr<Incoming>&) override {
    const std::lock_guard lock(mutex);
    came++;
  }
  void heard(int) override {}
  void cutOff(int, const std::string&) override {}
  void refuse(int peer, const std::string& what) override {
    check(peer == 1, "whose fault");
    const std::lock_guard lock(mutex);
    problem = what;
  }
  void still() override {}
};

/** A block of lent memory. */
struct Lent {
  explicit Lent(size_t bytes, char fill) : data(static_cast<char*>(LentMemory::here()->allocate(bytes))), bytes(bytes) {
    check(data != nullptr, "memory");
    std::memset(data, fill, bytes);
  }
  ~Lent() { check(LentMemory::here()->deallocate(data), "a block comes back once"); }
  uint64_t place() const { return *LentMemory::here()->placeOf(data, bytes); }
  char* const data;
  const size_t bytes;
};

void blocks() {
  LentMemory& memory = *LentMemory::here();
  uint64_t place = 0;
  {
    const Lent block(100'000, 'a');
    place = block.place();
    check(memory.placeOf(block.data + 5, 10) == place + 5, "a place inside");
    check(!memory.placeOf(block.data + 99'999, 1 << 20), "none beyond a block");
    check(!memory.placeOf(&place, 8), "none of what lies elsewhere");
    check(memory.allocate(SIZE_MAX) == nullptr && memory.allocate(0) == nullptr, "no more than there is");
  }
  const Lent again(100'000, 'b');
  check(again.place() == place, "a place is used again");
  char heap = 0;
  check(!memory.deallocate(&heap), "what is no block is somebody else's");
}

void taking() {
  {
    Neighbour one;
    const Lent block(2 * segment + 100, 'd');
    one.await(block.bytes);
    one.lend(block.place() + segment, segment, segment);
    one.lend(block.place(), 0, segment);
    one.lend(block.place() + 2 * segment, 2 * segment, 100);
    check(one.soon([&] { return one.came == 1; }), "a lent message comes");
    check(std::memcmp(one.into.data(), block.data, block.bytes) == 0, "as it lay there");
    std::string behind;
    size_t taken = 0;
    for (int i = 0; i < 3; i++) {
      const RawFrame said = one.hear(behind);
      check(said.type == rawTaken && said.kind == 0, "each segment is said to be taken");
      taken += said.length;
    }
    check(taken == block.bytes && one.carrier->receivedBytes(1) == block.bytes, "and counted");
    one.lend(block.place(), 0, segment);
    one.refused("a segment that has come", "nobody awaits");
  }
  struct Bad {
    const char* what;
    uint64_t place;
    uint64_t length;
    const char* says;
  };
  const Bad bads[] = {{"a place that is not there", uint64_t{1} << 50, segment, "has not"},
                      {"a place beyond all numbers", UINT64_MAX - 3, segment, "has not"},
                      {"a length beyond all numbers", 0, UINT64_MAX, "has not"},
                      {"half a segment", 0, segment / 2, "nobody awaits"}};
  for (const Bad& bad : bads) {
    Neighbour one;
    const Lent block(2 * segment, 'd');
    one.await(block.bytes);
    one.lend(bad.place, 0, bad.length);
    one.refused(bad.what, bad.says);
    check(one.came == 0 && one.into[0] == '\0', "and nothing comes");
  }
  {
    Neighbour one;
    one.say(textFrame(Neighbour::about(rawLent, 0, segment), "short"));
    one.refused("a place of 5 bytes", "no frame");
  }
  {
    // Whoever withdraws before the copy is whole has failed: nobody takes it for what was lent.
    Neighbour one;
    const Lent block(segment, 'd');
    one.await(block.bytes);
    one.theirs->withdraw();
    one.lend(block.place(), 0, segment);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const std::lock_guard lock(one.mutex);
    check(one.came == 0 && one.problem.empty(), "what was withdrawn does not come");
  }
}

void giving() {
  const Lent block(segment + 100'000, 'g');
  const auto send = [&](Neighbour& one, const char* data, size_t bytes) {
    one.carrier->send(1, key, 0, std::make_shared<Outgoing>(nullptr, data, bytes, 0));
  };
  std::string behind;
  {
    Neighbour one;
    send(one, block.data, block.bytes);
    for (int i = 0; i < 2; i++) {
      RawFrame said = one.hear(behind);
      check(said.type == rawLent && behind.size() == sizeof(uint64_t), "what lies in lent memory is lent");
      uint64_t place = 0;
      std::memcpy(&place, behind.data(), sizeof place);
      check(place == block.place() + said.offset, "where it lies");
      said.type = rawTaken;
      said.textBytes = 0;
      // The first cannot be read there, and is sent.
      said.kind = i == 0 ? 1 : 0;
      one.say(bytesOf(said));
      if (i > 0) continue;
      const RawFrame next = one.hear(behind);
      if (next.type == rawLent) {
        RawFrame taken = next;
        taken.type = rawTaken;
        taken.textBytes = 0;
        one.say(bytesOf(taken));
        const RawFrame data = one.hear(behind);
        check(data.type == rawData && behind == std::string(segment, 'g'), "what cannot be read is sent");
        break;
      }
      check(next.type == rawData && behind == std::string(segment, 'g'), "what cannot be read is sent");
    }
    check(one.soon([&] { return one.left == 1; }) && one.carrier->sentBytes(1) == block.bytes, "all has left, and is counted");
    one.say(bytesOf(Neighbour::about(rawTaken, 0, segment)));
    one.refused("what was taken before", "not lent");
  }
  {
    const std::string heap(2 * segment, 'h');
    Neighbour one;
    send(one, heap.data(), heap.size());
    check(one.hear(behind).type == rawData, "what lies on the heap is sent");
  }
  {
    Neighbour one;
    send(one, block.data, lentBytesMin - 1);
    check(one.hear(behind).type == rawData, "what is short is sent");
  }
  {
    Neighbour one;
    send(one, block.data, block.bytes);
    one.say(bytesOf(Neighbour::about(rawTaken, 0, 100'000)));
    one.refused("a part of what was lent", "not lent");
    check(one.left == 0, "and nothing has left");
  }
}

/** Frames at random, mostly right ones: whatever comes, nothing beside the message is written, and what is whole is what was lent. */
void atRandom() {
  std::mt19937_64 random(5);
  const Lent block(4 * segment, 'd');
  const uint64_t odd[] = {0,           1,          segment - 1,       segment,        segment + 1, 2 * segment,
                          4 * segment, UINT32_MAX, uint64_t{1} << 40, UINT64_MAX - 7, UINT64_MAX};
  const auto any = [&](uint64_t right) { return random() % 6 == 0 ? odd[random() % (sizeof odd / sizeof odd[0])] : right; };
  int whole = 0;
  int refused = 0;
  for (int round = 0; round < 60; round++) {
    const size_t bytes = 2 * segment + 100;
    std::vector<char> around(bytes + 128, '-');
    Neighbour one;
    one.incoming = std::make_shared<Incoming>(nullptr, around.data() + 64, bytes, 0);
    one.carrier->send(1, key, 0, std::make_shared<Outgoing>(nullptr, block.data, 2 * segment, 0));
    std::string frames;
    for (size_t at = 0; at < bytes; at += segment) {
      const uint64_t length = std::min(segment, bytes - at);
      RawFrame lent = Neighbour::about(rawLent, any(at), any(length));
      const uint64_t place = any(block.place() + at);
      frames += textFrame(lent, std::string(reinterpret_cast<const char*>(&place), random() % 20 == 0 ? 7 : 8));
      if (random() % 3 == 0) frames += bytesOf(Neighbour::about(rawTaken, any(at), any(segment)));
    }
    one.say(frames);
    check(one.soon([&] { return one.came > 0 || !one.problem.empty(); }), "a message comes, or is refused");
    one.carrier.reset();
    whole += one.came;
    refused += one.problem.empty() ? 0 : 1;
    for (size_t i = 0; i < 64; i++) check(around[i] == '-' && around[64 + bytes + i] == '-', "memory beside a message");
  }
  check(whole > 5 && refused > 5, "both are reached");
}

/** Others' memory is mapped in windows of 64 MiB; what lies across their bounds is read as a whole. */
void across() {
  constexpr size_t window = size_t{64} << 20;
  const std::string mark(16, 'm');
  const auto page = LentPage::make(mark);
  const Lent block(window + 100'000, 'l');
  const uint64_t bound = (block.place() / window + 1) * window;
  block.data[bound - 1 - block.place()] = 'y';
  block.data[bound - block.place()] = 'z';
  BorrowedMemory memory(::getpid(), LentMemory::here()->fd(), page->place(), mark);
  std::string read(4, '\0');
  check(memory.reaches(bound - 2, 4) == BorrowedMemory::Reach::whole, "across a bound");
  check(memory.copy(bound - 2, &read[0], 4) && read == "lyzl", "what lies across a bound: " + read);
  check(memory.copy(block.place(), &read[0], 4) && read == "llll", "and elsewhere");
}

/** Files that cannot be believed. */
void strangers() {
  const std::string mark(16, 'm');
  const auto refuses = [&](const char* what, pid_t process, int fd, uint64_t page, const std::string& says) {
    try {
      BorrowedMemory(process, fd, page, mark);
    } catch (const std::runtime_error& error) {
      check(std::string(error.what()).find(says) != std::string::npos, std::string(what) + ": " + error.what());
      return;
    }
    check(false, std::string(what) + " is refused");
  };
  const Lent other(65536, 'x');
  const pid_t own = ::getpid();
  const int lent = LentMemory::here()->fd();
  refuses("another mark", own, lent, other.place(), "not what it says");
  refuses("a page beyond the end", own, lent, uint64_t{1} << 50, "not what it says");
  refuses("half a page", own, lent, other.place() + 8, "not what it says");
  refuses("no file", own, 1 << 20, 0, "cannot be opened");
  const Fd shrinks(::memfd_create("shrinks", MFD_CLOEXEC));
  check(::ftruncate(shrinks.get(), 1 << 20) == 0, "a file");
  refuses("a file that may shrink", own, shrinks.get(), 0, "may shrink");
}

}  // namespace

void lending() {
  if (LentMemory::here() == nullptr) {
    std::printf("wire: nothing is lent here\n");
    return;
  }
  blocks();
  taking();
  giving();
  atRandom();
  across();
  strangers();
}

}  // namespace tandem

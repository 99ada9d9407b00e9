// Links that take time: for each rank a device in its namespace and one in the hub's, and what the rank sends passes from the one to
// the other so much later. In a process of its own, for the kernel's own delays (netem) are not everywhere.
//   delay HUB SPACE PORT [SPACE PORT ...]     devices eth0 in SPACE and PORT in HUB; reads delays of one way from standard input,
//                                             microseconds a line, until that ends
// Shaping is the devices' own (tc): what they let through is never dropped here, and keeps its order.
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Frame = std::vector<char>;

constexpr std::size_t largestFrame = 65536;
std::atomic<int64_t> delayMicros{0};

[[noreturn]] void fail(const std::string& what) {
  std::perror(what.c_str());
  std::exit(1);
}

/** A device of that name in that namespace; this thread is in that namespace then. */
int deviceIn(const std::string& space, const char* name) {
  const int own = open(("/var/run/netns/" + space).c_str(), O_RDONLY | O_CLOEXEC);
  if (own < 0 || setns(own, CLONE_NEWNET) != 0) fail(space);
  close(own);
  const int device = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (device < 0) fail("/dev/net/tun");
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (ioctl(device, TUNSETIFF, &request) != 0) fail(name);
  return device;
}

/** Frames on their way, in order. */
class Way {
 public:
  Way(int from, int to) : from_(from), to_(to) {}

  void send() {
    Frame frame(largestFrame);
    for (;;) {
      const ssize_t size = read(from_, frame.data(), frame.size());
      if (size <= 0) return;
      const auto due = Clock::now() + std::chrono::microseconds(delayMicros);
      const std::lock_guard lock(mutex_);
      frames_.emplace_back(due, Frame(frame.begin(), frame.begin() + size));
      arrived_.notify_one();
    }
  }

  void deliver() {
    for (;;) {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [this] { return !frames_.empty(); });
      const auto [due, frame] = std::move(frames_.front());
      frames_.pop_front();
      lock.unlock();
      std::this_thread::sleep_until(due);
      // A device that is down takes nothing, as a cable that is out.
      if (write(to_, frame.data(), frame.size()) < 0) continue;
    }
  }

 private:
  const int from_;
  const int to_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::pair<Clock::time_point, Frame>> frames_;
};

void copy(int from, int to) {
  Frame frame(largestFrame);
  for (;;) {
    const ssize_t size = read(from, frame.data(), frame.size());
    if (size <= 0) return;
    if (write(to, frame.data(), static_cast<std::size_t>(size)) < 0) continue;
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4 || count % 2 != 0) {
    std::fputs("delay HUB SPACE PORT [SPACE PORT ...]\n", stderr);
    return 2;
  }
  for (int i = 2; i < count; i += 2) {
    const int rank = deviceIn(arguments[i], "eth0");
    const int hub = deviceIn(arguments[1], arguments[i + 1]);
    // As long as this process.
    Way* way = new Way(rank, hub);
    std::thread(&Way::send, way).detach();
    std::thread(&Way::deliver, way).detach();
    std::thread(copy, hub, rank).detach();
  }
  char line[64];
  while (std::fgets(line, sizeof line, stdin) != nullptr) delayMicros = std::atoll(line);
  std::_Exit(0);
}

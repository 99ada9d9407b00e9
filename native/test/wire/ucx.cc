// UCX where something is wrong: messages of other lengths than awaited, peers that do not answer on trial, and what of the user's own
// variables is heeded.
#include <stdlib.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <mutex>

#include "../../transport/handshake.h"
#include "../../transport/transport-choice.h"
#include "../../transport/ucx-settings.h"
#include "raw-peer.h"

using namespace tandem;

namespace {

using Clock = std::chrono::steady_clock;

/** Keeps what a carrier says. */
class Listener : public Carrier::Owner {
 public:
  std::shared_ptr<Incoming> awaited(int, const TransferKey&, uint64_t, uint64_t) override { return nullptr; }
  void sent(const std::shared_ptr<Outgoing>&) override {}
  void received(int, const TransferKey&, const std::shared_ptr<Incoming>&) override { say("received"); }
  void heard(int) override {}
  void cutOff(int peer, const std::string& why) override { say("rank " + std::to_string(peer) + " " + why); }
  void refuse(int peer, const std::string& what) override { say("refused rank " + std::to_string(peer) + " " + what); }
  void still() override {}

  /** The first that it said; "" where it says nothing for 10 s. */
  std::string first() {
    for (int waits = 0; waits < 1000; waits++) {
      {
        const std::lock_guard lock(mutex_);
        if (!said_.empty()) return said_;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return "";
  }

 private:
  void say(const std::string& what) {
    const std::lock_guard lock(mutex_);
    if (said_.empty()) said_ = what;
  }
  std::mutex mutex_;
  std::string said_;
};

/** Two ranks of this process that have connected. */
struct Two {
  explicit Two(bool near) : first(of[0], 0, 2, "127.0.0.1"), second(of[1], 1, 2, "127.0.0.1") {
    const std::vector<UcxCarrier::Peer> peers = {{first.address(), near}, {second.address(), near}};
    std::thread other([&] { second.connect(peers, 10); });
    first.connect(peers, 10);
    other.join();
    first.start();
    second.start();
  }
  /** From the first to the second. */
  void move(uint32_t ticket, const std::vector<char>& from, std::vector<char>& to) {
    second.receive(0, {1, ticket, 0}, ticket, std::make_shared<Incoming>(nullptr, to.data(), to.size(), 0));
    first.send(1, {1, ticket, 0}, ticket, std::make_shared<Outgoing>(nullptr, from.data(), from.size(), 0));
  }
  void halt() {
    first.halt();
    second.halt();
    for (int waits = 0; waits < 500 && !(first.isHalted() && second.isHalted()); waits++) ::usleep(10'000);
    check(first.isHalted() && second.isHalted(), "both come to rest");
  }
  Listener of[2];
  UcxCarrier first;
  UcxCarrier second;
};

/** A message of another length than awaited is not taken for it. */
void lengths(bool near) {
  struct Case {
    size_t sent;
    size_t awaited;
    const char* says;
  };
  const size_t large = size_t{4} << 20;
  for (const Case& one : {Case{60, 100, "refused rank 0 sent 60 B where 100 B were awaited"},
                          Case{large / 2, large, "refused rank 0 sent 2097152 B where 4194304 B were awaited"},
                          Case{100, 60, "rank 0 has gone away: UCX: Message truncated"}, Case{large, large, "received"}}) {
    Two two(near);
    const std::vector<char> from(one.sent, 'd');
    std::vector<char> to(one.awaited, '-');
    two.move(5, from, to);
    const std::string said = two.of[1].first();
    check(said == one.says, std::to_string(one.sent) + " B for " + std::to_string(one.awaited) + ": " + said);
    check(one.sent != one.awaited || to.back() == 'd', "what is received is there");
    two.halt();
  }
}

/** Ranks that come to rest amid what they move, and go away. */
void amidMessages(bool near) {
  constexpr size_t messages = 8;
  const std::vector<char> from(size_t{8} << 20, 'd');
  std::vector<std::vector<char>> to(messages, std::vector<char>(from.size(), '-'));
  size_t amid = 0;
  for (int turn = 0; turn < 10; turn++) {
    for (auto& one : to) one.back() = '-';
    {
      Two two(near);
      for (uint32_t i = 0; i < messages; i++) two.move(i, from, to[i]);
      ::usleep(static_cast<unsigned>(turn) * 500);
      two.halt();
    }
    if (to[messages - 1].back() != 'd') amid++;
  }
  check(amid >= 3, "rests amid messages: " + std::to_string(amid));
}

/** Where a way breaks on trial, whoever waits is told at once. */
void brokenTrial() {
  ::setenv("UCX_TLS", "tcp,self", 1);
  Listener listener;
  UcxCarrier carrier(listener, 0, 2, "127.0.0.1");
  auto other = std::make_unique<UcxCarrier>(listener, 1, 2, "127.0.0.1");
  const UcxAddress address = other->address();
  std::thread leaving([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    other.reset();
  });
  const auto began = Clock::now();
  std::string why;
  try {
    carrier.connect({{carrier.address(), false}, {address, false}}, 60);
  } catch (const NoUcx& error) {
    why = error.what();
  }
  leaving.join();
  ::unsetenv("UCX_TLS");
  check(why.find("the way to rank 1 broke on trial: ") != std::string::npos, "a way that breaks: " + why);
  check(Clock::now() - began < std::chrono::seconds(30), "a way that breaks is not waited for");
}

/** A peer that says what it is told, so that its offer is good, never answers on trial, and agrees some time after that. */
void silentTrial() {
  int ends[2];
  check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "a pair of sockets");
  const auto framed = [](const std::string& text) {
    const auto length = static_cast<uint32_t>(text.size());
    return std::string(reinterpret_cast<const char*>(&length), 4) + text;
  };
  constexpr double timeoutSeconds = 2;
  std::thread peer([&] {
    const auto deadline = Clock::now() + std::chrono::seconds(60);
    const auto hear = [&] {
      std::string head(4, '\0');
      check(receiveWhole(ends[1], head, deadline), "a length");
      uint32_t length = 0;
      std::memcpy(&length, head.data(), 4);
      std::string text(length, '\0');
      check(receiveWhole(ends[1], text, deadline), "a text");
      return text;
    };
    sendWhole(ends[1], framed(hear()), deadline);
    hear();
    sendWhole(ends[1], framed("22"), deadline);
    // This one is as slow in its own trial as it may be.
    hear();
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    sendWhole(ends[1], framed(""), deadline);
  });
  Listener listener;
  MeshOptions options;
  options.size = 2;
  options.transport = Transport::ucx;
  std::string because;
  try {
    chooseTransport(listener, options, {-1, ends[0]}, timeoutSeconds, Cancellation());
  } catch (const NoMesh& error) {
    because = error.what();
  }
  check(because.find("no transport ucx: rank 0: UCX") == 0 && because.find("on trial did not come in time") != std::string::npos, because);
  peer.join();
  for (const int end : ends) ::close(end);
}

/** What UCX is told of shared memory, given UCX_TLS; "" where it is left out. */
std::string memoryWith(const char* list) {
  ::setenv("UCX_TLS", list, 1);
  const std::string told = ucx::mayShareMemory() ? ucx::settingsOfMemory().front().second : "";
  ::unsetenv("UCX_TLS");
  return told;
}

void variables() {
  const char* const lists[][2] = {
      {"", "sm"},          {"all", "sm"},         {"sm", "sm"},        {"shm,rc", "sm"},     {"tcp,self", ""},
      {"tcp,posix", "posix"}, {"mm,cma,tcp", "mm,cma"}, {"cma,tcp", ""}, {"posix,knem", "posix,knem"}, {"rc_mm", ""},
      {"^tcp", "sm"},      {"^tcp,sm", ""},       {"^shm", ""},        {"^all", ""},         {"^cma", "posix,sysv"},
      {"^posix,rc", "sysv,cma"}, {"^mm", ""},     {"^posix,sysv", ""},
  };
  for (const auto& [list, told] : lists) check(memoryWith(list) == told, "UCX_TLS=" + std::string(list) + ": " + memoryWith(list));
  check(ucx::settingsOfMemory().back() == std::make_pair(std::string("RNDV_SCHEME"), std::string("get_zcopy")), "receivers read");
  ::setenv("UCX_RNDV_SCHEME", "am", 1);
  check(ucx::settingsOfMemory().back().first == "TLS", "unless the user says otherwise");
  ::unsetenv("UCX_RNDV_SCHEME");
}

/** An adapter counts where a port of it is up and this process may open it. */
void adapters() {
  char root[] = "/tmp/tandem-adapters-XXXXXX";
  check(::mkdtemp(root) != nullptr, "a folder");
  const std::string at = root;
  check(!ucx::hasRdma(at), "no adapter");
  for (const char* const folder : {"/sys", "/sys/class", "/sys/class/infiniband", "/sys/class/infiniband/mlx5_0", "/dev",
                                   "/dev/infiniband", "/sys/class/infiniband/mlx5_0/ports", "/sys/class/infiniband/mlx5_0/ports/1",
                                   "/sys/class/infiniband/mlx5_0/device", "/sys/class/infiniband/mlx5_0/device/infiniband_verbs",
                                   "/sys/class/infiniband/mlx5_0/device/infiniband_verbs/uverbs3"}) {
    check(::mkdir((at + folder).c_str(), 0700) == 0, folder);
  }
  const std::string state = at + "/sys/class/infiniband/mlx5_0/ports/1/state";
  const std::string device = at + "/dev/infiniband/uverbs3";
  std::ofstream(state) << "4: ACTIVE\n";
  check(!ucx::hasRdma(at), "an adapter that cannot be opened");
  std::ofstream(device) << "";
  check(ucx::hasRdma(at), "an adapter that is up");
  std::ofstream(state) << "1: DOWN\n";
  check(!ucx::hasRdma(at), "an adapter that is down");
  check(std::system(("rm -r " + at).c_str()) == 0, "removed");
}

}  // namespace

void tandem::overUcx() {
  variables();
  adapters();
  if (!ucx::library().missing.empty()) {
    check(std::getenv("TANDEM_REQUIRE_UCX") == nullptr, "TANDEM_REQUIRE_UCX is set: " + ucx::library().missing);
    std::printf("wire: UCX left out: %s\n", ucx::library().missing.c_str());
    return;
  }
  lengths(true);
  lengths(false);
  amidMessages(true);
  amidMessages(false);
  brokenTrial();
  silentTrial();
}

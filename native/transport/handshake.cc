#include "handshake.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>

#include "fd.h"
#include "sha256.h"

namespace tandem {

namespace {

using Clock = std::chrono::steady_clock;

constexpr char magic[] = "TANDEM01";
constexpr size_t magicBytes = 8;
constexpr size_t nonceBytes = 16;
constexpr size_t macBytes = 32;
constexpr size_t helloBytes = magicBytes + 12 + nonceBytes;
constexpr size_t challengeBytes = nonceBytes + macBytes;
/** Whoever connects has so long to prove itself. Assumed: thousands of round trips. */
constexpr auto patience = std::chrono::seconds(5);
/**
 * Connections in the middle of a handshake; further ones wait in the listener's queue. Where there are so many, who has said nothing for
 * so long makes room: a crowd of silent ones holds nobody up, and whoever was only slow comes again. Assumed.
 */
constexpr size_t strangersMax = 64;
constexpr auto crowdPatience = std::chrono::milliseconds(250);

void setNonBlocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL, 0) | O_NONBLOCK); }

void tune(int fd) {
  setNonBlocking(fd);
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

std::string number(uint32_t value) {
  std::string bytes(4, '\0');
  std::memcpy(&bytes[0], &value, 4);
  return bytes;
}

uint32_t numberAt(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data() + at, 4);
  return value;
}

/** What an end signs: its role, both nonces, and who connects to whom by which connection. */
Digest256 proof(const std::string& key, const char* role, const std::string& own, const std::string& theirs,
                const std::string& ends) {
  return hmacSha256(key, role + own + theirs + ends);
}

std::string asText(const Digest256& digest) { return std::string(digest.begin(), digest.end()); }

Digest256 asDigest(const char* bytes) {
  Digest256 digest;
  std::memcpy(digest.data(), bytes, digest.size());
  return digest;
}

int millisUntil(Clock::time_point when) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(when - Clock::now()).count();
  return static_cast<int>(std::max<int64_t>(0, std::min<int64_t>(left + 1, 1000)));
}

bool waitFor(int fd, short events, const Until& until) {
  while (!until.over()) {
    pollfd fds[] = {{fd, events, 0}, {until.by == nullptr ? -1 : until.by->fd(), POLLIN, 0}};
    const int n = ::poll(fds, 2, millisUntil(until.deadline));
    if (n > 0 && fds[0].revents != 0) return true;
    if (n < 0 && errno != EINTR) return false;
  }
  return false;
}

std::vector<sockaddr_storage> resolve(const std::string& host, int port, std::string& problem) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  std::vector<sockaddr_storage> addresses;
  if (error != 0) {
    problem = ::gai_strerror(error);
    return addresses;
  }
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    sockaddr_storage storage{};
    std::memcpy(&storage, one->ai_addr, one->ai_addrlen);
    addresses.push_back(storage);
  }
  ::freeaddrinfo(found);
  return addresses;
}

socklen_t lengthOf(const sockaddr_storage& address) {
  return address.ss_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
}

/** Connects and proves itself, once. */
Fd tryConnect(const MeshOptions& options, const std::string& key, int peer, int connection, const Address& to, const Until& until,
              std::string& problem) {
  for (const sockaddr_storage& address : resolve(to.host, to.port, problem)) {
    Fd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd.get() < 0) {
      problem = std::strerror(errno);
      continue;
    }
    tune(fd.get());
    // From the address that this rank was told to use, so that bytes take the interface that was asked for.
    std::string ignored;
    for (sockaddr_storage& own : resolve(options.host, 0, ignored)) {
      if (own.ss_family == address.ss_family) {
        ::bind(fd.get(), reinterpret_cast<sockaddr*>(&own), lengthOf(own));
        break;
      }
    }
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), lengthOf(address)) != 0 &&
        errno != EINPROGRESS) {
      problem = std::strerror(errno);
      continue;
    }
    if (!waitFor(fd.get(), POLLOUT, until)) {
      problem = "no answer";
      continue;
    }
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      problem = std::strerror(error);
      continue;
    }
    const std::string own = freshMark();
    const std::string ends = number(static_cast<uint32_t>(options.rank)) + number(static_cast<uint32_t>(peer)) +
                             number(static_cast<uint32_t>(connection));
    std::string challenge(challengeBytes, '\0');
    if (!sendWhole(fd.get(), std::string(magic, magicBytes) + ends + own, until) ||
        !receiveWhole(fd.get(), challenge, until)) {
      problem = "it does not take this connection";
      continue;
    }
    const std::string theirs = challenge.substr(0, nonceBytes);
    if (!equalDigests(asDigest(challenge.data() + nonceBytes), proof(key, "accept", theirs, own, ends))) {
      problem = "it does not know the job's key";
      continue;
    }
    std::string welcome(1, '\0');
    if (!sendWhole(fd.get(), asText(proof(key, "connect", own, theirs, ends)), until) ||
        !receiveWhole(fd.get(), welcome, until) || welcome[0] != '+') {
      problem = "it does not take this connection";
      continue;
    }
    return fd;
  }
  return Fd();
}

Fd connectTo(const MeshOptions& options, const std::string& key, int peer, int connection, const Address& to,
             const Until& until) {
  std::string problem = "no time left";
  while (!until.over()) {
    Fd fd = tryConnect(options, key, peer, connection, to, until.orSooner(patience), problem);
    if (fd.get() >= 0) return fd;
    ::poll(nullptr, 0, std::min(50, millisUntil(until.deadline)));
  }
  if (until.cancelled()) problem = "given up";
  throw NoMesh("rank " + std::to_string(options.rank) + " cannot connect to rank " + std::to_string(peer) + " at " +
               to.host + ":" + std::to_string(to.port) + ": " + problem);
}

/** Takes connections until all that are expected have come. */
class Doorman {
 public:
  Doorman(int listener, const MeshOptions& options, const std::string& key, int connections,
          std::vector<std::vector<Fd>>& taken)
      : listener_(listener), options_(options), key_(key), connections_(connections), taken_(taken) {}

  /** False when the wait ends before, or `gaveUp` becomes true. */
  bool run(const Until& until, const std::atomic<bool>& gaveUp) {
    size_t missing = static_cast<size_t>((options_.size - 1 - options_.rank) * connections_);
    while (missing > 0) {
      if (until.over() || gaveUp) return false;
      makeRoom();
      std::vector<pollfd> fds;
      if (strangers_.size() < strangersMax) fds.push_back({listener_, POLLIN, 0});
      const size_t first = fds.size();
      for (const Stranger& stranger : strangers_) fds.push_back({stranger.fd.get(), POLLIN, 0});
      ::poll(fds.data(), fds.size(), 50);
      std::vector<Stranger> still;
      for (size_t i = 0; i < strangers_.size(); i++) {
        Stranger& stranger = strangers_[i];
        const bool readable = fds[first + i].revents != 0;
        const Step step = readable ? hear(stranger) : Step::more;
        if (step == Step::welcome) missing--;
        if (step == Step::more && Clock::now() < stranger.deadline) still.push_back(std::move(stranger));
      }
      strangers_ = std::move(still);
      if (first == 1 && fds[0].revents != 0) {
        Fd fd(::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
        if (fd.get() < 0) continue;
        tune(fd.get());
        strangers_.push_back({std::move(fd), "", "", "", Clock::now() + patience, ++accepted_});
      }
    }
    return true;
  }

  /** The first rank that did not come. */
  int absent() const {
    for (int peer = options_.rank + 1; peer < options_.size; peer++) {
      for (const Fd& fd : taken_[static_cast<size_t>(peer)]) {
        if (fd.get() < 0) return peer;
      }
    }
    return -1;
  }

 private:
  struct Stranger {
    Fd fd;
    std::string heard;
    /** Own nonce, and who connects to whom; empty until it has said hello. */
    std::string own;
    std::string ends;
    Clock::time_point deadline;
    /** Those that came before it, and itself. */
    uint64_t number;
  };
  enum class Step { more, welcome, again, away };

  /** In a crowd the first that is silent goes. */
  void makeRoom() {
    if (strangers_.size() < strangersMax) return;
    const auto now = Clock::now();
    const auto silent = std::find_if(strangers_.begin(), strangers_.end(), [&](const Stranger& stranger) {
      return stranger.own.empty() && now >= stranger.deadline - patience + crowdPatience;
    });
    if (silent != strangers_.end()) strangers_.erase(silent);
  }

  Step hear(Stranger& stranger) {
    const size_t want = stranger.own.empty() ? helloBytes : helloBytes + macBytes;
    char buffer[helloBytes + macBytes];
    const ssize_t n = ::recv(stranger.fd.get(), buffer, want - stranger.heard.size(), 0);
    if (n == 0) return Step::away;
    if (n < 0) return errno == EAGAIN || errno == EINTR ? Step::more : Step::away;
    stranger.heard.append(buffer, static_cast<size_t>(n));
    if (stranger.heard.size() < want) return Step::more;
    return stranger.own.empty() ? hello(stranger) : answer(stranger);
  }

  Step hello(Stranger& stranger) {
    if (stranger.heard.compare(0, magicBytes, magic, magicBytes) != 0) return Step::away;
    const uint32_t from = numberAt(stranger.heard, magicBytes);
    const uint32_t to = numberAt(stranger.heard, magicBytes + 4);
    const uint32_t connection = numberAt(stranger.heard, magicBytes + 8);
    if (to != static_cast<uint32_t>(options_.rank) || from <= to || from >= static_cast<uint32_t>(options_.size) ||
        connection >= static_cast<uint32_t>(connections_)) {
      return Step::away;
    }
    stranger.own = freshMark();
    stranger.ends = stranger.heard.substr(magicBytes, 12);
    const std::string theirs = stranger.heard.substr(magicBytes + 12, nonceBytes);
    const std::string challenge =
        stranger.own + asText(proof(key_, "accept", stranger.own, theirs, stranger.ends));
    return sendWhole(stranger.fd.get(), challenge, Clock::now()) ? Step::more : Step::away;
  }

  Step answer(Stranger& stranger) {
    const std::string theirs = stranger.heard.substr(magicBytes + 12, nonceBytes);
    if (!equalDigests(asDigest(stranger.heard.data() + helloBytes),
                      proof(key_, "connect", theirs, stranger.own, stranger.ends))) {
      return Step::away;
    }
    Fd& place = taken_[numberAt(stranger.ends, 0)][numberAt(stranger.ends, 8)];
    uint64_t& number = numbers_[stranger.ends];
    // Whoever has the key and comes again has given up what it began before, for which our welcome came too late.
    if (stranger.number < number || !sendWhole(stranger.fd.get(), "+", Clock::now())) return Step::away;
    number = stranger.number;
    const bool first = place.get() < 0;
    place = std::move(stranger.fd);
    return first ? Step::welcome : Step::again;
  }

  const int listener_;
  const MeshOptions& options_;
  const std::string& key_;
  const int connections_;
  std::vector<std::vector<Fd>>& taken_;
  std::vector<Stranger> strangers_;
  uint64_t accepted_ = 0;
  /** The number of what was taken, by who connects to whom by which connection. */
  std::map<std::string, uint64_t> numbers_;
};

}  // namespace

std::string freshMark() {
  std::string bytes(nonceBytes, '\0');
  size_t got = 0;
  while (got < bytes.size()) {
    const ssize_t more = ::getrandom(&bytes[got], bytes.size() - got, 0);
    if (more < 0 && errno != EINTR) throw NoMesh(std::string("no random numbers: ") + std::strerror(errno));
    if (more > 0) got += static_cast<size_t>(more);
  }
  return bytes;
}

bool sendWhole(int fd, const std::string& bytes, const Until& until) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = ::send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n > 0) {
      sent += static_cast<size_t>(n);
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
      return false;
    } else if (!waitFor(fd, POLLOUT, until)) {
      return false;
    }
  }
  return true;
}

bool receiveWhole(int fd, std::string& bytes, const Until& until) {
  size_t got = 0;
  while (got < bytes.size()) {
    const ssize_t n = ::recv(fd, &bytes[got], bytes.size() - got, 0);
    if (n > 0) {
      got += static_cast<size_t>(n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
      return false;
    } else if (!waitFor(fd, POLLIN, until)) {
      return false;
    }
  }
  return true;
}

int listenOn(const std::string& host, int& port) {
  std::string problem = "no such address";
  for (sockaddr_storage& address : resolve(host, 0, problem)) {
    Fd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd.get() < 0 || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), lengthOf(address)) != 0 ||
        ::listen(fd.get(), 1024) != 0) {
      problem = std::strerror(errno);
      continue;
    }
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &size);
    port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(bound).sin_port);
    setNonBlocking(fd.get());
    return fd.release();
  }
  throw NoMesh("cannot listen on " + host + ": " + problem);
}

std::vector<std::vector<int>> joinPeers(int listener, const MeshOptions& options, const std::string& key, int connections,
                                        const std::vector<Address>& addresses, double timeoutSeconds,
                                        const Cancellation* by) {
  Fd door(listener);
  const Until until = Until::in(timeoutSeconds, by);
  std::vector<std::vector<Fd>> fds(static_cast<size_t>(options.size));
  for (int peer = 0; peer < options.size; peer++) {
    if (peer != options.rank) fds[static_cast<size_t>(peer)].resize(static_cast<size_t>(connections));
  }
  std::atomic<bool> gaveUp{false};
  Doorman doorman(door.get(), options, key, connections, fds);
  bool all = false;
  std::string problem;
  std::thread accepting([&] {
    try {
      all = doorman.run(until, gaveUp);
    } catch (const std::exception& error) {
      problem = error.what();
    }
  });
  try {
    for (int peer = 0; peer < options.rank; peer++) {
      for (int connection = 0; connection < connections; connection++) {
        fds[static_cast<size_t>(peer)][static_cast<size_t>(connection)] =
            connectTo(options, key, peer, connection, addresses.at(static_cast<size_t>(peer)), until);
      }
    }
  } catch (...) {
    gaveUp = true;
    accepting.join();
    throw;
  }
  accepting.join();
  if (!all) {
    if (until.cancelled() && problem.empty()) problem = "given up while others were to connect";
    throw NoMesh("rank " + std::to_string(options.rank) + ": " +
                 (problem.empty() ? "rank " + std::to_string(doorman.absent()) + " did not connect within " +
                                        std::to_string(timeoutSeconds) + " s"
                                  : problem));
  }
  std::vector<std::vector<int>> result;
  for (std::vector<Fd>& peer : fds) {
    result.emplace_back();
    for (Fd& fd : peer) result.back().push_back(fd.release());
  }
  return result;
}

}  // namespace tandem

#include "transport-choice.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>

#include "handshake.h"

namespace tandem {

namespace {

using Clock = std::chrono::steady_clock;

/** Of an offer, with addresses of UCX. Assumed: they have a few hundred bytes for each adapter. */
constexpr size_t textBytesMax = size_t{1} << 20;
/**
 * What is sent on trial comes within so long, and half the time that peers have to answer, or UCX does not do. Assumed: as long as a
 * lost rank may go unnoticed, and thousands of times what a trial takes.
 */
constexpr double trialSecondsMax = 10;

/** Says something to all peers, and hears what each says; what this rank says at its own place. */
class Table {
 public:
  Table(const MeshOptions& options, const std::vector<int>& fds, double timeoutSeconds)
      : options_(options),
        fds_(fds),
        timeout_(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeoutSeconds))) {}

  /** Each has the whole time: what comes before it here may take some, and elsewhere not. */
  std::vector<std::string> round(const std::string& own) {
    deadline_ = Clock::now() + timeout_;
    std::string framed(4, '\0');
    const auto length = static_cast<uint32_t>(own.size());
    std::memcpy(&framed[0], &length, 4);
    framed += own;
    std::vector<std::string> all(fds_.size());
    for (size_t peer = 0; peer < fds_.size(); peer++) {
      if (fds_[peer] >= 0 && !sendWhole(fds_[peer], framed, deadline_)) silent(peer);
    }
    for (size_t peer = 0; peer < fds_.size(); peer++) {
      all[peer] = fds_[peer] < 0 ? own : hear(peer);
    }
    return all;
  }

 private:
  std::string hear(size_t peer) {
    std::string head(4, '\0');
    if (!receiveWhole(fds_[peer], head, deadline_)) silent(peer);
    uint32_t length = 0;
    std::memcpy(&length, head.data(), 4);
    std::string text(std::min<size_t>(length, textBytesMax), '\0');
    if (length > textBytesMax || !receiveWhole(fds_[peer], text, deadline_)) silent(peer);
    return text;
  }

  [[noreturn]] void silent(size_t peer) {
    throw NoMesh("rank " + std::to_string(options_.rank) + ": rank " + std::to_string(peer) + " does not say what transports it has");
  }

  const MeshOptions& options_;
  const std::vector<int>& fds_;
  const Clock::duration timeout_;
  Clock::time_point deadline_;
};

/** Texts in a row, each with its length before it. */
std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all += std::to_string(text.size()) + ":" + text;
  return all;
}

/** False when they are not so many. */
bool split(const std::string& all, std::vector<std::string>& texts) {
  size_t at = 0;
  for (std::string& text : texts) {
    const size_t colon = all.find(':', at);
    if (colon == std::string::npos || colon - at > 8) return false;
    const size_t length = std::strtoul(all.substr(at, colon - at).c_str(), nullptr, 10);
    if (length > all.size() - colon - 1) return false;
    text = all.substr(colon + 1, length);
    at = colon + 1 + length;
  }
  return at == all.size();
}

/**
 * The same for processes that may name each other by process id, and have one network: where networks differ, links between them
 * are what a job is to use. Empty where nobody can say.
 */
std::string hostName() {
  std::string name;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> name;
  for (const char* const space : {"/proc/self/ns/pid", "/proc/self/ns/net"}) {
    char text[256];
    const ssize_t length = ::readlink(space, text, sizeof text);
    if (name.empty() || length <= 0) return "";
    name += " " + std::string(text, static_cast<size_t>(length));
  }
  return name;
}

/** What a rank has. */
struct Offer {
  /** "" for none, and then why. */
  std::string version;
  std::string missing;
  std::string host;
  /** "1" where there are adapters for RDMA. */
  std::string rdma;
  std::string process;
  /** Where a mark lies in its memory, and what it is: who reads it may read the rest. */
  std::string where;
  std::string mark;
  UcxAddress address;

  std::string text() const { return joined({version, missing, host, rdma, process, where, mark, address.near, address.far}); }
  static bool parse(const std::string& text, Offer& offer) {
    std::vector<std::string> all(9);
    if (!split(text, all)) return false;
    offer = {all[0], all[1], all[2], all[3], all[4], all[5], all[6], {all[7], all[8]}};
    return true;
  }
};

/** "" when that rank's memory can be read from here. */
std::string readsNot(const Offer& own, const Offer& theirs) {
  if (own.host.empty() || own.host != theirs.host) return "it is on another host";
  if (own.address.near.empty() || theirs.address.near.empty()) return "UCX_TLS leaves shared memory out";
  std::string mark(theirs.mark.size(), '\0');
  iovec here{&mark[0], mark.size()};
  iovec there{reinterpret_cast<void*>(std::strtoull(theirs.where.c_str(), nullptr, 10)), mark.size()};
  const auto process = static_cast<pid_t>(std::strtol(theirs.process.c_str(), nullptr, 10));
  const ssize_t got = ::process_vm_readv(process, &here, 1, &there, 1, 0);
  if (got < 0) return std::string("its memory cannot be read: ") + std::strerror(errno);
  return mark == theirs.mark ? "" : "its memory is not what it says";
}

std::string plural(size_t count) { return std::to_string(count) + (count == 1 ? " rank" : " ranks"); }

/** UCX cannot be used, by all alike. */
TransportChoice without(const MeshOptions& options, const std::string& why) {
  if (options.transport == Transport::ucx) throw NoMesh("no transport ucx: " + why);
  return {nullptr, why};
}

/** The first rank that says something other than nothing, and what. */
std::string firstOf(const std::vector<std::string>& texts) {
  for (size_t rank = 0; rank < texts.size(); rank++) {
    if (!texts[rank].empty()) return "rank " + std::to_string(rank) + ": " + texts[rank];
  }
  return "";
}

}  // namespace

TransportChoice chooseTransport(Carrier::Owner& owner, const MeshOptions& options, const std::vector<int>& fds, double timeoutSeconds) {
  Table table(options, fds, timeoutSeconds);
  const auto rank = static_cast<size_t>(options.rank);
  Offer own;
  std::unique_ptr<UcxCarrier> ucx;
  const std::string mark = freshMark();
  try {
    ucx = std::make_unique<UcxCarrier>(owner, options.rank, options.size, options.host);
    own = {ucx::library().version, "", hostName(), ucx::hasRdma() ? "1" : "0", std::to_string(::getpid()),
           std::to_string(reinterpret_cast<uintptr_t>(mark.data())), mark, ucx->address()};
  } catch (const NoUcx& error) {
    own.missing = error.what();
  }
  std::vector<Offer> offers(fds.size());
  const std::vector<std::string> said = table.round(own.text());
  for (size_t peer = 0; peer < offers.size(); peer++) {
    if (!Offer::parse(said[peer], offers[peer])) throw NoMesh("rank " + std::to_string(peer) + " says what is no offer of transports");
  }
  for (size_t peer = 0; peer < offers.size(); peer++) {
    const Offer& one = offers[peer];
    const std::string who = "rank " + std::to_string(peer);
    if (one.version.empty()) return without(options, who + " has none: " + one.missing);
    if (one.version != offers[0].version) {
      return without(options, who + " has UCX " + one.version + ", rank 0 " + offers[0].version);
    }
  }
  // Ranks reach each other through memory where both may.
  std::string readable;
  std::string obstacle;
  for (size_t peer = 0; peer < offers.size(); peer++) {
    const std::string why = peer == rank ? "" : readsNot(own, offers[peer]);
    readable += why.empty() ? '1' : '0';
    if (!why.empty() && own.host == offers[peer].host) obstacle = "; not with rank " + std::to_string(peer) + ", for " + why;
  }
  const std::vector<std::string> reads = table.round(readable);
  std::vector<UcxCarrier::Peer> peers(offers.size());
  size_t near = 0;
  for (size_t peer = 0; peer < offers.size(); peer++) {
    peers[peer].address = offers[peer].address;
    peers[peer].near = peer != rank && readable[peer] == '1' && reads[peer].size() > rank && reads[peer][rank] == '1';
    if (peers[peer].near) near++;
  }
  std::string verdict;
  // Over plain TCP the connections of this project move more than UCX's: docs/processes.md has the numbers.
  const bool rdma = std::all_of(offers.begin(), offers.end(), [](const Offer& one) { return one.rdma == "1"; });
  if (options.transport == Transport::automatic && near + 1 < peers.size() && !rdma) {
    verdict = "UCX would have to use plain TCP, for there is neither shared memory with all ranks nor RDMA" + obstacle;
  }
  try {
    if (verdict.empty()) ucx->connect(peers, std::min(timeoutSeconds / 2, trialSecondsMax));
  } catch (const std::exception& error) {
    verdict = error.what();
  }
  const std::string failure = firstOf(table.round(verdict));
  if (!failure.empty()) return without(options, failure);
  std::string because = "UCX " + own.version;
  if (near > 0) because += ", shared memory with " + plural(near);
  if (near + 1 < peers.size()) because += ", network with " + plural(peers.size() - 1 - near);
  return {std::move(ucx), because + obstacle};
}

}  // namespace tandem

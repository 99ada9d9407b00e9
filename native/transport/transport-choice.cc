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
  Table(const MeshOptions& options, const std::vector<int>& fds, double timeoutSeconds, const Cancellation& by)
      : options_(options),
        fds_(fds),
        timeout_(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeoutSeconds))),
        by_(by),
        until_(Clock::now()) {}

  /** Each has the whole time: what comes before it here may take some, and elsewhere not. */
  std::vector<std::string> round(const std::string& own) {
    until_ = {Clock::now() + timeout_, &by_};
    std::string framed(4, '\0');
    const auto length = static_cast<uint32_t>(own.size());
    std::memcpy(&framed[0], &length, 4);
    framed += own;
    std::vector<std::string> all(fds_.size());
    for (size_t peer = 0; peer < fds_.size(); peer++) {
      if (fds_[peer] >= 0 && !sendWhole(fds_[peer], framed, until_)) silent(peer);
    }
    for (size_t peer = 0; peer < fds_.size(); peer++) {
      all[peer] = fds_[peer] < 0 ? own : hear(peer);
    }
    return all;
  }

 private:
  std::string hear(size_t peer) {
    std::string head(4, '\0');
    if (!receiveWhole(fds_[peer], head, until_)) silent(peer);
    uint32_t length = 0;
    std::memcpy(&length, head.data(), 4);
    std::string text(std::min<size_t>(length, textBytesMax), '\0');
    if (length > textBytesMax || !receiveWhole(fds_[peer], text, until_)) silent(peer);
    return text;
  }

  [[noreturn]] void silent(size_t peer) {
    if (until_.cancelled()) throw NoMesh("rank " + std::to_string(options_.rank) + ": given up while transports were chosen");
    throw NoMesh("rank " + std::to_string(options_.rank) + ": rank " + std::to_string(peer) + " does not say what transports it has");
  }

  const MeshOptions& options_;
  const std::vector<int>& fds_;
  const Clock::duration timeout_;
  const Cancellation& by_;
  Until until_;
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
  std::string process;
  /** Where a mark lies in its memory, and what it is: who reads it may read the rest. */
  std::string where;
  std::string mark;
  /** The file and the page of what it lends (lent-memory.h), with the same mark; empty where it lends nothing. */
  std::string file;
  std::string page;
  UcxAddress address;

  std::string text() const {
    return joined({version, missing, host, process, where, mark, file, page, address.near, address.far});
  }
  static bool parse(const std::string& text, Offer& offer) {
    std::vector<std::string> all(10);
    if (!split(text, all)) return false;
    offer = {all[0], all[1], all[2], all[3], all[4], all[5], all[6], all[7], {all[8], all[9]}};
    return true;
  }
};

uint64_t numberIn(const std::string& text) { return std::strtoull(text.c_str(), nullptr, 10); }

/** "" when UCX can read that rank's memory from here. */
std::string readsNot(const Offer& own, const Offer& theirs) {
  if (own.host.empty() || own.host != theirs.host) return "it is on another host";
  if (own.address.near.empty() || theirs.address.near.empty()) return "UCX_TLS leaves shared memory out";
  std::string mark(theirs.mark.size(), '\0');
  iovec here{&mark[0], mark.size()};
  iovec there{reinterpret_cast<void*>(numberIn(theirs.where)), mark.size()};
  const ssize_t got = ::process_vm_readv(static_cast<pid_t>(numberIn(theirs.process)), &here, 1, &there, 1, 0);
  if (got < 0) return std::string("its memory cannot be read: ") + std::strerror(errno);
  return mark == theirs.mark ? "" : "its memory is not what it says";
}

/** What that rank lends; nothing where it is on another host, or cannot be borrowed from, and then why. */
std::unique_ptr<BorrowedMemory> borrowed(const Offer& own, const Offer& theirs, std::string& why) {
  why.clear();
  if (own.host.empty() || own.host != theirs.host) {
    why = "it is on another host";
  } else if (own.file.empty() || theirs.file.empty()) {
    why = "the system lends no memory";
  }
  if (!why.empty()) return nullptr;
  try {
    return std::make_unique<BorrowedMemory>(static_cast<pid_t>(numberIn(theirs.process)), static_cast<int>(numberIn(theirs.file)),
                                            numberIn(theirs.page), theirs.mark);
  } catch (const std::runtime_error& error) {
    why = error.what();
    return nullptr;
  }
}

std::string plural(size_t count) { return std::to_string(count) + (count == 1 ? " rank" : " ranks"); }

/** The first rank that says something other than nothing, and what. */
std::string firstOf(const std::vector<std::string>& texts) {
  for (size_t rank = 0; rank < texts.size(); rank++) {
    if (!texts[rank].empty()) return "rank " + std::to_string(rank) + ": " + texts[rank];
  }
  return "";
}

/** How all ranks come to the same conclusion, in rounds of what each says. */
class Choosing {
 public:
  Choosing(Carrier::Owner& owner, const MeshOptions& options, const std::vector<int>& fds, double timeoutSeconds,
           const Cancellation& by)
      : owner_(owner),
        options_(options),
        rank_(static_cast<size_t>(options.rank)),
        timeoutSeconds_(timeoutSeconds),
        by_(by),
        table_(options, fds, timeoutSeconds, by),
        offers_(fds.size()),
        mark_(freshMark()) {}

  TransportChoice choose() {
    offer();
    meet();
    // UCX is for adapters for RDMA. Over plain TCP the connections of this project move more, and between neighbours one copy is all
    // there is to it: docs/processes.md has the numbers.
    if (options_.transport == Transport::ucx) return overUcx();
    TransportChoice choice;
    if (allLend_) {
      choice.name = "memory";
      choice.because = "all ranks read each other's memory";
    } else {
      choice = overUcx();
      if (choice.ucx) return choice;
      choice.because = "no RDMA between all ranks, for " + choice.because;
      const size_t neighbours = count(lends_);
      if (neighbours > 0) choice.because += "; by memory with " + plural(neighbours);
    }
    choice.because += obstacle_;
    for (size_t peer = 0; peer < offers_.size(); peer++) {
      if (!lends_[peer]) memory_[peer].reset();
    }
    choice.neighbours = {std::move(page_), std::move(memory_)};
    return choice;
  }

 private:
  static size_t count(const std::vector<bool>& which) { return static_cast<size_t>(std::count(which.begin(), which.end(), true)); }

  /** Says what this rank has, and hears what others have. */
  void offer() {
    Offer& own = own_;
    own.host = hostName();
    own.process = std::to_string(::getpid());
    own.where = std::to_string(reinterpret_cast<uintptr_t>(mark_.data()));
    own.mark = mark_;
    if (options_.transport == Transport::automatic && (page_ = LentPage::make(mark_))) {
      own.file = std::to_string(LentMemory::here()->fd());
      own.page = std::to_string(page_->place());
    }
    // Where it would not be taken anyway it need not be opened.
    if (options_.transport == Transport::automatic && !ucx::hasRdma()) {
      own.missing = "no adapter for RDMA";
    } else {
      try {
        ucx_ = std::make_unique<UcxCarrier>(owner_, options_.rank, options_.size, options_.host);
        own.version = ucx::library().version;
        own.address = ucx_->address();
      } catch (const NoUcx& error) {
        own.missing = error.what();
      }
    }
    const std::vector<std::string> said = table_.round(own.text());
    for (size_t peer = 0; peer < offers_.size(); peer++) {
      if (!Offer::parse(said[peer], offers_[peer])) throw NoMesh("rank " + std::to_string(peer) + " says what is no offer of transports");
    }
  }

  /** Who may read whose memory: ranks go by it where both may. */
  void meet() {
    std::string can;
    for (size_t peer = 0; peer < offers_.size(); peer++) {
      std::string why;
      memory_.push_back(peer == rank_ ? nullptr : borrowed(own_, offers_[peer], why));
      const std::string whyNot = peer == rank_ ? "" : readsNot(own_, offers_[peer]);
      can += static_cast<char>('0' + (memory_.back() ? 1 : 0) + (peer != rank_ && whyNot.empty() ? 2 : 0));
      if (options_.transport == Transport::ucx) why = whyNot;
      if (!why.empty() && own_.host == offers_[peer].host) obstacle_ = "; not with rank " + std::to_string(peer) + ", for " + why;
    }
    const std::vector<std::string> theirs = table_.round(can);
    for (const std::string& row : theirs) {
      if (row.size() != offers_.size()) throw NoMesh("a rank does not say whose memory it reads");
    }
    const auto both = [&](size_t one, size_t other) { return one == other ? 0 : theirs[one][other] & theirs[other][one]; };
    for (size_t one = 0; one < offers_.size(); one++) {
      for (size_t other = 0; other < one; other++) allLend_ = allLend_ && (both(one, other) & 1) != 0;
      lends_.push_back((both(one, rank_) & 1) != 0);
      reads_.push_back((both(one, rank_) & 2) != 0);
    }
  }

  /** "" where all have UCX, of one version. */
  std::string whyNotUcx() const {
    for (size_t peer = 0; peer < offers_.size(); peer++) {
      const Offer& one = offers_[peer];
      const std::string who = "rank " + std::to_string(peer);
      if (one.version.empty()) return who + " has none: " + one.missing;
      if (one.version != offers_[0].version) return who + " has UCX " + one.version + ", rank 0 " + offers_[0].version;
    }
    return "";
  }

  TransportChoice overUcx() {
    std::string failure = whyNotUcx();
    if (failure.empty()) {
      std::vector<UcxCarrier::Peer> peers(offers_.size());
      for (size_t peer = 0; peer < offers_.size(); peer++) peers[peer] = {offers_[peer].address, reads_[peer]};
      std::string verdict;
      try {
        ucx_->connect(peers, std::min(timeoutSeconds_ / 2, trialSecondsMax), &by_);
      } catch (const std::exception& error) {
        verdict = error.what();
      }
      failure = firstOf(table_.round(verdict));
    }
    TransportChoice choice;
    choice.because = failure;
    if (failure.empty()) {
      const size_t near = count(reads_);
      choice.name = "ucx";
      choice.because = "UCX " + own_.version;
      if (near > 0) choice.because += ", shared memory with " + plural(near);
      if (near + 1 < offers_.size()) choice.because += ", network with " + plural(offers_.size() - 1 - near);
      choice.because += obstacle_;
      choice.ucx = std::move(ucx_);
    } else if (options_.transport == Transport::ucx) {
      throw NoMesh("no transport ucx: " + failure);
    }
    return choice;
  }

  Carrier::Owner& owner_;
  const MeshOptions& options_;
  const size_t rank_;
  const double timeoutSeconds_;
  const Cancellation& by_;
  Table table_;
  Offer own_;
  std::vector<Offer> offers_;
  const std::string mark_;
  std::unique_ptr<LentPage> page_;
  std::unique_ptr<UcxCarrier> ucx_;
  std::vector<std::unique_ptr<BorrowedMemory>> memory_;
  bool allLend_ = true;
  /** By peer: whether both borrow from each other, and whether UCX reads from both. */
  std::vector<bool> lends_;
  std::vector<bool> reads_;
  /** Of a rank of this host, what is in the way; "" for nothing. */
  std::string obstacle_;
};

}  // namespace

TransportChoice chooseTransport(Carrier::Owner& owner, const MeshOptions& options, const std::vector<int>& fds, double timeoutSeconds,
                               const Cancellation& by) {
  return Choosing(owner, options, fds, timeoutSeconds, by).choose();
}

}  // namespace tandem

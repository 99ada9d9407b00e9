// Point to point between the processes of a job: for each peer a control connection over TCP, and several data connections or UCX
// (carrier.h), each served by a thread that sleeps until there is something to do. Transfers are matched by name, never buffered: a
// sender starts when the receiver has said that its memory is ready. Silence is noticed here, whatever the program's thread is doing
// and whatever carries data. Knows nothing of kernels, tensors or what the bytes mean.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "../peers.h"
#include "carrier.h"
#include "connections.h"
#include "lent-memory.h"
#include "staging.h"
#include "until.h"

namespace tandem {

struct Address {
  std::string host;
  int port = 0;
};

/**
 * What carries messages: `automatic` is memory that all ranks read of each other; else UCX where it has RDMA between all; else TCP, and
 * memory between ranks of one host. All ranks are told alike.
 */
enum class Transport { automatic, tcp, ucx };

struct MeshOptions {
  int rank = 0;
  int size = 1;
  /** Data connections to each peer. */
  int streams = 2;
  Transport transport = Transport::tcp;
  /** Address to listen on and to connect from. */
  std::string host = "127.0.0.1";
  double heartbeatSeconds = 0.5;
  /** A peer that sends nothing for so long is lost. */
  double lostAfterSeconds = 6;
};

/** Why a mesh ended: a peer that went away or fell silent, or a fault that some rank told of. */
struct MeshFault {
  enum class Kind { lost, told, mismatch, protocol };
  Kind kind = Kind::lost;
  /** Who is at fault. */
  int rank = -1;
  std::string message;
};

/** The mesh could not be made; the message names the peer and what was tried. */
class NoMesh : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Mesh;

/** Transfers that one thread waits for. Memory handed to `send` and `receive` must live until `wait` has returned. */
class Exchange {
 public:
  /**
   * `members`: the ranks that take part, this one among them; none where nobody waits for whom it neither sends to nor hears.
   * Throws std::invalid_argument for ranks that there are not, and where that collective is under way already.
   */
  Exchange(Mesh& mesh, uint32_t communicator, uint32_t position, Meaning meaning,
           const std::vector<int>& members = {});
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  /** Each part is sent to a peer, another rank, once. `tally` groups transfers that are waited for together. */
  void send(int peer, uint32_t part, const void* data, size_t bytes, size_t tally);
  void receive(int peer, uint32_t part, void* data, size_t bytes, size_t tally);
  /** True when all transfers of the tally have ended; false when the mesh has failed: then nobody touches their memory any more. */
  bool wait(size_t tally);
  /** Tells members from whom nothing is awaited that this rank is there; otherwise `waitAll` does. */
  void announce();
  /** Until every member has come; false when the mesh has failed. Receives of this rank come before, or it tells members without. */
  bool waitForMembers();
  /** Nothing is received beyond what was asked for: waits for all transfers, and until every member has come. */
  bool waitAll();
  std::optional<MeshFault> fault() const;

 private:
  friend class Mesh;
  bool awaits(int peer);
  void add(size_t tally);
  void ended(size_t tally);
  void cameHere(int peer);

  Mesh& mesh_;
  const uint32_t communicator_;
  const uint32_t position_;
  const Meaning meaning_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<size_t> open_;
  size_t openInAll_ = 0;
  /** Members that have not said that they are there, and how many. */
  std::vector<bool> awaited_;
  size_t absent_ = 0;
  /** Members that do not know yet that this rank is there: it has asked them for nothing. */
  std::vector<bool> untold_;
};

/** Blocks of staging that are kept. Assumed: four windows of a collective of two (remote.cc), 32 MiB; others take fresh memory. */
constexpr size_t stagedMax = 32;

class Mesh : private Carrier::Owner, private Connections::Handler {
 public:
  /** Listens; throws NoMesh where it cannot. */
  explicit Mesh(MeshOptions options);
  /** Says goodbye, or what has failed, and ends all threads. */
  ~Mesh() override;
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;

  /** Monotonic; all processes of a host share it. */
  static int64_t nowNanoseconds();
  int port() const { return port_; }
  int rank() const { return options_.rank; }
  int size() const { return options_.size; }
  double lostAfterSeconds() const { return options_.lostAfterSeconds; }

  /**
   * Connects to all peers, `addresses` by rank. Whoever connects must know the key, which is never sent. Throws NoMesh when one
   * cannot be reached or does not come in time, and when it was called before.
   */
  void connect(const std::vector<Address>& addresses, const std::string& key, double timeoutSeconds);
  /** Whether no two of these ranks have one host's address; no before `connect` has returned. */
  bool areApart(const std::vector<int>& ranks) const;
  /** Ends a `connect` that is under way, or is to come, soon. From any thread. */
  void giveUp() { givenUp_.cancel(); }

  struct CarriedBy {
    std::string name;
    std::string because;
  };
  /** What carries messages, "memory", "tcp" or "ucx", and why that; empty before `connect` has returned, and where there is nobody else. */
  CarriedBy carriedBy() const { return connected_.load(std::memory_order_acquire) ? carriedBy_ : CarriedBy(); }

  /**
   * A message for the program of another rank, whole and in order. Throws std::invalid_argument for a rank that there is not, before
   * `connect`, and for more than 1 GiB.
   */
  void note(int peer, const std::string& text);
  /**
   * Calls `handler` for every note, from any thread, one at a time, and with no text when a peer has said goodbye, after all that it
   * said before. What came before this is handed over now.
   */
  void onNote(std::function<void(int peer, std::optional<std::string> text)> handler);

  /** The first fault; from then on nothing moves. */
  std::optional<MeshFault> fault() const;
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  /** Calls `handler` once, from any thread, when the mesh fails; at once when it has. Returns what `forgetFault` takes. */
  int onFault(std::function<void(const MeshFault&)> handler);
  /** When this returns, the handler is not being called and will not be. */
  void forgetFault(int handler);
  /** Ends the mesh for everybody: peers learn of the fault, and of its message the first 4 KiB. */
  void fail(MeshFault fault, bool tell = true);

  /** Bytes of data sent to and received from each peer so far, without frames; none before `connect`. */
  uint64_t sentBytes(int peer) const;
  uint64_t receivedBytes(int peer) const;

  /** Where others can read, for tensors and what else is sent; null where nobody does, and before `connect`. */
  LentMemory* lentMemory() const { return connected_.load(std::memory_order_acquire) ? lent_ : nullptr; }
  /** For whoever puts messages together or takes them apart. */
  Staging& staging() { return staging_; }

 private:
  friend class Exchange;
  /** A peer's memory that waits for a message. */
  struct Ready {
    uint64_t bytes = 0;
    uint32_t ticket = 0;
    Meaning meaning;
  };
  struct Peer;
  class OpenConnections;

  std::unique_ptr<Carrier> carrierOver(OpenConnections& open, double timeoutSeconds);

  // Transfers (mesh.cc)
  void post(Exchange& exchange, int peer, uint32_t part, const void* data, size_t bytes, size_t tally);
  void expect(Exchange& exchange, int peer, uint32_t part, void* data, size_t bytes, size_t tally);
  void announce(Exchange& exchange, int peer);
  void sayReady(Exchange& exchange, int peer, const TransferKey& key, size_t bytes, uint32_t ticket);
  void start(int peer, const TransferKey& key, const std::shared_ptr<Outgoing>& outgoing, const Ready& ready,
             const std::string& what);
  void ready(int peer, const Frame& frame, const std::string& text);
  bool owes(int peer);
  bool check(int peer, const TransferKey& key, const Meaning& own, const Meaning& theirs);
  void forget(Exchange& exchange);
  void deliver(int peer, std::optional<std::string> text);
  void lose(int peer, const std::string& why);
  void tellAll(const MeshFault& fault);
  int known(int peer) const;
  Peer& other(int peer) const;
  bool isStill() const;
  void settle();

  // Control connections (mesh-io.cc)
  void control(int peer, const Frame& frame, const std::string& text);
  void watchPeers(int64_t now);
  std::string whyGone(int peer) const;
  std::string begin(int peer, const Frame& frame, std::shared_ptr<Incoming>& into) override;
  void arrived(int peer, const Frame& frame, std::string text, const std::shared_ptr<Incoming>& into) override;
  void read(int peer, size_t dataBytes) override;
  void wrote(int, size_t, const std::shared_ptr<Outgoing>&) override {}
  void ended(int peer, const std::string& why) override;
  void refused(int peer, const std::string& problem) override;
  void noMemory(int peer) override;
  bool faulted() const override { return failed(); }
  bool halted() const override { return false; }
  void turn(int64_t now) override;
  void over() override {}

  // What carries data (mesh-io.cc)
  std::shared_ptr<Incoming> awaited(int peer, const TransferKey& key, uint64_t offset, uint64_t length) override;
  void sent(const std::shared_ptr<Outgoing>& outgoing) override;
  void received(int peer, const TransferKey& key, const std::shared_ptr<Incoming>& incoming) override;
  void heard(int peer) override;
  void cutOff(int peer, const std::string& why) override;
  void refuse(int peer, const std::string& what) override;
  void still() override;

  const MeshOptions options_;
  /** By rank; of others once `connected_`. */
  std::vector<std::string> hosts_;
  Staging staging_{chunkBytes, stagedMax};
  int listener_ = -1;
  int port_ = 0;
  // Made by `connect`, and not touched before it says so.
  std::vector<std::unique_ptr<Peer>> peers_;
  std::unique_ptr<Connections> control_;
  std::unique_ptr<Carrier> carrier_;
  LentMemory* lent_ = nullptr;
  CarriedBy carriedBy_;
  std::atomic<bool> connecting_{false};
  Cancellation givenUp_;
  std::atomic<bool> connected_{false};

  mutable std::mutex mutex_;
  std::map<std::pair<int, TransferKey>, std::shared_ptr<Outgoing>> outgoing_;
  std::map<std::pair<int, TransferKey>, std::shared_ptr<Incoming>> incoming_;
  /** Receivers that are ready before their sender is. */
  std::map<std::pair<int, TransferKey>, Ready> readies_;
  /** Open collectives, by communicator and position. */
  std::map<std::pair<uint32_t, uint32_t>, Exchange*> exchanges_;

  std::mutex notesMutex_;
  std::function<void(int, std::optional<std::string>)> noteHandler_;
  std::vector<std::pair<int, std::optional<std::string>>> earlyNotes_;

  mutable std::mutex faultMutex_;
  std::optional<MeshFault> fault_;
  std::mutex handlersMutex_;
  std::map<int, std::function<void(const MeshFault&)>> faultHandlers_;
  int nextHandler_ = 0;
  std::atomic<bool> failed_{false};
  std::atomic<bool> ending_{false};
  /** Modulo `ticketsMax`; of as many bits as never wrap around, or one would come again too early. */
  std::atomic<uint64_t> tickets_{0};
  /** Of the thread of control connections: when it last looked at its peers. */
  int64_t lastWatch_ = 0;
};

}  // namespace tandem

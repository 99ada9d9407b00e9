#include "mesh.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "handshake.h"
#include "mesh-parts.h"
#include "tcp-carrier.h"
#include "transport-choice.h"

namespace tandem {

// Making and ending

/** Connections that nobody serves yet. */
class Mesh::OpenConnections {
 public:
  /** By peer and connection; none for the rank itself. */
  explicit OpenConnections(const std::vector<std::vector<int>>& byPeer) {
    for (size_t peer = 0; peer < byPeer.size(); peer++) {
      for (size_t i = 0; i < byPeer[peer].size(); i++) {
        if (i >= fds_.size()) fds_.resize(i + 1, std::vector<int>(byPeer.size(), -1));
        fds_[i][peer] = byPeer[peer][i];
      }
    }
  }
  ~OpenConnections() {
    for (const auto& fds : fds_) {
      for (const int fd : fds) {
        if (fd >= 0) ::close(fd);
      }
    }
  }
  OpenConnections(const OpenConnections&) = delete;
  OpenConnections& operator=(const OpenConnections&) = delete;

  /** Those of one number, by peer. */
  const std::vector<int>& of(size_t connection) const { return fds_.at(connection); }
  /** The same; from now on another's to close. */
  std::vector<int> take(size_t connection) { return std::exchange(fds_.at(connection), {}); }

 private:
  std::vector<std::vector<int>> fds_;
};

Mesh::Mesh(MeshOptions options) : options_(std::move(options)) {
  if (options_.size < 1 || options_.rank < 0 || options_.rank >= options_.size) {
    throw NoMesh("rank " + std::to_string(options_.rank) + " of " + std::to_string(options_.size));
  }
  if (options_.streams < 1 || options_.streams > 64) {
    throw NoMesh("streams is " + std::to_string(options_.streams) + "; expected 1 to 64");
  }
  if (options_.size > 1) listener_ = listenOn(options_.host, port_);
}

bool Mesh::areApart(const std::vector<int>& ranks) const {
  if (!connected_.load(std::memory_order_acquire)) return false;
  std::set<std::string> hosts;
  return std::all_of(ranks.begin(), ranks.end(), [&](int rank) { return hosts.insert(hosts_.at(static_cast<size_t>(rank))).second; });
}

void Mesh::connect(const std::vector<Address>& addresses, const std::string& key, double timeoutSeconds) {
  if (connecting_.exchange(true)) throw NoMesh("rank " + std::to_string(options_.rank) + " was told to connect before");
  if (addresses.size() != static_cast<size_t>(options_.size)) {
    throw NoMesh(std::to_string(addresses.size()) + " addresses for " + std::to_string(options_.size) + " ranks");
  }
  if (options_.size == 1) return;
  for (const Address& address : addresses) hosts_.push_back(address.host);
  const int listener = std::exchange(listener_, -1);
  OpenConnections open(joinPeers(listener, options_, key, 1 + options_.streams, addresses, timeoutSeconds, &givenUp_));
  auto carrier = carrierOver(open, timeoutSeconds);
  // Others may ask this mesh for something meanwhile: they see all of it, or nothing.
  std::vector<std::unique_ptr<Peer>> peers;
  const int64_t now = monotonicNanoseconds();
  for (int peer = 0; peer < options_.size; peer++) {
    peers.push_back(std::make_unique<Peer>());
    peers.back()->heard = now;
  }
  Connections::Handler& handler = *this;
  auto control = std::make_unique<Connections>(handler, open.take(0), nanosecondsOf(options_.heartbeatSeconds) / 2);
  std::optional<MeshFault> early;
  {
    const std::lock_guard lock(faultMutex_);
    peers_ = std::move(peers);
    control_ = std::move(control);
    carrier_ = std::move(carrier);
    connected_.store(true, std::memory_order_release);
    early = fault_;
  }
  if (early) {
    tellAll(*early);
    carrier_->halt();
  }
  try {
    control_->start();
    carrier_->start();
  } catch (const std::exception& error) {
    const std::string problem = std::string("no thread for the transport: ") + error.what();
    fail({MeshFault::Kind::protocol, options_.rank, problem}, false);
    ending_ = true;
    control_->end();
    control_->join();
    settle();
    throw NoMesh(problem);
  }
}

/** What carries data; takes the connections that it needs. */
std::unique_ptr<Carrier> Mesh::carrierOver(OpenConnections& open, double timeoutSeconds) {
  TransportChoice choice;
  choice.because = "it was asked for";
  if (options_.transport != Transport::tcp) choice = chooseTransport(*this, options_, open.of(0), timeoutSeconds, givenUp_);
  carriedBy_ = {choice.name, choice.because};
  if (choice.ucx) return std::move(choice.ucx);
  const auto& memory = choice.neighbours.memory;
  if (std::any_of(memory.begin(), memory.end(), [](const auto& one) { return one != nullptr; })) {
    lent_ = LentMemory::here();
    staging_.takeFrom(lent_);
  }
  std::vector<std::vector<int>> streams;
  for (int stream = 1; stream <= options_.streams; stream++) streams.push_back(open.take(static_cast<size_t>(stream)));
  Carrier::Owner& owner = *this;
  return std::make_unique<TcpCarrier>(owner, streams, nanosecondsOf(options_.heartbeatSeconds) / 2, std::move(choice.neighbours));
}

Mesh::~Mesh() {
  if (listener_ >= 0) ::close(listener_);
  if (failed() && connected_) {
    // The end of this connection could be heard before what failed, which comes by another.
    tellAll(*fault());
  } else if (connected_) {
    carrier_->flush();
    for (int peer = 0; peer < options_.size; peer++) {
      Frame bye;
      bye.type = byeFrame;
      if (peer != options_.rank) control(peer, bye, "");
    }
  }
  ending_ = true;
  if (control_) {
    control_->end();
    control_->join();
  }
  // Its threads may ask for it until they have ended; `reset` would forget it first.
  delete carrier_.get();
  static_cast<void>(carrier_.release());
}

int64_t Mesh::nowNanoseconds() { return monotonicNanoseconds(); }

// Transfers

void Mesh::post(Exchange& exchange, int peer, uint32_t part, const void* data, size_t bytes, size_t tally) {
  exchange.add(tally);
  const TransferKey key{exchange.communicator_, exchange.position_, part};
  auto outgoing = std::make_shared<Outgoing>(&exchange, static_cast<const char*>(data), bytes, tally);
  std::optional<Ready> waiting;
  {
    const std::lock_guard lock(mutex_);
    const auto ready = readies_.find({peer, key});
    if (ready == readies_.end()) {
      outgoing_[{peer, key}] = outgoing;
    } else {
      waiting = ready->second;
      readies_.erase(ready);
    }
  }
  if (waiting) {
    start(peer, key, outgoing, *waiting, exchange.meaning_.text);
  } else if (peers_[static_cast<size_t>(peer)]->left) {
    lose(peer, "has ended");
  }
}

void Mesh::expect(Exchange& exchange, int peer, uint32_t part, void* data, size_t bytes, size_t tally) {
  exchange.add(tally);
  const TransferKey key{exchange.communicator_, exchange.position_, part};
  const auto incoming = std::make_shared<Incoming>(&exchange, static_cast<char*>(data), bytes, tally);
  {
    const std::lock_guard lock(mutex_);
    incoming_[{peer, key}] = incoming;
  }
  if (peers_[static_cast<size_t>(peer)]->left) {
    lose(peer, "has ended");
    return;
  }
  const auto ticket = static_cast<uint32_t>(tickets_++ % ticketsMax);
  carrier_->receive(peer, key, ticket, incoming);
  sayReady(exchange, peer, key, bytes, ticket);
}

/** This rank has come to a collective, and awaits nothing of that peer. */
void Mesh::announce(Exchange& exchange, int peer) {
  if (peers_[static_cast<size_t>(peer)]->left) {
    lose(peer, "has ended");
    return;
  }
  sayReady(exchange, peer, {exchange.communicator_, exchange.position_, herePart}, 0, 0);
}

void Mesh::sayReady(Exchange& exchange, int peer, const TransferKey& key, size_t bytes, uint32_t ticket) {
  Frame frame;
  frame.type = readyFrame;
  frame.key = key;
  frame.ticket = ticket;
  frame.offset = exchange.meaning_.digest;
  frame.length = bytes;
  control(peer, frame, exchange.meaning_.text);
}

/** Hands a message of `what` to what carries it. Its exchange may be gone: after a fault nobody waits. */
void Mesh::start(int peer, const TransferKey& key, const std::shared_ptr<Outgoing>& outgoing, const Ready& ready,
                 const std::string& what) {
  if (ready.bytes != outgoing->bytes) {
    fail({MeshFault::Kind::mismatch, peer,
          "part " + std::to_string(key.part) + " of " + what + ": rank " +
              std::to_string(options_.rank) + " sends " + std::to_string(outgoing->bytes) + " B, rank " +
              std::to_string(peer) + " awaits " + std::to_string(ready.bytes) + " B"});
    return;
  }
  carrier_->send(peer, key, ready.ticket, outgoing);
}

/** A peer's memory is ready. */
void Mesh::ready(int peer, const Frame& frame, const std::string& text) {
  const Ready ready{frame.length, frame.ticket, {frame.offset, text}};
  const auto find = [&] { return exchanges_.find({frame.key.communicator, frame.key.position}); };
  Meaning own;
  {
    const std::lock_guard lock(mutex_);
    const auto open = find();
    if (open == exchanges_.end()) {
      readies_[{peer, frame.key}] = ready;
      return;
    }
    own = open->second->meaning_;
  }
  // Before anybody is told that the peer has come: whoever then sends would find that sizes differ, and not why.
  if (!check(peer, frame.key, own, ready.meaning)) return;
  std::shared_ptr<Outgoing> outgoing;
  {
    const std::lock_guard lock(mutex_);
    const auto open = find();
    if (open == exchanges_.end()) return;
    open->second->cameHere(peer);
    const auto found = outgoing_.find({peer, frame.key});
    if (found != outgoing_.end()) {
      outgoing = found->second;
      outgoing_.erase(found);
    } else if (frame.key.part != herePart) {
      readies_[{peer, frame.key}] = ready;
    }
  }
  if (outgoing) start(peer, frame.key, outgoing, ready, own.text);
}

/** Whether something here waits for that peer. */
bool Mesh::owes(int peer) {
  const std::lock_guard lock(mutex_);
  for (const auto& [at, one] : outgoing_) {
    if (at.first == peer) return true;
  }
  for (const auto& [at, one] : incoming_) {
    if (at.first == peer) return true;
  }
  for (const auto& [at, exchange] : exchanges_) {
    if (exchange->awaits(peer)) return true;
  }
  return false;
}

bool Mesh::check(int peer, const TransferKey& key, const Meaning& own, const Meaning& theirs) {
  if (own.digest == theirs.digest) return true;
  fail({MeshFault::Kind::mismatch, peer,
        "collective " + std::to_string(key.position) + ": rank " + std::to_string(peer) + " submitted " + theirs.text +
            ", rank " + std::to_string(options_.rank) + " submitted " + own.text});
  return false;
}

void Mesh::forget(Exchange& exchange) {
  const std::lock_guard lock(mutex_);
  exchanges_.erase({exchange.communicator_, exchange.position_});
  const auto drop = [&](auto& transfers) {
    for (auto one = transfers.begin(); one != transfers.end();) {
      one = one->second->exchange == &exchange ? transfers.erase(one) : std::next(one);
    }
  };
  // All have ended, unless the mesh has failed.
  if (!failed()) return;
  drop(outgoing_);
  drop(incoming_);
}

// Notes and faults

void Mesh::note(int peer, const std::string& text) {
  if (peer == options_.rank) {
    deliver(peer, text);
    return;
  }
  if (text.size() > noteBytesMax) {
    throw std::invalid_argument("a note of " + std::to_string(text.size()) + " B; expected at most " +
                                std::to_string(noteBytesMax));
  }
  other(peer);
  Frame frame;
  frame.type = noteFrame;
  control(peer, frame, text);
}

void Mesh::onNote(std::function<void(int, std::optional<std::string>)> handler) {
  const std::lock_guard lock(notesMutex_);
  noteHandler_ = std::move(handler);
  for (auto& [peer, text] : std::exchange(earlyNotes_, {})) noteHandler_(peer, std::move(text));
}

void Mesh::deliver(int peer, std::optional<std::string> text) {
  const std::lock_guard lock(notesMutex_);
  if (noteHandler_) {
    noteHandler_(peer, std::move(text));
  } else {
    earlyNotes_.emplace_back(peer, std::move(text));
  }
}

std::optional<MeshFault> Mesh::fault() const {
  const std::lock_guard lock(faultMutex_);
  return fault_;
}

int Mesh::onFault(std::function<void(const MeshFault&)> handler) {
  const std::lock_guard lock(handlersMutex_);
  const int id = nextHandler_++;
  if (failed()) {
    handler(*fault());
  } else {
    faultHandlers_[id] = std::move(handler);
  }
  return id;
}

void Mesh::forgetFault(int handler) {
  const std::lock_guard lock(handlersMutex_);
  faultHandlers_.erase(handler);
}

/** The rank, if the mesh has it. */
int Mesh::known(int peer) const {
  if (peer >= 0 && peer < options_.size) return peer;
  throw std::invalid_argument("rank " + std::to_string(peer) + "; the mesh has ranks 0 to " +
                              std::to_string(options_.size - 1));
}

/** Another rank that there is a connection to. */
Mesh::Peer& Mesh::other(int peer) const {
  if (known(peer) == options_.rank) throw std::invalid_argument("rank " + std::to_string(peer) + " is this one itself");
  if (!connected_.load(std::memory_order_acquire)) throw std::invalid_argument("the mesh is not connected");
  return *peers_[static_cast<size_t>(peer)];
}

void Mesh::tellAll(const MeshFault& fault) {
  Frame frame;
  frame.type = faultFrame;
  frame.kind = static_cast<uint8_t>(fault.kind);
  frame.offset = static_cast<uint64_t>(fault.rank);
  for (int peer = 0; peer < options_.size; peer++) {
    if (peer != options_.rank) control(peer, frame, fault.message);
  }
}

void Mesh::fail(MeshFault fault, bool tell) {
  bool connected = false;
  {
    const std::lock_guard lock(faultMutex_);
    if (fault_) return;
    if (fault.rank < 0 || fault.rank >= options_.size) fault.rank = options_.rank;
    fault_ = fault;
    // Who connects tells what failed before.
    connected = connected_;
  }
  if (connected && tell) tellAll(fault);
  failed_.store(true, std::memory_order_release);
  if (connected) {
    carrier_->halt();
    control_->poke();
  }
  if (isStill()) settle();
  const std::lock_guard lock(handlersMutex_);
  for (const auto& [id, handler] : faultHandlers_) handler(fault);
}

void Mesh::lose(int peer, const std::string& why) {
  fail({MeshFault::Kind::lost, peer, "rank " + std::to_string(peer) + " " + why});
}

/** Whether no thread touches lent memory. */
bool Mesh::isStill() const { return !connected_.load(std::memory_order_acquire) || carrier_->isHalted(); }

/** Wakes all who wait, once no thread touches their memory any more. */
void Mesh::settle() {
  const std::lock_guard lock(mutex_);
  for (const auto& [at, exchange] : exchanges_) {
    const std::lock_guard inner(exchange->mutex_);
    exchange->changed_.notify_all();
  }
}

uint64_t Mesh::sentBytes(int peer) const {
  return known(peer) != options_.rank && connected_ ? carrier_->sentBytes(peer) : 0;
}

uint64_t Mesh::receivedBytes(int peer) const {
  return known(peer) != options_.rank && connected_ ? carrier_->receivedBytes(peer) : 0;
}

}  // namespace tandem

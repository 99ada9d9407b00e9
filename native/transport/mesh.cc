#include "mesh.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "handshake.h"
#include "mesh-parts.h"

namespace tandem {

// Exchange

Exchange::Exchange(Mesh& mesh, uint32_t communicator, uint32_t position, Meaning meaning,
                   const std::vector<int>& members)
    : mesh_(mesh),
      communicator_(communicator),
      position_(position),
      meaning_(std::move(meaning)),
      awaited_(static_cast<size_t>(mesh.size()), false),
      untold_(awaited_) {
  for (const int rank : members) {
    if (mesh_.known(rank) == mesh.rank() || awaited_[static_cast<size_t>(rank)]) continue;
    mesh_.other(rank);
    awaited_[static_cast<size_t>(rank)] = true;
    absent_++;
  }
  untold_ = awaited_;
  std::vector<std::pair<int, Meaning>> early;
  {
    const std::lock_guard lock(mesh_.mutex_);
    if (!mesh_.exchanges_.emplace(std::make_pair(communicator_, position_), this).second) {
      throw std::invalid_argument("collective " + std::to_string(position_) + " is under way already");
    }
    for (auto one = mesh_.readies_.begin(); one != mesh_.readies_.end();) {
      const auto& [peer, key] = one->first;
      if (key.communicator != communicator_ || key.position != position_) {
        one++;
        continue;
      }
      cameHere(peer);
      early.emplace_back(peer, one->second.second);
      one = key.part == herePart ? mesh_.readies_.erase(one) : std::next(one);
    }
  }
  for (const auto& [peer, theirs] : early) mesh_.check(peer, {communicator_, position_, 0}, meaning_, theirs);
}

Exchange::~Exchange() {
  waitAll();
  mesh_.forget(*this);
}

/** A peer has said that it is there. */
void Exchange::cameHere(int peer) {
  const std::lock_guard lock(mutex_);
  if (!awaited_[static_cast<size_t>(peer)]) return;
  awaited_[static_cast<size_t>(peer)] = false;
  absent_--;
  if (absent_ == 0) changed_.notify_all();
}

bool Exchange::awaits(int peer) {
  const std::lock_guard lock(mutex_);
  return awaited_[static_cast<size_t>(peer)];
}

/** Tells members that were asked for nothing that this rank is there. */
void Exchange::announce() {
  for (int peer = 0; peer < mesh_.size(); peer++) {
    if (!untold_[static_cast<size_t>(peer)]) continue;
    untold_[static_cast<size_t>(peer)] = false;
    mesh_.announce(*this, peer);
  }
}

std::optional<MeshFault> Exchange::fault() const { return mesh_.fault(); }

void Exchange::add(size_t tally) {
  const std::lock_guard lock(mutex_);
  if (tally >= open_.size()) open_.resize(tally + 1, 0);
  open_[tally]++;
  openInAll_++;
}

void Exchange::ended(size_t tally) {
  // Under the lock to the end: whoever waits may destroy this as soon as it is let go.
  const std::lock_guard lock(mutex_);
  open_[tally]--;
  openInAll_--;
  if (open_[tally] == 0) changed_.notify_all();
}

void Exchange::send(int peer, uint32_t part, const void* data, size_t bytes, size_t tally) {
  if (bytes == 0) return;
  mesh_.other(peer);
  mesh_.post(*this, peer, part, data, bytes, tally);
}

void Exchange::receive(int peer, uint32_t part, void* data, size_t bytes, size_t tally) {
  if (bytes == 0) return;
  mesh_.other(peer);
  untold_[static_cast<size_t>(peer)] = false;
  mesh_.expect(*this, peer, part, data, bytes, tally);
}

bool Exchange::wait(size_t tally) {
  std::unique_lock lock(mutex_);
  if (tally >= open_.size()) return !mesh_.failed();
  changed_.wait(lock, [&] { return open_[tally] == 0 || (mesh_.failed() && mesh_.running_ == 0); });
  return open_[tally] == 0;
}

bool Exchange::waitAll() {
  announce();
  std::unique_lock lock(mutex_);
  const auto over = [&] { return openInAll_ == 0 && absent_ == 0; };
  changed_.wait(lock, [&] { return over() || (mesh_.failed() && mesh_.running_ == 0); });
  return over();
}

// Mesh: making and ending

Mesh::Mesh(MeshOptions options) : options_(std::move(options)) {
  if (options_.size < 1 || options_.rank < 0 || options_.rank >= options_.size) {
    throw NoMesh("rank " + std::to_string(options_.rank) + " of " + std::to_string(options_.size));
  }
  if (options_.streams < 1 || options_.streams > 64) {
    throw NoMesh("streams is " + std::to_string(options_.streams) + "; expected 1 to 64");
  }
  if (options_.size > 1) listener_ = listenOn(options_.host, port_);
}

void Mesh::connect(const std::vector<Address>& addresses, const std::string& key, double timeoutSeconds) {
  if (connecting_.exchange(true)) throw NoMesh("rank " + std::to_string(options_.rank) + " was told to connect before");
  if (addresses.size() != static_cast<size_t>(options_.size)) {
    throw NoMesh(std::to_string(addresses.size()) + " addresses for " + std::to_string(options_.size) + " ranks");
  }
  if (options_.size == 1) return;
  const int listener = std::exchange(listener_, -1);
  const auto fds = joinPeers(listener, options_, key, 1 + options_.streams, addresses, timeoutSeconds);
  // Others may ask this mesh for something meanwhile: they see all of it, or nothing.
  std::vector<std::unique_ptr<Peer>> peers;
  const int64_t now = monotonicNanoseconds();
  for (int peer = 0; peer < options_.size; peer++) {
    peers.push_back(std::make_unique<Peer>());
    peers.back()->heard = now;
    for (const int fd : fds[static_cast<size_t>(peer)]) {
      auto socket = std::make_unique<Socket>();
      socket->fd = fd;
      socket->peer = peer;
      socket->control = peers.back()->sockets.empty();
      peers.back()->sockets.push_back(std::move(socket));
    }
  }
  auto reactors = reactorsOf(peers);
  running_ = options_.streams;
  std::optional<MeshFault> early;
  {
    const std::lock_guard lock(faultMutex_);
    peers_ = std::move(peers);
    reactors_ = std::move(reactors);
    connected_.store(true, std::memory_order_release);
    early = fault_;
  }
  if (early) tellAll(*early);
  try {
    for (auto& reactor : reactors_) reactor->thread = std::thread([this, one = reactor.get()] { run(*one); });
  } catch (const std::exception& error) {
    const std::string problem = std::string("no thread for the transport: ") + error.what();
    fail({MeshFault::Kind::protocol, options_.rank, problem}, false);
    ending_ = true;
    for (auto& reactor : reactors_) {
      reactor->poke();
      if (reactor->thread.joinable()) reactor->thread.join();
    }
    running_ = 0;
    settle();
    throw NoMesh(problem);
  }
}

/** One for the control connections, and one for each data connection of every peer. */
std::vector<std::unique_ptr<Mesh::Reactor>> Mesh::reactorsOf(const std::vector<std::unique_ptr<Peer>>& peers) const {
  std::vector<std::unique_ptr<Reactor>> reactors;
  for (size_t i = 0; i <= static_cast<size_t>(options_.streams); i++) {
    auto reactor = std::make_unique<Reactor>();
    reactor->control = i == 0;
    reactor->epoll = ::epoll_create1(EPOLL_CLOEXEC);
    reactor->wake = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (reactor->epoll < 0 || reactor->wake < 0) throw NoMesh(std::string("no event queue: ") + std::strerror(errno));
    const auto serve = [&](int fd, Socket* socket) {
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.ptr = socket;
      ::epoll_ctl(reactor->epoll, EPOLL_CTL_ADD, fd, &event);
    };
    serve(reactor->wake, nullptr);
    for (const auto& peer : peers) {
      if (peer->sockets.empty()) continue;
      Socket* const socket = peer->sockets[i].get();
      socket->reactor = reactor.get();
      reactor->sockets.push_back(socket);
      serve(socket->fd, socket);
    }
    reactors.push_back(std::move(reactor));
  }
  return reactors;
}

Mesh::~Mesh() {
  if (listener_ >= 0) ::close(listener_);
  if (!failed() && !reactors_.empty()) {
    for (int peer = 0; peer < options_.size; peer++) {
      Frame bye;
      bye.type = byeFrame;
      if (peer != options_.rank) control(peer, bye, "");
    }
  }
  ending_ = true;
  for (auto& reactor : reactors_) reactor->poke();
  for (auto& reactor : reactors_) {
    if (reactor->thread.joinable()) reactor->thread.join();
  }
}

int64_t Mesh::nowNanoseconds() { return monotonicNanoseconds(); }

// Transfers

void Mesh::post(Exchange& exchange, int peer, uint32_t part, const void* data, size_t bytes, size_t tally) {
  exchange.add(tally);
  const TransferKey key{exchange.communicator_, exchange.position_, part};
  auto outgoing = std::make_shared<Outgoing>(&exchange, static_cast<const char*>(data), bytes, tally);
  std::optional<uint64_t> awaited;
  {
    const std::lock_guard lock(mutex_);
    const auto ready = readies_.find({peer, key});
    if (ready == readies_.end()) {
      outgoing_[{peer, key}] = outgoing;
    } else {
      awaited = ready->second.first;
      readies_.erase(ready);
    }
  }
  if (awaited) {
    start(peer, key, outgoing, *awaited, exchange.meaning_.text);
  } else if (peers_[static_cast<size_t>(peer)]->left) {
    lose(peer, "has ended");
  }
}

void Mesh::expect(Exchange& exchange, int peer, uint32_t part, void* data, size_t bytes, size_t tally) {
  exchange.add(tally);
  const TransferKey key{exchange.communicator_, exchange.position_, part};
  {
    const std::lock_guard lock(mutex_);
    incoming_[{peer, key}] = std::make_shared<Incoming>(&exchange, static_cast<char*>(data), bytes, tally);
  }
  if (peers_[static_cast<size_t>(peer)]->left) {
    lose(peer, "has ended");
    return;
  }
  sayReady(exchange, peer, key, bytes);
}

/** This rank has come to a collective, and awaits nothing of that peer. */
void Mesh::announce(Exchange& exchange, int peer) {
  if (peers_[static_cast<size_t>(peer)]->left) {
    lose(peer, "has ended");
    return;
  }
  sayReady(exchange, peer, {exchange.communicator_, exchange.position_, herePart}, 0);
}

void Mesh::sayReady(Exchange& exchange, int peer, const TransferKey& key, size_t bytes) {
  Frame frame;
  frame.type = readyFrame;
  frame.key = key;
  frame.offset = exchange.meaning_.digest;
  frame.length = bytes;
  control(peer, frame, exchange.meaning_.text);
}

/** Hands a message of `what` to the peer's data connections, in segments. Its exchange may be gone: after a fault nobody waits. */
void Mesh::start(int peer, const TransferKey& key, const std::shared_ptr<Outgoing>& outgoing, uint64_t awaited,
                 const std::string& what) {
  if (awaited != outgoing->bytes) {
    fail({MeshFault::Kind::mismatch, peer,
          "part " + std::to_string(key.part) + " of " + what + ": rank " +
              std::to_string(options_.rank) + " sends " + std::to_string(outgoing->bytes) + " B, rank " +
              std::to_string(peer) + " awaits " + std::to_string(awaited) + " B"});
    return;
  }
  auto& sockets = peers_[static_cast<size_t>(peer)]->sockets;
  const size_t streams = sockets.size() - 1;
  size_t stream = (key.position + key.part) % streams;
  for (size_t at = 0; at < outgoing->bytes; at += segmentBytes) {
    Frame frame;
    frame.type = dataFrame;
    frame.key = key;
    frame.offset = at;
    frame.length = std::min(segmentBytes, outgoing->bytes - at);
    enqueue(*sockets[1 + stream], frame, "", outgoing->data + at, outgoing);
    stream = (stream + 1) % streams;
  }
}

/** A peer's memory is ready. */
void Mesh::ready(int peer, const Frame& frame, const std::string& text) {
  const Meaning theirs{frame.offset, text};
  std::shared_ptr<Outgoing> outgoing;
  std::optional<Meaning> own;
  {
    const std::lock_guard lock(mutex_);
    const auto open = exchanges_.find({frame.key.communicator, frame.key.position});
    if (open != exchanges_.end()) {
      Exchange& exchange = *open->second;
      own = exchange.meaning_;
      exchange.cameHere(peer);
    }
    const auto found = outgoing_.find({peer, frame.key});
    if (found == outgoing_.end()) {
      if (!own || frame.key.part != herePart) readies_[{peer, frame.key}] = {frame.length, theirs};
    } else {
      outgoing = found->second;
      outgoing_.erase(found);
    }
  }
  if (own && !check(peer, frame.key, *own, theirs)) return;
  // Who has something to send has its exchange open.
  if (outgoing && own) start(peer, frame.key, outgoing, frame.length, own->text);
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

void Mesh::onNote(std::function<void(int, std::string)> handler) {
  const std::lock_guard lock(notesMutex_);
  noteHandler_ = std::move(handler);
  for (auto& [peer, text] : std::exchange(earlyNotes_, {})) noteHandler_(peer, std::move(text));
}

void Mesh::deliver(int peer, std::string text) {
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
    for (auto& reactor : reactors_) reactor->poke();
  }
  if (running_ == 0) settle();
  const std::lock_guard lock(handlersMutex_);
  for (const auto& [id, handler] : faultHandlers_) handler(fault);
}

void Mesh::lose(int peer, const std::string& why) {
  fail({MeshFault::Kind::lost, peer, "rank " + std::to_string(peer) + " " + why});
}

/** Wakes all who wait, once no thread touches their memory any more. */
void Mesh::settle() {
  const std::lock_guard lock(mutex_);
  for (const auto& [at, exchange] : exchanges_) {
    const std::lock_guard inner(exchange->mutex_);
    exchange->changed_.notify_all();
  }
}

uint64_t Mesh::sentBytes(int peer) const {
  return known(peer) != options_.rank && connected_ ? other(peer).sentBytes.load() : 0;
}

uint64_t Mesh::receivedBytes(int peer) const {
  return known(peer) != options_.rank && connected_ ? other(peer).receivedBytes.load() : 0;
}

}  // namespace tandem

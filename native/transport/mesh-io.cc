// The threads of a mesh: what is read from connections and written to them, and what silence means.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "mesh-parts.h"
#include "mesh.h"

namespace tandem {

namespace {

/** What one connection may move before it is another's turn. */
constexpr size_t turnBytes = size_t{4} << 20;
/** Memory for a text is taken as it comes: a header is believed no further. */
constexpr size_t textStepBytes = size_t{1} << 20;
/** After a fault or a goodbye, what is queued has so long to leave. */
constexpr int64_t flushNanoseconds = 1'000'000'000;
/** A connection that ended without a goodbye is forgiven for so long: the goodbye comes by another. */
constexpr int64_t graceNanoseconds = 500'000'000;
/** This process itself was stopped for so long: what it did not hear meanwhile says nothing of others. */
constexpr int64_t absentNanoseconds = 2'000'000'000;

}  // namespace

void Mesh::control(int peer, const Frame& frame, const std::string& text) {
  enqueue(*peers_[static_cast<size_t>(peer)]->sockets[0], frame, text.substr(0, textMaxOf(frame.type)), nullptr, nullptr);
}

void Mesh::enqueue(Socket& socket, const Frame& frame, std::string text, const char* data,
                   const std::shared_ptr<Outgoing>& of) {
  Socket::Piece piece;
  piece.frame = frame;
  piece.frame.textBytes = text.size();
  piece.text = std::move(text);
  piece.data = data;
  piece.dataBytes = data == nullptr ? 0 : frame.length;
  piece.of = of;
  bool first = false;
  {
    const std::lock_guard lock(socket.mutex);
    first = socket.queue.empty();
    socket.queue.push_back(std::move(piece));
  }
  if (first) socket.reactor->poke();
}

void Mesh::run(Reactor& reactor) {
  int64_t flushUntil = 0;
  int64_t lastWatch = 0;
  bool more = false;
  const int64_t tick = std::max<int64_t>(1'000'000, nanosecondsOf(options_.heartbeatSeconds) / 2);
  while (true) {
    const int64_t now = monotonicNanoseconds();
    if (failed() || ending_) {
      // Data stop at once after a fault; words of it, and everything before a goodbye, may leave.
      if (!reactor.control && failed()) break;
      bool queued = false;
      for (Socket* socket : reactor.sockets) {
        const std::lock_guard lock(socket->mutex);
        queued = queued || (!socket->closed && !socket->queue.empty());
      }
      if (flushUntil == 0) flushUntil = now + flushNanoseconds;
      // After a fault the control thread goes on until the owner ends: others may still speak of it.
      if (ending_ && (!queued || now > flushUntil)) break;
    }
    if (reactor.control && now - lastWatch >= tick) {
      if (lastWatch != 0 && now - lastWatch > absentNanoseconds) {
        for (auto& peer : peers_) peer->heard = now;
      }
      lastWatch = now;
      if (!failed() && !ending_) watchPeers();
    }
    epoll_event events[64];
    const int wait = more ? 0 : static_cast<int>(tick / 1'000'000);
    const int count = ::epoll_wait(reactor.epoll, events, 64, wait);
    more = false;
    for (int i = 0; i < count; i++) {
      auto* socket = static_cast<Socket*>(events[i].data.ptr);
      if (socket == nullptr) {
        uint64_t ignored = 0;
        [[maybe_unused]] const ssize_t got = ::read(reactor.wake, &ignored, sizeof ignored);
      } else {
        serve(reactor, *socket, events[i].events, more);
      }
    }
    for (Socket* socket : reactor.sockets) {
      if (socket->closed || socket->blocked) continue;
      if (!writeTo(*socket, more)) gone(*socket, std::string("does not take what is sent: ") + std::strerror(errno));
    }
  }
  if (!reactor.control && --running_ == 0 && failed()) settle();
}

void Mesh::serve(Reactor& reactor, Socket& socket, uint32_t events, bool& more) {
  if (socket.closed) return;
  if ((events & EPOLLOUT) != 0) {
    socket.blocked = false;
    await(reactor, socket);
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
  bool there = !socket.deaf;
  try {
    there = there && readFrom(socket, more);
  } catch (const std::bad_alloc&) {
    there = false;
    fail({MeshFault::Kind::protocol, options_.rank, "no memory for what rank " + std::to_string(socket.peer) + " sends"});
  }
  if (!there) gone(socket, "has gone away");
}

/** Asks for the events that this connection is served at. */
void Mesh::await(Reactor& reactor, Socket& socket) {
  epoll_event event{};
  if (!socket.deaf) event.events |= EPOLLIN;
  if (socket.blocked) event.events |= EPOLLOUT;
  event.data.ptr = &socket;
  ::epoll_ctl(reactor.epoll, EPOLL_CTL_MOD, socket.fd, &event);
}

/** False when the connection has ended. */
bool Mesh::readFrom(Socket& socket, bool& more) {
  Peer& peer = *peers_[static_cast<size_t>(socket.peer)];
  size_t budget = turnBytes;
  while (!failed() || socket.control) {
    if (budget == 0) {
      more = true;
      return true;
    }
    char* to = nullptr;
    size_t want = 0;
    if (socket.gotFrame < sizeof(Frame)) {
      to = reinterpret_cast<char*>(&socket.frame) + socket.gotFrame;
      want = sizeof(Frame) - socket.gotFrame;
    } else if (socket.gotText < socket.frame.textBytes) {
      want = static_cast<size_t>(std::min<uint64_t>(textStepBytes, socket.frame.textBytes - socket.gotText));
      if (socket.text.size() < socket.gotText + want) socket.text.resize(socket.gotText + want);
      to = &socket.text[socket.gotText];
    } else {
      to = socket.into->data + socket.frame.offset + socket.gotData;
      want = socket.frame.length - socket.gotData;
    }
    const ssize_t got = ::recv(socket.fd, to, std::min(want, budget), 0);
    if (got == 0) return false;
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    const auto n = static_cast<size_t>(got);
    budget -= n;
    peer.heard = monotonicNanoseconds();
    if (socket.gotFrame < sizeof(Frame)) {
      socket.gotFrame += n;
      if (socket.gotFrame < sizeof(Frame)) continue;
      if (!begin(socket)) {
        // The fault can still be written: the peer learns what is held against it.
        socket.deaf = true;
        await(*socket.reactor, socket);
        return true;
      }
    } else if (socket.gotText < socket.frame.textBytes) {
      socket.gotText += n;
    } else {
      socket.gotData += n;
      peer.receivedBytes += n;
    }
    const bool data = socket.frame.type == dataFrame;
    if (socket.gotText == socket.frame.textBytes && (!data || socket.gotData == socket.frame.length)) arrived(socket);
  }
  return true;
}

/** A frame's header is there: false, and a fault, when it cannot be. */
bool Mesh::begin(Socket& socket) {
  const Frame& frame = socket.frame;
  const bool data = frame.type == dataFrame;
  std::string problem;
  if (frame.magic != frameMagic || frame.type > byeFrame || data == socket.control ||
      frame.textBytes > (data ? 0 : textMaxOf(frame.type))) {
    problem = "sent what is no frame";
  } else if (frame.type == faultFrame && (frame.kind > static_cast<uint8_t>(MeshFault::Kind::protocol) ||
                                          frame.offset >= static_cast<uint64_t>(options_.size))) {
    problem = "sent a fault of no kind, or of no rank";
  } else if (data) {
    const std::lock_guard lock(mutex_);
    const auto found = incoming_.find({socket.peer, frame.key});
    if (found == incoming_.end() || !found->second->begins(frame.offset, frame.length)) {
      problem = "sent data that nobody awaits";
    } else {
      socket.into = found->second;
    }
  }
  if (!problem.empty()) {
    fail({MeshFault::Kind::protocol, socket.peer, "rank " + std::to_string(socket.peer) + " " + problem});
    return false;
  }
  socket.text.clear();
  socket.gotText = 0;
  socket.gotData = 0;
  return true;
}

/** A frame is there as a whole. */
void Mesh::arrived(Socket& socket) {
  const Frame frame = socket.frame;
  socket.gotFrame = 0;
  switch (frame.type) {
    case dataFrame: {
      const std::shared_ptr<Incoming> into = std::move(socket.into);
      if (!into->moved(frame.length)) return;
      {
        const std::lock_guard lock(mutex_);
        incoming_.erase({socket.peer, frame.key});
      }
      into->exchange->ended(into->tally);
      return;
    }
    case readyFrame:
      if (!failed()) ready(socket.peer, frame, socket.text);
      return;
    case noteFrame:
      deliver(socket.peer, std::move(socket.text));
      socket.text.clear();
      return;
    case faultFrame: {
      const auto kind = static_cast<MeshFault::Kind>(frame.kind);
      fail({kind, static_cast<int>(frame.offset), socket.text}, false);
      return;
    }
    case byeFrame: {
      Peer& peer = *peers_[static_cast<size_t>(socket.peer)];
      peer.left = true;
      // What it sent before its goodbye may still be on its way by the other connections.
      if (owes(socket.peer)) peer.suspect = monotonicNanoseconds();
      return;
    }
    default:
      return;
  }
}

/** False when the connection has ended. */
bool Mesh::writeTo(Socket& socket, bool& more) {
  Peer& peer = *peers_[static_cast<size_t>(socket.peer)];
  size_t budget = turnBytes;
  while (!failed() || socket.control) {
    // Only this thread takes from the queue, and what is added comes behind: the first stays where it is.
    Socket::Piece* piece = nullptr;
    {
      const std::lock_guard lock(socket.mutex);
      if (socket.queue.empty()) return true;
      piece = &socket.queue.front();
    }
    if (budget == 0) {
      more = true;
      return true;
    }
    iovec parts[3];
    int count = 0;
    size_t skip = piece->sent;
    size_t left = budget;
    const auto add = [&](const void* data, size_t bytes) {
      if (skip >= bytes) {
        skip -= bytes;
        return;
      }
      const size_t length = std::min(bytes - skip, left);
      if (length > 0) parts[count++] = {const_cast<char*>(static_cast<const char*>(data)) + skip, length};
      left -= length;
      skip = 0;
    };
    add(&piece->frame, sizeof(Frame));
    add(piece->text.data(), piece->text.size());
    add(piece->data, piece->dataBytes);
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = static_cast<size_t>(count);
    const ssize_t sent = ::sendmsg(socket.fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      socket.blocked = true;
      await(*socket.reactor, socket);
      return true;
    }
    if (sent < 0) return false;
    piece->sent += static_cast<size_t>(sent);
    budget -= static_cast<size_t>(sent);
    if (piece->sent < sizeof(Frame) + piece->text.size() + piece->dataBytes) continue;
    const std::shared_ptr<Outgoing> of = std::move(piece->of);
    const size_t bytes = piece->dataBytes;
    {
      const std::lock_guard lock(socket.mutex);
      socket.queue.pop_front();
    }
    peer.sentBytes += bytes;
    if (of && of->moved(bytes)) of->exchange->ended(of->tally);
  }
  return true;
}

void Mesh::gone(Socket& socket, const std::string& why) {
  socket.closed = true;
  ::epoll_ctl(socket.reactor->epoll, EPOLL_CTL_DEL, socket.fd, nullptr);
  Peer& peer = *peers_[static_cast<size_t>(socket.peer)];
  if (peer.left || ending_ || failed()) return;
  // Words come by one connection, in order: where that ends without a goodbye, none will come.
  if (socket.control) {
    lose(socket.peer, why);
  } else if (peer.suspect == 0) {
    peer.suspect = monotonicNanoseconds();
  }
}

/** Tells peers that this rank lives, and looks who has fallen silent. */
void Mesh::watchPeers() {
  const int64_t now = monotonicNanoseconds();
  for (int rank = 0; rank < options_.size; rank++) {
    if (rank == options_.rank) continue;
    Peer& peer = *peers_[static_cast<size_t>(rank)];
    if (peer.suspect != 0 && now - peer.suspect > graceNanoseconds) {
      if (!peer.left || owes(rank)) return lose(rank, peer.left ? "has ended" : "has gone away");
      peer.suspect = 0;
    }
    if (peer.left) continue;
    if (now - peer.heard > nanosecondsOf(options_.lostAfterSeconds)) {
      char text[64];
      std::snprintf(text, sizeof text, "has sent nothing for %.1f s", static_cast<double>(now - peer.heard) * 1e-9);
      return lose(rank, text);
    }
    Socket& socket = *peer.sockets[0];
    bool idle = false;
    {
      const std::lock_guard lock(socket.mutex);
      idle = socket.queue.size() < 4;
    }
    if (idle) control(rank, Frame(), "");
  }
}

}  // namespace tandem

#include "connections.h"

#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "../thread-name.h"

namespace tandem {

namespace {

/** What one connection may move before it is another's turn. Assumed: a few milliseconds' worth, many calls of the system. */
constexpr size_t turnBytes = size_t{4} << 20;
/** Memory for a text is taken as it comes: a header is believed no further. Assumed. */
constexpr size_t textStepBytes = size_t{1} << 20;
/** After a fault or a goodbye, what is queued has so long to leave. Assumed: well below `lostAfterSeconds`. */
constexpr int64_t flushNanoseconds = 1'000'000'000;
/** How often is looked meanwhile whether it has been acknowledged. Assumed: well below that. */
constexpr int64_t soonNanoseconds = 2'000'000;

}  // namespace

struct Connections::Socket {
  struct Piece {
    Frame frame;
    std::string text;
    const char* data = nullptr;
    size_t dataBytes = 0;
    size_t sent = 0;
    std::shared_ptr<Outgoing> of;
  };

  ~Socket() {
    if (fd >= 0) ::close(fd);
  }

  int fd = -1;
  int peer = -1;
  bool closed = false;
  bool blocked = false;
  /** What came was no frame: nothing more is read. */
  bool deaf = false;

  std::mutex mutex;
  std::deque<Piece> queue;
  /** Nothing leaves any more: what is said from now on is dropped. */
  bool gone = false;

  // The frame that is being read, and what of it has come.
  Frame frame;
  size_t gotFrame = 0;
  std::string text;
  size_t gotText = 0;
  std::shared_ptr<Incoming> into;
  size_t gotData = 0;
};

Connections::Connections(Handler& handler, const std::vector<int>& fds, int64_t tickNanoseconds)
    : handler_(handler), tickNanoseconds_(std::max<int64_t>(1'000'000, tickNanoseconds)) {
  for (size_t peer = 0; peer < fds.size(); peer++) {
    sockets_.push_back(fds[peer] < 0 ? nullptr : std::make_unique<Socket>());
    if (fds[peer] < 0) continue;
    sockets_.back()->fd = fds[peer];
    sockets_.back()->peer = static_cast<int>(peer);
  }
  // Members of a group that all begin with the same peer would have it take from all of them at once, and the last from nobody.
  const auto own = static_cast<size_t>(std::find(sockets_.begin(), sockets_.end(), nullptr) - sockets_.begin());
  rank_ = static_cast<int>(own);
  for (size_t i = 1; i <= sockets_.size(); i++) {
    Socket* const socket = sockets_[(own + i) % sockets_.size()].get();
    if (socket != nullptr) inTurn_.push_back(socket);
  }
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  wake_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  const auto serve = [&](int fd, Socket* socket) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = socket;
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  };
  serve(wake_, nullptr);
  for (const auto& socket : sockets_) {
    if (socket) serve(socket->fd, socket.get());
  }
}

Connections::~Connections() {
  end();
  join();
  sockets_.clear();
  if (epoll_ >= 0) ::close(epoll_);
  if (wake_ >= 0) ::close(wake_);
}

void Connections::start() {
  if (epoll_ < 0 || wake_ < 0) throw std::runtime_error(std::string("no event queue: ") + std::strerror(errno));
  thread_ = std::thread([this] { run(); });
}

void Connections::end() {
  ending_ = true;
  poke();
}

void Connections::join() {
  if (thread_.joinable()) thread_.join();
}

void Connections::poke() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_, &one, sizeof one);
}

size_t Connections::queued(int peer) {
  Socket& socket = *sockets_[static_cast<size_t>(peer)];
  const std::lock_guard lock(socket.mutex);
  return socket.queue.size();
}

void Connections::enqueue(int peer, const Frame& frame, std::string text, const char* data,
                          const std::shared_ptr<Outgoing>& of) {
  Socket& socket = *sockets_[static_cast<size_t>(peer)];
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
    if (socket.gone) return;
    first = socket.queue.empty();
    socket.queue.push_back(std::move(piece));
  }
  if (first) poke();
}

// The thread

void Connections::run() {
  nameThread(rank_, "messages");
  int64_t flushUntil = 0;
  bool more = false;
  bool soon = false;
  // After a fault data stop at once; words of it, and everything before a goodbye, may leave.
  while (!handler_.halted()) {
    const int64_t now = monotonicNanoseconds();
    const bool ending = ending_;
    if (ending || handler_.faulted()) {
      const bool queued = std::any_of(sockets_.begin(), sockets_.end(), [](const auto& socket) { return socket && owes(*socket); });
      // Nobody says when the last has been acknowledged.
      soon = queued && ending;
      if (flushUntil == 0) flushUntil = now + flushNanoseconds;
      // After a fault the thread goes on until the owner ends: others may still speak of it.
      if (ending && (!queued || now > flushUntil)) break;
    }
    handler_.turn(now);
    epoll_event events[64];
    const int wait = more ? 0 : static_cast<int>((soon ? soonNanoseconds : tickNanoseconds_) / 1'000'000);
    const int count = ::epoll_wait(epoll_, events, 64, wait);
    more = false;
    for (int i = 0; i < count; i++) {
      auto* socket = static_cast<Socket*>(events[i].data.ptr);
      if (socket == nullptr) {
        uint64_t ignored = 0;
        [[maybe_unused]] const ssize_t got = ::read(wake_, &ignored, sizeof ignored);
      } else {
        serve(*socket, events[i].events, more);
      }
    }
    for (Socket* const socket : inTurn_) {
      if (socket->closed || socket->blocked) continue;
      if (!writeTo(*socket, more)) close(*socket, std::string("does not take what is sent: ") + std::strerror(errno));
    }
  }
  handler_.over();
}

/**
 * Whether something is on its way to that peer yet: in the queue, or not acknowledged by its host. A connection that is closed before
 * that, and hears of its peer once more, is reset, and the end of what was said is lost: a goodbye, say.
 */
bool Connections::owes(Socket& socket) {
  if (socket.closed) return false;
  {
    const std::lock_guard lock(socket.mutex);
    if (!socket.queue.empty()) return true;
  }
  int bytes = 0;
  return ::ioctl(socket.fd, SIOCOUTQ, &bytes) == 0 && bytes > 0;
}

void Connections::serve(Socket& socket, uint32_t events, bool& more) {
  if (socket.closed) return;
  if ((events & EPOLLOUT) != 0) {
    socket.blocked = false;
    await(socket);
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
  bool there = !socket.deaf;
  try {
    there = there && readFrom(socket, more);
  } catch (const std::bad_alloc&) {
    there = false;
    handler_.noMemory(socket.peer);
  }
  if (!there) close(socket, "has gone away");
}

/** Asks for the events that this connection is served at. */
void Connections::await(Socket& socket) const {
  epoll_event event{};
  if (!socket.deaf) event.events |= EPOLLIN;
  if (socket.blocked) event.events |= EPOLLOUT;
  event.data.ptr = &socket;
  ::epoll_ctl(epoll_, EPOLL_CTL_MOD, socket.fd, &event);
}

/** False when the connection has ended. */
bool Connections::readFrom(Socket& socket, bool& more) {
  size_t budget = turnBytes;
  while (!handler_.halted()) {
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
    size_t dataBytes = 0;
    if (socket.gotFrame < sizeof(Frame)) {
      socket.gotFrame += n;
    } else if (socket.gotText < socket.frame.textBytes) {
      socket.gotText += n;
    } else {
      socket.gotData += n;
      dataBytes = n;
    }
    handler_.read(socket.peer, dataBytes);
    if (socket.gotFrame < sizeof(Frame)) continue;
    if (dataBytes == 0 && socket.gotText == 0 && socket.gotData == 0 && !begin(socket)) {
      // The fault can still be written: the peer learns what is held against it.
      socket.deaf = true;
      await(socket);
      return true;
    }
    const bool data = socket.frame.type == dataFrame;
    if (socket.gotText == socket.frame.textBytes && (!data || socket.gotData == socket.frame.length)) arrived(socket);
  }
  return true;
}

/** A frame's header is there: false when it cannot be. */
bool Connections::begin(Socket& socket) {
  std::string problem = "sent what is no frame";
  if (socket.frame.magic == frameMagic && socket.frame.type <= takenFrame) {
    problem = handler_.begin(socket.peer, socket.frame, socket.into);
  }
  if (!problem.empty()) {
    handler_.refused(socket.peer, problem);
    return false;
  }
  socket.text.clear();
  return true;
}

/** A frame is there as a whole. */
void Connections::arrived(Socket& socket) {
  const Frame frame = socket.frame;
  const std::shared_ptr<Incoming> into = std::move(socket.into);
  std::string text = std::move(socket.text);
  socket.into.reset();
  socket.text.clear();
  socket.gotFrame = socket.gotText = socket.gotData = 0;
  handler_.arrived(socket.peer, frame, std::move(text), into);
}

/** False when the connection has ended. */
bool Connections::writeTo(Socket& socket, bool& more) {
  size_t budget = turnBytes;
  while (!handler_.halted()) {
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
      await(socket);
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
    if (of) handler_.wrote(socket.peer, bytes, of);
  }
  return true;
}

void Connections::close(Socket& socket, const std::string& why) {
  socket.closed = true;
  {
    std::deque<Socket::Piece> dropped;
    const std::lock_guard lock(socket.mutex);
    socket.gone = true;
    dropped.swap(socket.queue);
  }
  ::epoll_ctl(epoll_, EPOLL_CTL_DEL, socket.fd, nullptr);
  if (!ending_) handler_.ended(socket.peer, why);
}

}  // namespace tandem

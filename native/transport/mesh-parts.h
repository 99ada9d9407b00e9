// What a mesh is made of inside: frames, connections, threads. For mesh.cc and mesh-io.cc alone.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "mesh.h"

namespace tandem {

constexpr uint32_t frameMagic = 0x4d444e54;
constexpr uint64_t noteBytesMax = uint64_t{1} << 30;
constexpr uint64_t textBytesMax = 4096;
/** Data are cut so, to be spread over a peer's connections. */
constexpr size_t segmentBytes = size_t{512} << 10;

/** The part of a collective by which a rank only says that it is there. */
constexpr uint32_t herePart = UINT32_MAX;

enum FrameType : uint8_t { heartbeatFrame, readyFrame, dataFrame, noteFrame, faultFrame, byeFrame };

inline uint64_t textMaxOf(uint8_t type) { return type == noteFrame ? noteBytesMax : textBytesMax; }

inline int64_t monotonicNanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

inline int64_t nanosecondsOf(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

/** What goes before everything on a connection; all processes of a job have one byte order. */
struct Mesh::Frame {
  uint32_t magic = frameMagic;
  uint8_t type = heartbeatFrame;
  /** fault: its kind. */
  uint8_t kind = 0;
  uint16_t unused = 0;
  TransferKey key;
  uint32_t unused2 = 0;
  /** data: where the bytes belong; ready: the digest; fault: the rank at fault. */
  uint64_t offset = 0;
  /** Bytes of the message: of data, or of a transfer that is awaited. */
  uint64_t length = 0;
  /** Bytes of text behind the frame. */
  uint64_t textBytes = 0;
};

/** A message on its way out of, or into, memory that an exchange's owner lends. */
template <typename Byte>
struct Mesh::Transfer {
  Transfer(Exchange* exchange, Byte* data, size_t bytes, size_t tally)
      : exchange(exchange), data(data), bytes(bytes), tally(tally), left(bytes) {}
  Exchange* const exchange;
  Byte* const data;
  const size_t bytes;
  const size_t tally;
  std::atomic<size_t> left;

  /** True for whoever moved the last of it. */
  bool moved(size_t more) { return left.fetch_sub(more) == more; }

  /** Of what comes, under the mesh's lock: false unless these are a segment, for the first time. */
  bool begins(uint64_t offset, uint64_t length) {
    if (offset >= bytes || offset % segmentBytes != 0 || length != std::min<uint64_t>(segmentBytes, bytes - offset)) return false;
    if (begun.empty()) begun.resize((bytes + segmentBytes - 1) / segmentBytes);
    const size_t segment = offset / segmentBytes;
    if (begun[segment]) return false;
    begun[segment] = true;
    return true;
  }
  std::vector<bool> begun;
};

struct Mesh::Socket {
  struct Piece {
    Frame frame;
    std::string text;
    const char* data = nullptr;
    size_t dataBytes = 0;
    size_t sent = 0;
    std::shared_ptr<Outgoing> of;
  };

  int fd = -1;
  int peer = -1;
  bool control = false;
  Reactor* reactor = nullptr;
  bool closed = false;
  bool blocked = false;
  /** What came was no frame: nothing more is read. */
  bool deaf = false;

  std::mutex mutex;
  std::deque<Piece> queue;

  // The frame that is being read, and what of it has come.
  Frame frame;
  size_t gotFrame = 0;
  std::string text;
  size_t gotText = 0;
  std::shared_ptr<Incoming> into;
  size_t gotData = 0;
};

struct Mesh::Reactor {
  int epoll = -1;
  int wake = -1;
  bool control = false;
  std::vector<Socket*> sockets;
  std::thread thread;

  ~Reactor() {
    if (epoll >= 0) ::close(epoll);
    if (wake >= 0) ::close(wake);
  }
  void poke() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake, &one, sizeof one);
  }
};

struct Mesh::Peer {
  std::vector<std::unique_ptr<Socket>> sockets;
  std::atomic<int64_t> heard{0};
  /** When a connection ended without a goodbye; 0 while none has. */
  std::atomic<int64_t> suspect{0};
  std::atomic<bool> left{false};
  std::atomic<uint64_t> sentBytes{0};
  std::atomic<uint64_t> receivedBytes{0};

  ~Peer() {
    for (auto& socket : sockets) {
      if (socket->fd >= 0) ::close(socket->fd);
    }
  }
};

}  // namespace tandem

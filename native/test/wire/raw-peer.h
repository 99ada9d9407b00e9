// A peer that says what it likes: joins a mesh as any rank does, and then writes bytes as they are. The frame is written down
// here once more, so that a change of what goes over the wire is noticed.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../../transport/handshake.h"
#include "../../transport/mesh.h"

namespace tandem {

inline std::atomic<int> checks{0};

inline void check(bool holds, const std::string& what) {
  checks++;
  if (holds) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

/** What goes over a connection at once, of a message that is longer. */
constexpr size_t segment = size_t{512} << 10;

struct RawFrame {
  uint32_t magic = 0x4d444e54;
  uint8_t type = 0;
  uint8_t kind = 0;
  uint16_t unused = 0;
  uint32_t communicator = 0;
  uint32_t position = 0;
  uint32_t part = 0;
  uint32_t unused2 = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t textBytes = 0;
};
static_assert(sizeof(RawFrame) == 48, "as on the wire");

enum RawType : uint8_t { rawHeartbeat, rawReady, rawData, rawNote, rawFault, rawBye, rawLent, rawTaken };

inline std::string bytesOf(const RawFrame& frame, const std::string& behind = "") {
  return std::string(reinterpret_cast<const char*>(&frame), sizeof frame) + behind;
}

inline std::string textFrame(RawFrame frame, const std::string& text) {
  frame.textBytes = text.size();
  return bytesOf(frame, text);
}

/** A mesh of two, of which rank 0 is real. */
class Besieged {
 public:
  static constexpr int streams = 2;

  Besieged() {
    MeshOptions options;
    options.size = 2;
    options.streams = streams;
    options.heartbeatSeconds = 0.2;
    mesh = std::make_unique<Mesh>(options);
    int port = 0;
    const int listener = listenOn("127.0.0.1", port);
    const std::vector<Address> addresses = {{"127.0.0.1", mesh->port()}, {"127.0.0.1", port}};
    std::thread accepting([&] { mesh->connect(addresses, "key", 10); });
    options.rank = 1;
    fds = joinPeers(listener, options, "key", 1 + streams, addresses, 10)[0];
    accepting.join();
  }
  ~Besieged() {
    for (const int fd : fds) ::close(fd);
  }

  /** Writes to one of its connections, of which 0 is for words; false once the other end takes no more. */
  bool write(size_t connection, const std::string& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n = ::send(fds[connection], bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n > 0) {
        sent += static_cast<size_t>(n);
        continue;
      }
      if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
      // Whoever has heard enough reads no more.
      pollfd one{fds[connection], POLLOUT, 0};
      if (::poll(&one, 1, mesh->failed() ? 1 : 1000) == 0 && mesh->failed()) return false;
    }
    return true;
  }

  /** What the mesh has said of late by words: the first frame of that type, and its text; empty where none comes in time. */
  std::string heard(RawType type) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(3);
    std::string bytes;
    char buffer[4096];
    while (std::chrono::steady_clock::now() < deadline) {
      pollfd one{fds[0], POLLIN, 0};
      ::poll(&one, 1, 50);
      const ssize_t n = ::recv(fds[0], buffer, sizeof buffer, 0);
      if (n == 0) return "";
      if (n > 0) bytes.append(buffer, static_cast<size_t>(n));
      for (size_t at = 0; at + sizeof(RawFrame) <= bytes.size();) {
        RawFrame frame;
        std::memcpy(&frame, bytes.data() + at, sizeof frame);
        if (at + sizeof frame + frame.textBytes > bytes.size()) break;
        if (frame.type == type) return bytes.substr(at, sizeof frame + frame.textBytes);
        at += sizeof frame + frame.textBytes;
      }
    }
    return "";
  }

  /** The fault, once there is one; fails the test where none comes. */
  MeshFault fault(const std::string& what) const {
    for (int i = 0; i < 500 && !mesh->failed(); i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    check(mesh->failed(), what + ": a fault");
    return *mesh->fault();
  }

  std::unique_ptr<Mesh> mesh;
  std::vector<int> fds;
};

/** Frames and hellos at random, mostly right ones that were changed: `frames` of them. */
void fuzz(int frames, unsigned seed);

/** Memory that neighbours read of each other (lending.cc). */
void lending();

/** UCX where something is wrong (ucx.cc). */
void overUcx();

}  // namespace tandem

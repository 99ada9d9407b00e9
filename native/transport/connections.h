// Framed connections to peers over TCP, one to each, served by one thread that sleeps until there is something to do. What frames are
// about is their handler's affair.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "carrier.h"

namespace tandem {

constexpr uint32_t frameMagic = 0x4d444e54;

/** Among data, `lent` stands for bytes that the receiver can read where they lie, and `taken` answers it. */
enum FrameType : uint8_t { heartbeatFrame, readyFrame, dataFrame, noteFrame, faultFrame, byeFrame, lentFrame, takenFrame };

/** What goes before everything on a connection; all processes of a job have one byte order. */
struct Frame {
  uint32_t magic = frameMagic;
  uint8_t type = heartbeatFrame;
  /** fault: its kind; taken: 1 where it cannot be read there, and is to be sent. */
  uint8_t kind = 0;
  uint16_t unused = 0;
  TransferKey key;
  /** ready: by which the receiver knows the transfer. */
  uint32_t ticket = 0;
  /** data, lent, taken: where in the message the bytes belong; ready: the digest; fault: the rank at fault. */
  uint64_t offset = 0;
  /** Bytes of the message: of data, or of a transfer that is awaited. */
  uint64_t length = 0;
  /** Bytes of text behind the frame; of lent, where the bytes lie in its sender's memory (lent-memory.h), 8 of them. */
  uint64_t textBytes = 0;
};

inline int64_t monotonicNanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class Connections {
 public:
  /** Called by the thread that serves the connections. */
  class Handler {
   public:
    virtual ~Handler() = default;
    /** A frame's header has come: what is wrong with it, nothing for "". Of data, says where they belong. */
    virtual std::string begin(int peer, const Frame& frame, std::shared_ptr<Incoming>& into) = 0;
    /** A frame has come as a whole, with its text or its data. */
    virtual void arrived(int peer, const Frame& frame, std::string text, const std::shared_ptr<Incoming>& into) = 0;
    /** Bytes have been read, so many of them data; data of a message have been written. */
    virtual void read(int peer, size_t dataBytes) = 0;
    virtual void wrote(int peer, size_t dataBytes, const std::shared_ptr<Outgoing>& of) = 0;
    /** The connection has ended. */
    virtual void ended(int peer, const std::string& why) = 0;
    /** What came is no frame, or there is no memory for it: nothing more is read of that connection. */
    virtual void refused(int peer, const std::string& problem) = 0;
    virtual void noMemory(int peer) = 0;
    /** After a fault nothing is queued any more; and `halted` means that nothing is read or written either. */
    virtual bool faulted() const = 0;
    virtual bool halted() const = 0;
    /** Now and then, at least every tick. */
    virtual void turn(int64_t now) = 0;
    /** The thread touches nothing any more. */
    virtual void over() = 0;
  };

  /** Takes over file descriptors, by peer, -1 for none. What the system refuses meanwhile is `start`'s to say. */
  Connections(Handler& handler, const std::vector<int>& fds, int64_t tickNanoseconds);
  /** Ends the thread: what is queued has left, or had its time. */
  ~Connections();
  Connections(const Connections&) = delete;
  Connections& operator=(const Connections&) = delete;

  /** Throws std::runtime_error where the system has no event queue or thread for it. */
  void start();
  /** `data` may be null; else `frame.length` bytes of the message `of`, which live until they are written. */
  void enqueue(int peer, const Frame& frame, std::string text, const char* data, const std::shared_ptr<Outgoing>& of);
  /** How many frames wait for that peer. */
  size_t queued(int peer);
  void poke() const;
  /** Ends the thread once what is queued has left, or after a second. */
  void end();
  void join();

 private:
  struct Socket;

  void run();
  static bool owes(Socket& socket);
  void serve(Socket& socket, uint32_t events, bool& more);
  void await(Socket& socket) const;
  bool readFrom(Socket& socket, bool& more);
  bool begin(Socket& socket);
  void arrived(Socket& socket);
  bool writeTo(Socket& socket, bool& more);
  void close(Socket& socket, const std::string& why);

  Handler& handler_;
  const int64_t tickNanoseconds_;
  /** The rank itself: whom there is no connection to. */
  int rank_ = 0;
  int epoll_ = -1;
  int wake_ = -1;
  /** By peer; none for the rank itself. */
  std::vector<std::unique_ptr<Socket>> sockets_;
  /** Who is written to in which order: from the peer behind the own rank on, round. */
  std::vector<Socket*> inTurn_;
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

}  // namespace tandem

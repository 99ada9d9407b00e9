// What carries messages between ranks once both ends are ready, below a mesh (mesh.h): TCP or UCX. Who sends what to whom, whether
// anybody lives, and what goes wrong elsewhere is the mesh's affair.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

namespace tandem {

class Exchange;

/**
 * Messages are cut so where they are spread over connections. Assumed: in a trial that is not kept, half of it and twice as much took
 * as much processor time, within what repeats differed.
 */
constexpr size_t segmentBytes = size_t{512} << 10;
/**
 * Messages of collectives are so long, where there is more to send: what is added while the next is on its way. Assumed, as
 * segments are.
 */
constexpr size_t chunkBytes = 2 * segmentBytes;
/** Tickets of transfers are lower. */
constexpr uint32_t ticketsMax = UINT32_MAX - 16;

/** Names one transfer between two ranks: a communicator, a collective of it, a part of that. */
struct TransferKey {
  uint32_t communicator = 0;
  uint32_t position = 0;
  uint32_t part = 0;
  bool operator<(const TransferKey& other) const {
    return std::tie(communicator, position, part) < std::tie(other.communicator, other.position, other.part);
  }
};

/** A message on its way out of, or into, memory that an exchange's owner lends. */
template <typename Byte>
struct Transfer {
  Transfer(Exchange* exchange, Byte* data, size_t bytes, size_t tally)
      : exchange(exchange), data(data), bytes(bytes), tally(tally), left(bytes) {}
  Exchange* const exchange;
  Byte* const data;
  const size_t bytes;
  const size_t tally;
  std::atomic<size_t> left;

  /** True for whoever moved the last of it. */
  bool moved(size_t more) { return left.fetch_sub(more) == more; }

  /** Of what comes, under the owner's lock: false unless these are a segment, for the first time. */
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
using Outgoing = Transfer<const char>;
using Incoming = Transfer<char>;

class Carrier {
 public:
  /** Whoever has a carrier, as its threads speak to them. */
  class Owner {
   public:
    virtual ~Owner() = default;
    /** The message whose segment comes; null where nobody awaits it. */
    virtual std::shared_ptr<Incoming> awaited(int peer, const TransferKey& key, uint64_t offset, uint64_t length) = 0;
    /** A message has left, its memory is the sender's again; or has come as a whole. */
    virtual void sent(const std::shared_ptr<Outgoing>& outgoing) = 0;
    virtual void received(int peer, const TransferKey& key, const std::shared_ptr<Incoming>& incoming) = 0;
    /** Something has come of that peer. */
    virtual void heard(int peer) = 0;
    /** There is no way to that peer any more; it may have ended well. `why`: what it did ("has gone away"), should it have not. */
    virtual void cutOff(int peer, const std::string& why) = 0;
    /** That peer does what it must not. */
    virtual void refuse(int peer, const std::string& what) = 0;
    /** No thread touches anybody's memory any more; told before or after `halt`. */
    virtual void still() = 0;
  };

  explicit Carrier(int size) : sent_(static_cast<size_t>(size)), received_(static_cast<size_t>(size)) {}
  /** Ends its threads. */
  virtual ~Carrier() = default;
  Carrier(const Carrier&) = delete;
  Carrier& operator=(const Carrier&) = delete;

  /** Begins what has not begun yet. Throws std::exception. */
  virtual void start() {}
  /** Memory for a message is ready; its sender learns of it, and of the ticket, after this. No two that are open have one ticket. */
  virtual void receive(int peer, const TransferKey& key, uint32_t ticket, const std::shared_ptr<Incoming>& incoming) = 0;
  /** The receiver has said that it is ready. */
  virtual void send(int peer, const TransferKey& key, uint32_t ticket, const std::shared_ptr<Outgoing>& outgoing) = 0;
  /** Nothing moves from now on. Waits for nobody; from any thread. */
  virtual void halt() = 0;
  /** Whether nobody's memory is touched any more. */
  virtual bool isHalted() const = 0;
  /** What has been sent leaves, within a second or never. Nothing moves afterwards. */
  virtual void flush() = 0;

  /** Bytes of messages sent to and received from each peer so far, without frames. */
  uint64_t sentBytes(int peer) const { return sent_.at(static_cast<size_t>(peer)); }
  uint64_t receivedBytes(int peer) const { return received_.at(static_cast<size_t>(peer)); }

 protected:
  void countSent(int peer, size_t bytes) { sent_[static_cast<size_t>(peer)] += bytes; }
  void countReceived(int peer, size_t bytes) { received_[static_cast<size_t>(peer)] += bytes; }

 private:
  std::vector<std::atomic<uint64_t>> sent_;
  std::vector<std::atomic<uint64_t>> received_;
};

}  // namespace tandem

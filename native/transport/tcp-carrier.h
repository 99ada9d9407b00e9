// Messages between ranks over several TCP connections to each peer, in segments that are spread over them. Of what lies in memory that
// the peer can read, the connections only say where.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "carrier.h"
#include "connections.h"
#include "lent-memory.h"

namespace tandem {

/** Memory that ranks of one host read of each other. */
struct Neighbours {
  /** What this rank lends; null for nothing. */
  std::unique_ptr<LentPage> page;
  /** By peer: what it lends; null for those who do not read from this rank, or from whom this one does not. */
  std::vector<std::unique_ptr<BorrowedMemory>> memory;
};

class TcpCarrier : public Carrier, private Connections::Handler {
 public:
  /** Takes over open connections, by stream and peer, -1 for the rank itself. */
  TcpCarrier(Owner& owner, const std::vector<std::vector<int>>& streams, int64_t tickNanoseconds, Neighbours neighbours = {});
  ~TcpCarrier() override;

  void start() override;

  void receive(int, const TransferKey&, uint32_t, const std::shared_ptr<Incoming>&) override {}
  void send(int peer, const TransferKey& key, uint32_t ticket, const std::shared_ptr<Outgoing>& outgoing) override;
  void halt() override;
  bool isHalted() const override { return running_ == 0; }
  void flush() override;

 private:
  std::string begin(int peer, const Frame& frame, std::shared_ptr<Incoming>& into) override;
  void arrived(int peer, const Frame& frame, std::string text, const std::shared_ptr<Incoming>& into) override;
  void read(int peer, size_t dataBytes) override;
  void wrote(int peer, size_t dataBytes, const std::shared_ptr<Outgoing>& of) override;
  void ended(int peer, const std::string& why) override;
  void refused(int peer, const std::string& problem) override;
  void noMemory(int peer) override;
  bool faulted() const override { return halting_; }
  bool halted() const override { return halting_; }
  void turn(int64_t) override {}
  void over() override;

  void enqueue(size_t stream, int peer, const Frame& frame, const std::shared_ptr<Outgoing>& outgoing);
  void lent(int peer, const Frame& frame, const std::string& place);
  void taken(int peer, const Frame& frame);
  size_t streamOf(const Frame& frame) const;
  BorrowedMemory* memoryOf(int peer) const;

  Owner& owner_;
  const Neighbours neighbours_;
  std::vector<std::unique_ptr<Connections>> streams_;
  std::mutex mutex_;
  /** Segments that a peer has not taken yet: peer, transfer, and place in that. */
  std::map<std::tuple<int, TransferKey, uint64_t>, std::shared_ptr<Outgoing>> lent_;
  std::atomic<bool> halting_{false};
  std::atomic<size_t> running_{0};
};

}  // namespace tandem

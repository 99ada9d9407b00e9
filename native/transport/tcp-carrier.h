// Messages between ranks over several TCP connections to each peer, in segments that are spread over them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "carrier.h"
#include "connections.h"

namespace tandem {

class TcpCarrier : public Carrier, private Connections::Handler {
 public:
  /** Takes over open connections, by stream and peer, -1 for the rank itself. */
  TcpCarrier(Owner& owner, const std::vector<std::vector<int>>& streams, int64_t tickNanoseconds);
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

  Owner& owner_;
  std::vector<std::unique_ptr<Connections>> streams_;
  std::atomic<bool> halting_{false};
  std::atomic<size_t> running_{0};
};

}  // namespace tandem

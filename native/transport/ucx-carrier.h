// Messages between ranks over UCX (ucx-api.h): ranks of one host through shared memory, others by whatever UCX finds between them, RDMA
// or TCP. One thread makes all calls, and sleeps while there is nothing to do. Knows nothing of what the bytes mean.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "carrier.h"
#include "fd.h"
#include "ucx-api.h"
#include "ucx-way.h"
#include "until.h"

namespace tandem {

/** Where a rank is, in words of UCX. */
struct UcxAddress {
  /** Through memory that ranks of a host share; empty where that is not to be used. */
  std::string near;
  std::string far;
};

class UcxCarrier : public Carrier {
 public:
  /** `host`: the address of the interface to use. Throws NoUcx. */
  UcxCarrier(Owner& owner, int rank, int size, const std::string& host);
  ~UcxCarrier() override;

  const UcxAddress& address() const { return address_; }

  struct Peer {
    UcxAddress address;
    /** Both may read each other's memory. */
    bool near = false;
  };
  /**
   * Makes the way to all peers, given by rank, and sends something each way; throws NoUcx where a way breaks, where that does not
   * come, and soon where it is cancelled.
   */
  void connect(const std::vector<Peer>& peers, double timeoutSeconds, const Cancellation* by = nullptr);

  /** From now on the owner is told of ways that break. */
  void start() override;
  void receive(int peer, const TransferKey& key, uint32_t ticket, const std::shared_ptr<Incoming>& incoming) override;
  void send(int peer, const TransferKey& key, uint32_t ticket, const std::shared_ptr<Outgoing>& outgoing) override;
  void halt() override;
  bool isHalted() const override { return halted_.load(std::memory_order_acquire); }
  void flush() override;

 private:
  struct Message;
  struct End;

  void makeEnd(int peer, const Peer& to);
  void sendOnTrial(int peer);
  const End* brokenEnd() const;
  void add(std::unique_ptr<Message> message);
  void run();
  void take();
  void beginWaiting();
  void begin(Message* message);
  void ended(Message* message, ucx::Status status, size_t came);
  void broke(End& end, const std::string& how);
  bool progress() const;
  void sleep();
  bool hasUnderWay(const ucx::Way& way) const;
  void closeEnds(bool byForce, ucx::Way& way);
  void stop();
  void poke() const;

  static void onSent(void* request, ucx::Status status, void* message);
  static void onReceived(void* request, ucx::Status status, const ucx::TagInfo* info, void* message);
  static void onError(void* end, ucx::Endpoint endpoint, ucx::Status status);

  const ucx::Library& ucx_;
  Owner& owner_;
  const int rank_;
  UcxAddress address_;
  /** Of shared memory alone, and of everything. */
  std::unique_ptr<ucx::Way> near_;
  std::unique_ptr<ucx::Way> far_;
  std::vector<std::unique_ptr<End>> ends_;
  Fd epoll_;
  Fd wake_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Message>> added_;
  /** Messages of the trial that have not come or left yet, by peer. */
  std::vector<int> onTrial_;
  int onTrialInAll_ = 0;

  /** What UCX has, or waits for its turn; the thread's own. */
  std::unordered_set<Message*> open_;
  /** Messages that wait until UCX has fewer of their peers'. */
  size_t waiting_ = 0;
  /** What UCX is being told to receive just now. */
  Message* beginning_ = nullptr;
  std::thread thread_;
  /** Until all ranks have agreed on this: what goes wrong meanwhile is told to whoever connects, or nobody's business. */
  std::atomic<bool> trying_{true};
  std::atomic<bool> halting_{false};
  std::atomic<bool> flushing_{false};
  std::atomic<bool> halted_{false};
  /** What callbacks say from now on is nobody's business; the thread's own while that runs. */
  bool over_ = false;
};

}  // namespace tandem

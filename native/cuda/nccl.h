// The part of NCCL that collectives between processes need. The library is opened at run time, and nothing of it is needed to
// build. A communicator is joined by all members, launches for one lane, and never waits longer than the ranks live.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "../peers.h"

namespace tandem::cuda {

/** NCCL's numbers of dtypes and operations, as its documentation has them. */
enum class NcclType { byte = 1, float16 = 6, float32 = 7, bfloat16 = 9 };
enum class NcclReduce { sum = 0, average = 4 };

/** Why there is no NCCL; empty when there is. */
std::string ncclMissing();
/** "2.28.3", where there is one. */
std::string ncclVersion();

/** Calls of one launch; each throws OpFault where NCCL refuses. */
class NcclCalls {
 public:
  NcclCalls(void* communicator, cudaStream_t stream) : communicator_(communicator), stream_(stream) {}
  void allReduce(const void* from, void* to, int64_t count, NcclType type, NcclReduce reduce) const;
  /** `count` of each member's part. */
  void reduceScatter(const void* from, void* to, int64_t count, NcclType type, NcclReduce reduce) const;
  void allGather(const void* from, void* to, int64_t bytes) const;
  void broadcast(const void* from, void* to, int64_t bytes, int root) const;
  void send(const void* from, int64_t bytes, int member) const;
  void receive(void* to, int64_t bytes, int member) const;

 private:
  void* const communicator_;
  const cudaStream_t stream_;
};

class NcclCommunicator {
 public:
  NcclCommunicator(Peers& peers, Shared& shared, Circle circle, int device)
      : peers_(peers), shared_(shared), circle_(std::move(circle)), device_(device) {}
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  /**
   * Tells the others what is launched, and puts the calls into the stream as one launch; joins the others before the first one.
   * From the thread of the circle's lane. Throws OpFault.
   */
  void launch(cudaStream_t stream, const Meaning& meaning, const std::function<void(const NcclCalls&)>& calls);
  /** What went wrong since, if anything did. From any thread; does not wait. */
  std::optional<Fault> trouble();
  /** Ends what is under way, and everything that comes. From any thread but the lane's. */
  void abort();
  /** Lets go of the others, once nothing is under way. */
  void leave();
  /** Something launched has not ended on the GPU. While nothing is being launched. */
  bool busy() const;

 private:
  void join();
  /** Until NCCL has done what was asked. */
  void settle(const char* what, std::chrono::seconds patience);
  size_t own() const;

  Peers& peers_;
  Shared& shared_;
  const Circle circle_;
  const int device_;
  /** Held while NCCL is called. */
  std::mutex mutex_;
  std::atomic<void*> communicator_{nullptr};
  std::atomic<bool> ended_{false};
  uint32_t position_ = 0;
  std::deque<std::unique_ptr<Announcement>> announced_;
  cudaEvent_t last_ = nullptr;
};

}  // namespace tandem::cuda

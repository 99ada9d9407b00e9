// Collectives with ranks of other processes, over NCCL, as core/kernels/collectives.ts defines them. Lanes launch them in the order
// of the program, which is every rank's, and they overlap on the GPU. What goes wrong on one side ends the other.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "launch-order.h"
#include "nccl.h"
#include "stream.h"

namespace tandem::cuda {

/**
 * Whether NCCL adds 16-bit values of more than two members, which it rounds after each of them, as PyTorch has it. Not with
 * TANDEM_CUDA_NCCL_SUMS=0, on all ranks alike: then they are exchanged, added here and rounded once.
 */
bool narrowSumsByNccl();

class RemoteRanks {
 public:
  RemoteRanks(Peers& peers, Shared& shared, int device);
  /** Lets go of the others; the lanes have ended. */
  ~RemoteRanks();
  RemoteRanks(const RemoteRanks&) = delete;
  RemoteRanks& operator=(const RemoteRanks&) = delete;

  int size() const { return peers_.size(); }
  /** Throws BadCall. */
  std::unique_ptr<CudaTask> collective(const Call& call, size_t member);
  /** The machine is about to close: what is under way then will not end. */
  void closing();
  void wake();

 private:
  std::shared_ptr<NcclCommunicator> communicator(const Circle& circle);
  void watch();

  Peers& peers_;
  Shared& shared_;
  const int device_;
  const std::shared_ptr<LaunchOrder> order_;
  std::mutex mutex_;
  std::condition_variable woken_;
  std::map<Circle, std::shared_ptr<NcclCommunicator>> communicators_;
  bool cut_ = false;
  bool ending_ = false;
  std::thread watcher_;
};

}  // namespace tandem::cuda

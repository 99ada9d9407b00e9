// Collectives between ranks of one process, on one GPU or on several that reach each other's memory, as
// core/kernels/collectives.ts defines them: reductions add in float64 in group order, so their result is the reference's.
#pragma once

#include <memory>
#include <vector>

#include "../collective-call.h"
#include "communicator.h"
#include "stream.h"

namespace tandem::cuda {

class CollectiveTask : public CudaTask {
 public:
  CollectiveTask(const Call& call, std::shared_ptr<Communicator> communicator, size_t member);
  ~CollectiveTask() override;

  void run(Run& run) override;
  int64_t nextPosition() override { return communicator_->nextPosition(member_); }

 private:
  /** A tensor as it is sent: the values themselves, or a copy rounded for the wire. */
  struct Sent {
    View view;
    int64_t elements;
  };

  void send(const Launch& launch);
  void receive(const Launch& launch, const Meeting& meeting);
  void reduce(const Launch& launch, const Meeting& meeting, size_t index, int64_t from, int64_t count,
              const std::vector<View>& outs) const;
  void allToAll(const Launch& launch, const Meeting& meeting);

  const CollectiveCall call_;
  const std::shared_ptr<Communicator> communicator_;
  const size_t member_;
  std::vector<Sent> sent_;
  std::vector<void*> staged_;
  cudaEvent_t arrived_ = nullptr;
  cudaEvent_t done_ = nullptr;
};

}  // namespace tandem::cuda

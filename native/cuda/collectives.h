// Collectives between ranks of one process, on one GPU or on several that reach each other's memory, as
// core/kernels/collectives.ts defines them: reductions add in float64 in group order, so their result is the reference's.
#pragma once

#include <memory>
#include <string>
#include <vector>

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

  void checkAgainst(const CollectiveTask& first) const;
  void checkCounts(const Meeting& meeting) const;
  bool inPlace() const;
  void send(const Launch& launch);
  void receive(const Launch& launch, const Meeting& meeting);
  void reduce(const Launch& launch, const Meeting& meeting, size_t index, int64_t from, int64_t count,
              const std::vector<View>& outs) const;
  void allToAll(const Launch& launch, const Meeting& meeting);

  const std::string kernel_;
  const std::vector<Operand> inputs_;
  const std::vector<Operand> outputs_;
  const std::shared_ptr<Communicator> communicator_;
  const size_t member_;
  std::string wire_;
  bool average_ = false;
  int64_t root_ = 0;
  bool source_ = false;
  /** Text of the counts that all members must agree on; empty where parts are even. */
  std::string counts_;
  std::vector<int64_t> sendCounts_;
  std::vector<int64_t> receiveCounts_;
  std::vector<Sent> sent_;
  std::vector<void*> staged_;
  cudaEvent_t arrived_ = nullptr;
  cudaEvent_t done_ = nullptr;
};

bool isCollective(const std::string& kernel);
extern const std::vector<std::string> collectiveNames;

}  // namespace tandem::cuda

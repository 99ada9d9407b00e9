// One member's share of a collective with ranks of other processes: planned once, launched whenever its turn comes.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "launch-order.h"
#include "message.h"
#include "nccl.h"
#include "stream.h"

namespace tandem::cuda {

/** Scales of all tensors, if any has one. */
class Scales {
 public:
  Scales(const Launch& launch, const std::vector<Operand>& tensors, const std::vector<Encoding>& encodings)
      : scratch_(launch, any(encodings) ? 4 * tensors.size() : 0) {
    if (!any(encodings)) return;
    check(cudaMemsetAsync(scratch_.as<void>(), 0, 4 * tensors.size(), launch.stream), "cudaMemsetAsync");
    for (size_t i = 0; i < tensors.size(); i++) {
      if (!encodings[i].scaled) continue;
      scaleBlocks(launch, viewOf(tensors[i]), tensors[i].elements, std::max<int64_t>(1, tensors[i].elements),
                  {scratch_.as<float>() + i, Dtype::float32}, encodings[i].format);
    }
    data = scratch_.as<float>();
  }
  const float* data = nullptr;

 private:
  static bool any(const std::vector<Encoding>& encodings) {
    return std::any_of(encodings.begin(), encodings.end(), [](const Encoding& one) { return one.scaled; });
  }
  const Scratch scratch_;
};

/**
 * Takes one step or two: messages to and from the other members, and, where values are added, the sums to all. Reductions that
 * NCCL does are NCCL's: of float32 and of 16-bit values.
 */
class RemoteTask : public CudaTask {
 public:
  /** Throws BadCall. */
  RemoteTask(const Call& call, size_t member, std::shared_ptr<NcclCommunicator> communicator, std::shared_ptr<LaunchOrder> order,
             Peers& peers);

  int64_t nextPosition() override { return order_->take(); }
  void run(Run& run) override;

 private:
  using Body = std::function<void(const Launch&)>;

  void plan(const Call& call);
  void planReduction(const Call& call);
  void planGather(const Call& call);
  void planBroadcast(const Call& call);
  void planExchange(const std::vector<Spans>& sends, const std::vector<Spans>& receives, bool alike);
  Body reduceOnOwn(const std::vector<Spans>& sends, const Spans& own, double over) const;
  Body gatherShares(const std::vector<Spans>& shares, const std::vector<Encoding>& encodings) const;
  Body reduceEverything(double over) const;
  void gatherEqual(const NcclCalls& calls, char* at, int64_t each) const;
  bool reducedByNccl() const;
  Body reduceByNccl(bool scatters, double over) const;
  Body scatterOneByOne(NcclType type, NcclReduce how) const;
  bool oneByOne() const;

  /** A member's equal share of all values, in pieces of so many that every encoding has whole bytes. */
  Spans share(const std::vector<Operand>& tensors, size_t member) const;

  void launch(const Launch& launch, const std::function<void(const NcclCalls&)>& calls) const {
    communicator_->launch(launch.stream, meaning_, calls);
  }

  const std::string kernel_;
  const std::vector<Operand> inputs_;
  const std::vector<Operand> outputs_;
  const size_t members_;
  const size_t own_;
  const std::string wire_;
  const Meaning meaning_;
  const std::shared_ptr<NcclCommunicator> communicator_;
  const std::shared_ptr<LaunchOrder> order_;
  Peers& peers_;
  /** What all get of all goes from each to each, rather than around. */
  const bool sendsAll_;
  std::vector<Encoding> encodings_;
  /** An output lies where an input does. Known here alone: whatever members must do alike cannot depend on it. */
  bool overwrites_ = false;
  Body body_;
};

/** Rows of each member, where the call may say them; else as many of each. */
std::vector<int64_t> countsOf(const Call& call, size_t members, bool said);
bool isEven(const std::vector<int64_t>& counts);

}  // namespace tandem::cuda

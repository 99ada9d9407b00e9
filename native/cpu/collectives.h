// Collectives between ranks of one process, as core/kernels/collectives.ts defines them: reductions add in float64 in group
// order, so their result is the reference's bit for bit, whatever the timing.
#pragma once

#include <memory>
#include <vector>

#include "../collective-call.h"
#include "communicator.h"
#include "lane.h"

namespace tandem {

/** How one member takes part. */
class CollectiveTask : public CpuTask {
 public:
  CollectiveTask(const Call& call, std::shared_ptr<Communicator> communicator, size_t member);

  void run(Run& run) override;
  int64_t nextPosition() override { return communicator_->nextPosition(member_); }
  const void* meets() const override { return communicator_.get(); }
  size_t members() const override { return communicator_->group().members.size(); }

 private:
  /** A tensor as it is sent: the values themselves, or a copy rounded for the wire. */
  struct Sent {
    const void* data;
    Dtype dtype;
    int64_t elements;
  };

  void take(Run& run);
  void begin(Meeting& meeting, int64_t now);
  /** Makes `sent_` of the inputs: after that and a barrier, others may read them. */
  void send();
  void receive(const Meeting& meeting);
  void allReduce(const Meeting& meeting);
  void allGather(const Meeting& meeting);
  void reduceScatter(const Meeting& meeting);
  void allToAll(const Meeting& meeting);
  void broadcast(const Meeting& meeting);
  void sendRecv(const Meeting& meeting);
  void reduceInto(const Meeting& meeting, size_t index, int64_t from, int64_t count,
                  const std::vector<void*>& outs, Dtype dtype);

  const CollectiveCall call_;
  const std::shared_ptr<Communicator> communicator_;
  const size_t member_;
  std::vector<Sent> sent_;
  std::vector<std::vector<float>> staged_;
};

}  // namespace tandem

// The machine of the cuda backend: its ranks, and what they share.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "stream.h"

namespace tandem::cuda {

class Communicator;
class CudaDevice;
class RemoteRanks;

class CudaMachine : public Machine {
 public:
  explicit CudaMachine(const MachineOptions& options);
  ~CudaMachine() override;

  Device& device(int rank) override;
  std::optional<Fault> fault() const override { return shared_.fault(); }
  void abort(const Fault& fault) override { shared_.fail(fault); }
  int64_t nowNanoseconds() const override { return shared_.now(); }

  Replays replays() const override;
  /** Null where nothing is replayed. */
  GraphCounts* graphCounts() { return graphs_ && !options_.timed ? &counts_ : nullptr; }

  std::shared_ptr<Communicator> communicator(const Group& group);
  /** Of the device, which is the current one. */
  std::shared_ptr<const Epoch> epoch(int device);
  void seeEnds();

  Shared& shared() { return shared_; }
  const MachineOptions& options() const { return options_; }
  /** Ranks of other processes; null where there are none. */
  RemoteRanks* remote() { return remote_.get(); }

 private:
  const MachineOptions options_;
  const bool graphs_;
  GraphCounts counts_;
  Shared shared_;
  std::mutex communicatorsMutex_;
  /** A group is its name and its ranks, in order. */
  std::map<std::pair<std::string, std::vector<int>>, std::shared_ptr<Communicator>> communicators_;
  std::map<int, std::shared_ptr<const Epoch>> epochs_;
  std::vector<std::unique_ptr<CudaDevice>> devices_;
  std::unique_ptr<RemoteRanks> remote_;
};

std::unique_ptr<Machine> open(const MachineOptions& options);

}  // namespace tandem::cuda

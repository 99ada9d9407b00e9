// The machine that the cpu backends are: how it runs its lanes and uses memory again is their difference.
#pragma once

#include <functional>
#include <memory>

#include "lane.h"

namespace tandem {

class Discipline {
 public:
  virtual ~Discipline() = default;
  /** Throws std::system_error when the system gives no thread. */
  virtual std::unique_ptr<Lane> lane(RankLanes& lanes, int lane, const std::function<void()>& onProgress) = 0;
  /** Host values are copied at once where nobody is in the way, and memory comes back only when its uses have ended. */
  virtual bool prompt() const { return true; }
  /** Something failed: what is queued has to pass. From any thread. */
  virtual void failed() {}
  /** Called by lanes that are not prompt, between two ops. */
  std::function<void()> betweenOps = [] {};
};

std::unique_ptr<Machine> openThreads(const MachineOptions& options, std::unique_ptr<Discipline> discipline);

/** The cpu backend, and the deferred one (deferred.h). */
Backend cpuBackend();
Backend deferredBackend();

}  // namespace tandem

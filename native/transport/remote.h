// Collectives between processes, as core/kernels/collectives.ts defines them. Whoever reduces adds in float64 in group order,
// so results are those of ranks in one process, bit for bit, whatever arrives first. Messages go straight from member to
// member, in chunks, so that adding and sending overlap.
#pragma once

#include "collective-plan.h"
#include "mesh.h"

namespace tandem {

/** One member's share of a collective, prepared once and run at each submission. */
class RemoteCollective {
 public:
  /** `member` is the own place in the call's group. Throws BadCall for a call that cannot be. */
  RemoteCollective(const Call& call, size_t member) : plan_(call, member) {}

  /**
   * Runs it as collective `position` of its communicator. Returns when this member's part is done and all members have come; throws
   * OpFault when the mesh failed. In place is allowed.
   */
  void run(Mesh& mesh, uint32_t communicator, uint32_t position) const;

 private:
  const CollectivePlan plan_;
};

}  // namespace tandem

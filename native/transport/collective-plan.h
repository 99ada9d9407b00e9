// One member's share of a collective between processes: what it is, what all members must say alike, and which values go to whom.
// Knows nothing of connections.
#pragma once

#include <string>
#include <vector>

#include "../collective-call.h"
#include "../spans.h"
#include "mesh.h"
#include "wire.h"

namespace tandem {

struct CollectivePlan : CollectiveCall {
  /** `member` is the own place in the call's group. Throws BadCall for a call that cannot be. */
  CollectivePlan(const Call& call, size_t member);

  /** A member's equal share of all values, tensor after tensor. */
  Spans share(const std::vector<Operand>& tensors, size_t member) const;
  /** What a member gets of each input of a reduce-scatter. */
  Spans scatterPart(size_t member) const;
  /** Where a member's values lie in each output of an all-gather. */
  Spans gatherPart(size_t member) const;
  /** All-to-all: what goes to a member, and where what comes from one lies. */
  Spans sentTo(size_t member) const;
  Spans receivedFrom(size_t member) const;
  /**
   * Whether every member of an all-reduce takes everything and adds for itself: where what is sent is much narrower than what comes
   * out that is fewer bytes than a share for each and the sums back, and of a short message between two as many in half the phases.
   */
  bool oneShot() const;
  /** The destination of a point-to-point message has no inputs: there what comes out says how it travels. */
  Packing sentAs(size_t tensor) const;
  /** How sums travel, or what is handed on as it is. */
  Packing summedAs(size_t tensor) const { return packingOf(outputs[tensor].dtype, ""); }

  /** The members' ranks. */
  const std::vector<int> ranks;
  /** The own place among the members. */
  const size_t own;
  /** What sums are divided by. */
  const double over;
  Meaning meaning;

 private:
  void checkSizes() const;
  void describe(const Call& call);
};

}  // namespace tandem

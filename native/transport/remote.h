// Collectives between processes, as core/kernels/collectives.ts defines them. Whoever reduces adds in float64 in group order,
// so results are those of ranks in one process, bit for bit, whatever arrives first. Messages go straight from member to
// member, in chunks, so that adding and sending overlap.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../backend.h"
#include "mesh.h"
#include "wire.h"

namespace tandem {

/** One member's share of a collective, prepared once and run at each submission. */
class RemoteCollective {
 public:
  /** `member` is the own place in the call's group. Throws BadCall for a call that cannot be. */
  RemoteCollective(const Call& call, size_t member);

  /**
   * Runs it as collective `position` of its group. Returns when all members were in place, on the mesh's clock
   * (monotonic nanoseconds); throws OpFault when the mesh failed. In place is allowed.
   */
  int64_t run(Mesh& mesh, uint32_t position) const;

  /** What all members must say alike. */
  const Meaning& meaning() const { return meaning_; }

 private:
  /** Values [from, from + count) of one of the op's tensors. */
  struct Span {
    size_t tensor;
    int64_t from;
    int64_t count;
  };
  using Spans = std::vector<Span>;
  class Run;

  void carryOut(Run& run) const;
  void checkSizes() const;
  void describe(const Call& call);
  Spans allOf(const std::vector<Operand>& tensors) const;
  Spans share(const std::vector<Operand>& tensors, size_t member) const;
  Spans scatterPart(size_t member) const;
  Spans gatherPart(size_t member) const;
  Spans sentTo(size_t member) const;
  Spans receivedFrom(size_t member) const;
  bool oneShot() const;

  const std::string kernel_;
  const std::vector<Operand> inputs_;
  const std::vector<Operand> outputs_;
  const std::vector<int> members_;
  const size_t member_;
  std::string wire_;
  double over_ = 1;
  size_t root_ = 0;
  bool source_ = false;
  std::vector<int64_t> counts_;
  std::vector<int64_t> sendCounts_;
  std::vector<int64_t> receiveCounts_;
  uint32_t communicator_ = 0;
  Meaning meaning_;
};

}  // namespace tandem

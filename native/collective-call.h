// A collective as one member calls it: read and checked once, and held to what the other members call. The same for ranks that meet in
// one process, for a plan between processes and for GPUs. Knows nothing of how values get anywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "backend.h"

namespace tandem {

/** The collectives' names. */
extern const std::vector<std::string> collectiveNames;
bool isCollective(const std::string& kernel);

/** A rank's place in the group of a collective, in a session of so many ranks. Throws BadCall where it has none. */
size_t memberOf(const Call& call, int rank, int ranks);

struct CollectiveCall {
  /** Throws BadCall for a call that cannot be. */
  explicit CollectiveCall(const Call& call);

  /** Whether any output is an input too. */
  bool inPlace() const;

  std::string kernel;
  std::vector<Operand> inputs;
  std::vector<Operand> outputs;
  /** Of how many. */
  size_t members;
  /** Empty where values travel as they are. */
  std::string wire;
  /** Sums are divided by the number of members. */
  bool averages = false;
  size_t root = 0;
  bool source = false;
  /** Rows of each member of an all-gather or a reduce-scatter; none where all have as many. */
  std::vector<int64_t> counts;
  /** Of an all-to-all, of and for each member. */
  std::vector<int64_t> sendCounts;
  std::vector<int64_t> receiveCounts;
};

/** What keeps these, one of each member of a group in its order, from being one collective; empty where nothing does. */
std::string contradictionOf(const std::string& group, const std::vector<const CollectiveCall*>& members);

}  // namespace tandem

#include "collective-call.h"

#include <algorithm>
#include <tuple>

namespace tandem {

const std::vector<std::string> collectiveNames = {"all_reduce", "all_gather", "reduce_scatter",
                                                  "all_to_all", "broadcast",  "send_recv"};

bool isCollective(const std::string& kernel) {
  return std::find(collectiveNames.begin(), collectiveNames.end(), kernel) != collectiveNames.end();
}

size_t memberOf(const Call& call, int rank, int ranks) {
  if (!call.group) throw BadCall(call.kernel + ": no group");
  const auto& members = call.group->members;
  const auto own = std::find(members.begin(), members.end(), rank);
  if (own == members.end()) {
    throw BadCall(call.kernel + ": rank " + std::to_string(rank) + " is not in group \"" + call.group->name + "\"");
  }
  for (const int member : members) {
    if (member >= 0 && member < ranks) continue;
    throw BadCall(call.kernel + ": group \"" + call.group->name + "\" has rank " + std::to_string(member) + "; the session has " +
                  std::to_string(ranks));
  }
  return static_cast<size_t>(own - members.begin());
}

CollectiveCall::CollectiveCall(const Call& call)
    : kernel(call.kernel),
      inputs(call.inputs),
      outputs(call.outputs),
      members(call.group->members.size()),
      wire(call.text("wire")) {
  if (wire == "float32") wire.clear();
  const std::vector<std::string> wires = {"", "bfloat16", "float16", "float8", "float4", "int8"};
  if (std::find(wires.begin(), wires.end(), wire) == wires.end()) throw BadCall(kernel + ": wire is \"" + wire + "\"");
  if (kernel == "all_reduce" || kernel == "reduce_scatter") {
    const std::string& reduce = call.text("reduce");
    if (reduce != "sum" && reduce != "avg") {
      throw BadCall(kernel + ": attribute \"reduce\" is \"" + reduce + "\"; expected \"sum\" or \"avg\"");
    }
    averages = reduce == "avg";
  }
  if (call.attributes.count("ranks") != 0 && call.integer("ranks") != static_cast<int64_t>(members)) {
    throw BadCall(kernel + ": attribute \"ranks\" is " + std::to_string(call.integer("ranks")) + " in a group of " +
                  std::to_string(members));
  }
  if (kernel == "all_gather" || kernel == "reduce_scatter") counts = call.rows("counts");
  if (kernel == "all_to_all") std::tie(sendCounts, receiveCounts) = call.rowsExchanged();
  if (kernel == "broadcast") {
    const int64_t from = call.integer("root");
    if (from < 0 || static_cast<size_t>(from) >= members) {
      throw BadCall("broadcast: root " + std::to_string(from) + " in a group of " + std::to_string(members));
    }
    root = static_cast<size_t>(from);
  }
  if (kernel == "send_recv") {
    source = call.flag("source");
    if (members != 2) throw BadCall("send_recv: expected a group of one source and one destination");
  } else if (inputs.size() != outputs.size()) {
    throw BadCall(kernel + ": " + std::to_string(inputs.size()) + " inputs and " + std::to_string(outputs.size()) + " outputs");
  }
}

bool CollectiveCall::inPlace() const {
  for (const Operand& in : inputs) {
    for (const Operand& out : outputs) {
      if (in.data == out.data) return true;
    }
  }
  return false;
}

namespace {

/** What sets a member's call apart from the first member's, another's or its own. */
std::string difference(const CollectiveCall& own, const CollectiveCall& first) {
  if (own.kernel != first.kernel) return "submitted " + own.kernel + ", member 0 " + first.kernel;
  if (own.averages != first.averages) return "reduces by another operation than member 0";
  if (own.root != first.root) return "has another root than member 0";
  if (own.kernel == "send_recv") {
    if (&own == &first) return "";
    if (own.source == first.source) return "is the same end of a send_recv as member 0";
    const auto& from = own.source ? own.inputs : first.inputs;
    const auto& to = own.source ? first.outputs : own.outputs;
    bool same = from.size() == to.size();
    for (size_t i = 0; same && i < from.size(); i++) same = from[i].elements == to[i].elements;
    return same ? "" : "does not have the sizes of the other end";
  }
  if (own.inputs.size() != first.inputs.size()) return "has another number of tensors than member 0";
  if (own.counts != first.counts) return "has other counts than member 0";
  if (own.kernel == "all_to_all" || (own.kernel == "all_gather" && !own.counts.empty())) return "";
  for (size_t i = 0; i < own.inputs.size(); i++) {
    if (own.inputs[i].elements == first.inputs[i].elements) continue;
    return "has " + std::to_string(own.inputs[i].elements) + " values at operand " + std::to_string(i) + ", member 0 " +
           std::to_string(first.inputs[i].elements);
  }
  return "";
}

}  // namespace

std::string contradictionOf(const std::string& group, const std::vector<const CollectiveCall*>& members) {
  for (size_t member = 0; member < members.size(); member++) {
    const std::string what = difference(*members[member], *members[0]);
    if (!what.empty()) return "group \"" + group + "\": member " + std::to_string(member) + " " + what;
  }
  for (size_t from = 0; members[0]->kernel == "all_to_all" && from < members.size(); from++) {
    for (size_t to = 0; to < members.size(); to++) {
      const int64_t sends = members[from]->sendCounts[to];
      const int64_t expects = members[to]->receiveCounts[from];
      if (sends == expects) continue;
      return "all_to_all: rank " + std::to_string(from) + " sends " + std::to_string(sends) + " rows to rank " + std::to_string(to) +
             ", which expects " + std::to_string(expects);
    }
  }
  return "";
}

}  // namespace tandem

// Which way each collective between processes goes, and a member's turn in the order of launches.
#include "remote-task.h"

#include <algorithm>

namespace tandem::cuda {

namespace {

bool overlap(const Operand& a, const Operand& b) {
  const auto start = [](const Operand& one) { return static_cast<const char*>(one.data); };
  const auto end = [&](const Operand& one) { return start(one) + one.elements * storedBytes(one.dtype); };
  return start(a) < end(b) && start(b) < end(a);
}

}  // namespace

std::vector<int64_t> countsOf(const Call& call, size_t members, bool said) {
  std::vector<int64_t> counts = said ? call.rows("counts") : std::vector<int64_t>();
  if (counts.empty()) counts.assign(members, 1);
  return counts;
}

bool isEven(const std::vector<int64_t>& counts) {
  return std::all_of(counts.begin(), counts.end(), [&](int64_t n) { return n == counts[0]; });
}

RemoteTask::RemoteTask(const Call& call, size_t member, std::shared_ptr<NcclCommunicator> communicator,
                       std::shared_ptr<LaunchOrder> order, Peers& peers)
    : kernel_(call.kernel),
      inputs_(call.inputs),
      outputs_(call.outputs),
      members_(call.group->members.size()),
      own_(member),
      wire_(call.text("wire")),
      meaning_(peers.meaningOf(call, member)),
      communicator_(std::move(communicator)),
      order_(std::move(order)),
      peers_(peers),
      sendsAll_(members_ == 2 || peers.areApart(call.group->members)) {
  const std::vector<Operand>& sent = inputs_.empty() ? outputs_ : inputs_;
  for (const Operand& tensor : sent) encodings_.push_back(encodingOf(tensor.dtype, wire_));
  for (const Operand& in : inputs_) {
    for (const Operand& out : outputs_) overwrites_ = overwrites_ || overlap(in, out);
  }
  plan(call);
}

void RemoteTask::run(Run& run) {
  if (!order_->await(run.position)) return;
  struct Passing {
    LaunchOrder& order;
    ~Passing() { order.passed(); }
  } passing{*order_};
  if (!peers_.enter()) return;
  struct Leaving {
    Peers& peers;
    ~Leaving() { peers.leave(); }
  } leaving{peers_};
  body_(run.launch);
}

void RemoteTask::plan(const Call& call) {
  std::vector<Spans> sends(members_);
  std::vector<Spans> receives(members_);
  if (kernel_ == "all_reduce" || kernel_ == "reduce_scatter") return planReduction(call);
  if (kernel_ == "all_gather") return planGather(call);
  if (kernel_ == "all_to_all") {
    const auto [sendCounts, receiveCounts] = call.rowsExchanged();
    for (size_t member = 0; member < members_; member++) {
      sends[member] = rowsOf(inputs_, sendCounts, member);
      receives[member] = rowsOf(outputs_, receiveCounts, member);
    }
    return planExchange(sends, receives, false);
  }
  if (kernel_ == "broadcast") return planBroadcast(call);
  // send_recv
  if (call.flag("source")) {
    sends[1 - own_] = allOf(inputs_);
  } else {
    receives[1 - own_] = allOf(outputs_);
  }
  planExchange(sends, receives, false);
}

/** Whether NCCL takes the tensors one by one, in one launch: they are few and large. By sizes that all members know. */
bool RemoteTask::oneByOne() const {
  const auto bytes = [&](size_t i) { return inputs_[i].elements * storedBytes(inputs_[i].dtype); };
  int64_t all = 0;
  for (size_t i = 0; i < inputs_.size(); i++) all += bytes(i);
  return inputs_.size() == 1 || worthPieces(inputs_.size(), all);
}

}  // namespace tandem::cuda

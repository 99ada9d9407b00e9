#include "collectives.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>

#include "ordered-sum.h"
#include "rounding.h"

namespace tandem {

const std::vector<std::string> collectiveNames = {"all_reduce", "all_gather", "reduce_scatter",
                                                  "all_to_all", "broadcast",  "send_recv"};

bool isCollective(const std::string& kernel) {
  return std::find(collectiveNames.begin(), collectiveNames.end(), kernel) != collectiveNames.end();
}

namespace {

int64_t sum(const std::vector<int64_t>& counts) { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }

/** Values cross from float to integer tensors only by mistake. */
void move(void* to, Dtype toDtype, const void* from, Dtype fromDtype, int64_t elements) {
  if (elements == 0) return;
  if (isInteger(toDtype) != isInteger(fromDtype)) throw BadCall("collective: integer and float tensors do not mix");
  if (to != from) std::memmove(to, from, static_cast<size_t>(elements) * 4);
  if (isInteger(toDtype)) {
    roundInPlace(static_cast<int32_t*>(to), elements, toDtype);
  } else if (toDtype != fromDtype) {
    roundInPlace(static_cast<float*>(to), elements, toDtype);
  }
}

void* offset(void* data, int64_t elements) { return static_cast<char*>(data) + elements * 4; }
const void* offset(const void* data, int64_t elements) { return static_cast<const char*>(data) + elements * 4; }

}  // namespace

CollectiveTask::CollectiveTask(const Call& call, std::shared_ptr<Communicator> communicator, size_t member)
    : kernel_(call.kernel),
      inputs_(call.inputs),
      outputs_(call.outputs),
      communicator_(std::move(communicator)),
      member_(member),
      wire_(call.text("wire")) {
  const size_t members = communicator_->group().members.size();
  if (wire_ == "float32") wire_.clear();
  if (!wire_.empty() && isInteger(dtypeNamed(wire_)) && wire_ != "int8") {
    throw BadCall(kernel_ + ": wire is \"" + wire_ + "\"");
  }
  if (kernel_ == "all_reduce" || kernel_ == "reduce_scatter") {
    const std::string& reduce = call.text("reduce");
    if (reduce != "sum" && reduce != "avg") {
      throw BadCall(kernel_ + ": attribute \"reduce\" is \"" + reduce + "\"; expected \"sum\" or \"avg\"");
    }
    average_ = reduce == "avg";
  }
  if (call.attributes.count("ranks") != 0 && call.integer("ranks") != static_cast<int64_t>(members)) {
    throw BadCall(kernel_ + ": attribute \"ranks\" is " + std::to_string(call.integer("ranks")) + " in a group of " +
                  std::to_string(members));
  }
  if (kernel_ == "all_gather" || kernel_ == "reduce_scatter") {
    call.rows("counts");
    counts_ = call.text("counts");
  }
  if (kernel_ == "all_to_all") std::tie(sendCounts_, receiveCounts_) = call.rowsExchanged();
  if (kernel_ == "broadcast") {
    root_ = call.integer("root");
    if (root_ < 0 || static_cast<size_t>(root_) >= members) {
      throw BadCall("broadcast: root " + std::to_string(root_) + " in a group of " + std::to_string(members));
    }
  }
  if (kernel_ == "send_recv") {
    source_ = call.flag("source");
    if (members != 2) throw BadCall("send_recv: expected a group of one source and one destination");
  }
  if (kernel_ != "send_recv" && inputs_.size() != outputs_.size()) {
    throw BadCall(kernel_ + ": " + std::to_string(inputs_.size()) + " inputs and " + std::to_string(outputs_.size()) +
                  " outputs");
  }
}

void CollectiveTask::run(Run& run) {
  try {
    take(run);
  } catch (const BadCall& error) {
    throw OpFault(FaultKind::collective, error.what());
  }
}

void CollectiveTask::take(Run& run) {
  const std::shared_ptr<Meeting> meeting = communicator_->meet(
      run.position, member_, *this, [&](Meeting& all) { begin(all, run.shared.now()); });
  if (!meeting) return;
  run.start = meeting->start;
  // Whatever happens, a member that has met comes to both barriers.
  std::string failed;
  try {
    send();
  } catch (const std::exception& error) {
    sent_.clear();
    failed = error.what();
  }
  meeting->barrier();
  try {
    if (failed.empty()) receive(*meeting);
  } catch (const std::exception& error) {
    failed = error.what();
  }
  // Nobody may overwrite what another still reads.
  meeting->barrier();
  communicator_->leave(run.position, *meeting);
  if (!failed.empty()) throw OpFault(FaultKind::collective, kernel_ + ": " + failed);
}

void CollectiveTask::begin(Meeting& meeting, int64_t now) {
  const CollectiveTask& first = *meeting.tasks[0];
  for (const CollectiveTask* task : meeting.tasks) task->checkAgainst(first);
  for (size_t from = 0; kernel_ == "all_to_all" && from < meeting.tasks.size(); from++) {
    for (size_t to = 0; to < meeting.tasks.size(); to++) {
      const int64_t sends = meeting.tasks[from]->sendCounts_[to];
      const int64_t expects = meeting.tasks[to]->receiveCounts_[from];
      if (sends == expects) continue;
      throw BadCall("all_to_all: rank " + std::to_string(from) + " sends " + std::to_string(sends) + " rows to rank " +
                    std::to_string(to) + ", which expects " + std::to_string(expects));
    }
  }
  meeting.start = now;
}

void CollectiveTask::checkAgainst(const CollectiveTask& first) const {
  const auto clash = [&](const std::string& what) {
    throw BadCall("group \"" + communicator_->group().name + "\": member " + std::to_string(member_) + " " + what);
  };
  if (kernel_ != first.kernel_) clash("submitted " + kernel_ + ", member 0 " + first.kernel_);
  if (average_ != first.average_) clash("reduces by another operation than member 0");
  if (root_ != first.root_) clash("has another root than member 0");
  if (kernel_ == "send_recv") {
    if (this == &first) return;
    if (source_ == first.source_) clash("is the same end of a send_recv as member 0");
    const auto& from = source_ ? inputs_ : first.inputs_;
    const auto& to = source_ ? first.outputs_ : outputs_;
    bool same = from.size() == to.size();
    for (size_t i = 0; same && i < from.size(); i++) same = from[i].elements == to[i].elements;
    if (!same) clash("does not have the sizes of the other end");
    return;
  }
  if (inputs_.size() != first.inputs_.size()) clash("has another number of tensors than member 0");
  if (counts_ != first.counts_) clash("has other counts than member 0");
  if (kernel_ == "all_to_all" || (kernel_ == "all_gather" && !counts_.empty())) return;
  for (size_t i = 0; i < inputs_.size(); i++) {
    if (inputs_[i].elements == first.inputs_[i].elements) continue;
    clash("has " + std::to_string(inputs_[i].elements) + " values at operand " + std::to_string(i) + ", member 0 " +
          std::to_string(first.inputs_[i].elements));
  }
}

bool CollectiveTask::inPlace() const {
  for (const Operand& in : inputs_) {
    for (const Operand& out : outputs_) {
      if (in.data == out.data) return true;
    }
  }
  return false;
}

void CollectiveTask::send() {
  // An all-reduce reads and writes each element in one member alone, and a broadcast reads what it does not write.
  const bool stage = kernel_ != "all_reduce" && kernel_ != "broadcast" && inPlace();
  sent_.clear();
  staged_.resize(inputs_.size());
  for (size_t i = 0; i < inputs_.size(); i++) {
    const Operand& in = inputs_[i];
    const auto count = static_cast<size_t>(in.elements);
    if (!stage && (wire_.empty() || isInteger(in.dtype))) {
      sent_.push_back({in.data, in.dtype, in.elements});
      continue;
    }
    std::vector<float>& copy = staged_[i];
    copy.resize(count);
    if (count > 0) std::memcpy(copy.data(), in.data, count * 4);
    Dtype dtype = in.dtype;
    if (!wire_.empty() && !isInteger(in.dtype)) {
      // what arrives lies on no dtype's grid once a scale has multiplied it
      dtype = Dtype::float32;
      if (wire_ == "bfloat16" || wire_ == "float16") {
        roundInPlace(copy.data(), in.elements, dtypeNamed(wire_));
      } else {
        const Scaled format = wire_ == "float8" ? Scaled::float8 : wire_ == "float4" ? Scaled::float4 : Scaled::int8;
        const float scale = scaleOf(copy.data(), in.elements, format);
        float codes[sumTile];
        for (int64_t first = 0; first < in.elements; first += sumTile) {
          const int64_t part = std::min(sumTile, in.elements - first);
          codesOf(copy.data() + first, part, scale, format, codes);
          valuesOf(codes, part, scale, copy.data() + first);
        }
      }
    }
    sent_.push_back({copy.data(), dtype, in.elements});
  }
}

void CollectiveTask::receive(const Meeting& meeting) {
  for (const CollectiveTask* task : meeting.tasks) {
    if (task->sent_.size() != task->inputs_.size()) throw BadCall("a member could not send");
  }
  if (kernel_ == "all_reduce") return allReduce(meeting);
  if (kernel_ == "all_gather") return allGather(meeting);
  if (kernel_ == "reduce_scatter") return reduceScatter(meeting);
  if (kernel_ == "all_to_all") return allToAll(meeting);
  if (kernel_ == "broadcast") return broadcast(meeting);
  sendRecv(meeting);
}

/** Sums elements [from, from + count) of all members' tensors in group order, into every place of `outs`. */
void CollectiveTask::reduceInto(const Meeting& meeting, size_t index, int64_t from, int64_t count,
                                const std::vector<void*>& outs, Dtype dtype) {
  const double over = average_ ? static_cast<double>(meeting.tasks.size()) : 1;
  double sums[sumTile];
  for (int64_t at = 0; at < count; at += sumTile) {
    const int64_t size = std::min(sumTile, count - at);
    std::fill(sums, sums + size, 0.0);
    for (const CollectiveTask* task : meeting.tasks) {
      const Sent& sent = task->sent_[index];
      addTo(sums, offset(sent.data, from + at), size, isInteger(sent.dtype));
    }
    for (void* out : outs) storeSums(sums, size, over, dtype, offset(out, at));
  }
}

void CollectiveTask::allReduce(const Meeting& meeting) {
  // Each member reduces one part for all of them.
  const auto members = static_cast<int64_t>(meeting.tasks.size());
  const auto own = static_cast<int64_t>(member_);
  for (size_t index = 0; index < inputs_.size(); index++) {
    const int64_t elements = inputs_[index].elements;
    const int64_t from = elements * own / members;
    const int64_t count = elements * (own + 1) / members - from;
    // one member after another where their dtypes differ, for sums are rounded where they are stored
    for (const CollectiveTask* task : meeting.tasks) {
      if (task->outputs_[index].dtype != outputs_[index].dtype) throw BadCall("members' dtypes differ");
    }
    std::vector<void*> outs;
    for (const CollectiveTask* task : meeting.tasks) outs.push_back(offset(task->outputs_[index].data, from));
    reduceInto(meeting, index, from, count, outs, outputs_[index].dtype);
  }
}

void CollectiveTask::reduceScatter(const Meeting& meeting) {
  for (size_t index = 0; index < outputs_.size(); index++) {
    const Operand& out = outputs_[index];
    int64_t from = 0;
    for (size_t member = 0; member < member_; member++) from += meeting.tasks[member]->outputs_[index].elements;
    if (from + out.elements > inputs_[index].elements) throw BadCall("more values to scatter than there are");
    reduceInto(meeting, index, from, out.elements, {out.data}, out.dtype);
  }
}

void CollectiveTask::allGather(const Meeting& meeting) {
  for (size_t index = 0; index < outputs_.size(); index++) {
    int64_t at = 0;
    for (const CollectiveTask* task : meeting.tasks) {
      const Sent& sent = task->sent_[index];
      if (at + sent.elements > outputs_[index].elements) throw BadCall("more values than the output holds");
      move(offset(outputs_[index].data, at), outputs_[index].dtype, sent.data, sent.dtype, sent.elements);
      at += sent.elements;
    }
  }
}

void CollectiveTask::allToAll(const Meeting& meeting) {
  for (size_t index = 0; index < outputs_.size(); index++) {
    const Operand& out = outputs_[index];
    int64_t at = 0;
    for (const CollectiveTask* task : meeting.tasks) {
      const Sent& sent = task->sent_[index];
      const int64_t rows = sum(task->sendCounts_);
      const int64_t unit = rows == 0 ? 0 : sent.elements / rows;
      int64_t before = 0;
      for (size_t to = 0; to < member_; to++) before += task->sendCounts_[to];
      const int64_t count = task->sendCounts_[member_] * unit;
      if (at + count > out.elements) throw BadCall("more values than the output holds");
      move(offset(out.data, at), out.dtype, offset(sent.data, before * unit), sent.dtype, count);
      at += count;
    }
    if (at != out.elements) {
      throw BadCall("member " + std::to_string(member_) + " gets " + std::to_string(at) + " values into " +
                    std::to_string(out.elements));
    }
  }
}

void CollectiveTask::broadcast(const Meeting& meeting) {
  const CollectiveTask& root = *meeting.tasks[static_cast<size_t>(root_)];
  for (size_t index = 0; index < outputs_.size(); index++) {
    const Sent& sent = root.sent_[index];
    const Operand& out = outputs_[index];
    // The root's own tensor may be what the others read: it is left alone unless values change.
    if (out.data == sent.data) continue;
    move(out.data, out.dtype, sent.data, sent.dtype, sent.elements);
  }
}

void CollectiveTask::sendRecv(const Meeting& meeting) {
  if (source_) return;
  const CollectiveTask& other = *meeting.tasks[1 - member_];
  for (size_t index = 0; index < outputs_.size(); index++) {
    const Sent& sent = other.sent_[index];
    move(outputs_[index].data, outputs_[index].dtype, sent.data, sent.dtype, sent.elements);
  }
}

}  // namespace tandem

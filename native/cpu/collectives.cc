#include "collectives.h"

#include <algorithm>
#include <cstring>

#include "../spans.h"
#include "ordered-sum.h"
#include "rounding.h"

namespace tandem {

namespace {

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
    : call_(call), communicator_(std::move(communicator)), member_(member) {}

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
  if (!failed.empty()) throw OpFault(FaultKind::collective, call_.kernel + ": " + failed);
}

void CollectiveTask::begin(Meeting& meeting, int64_t now) {
  std::vector<const CollectiveCall*> calls;
  for (const CollectiveTask* task : meeting.tasks) calls.push_back(&task->call_);
  const std::string contradiction = contradictionOf(communicator_->group().name, calls);
  if (!contradiction.empty()) throw BadCall(contradiction);
  meeting.start = now;
}

void CollectiveTask::send() {
  // An all-reduce reads and writes each element in one member alone, and a broadcast reads what it does not write.
  const bool stage = call_.kernel != "all_reduce" && call_.kernel != "broadcast" && call_.inPlace();
  sent_.clear();
  staged_.resize(call_.inputs.size());
  for (size_t i = 0; i < call_.inputs.size(); i++) {
    const Operand& in = call_.inputs[i];
    const auto count = static_cast<size_t>(in.elements);
    if (!stage && (call_.wire.empty() || isInteger(in.dtype))) {
      sent_.push_back({in.data, in.dtype, in.elements});
      continue;
    }
    std::vector<float>& copy = staged_[i];
    copy.resize(count);
    if (count > 0) std::memcpy(copy.data(), in.data, count * 4);
    Dtype dtype = in.dtype;
    if (!call_.wire.empty() && !isInteger(in.dtype)) {
      // what arrives lies on no dtype's grid once a scale has multiplied it
      dtype = Dtype::float32;
      if (call_.wire == "bfloat16" || call_.wire == "float16") {
        roundInPlace(copy.data(), in.elements, dtypeNamed(call_.wire));
      } else {
        const Scaled format = call_.wire == "float8" ? Scaled::float8 : call_.wire == "float4" ? Scaled::float4 : Scaled::int8;
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
    if (task->sent_.size() != task->call_.inputs.size()) throw BadCall("a member could not send");
  }
  if (call_.kernel == "all_reduce") return allReduce(meeting);
  if (call_.kernel == "all_gather") return allGather(meeting);
  if (call_.kernel == "reduce_scatter") return reduceScatter(meeting);
  if (call_.kernel == "all_to_all") return allToAll(meeting);
  if (call_.kernel == "broadcast") return broadcast(meeting);
  sendRecv(meeting);
}

/** Sums elements [from, from + count) of all members' tensors in group order, into every place of `outs`. */
void CollectiveTask::reduceInto(const Meeting& meeting, size_t index, int64_t from, int64_t count,
                                const std::vector<void*>& outs, Dtype dtype) {
  const double over = call_.averages ? static_cast<double>(meeting.tasks.size()) : 1;
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
  for (size_t index = 0; index < call_.inputs.size(); index++) {
    const int64_t elements = call_.inputs[index].elements;
    const int64_t from = elements * own / members;
    const int64_t count = elements * (own + 1) / members - from;
    // one member after another where their dtypes differ, for sums are rounded where they are stored
    for (const CollectiveTask* task : meeting.tasks) {
      if (task->call_.outputs[index].dtype != call_.outputs[index].dtype) throw BadCall("members' dtypes differ");
    }
    std::vector<void*> outs;
    for (const CollectiveTask* task : meeting.tasks) outs.push_back(offset(task->call_.outputs[index].data, from));
    reduceInto(meeting, index, from, count, outs, call_.outputs[index].dtype);
  }
}

void CollectiveTask::reduceScatter(const Meeting& meeting) {
  for (size_t index = 0; index < call_.outputs.size(); index++) {
    const Operand& out = call_.outputs[index];
    int64_t from = 0;
    for (size_t member = 0; member < member_; member++) from += meeting.tasks[member]->call_.outputs[index].elements;
    if (from + out.elements > call_.inputs[index].elements) throw BadCall("more values to scatter than there are");
    reduceInto(meeting, index, from, out.elements, {out.data}, out.dtype);
  }
}

void CollectiveTask::allGather(const Meeting& meeting) {
  for (size_t index = 0; index < call_.outputs.size(); index++) {
    int64_t at = 0;
    for (const CollectiveTask* task : meeting.tasks) {
      const Sent& sent = task->sent_[index];
      if (at + sent.elements > call_.outputs[index].elements) throw BadCall("more values than the output holds");
      move(offset(call_.outputs[index].data, at), call_.outputs[index].dtype, sent.data, sent.dtype, sent.elements);
      at += sent.elements;
    }
  }
}

void CollectiveTask::allToAll(const Meeting& meeting) {
  for (size_t index = 0; index < call_.outputs.size(); index++) {
    const Operand& out = call_.outputs[index];
    int64_t at = 0;
    for (const CollectiveTask* task : meeting.tasks) {
      const Sent& sent = task->sent_[index];
      const int64_t rows = sumOf(task->call_.sendCounts);
      const int64_t unit = rows == 0 ? 0 : sent.elements / rows;
      int64_t before = 0;
      for (size_t to = 0; to < member_; to++) before += task->call_.sendCounts[to];
      const int64_t count = task->call_.sendCounts[member_] * unit;
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
  const CollectiveTask& root = *meeting.tasks[call_.root];
  for (size_t index = 0; index < call_.outputs.size(); index++) {
    const Sent& sent = root.sent_[index];
    const Operand& out = call_.outputs[index];
    // The root's own tensor may be what the others read: it is left alone unless values change.
    if (out.data == sent.data) continue;
    move(out.data, out.dtype, sent.data, sent.dtype, sent.elements);
  }
}

void CollectiveTask::sendRecv(const Meeting& meeting) {
  if (call_.source) return;
  const CollectiveTask& other = *meeting.tasks[1 - member_];
  for (size_t index = 0; index < call_.outputs.size(); index++) {
    const Sent& sent = other.sent_[index];
    move(call_.outputs[index].data, call_.outputs[index].dtype, sent.data, sent.dtype, sent.elements);
  }
}

}  // namespace tandem

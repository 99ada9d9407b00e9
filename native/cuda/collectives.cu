#include "collectives.h"

#include <algorithm>
#include <tuple>

#include "../spans.h"
#include "map.cuh"
#include "packing.cuh"

namespace tandem::cuda {

const std::vector<std::string> collectiveNames = {"all_reduce", "all_gather", "reduce_scatter",
                                                  "all_to_all", "broadcast",  "send_recv"};

bool isCollective(const std::string& kernel) {
  return std::find(collectiveNames.begin(), collectiveNames.end(), kernel) != collectiveNames.end();
}

namespace {

constexpr size_t mostMembers = 32;

/** Views of one tensor in all members, as a kernel takes them. */
struct Views {
  View at[mostMembers];
  int count = 0;
};

struct Reduce {
  Views inputs, outputs;
  int64_t from;
  double over;
  bool integers;
  __device__ void operator()(int64_t i) const {
    double sum = 0;
    for (int k = 0; k < inputs.count; k++) sum += getNumber(inputs.at[k], from + i);
    for (int k = 0; k < outputs.count; k++) setNumber(outputs.at[k], i, sum / over);
  }
};

/** The same for floats, eight at a time. */
struct ReducePacks {
  Views inputs, outputs;
  int64_t from, count;
  double over;
  __device__ void operator()(int64_t at) const {
    const int64_t i = at * pack;
    double sums[pack] = {};
    float values[pack];
    for (int k = 0; k < inputs.count; k++) {
      getPack(inputs.at[k], from + i, values);
#pragma unroll
      for (int j = 0; j < pack; j++) sums[j] += static_cast<double>(values[j]);
    }
#pragma unroll
    for (int j = 0; j < pack; j++) values[j] = static_cast<float>(sums[j] / over);
    for (int k = 0; k < outputs.count; k++) setPack(outputs.at[k], i, values);
  }
};

struct Move {
  View to, from;
  __device__ void operator()(int64_t i) const { copyElement(to, i, from, i); }
};

/** Values cross from float to integer tensors only by mistake. */
void move(const Launch& launch, const View& to, const View& from, int64_t elements) {
  if (elements == 0 || to.data == from.data) return;
  if (integral(to.dtype) != integral(from.dtype)) {
    throw OpFault(FaultKind::collective, "integer and float tensors do not mix");
  }
  if (to.dtype == from.dtype) {
    check(cudaMemcpyAsync(to.data, from.data, static_cast<size_t>(elements * storedBytes(to.dtype)), cudaMemcpyDefault,
                          launch.stream),
          "cudaMemcpyAsync");
  } else {
    each(launch, elements, Move{to, from});
  }
}

/** What arrives of a value that travels in a 16-bit format. */
struct RoundTo {
  View to, from;
  Dtype wire;
  __device__ void operator()(int64_t i) const {
    const float x = get(from, i);
    set(to, i, wire == Dtype::bfloat16 ? __bfloat162float(__float2bfloat16_rn(x)) : __half2float(__float2half_rn(x)));
  }
};

struct ThroughCode {
  View to, from, scale;
  Scaled format;
  __device__ void operator()(int64_t i) const {
    const float by = get(scale, 0);
    set(to, i, static_cast<float>(static_cast<double>(codeOf(get(from, i), by, format)) * static_cast<double>(by)));
  }
};

[[noreturn]] void refuse(const std::string& what) { throw OpFault(FaultKind::collective, what); }

}  // namespace

CollectiveTask::CollectiveTask(const Call& call, std::shared_ptr<Communicator> communicator, size_t member)
    : kernel_(call.kernel),
      inputs_(call.inputs),
      outputs_(call.outputs),
      communicator_(std::move(communicator)),
      member_(member),
      wire_(call.text("wire")) {
  const size_t members = communicator_->group().members.size();
  if (members > mostMembers) {
    throw BadCall(kernel_ + ": a group of " + std::to_string(members) + "; the cuda backend takes up to " +
                  std::to_string(mostMembers) + " in one process");
  }
  if (wire_ == "float32") wire_.clear();
  const std::vector<std::string> wires = {"", "bfloat16", "float16", "float8", "float4", "int8"};
  if (std::find(wires.begin(), wires.end(), wire_) == wires.end()) throw BadCall(kernel_ + ": wire is \"" + wire_ + "\"");
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
    throw BadCall(kernel_ + ": " + std::to_string(inputs_.size()) + " inputs and " + std::to_string(outputs_.size()) + " outputs");
  }
  check(cudaEventCreateWithFlags(&arrived_, cudaEventDisableTiming), "cudaEventCreate");
  check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate");
}

CollectiveTask::~CollectiveTask() {
  cudaEventDestroy(arrived_);
  cudaEventDestroy(done_);
}

void CollectiveTask::run(Run& run) {
  const Launch& launch = run.launch;
  const std::shared_ptr<Meeting> meeting = communicator_->at(run.position);
  // Staged copies go back in this stream's order, when all members have read them.
  struct Given {
    std::vector<void*>& staged;
    cudaStream_t stream;
    ~Given() {
      for (void* data : staged) cudaFreeAsync(data, stream);
      staged.clear();
    }
  } given{staged_, launch.stream};
  const auto order = [&](cudaEvent_t CollectiveTask::*event) {
    for (const CollectiveTask* task : meeting->tasks) {
      if (task != this) check(cudaStreamWaitEvent(launch.stream, task->*event, 0), "cudaStreamWaitEvent");
    }
  };
  send(launch);
  check(cudaEventRecord(arrived_, launch.stream), "cudaEventRecord");
  meeting->tasks[member_] = this;
  const bool met = meeting->arrive([&] {
    for (const CollectiveTask* task : meeting->tasks) task->checkAgainst(*meeting->tasks[0]);
    checkCounts(*meeting);
  });
  if (met) {
    order(&CollectiveTask::arrived_);
    receive(launch, *meeting);
    check(cudaEventRecord(done_, launch.stream), "cudaEventRecord");
    // nobody may overwrite what another still reads
    if (meeting->arrive([] {})) order(&CollectiveTask::done_);
  }
  // and nobody may reuse an event that another still has to wait for
  if (met) meeting->arrive([] {});
  communicator_->left(meeting);
}

void CollectiveTask::checkCounts(const Meeting& meeting) const {
  for (size_t from = 0; kernel_ == "all_to_all" && from < meeting.tasks.size(); from++) {
    for (size_t to = 0; to < meeting.tasks.size(); to++) {
      const int64_t sends = meeting.tasks[from]->sendCounts_[to];
      const int64_t expects = meeting.tasks[to]->receiveCounts_[from];
      if (sends == expects) continue;
      refuse("all_to_all: rank " + std::to_string(from) + " sends " + std::to_string(sends) + " rows to rank " +
             std::to_string(to) + ", which expects " + std::to_string(expects));
    }
  }
}

void CollectiveTask::checkAgainst(const CollectiveTask& first) const {
  const auto clash = [&](const std::string& what) {
    refuse("group \"" + communicator_->group().name + "\": member " + std::to_string(member_) + " " + what);
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

void CollectiveTask::send(const Launch& launch) {
  // An all-reduce reads and writes each element in one member alone, and a broadcast reads what it does not write.
  const bool stage = kernel_ != "all_reduce" && kernel_ != "broadcast" && inPlace();
  sent_.clear();
  for (const Operand& in : inputs_) {
    const bool rounded = !wire_.empty() && !isInteger(in.dtype);
    if (!stage && !rounded) {
      sent_.push_back({viewOf(in), in.elements});
      continue;
    }
    // what arrives lies on no dtype's grid once a scale has multiplied it
    const Dtype dtype = rounded ? Dtype::float32 : in.dtype;
    void* memory = nullptr;
    check(cudaMallocAsync(&memory, static_cast<size_t>(in.elements * storedBytes(dtype) + 256), launch.stream), "cudaMallocAsync");
    staged_.push_back(memory);
    const View copy = {memory, dtype};
    sent_.push_back({copy, in.elements});
    if (!rounded) {
      move(launch, copy, viewOf(in), in.elements);
    } else if (wire_ == "bfloat16" || wire_ == "float16") {
      each(launch, in.elements, RoundTo{copy, viewOf(in), wire_ == "bfloat16" ? Dtype::bfloat16 : Dtype::float16});
    } else {
      const Scaled format = wire_ == "float8" ? Scaled::float8 : wire_ == "float4" ? Scaled::float4 : Scaled::int8;
      const Scratch scratch(launch, sizeof(float));
      const View scale = {scratch.as<float>(), Dtype::float32};
      scaleBlocks(launch, viewOf(in), in.elements, std::max<int64_t>(1, in.elements), scale, format);
      each(launch, in.elements, ThroughCode{copy, viewOf(in), scale, format});
    }
  }
}

void CollectiveTask::reduce(const Launch& launch, const Meeting& meeting, size_t index, int64_t from, int64_t count,
                            const std::vector<View>& outs) const {
  Views inputs, outputs;
  bool floats = from % pack == 0;
  for (const CollectiveTask* task : meeting.tasks) inputs.at[inputs.count++] = task->sent_[index].view;
  for (const View& out : outs) outputs.at[outputs.count++] = out;
  for (int k = 0; k < inputs.count; k++) floats = floats && !integral(inputs.at[k].dtype);
  for (int k = 0; k < outputs.count; k++) {
    // a float takes part of a pack only from where packs begin
    floats = floats && !integral(outputs.at[k].dtype) && reinterpret_cast<uintptr_t>(outputs.at[k].data) % 32 == 0;
  }
  const double over = average_ ? static_cast<double>(meeting.tasks.size()) : 1;
  const int64_t whole = floats ? count / pack : 0;
  each(launch, whole, ReducePacks{inputs, outputs, from, count, over});
  const int64_t done = whole * pack;
  for (int k = 0; k < outputs.count; k++) outputs.at[k] = outputs.at[k].at(done);
  each(launch, count - done, Reduce{inputs, outputs, from + done, over, !floats});
}

void CollectiveTask::receive(const Launch& launch, const Meeting& meeting) {
  const auto own = static_cast<int64_t>(member_);
  const auto members = static_cast<int64_t>(meeting.tasks.size());
  if (kernel_ == "all_reduce") {
    // each member reduces one part for all of them
    for (size_t index = 0; index < inputs_.size(); index++) {
      const int64_t elements = inputs_[index].elements;
      const int64_t packs = ceilDiv(elements, pack);
      const int64_t from = std::min(elements, packs * own / members * pack);
      const int64_t to = std::min(elements, packs * (own + 1) / members * pack);
      std::vector<View> outs;
      for (const CollectiveTask* task : meeting.tasks) {
        if (task->outputs_[index].dtype != outputs_[index].dtype) refuse("members' dtypes differ");
        outs.push_back(viewOf(task->outputs_[index]).at(from));
      }
      reduce(launch, meeting, index, from, to - from, outs);
    }
  } else if (kernel_ == "reduce_scatter") {
    for (size_t index = 0; index < outputs_.size(); index++) {
      const Operand& out = outputs_[index];
      int64_t from = 0;
      for (size_t member = 0; member < member_; member++) from += meeting.tasks[member]->outputs_[index].elements;
      if (from + out.elements > inputs_[index].elements) refuse("more values to scatter than there are");
      reduce(launch, meeting, index, from, out.elements, {viewOf(out)});
    }
  } else if (kernel_ == "all_gather") {
    for (size_t index = 0; index < outputs_.size(); index++) {
      int64_t at = 0;
      for (const CollectiveTask* task : meeting.tasks) {
        const Sent& sent = task->sent_[index];
        if (at + sent.elements > outputs_[index].elements) refuse("more values than the output holds");
        move(launch, viewOf(outputs_[index]).at(at), sent.view, sent.elements);
        at += sent.elements;
      }
    }
  } else if (kernel_ == "all_to_all") {
    allToAll(launch, meeting);
  } else if (kernel_ == "broadcast") {
    const CollectiveTask& root = *meeting.tasks[static_cast<size_t>(root_)];
    for (size_t index = 0; index < outputs_.size(); index++) {
      move(launch, viewOf(outputs_[index]), root.sent_[index].view, root.sent_[index].elements);
    }
  } else if (!source_) {
    const CollectiveTask& other = *meeting.tasks[1 - member_];
    for (size_t index = 0; index < outputs_.size(); index++) {
      move(launch, viewOf(outputs_[index]), other.sent_[index].view, other.sent_[index].elements);
    }
  }
}

void CollectiveTask::allToAll(const Launch& launch, const Meeting& meeting) {
  for (size_t index = 0; index < outputs_.size(); index++) {
    const Operand& out = outputs_[index];
    int64_t at = 0;
    for (const CollectiveTask* task : meeting.tasks) {
      const Sent& sent = task->sent_[index];
      const int64_t rows = sumOf(task->sendCounts_);
      const int64_t unit = rows == 0 ? 0 : sent.elements / rows;
      int64_t before = 0;
      for (size_t to = 0; to < member_; to++) before += task->sendCounts_[to];
      const int64_t count = task->sendCounts_[member_] * unit;
      if (at + count > out.elements) refuse("more values than the output holds");
      move(launch, viewOf(out).at(at), sent.view.at(before * unit), count);
      at += count;
    }
    if (at != out.elements) {
      refuse("member " + std::to_string(member_) + " gets " + std::to_string(at) + " values into " + std::to_string(out.elements));
    }
  }
}

}  // namespace tandem::cuda

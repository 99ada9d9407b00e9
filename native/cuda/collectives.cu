#include "collectives.h"

#include <algorithm>

#include "../spans.h"
#include "map.cuh"
#include "packing.cuh"

namespace tandem::cuda {

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
    : call_(call), communicator_(std::move(communicator)), member_(member) {
  if (call_.members > mostMembers) {
    throw BadCall(call_.kernel + ": a group of " + std::to_string(call_.members) + "; the cuda backend takes up to " +
                  std::to_string(mostMembers) + " in one process");
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
    std::vector<const CollectiveCall*> calls;
    for (const CollectiveTask* task : meeting->tasks) calls.push_back(&task->call_);
    const std::string contradiction = contradictionOf(communicator_->group().name, calls);
    if (!contradiction.empty()) refuse(contradiction);
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

void CollectiveTask::send(const Launch& launch) {
  // An all-reduce reads and writes each element in one member alone, and a broadcast reads what it does not write.
  const bool stage = call_.kernel != "all_reduce" && call_.kernel != "broadcast" && call_.inPlace();
  sent_.clear();
  for (const Operand& in : call_.inputs) {
    const bool rounded = !call_.wire.empty() && !isInteger(in.dtype);
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
    } else if (call_.wire == "bfloat16" || call_.wire == "float16") {
      each(launch, in.elements, RoundTo{copy, viewOf(in), call_.wire == "bfloat16" ? Dtype::bfloat16 : Dtype::float16});
    } else {
      const Scaled format = call_.wire == "float8" ? Scaled::float8 : call_.wire == "float4" ? Scaled::float4 : Scaled::int8;
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
  const double over = call_.averages ? static_cast<double>(meeting.tasks.size()) : 1;
  const int64_t whole = floats ? count / pack : 0;
  each(launch, whole, ReducePacks{inputs, outputs, from, count, over});
  const int64_t done = whole * pack;
  for (int k = 0; k < outputs.count; k++) outputs.at[k] = outputs.at[k].at(done);
  each(launch, count - done, Reduce{inputs, outputs, from + done, over, !floats});
}

void CollectiveTask::receive(const Launch& launch, const Meeting& meeting) {
  const auto own = static_cast<int64_t>(member_);
  const auto members = static_cast<int64_t>(meeting.tasks.size());
  if (call_.kernel == "all_reduce") {
    // each member reduces one part for all of them
    for (size_t index = 0; index < call_.inputs.size(); index++) {
      const int64_t elements = call_.inputs[index].elements;
      const int64_t packs = ceilDiv(elements, pack);
      const int64_t from = std::min(elements, packs * own / members * pack);
      const int64_t to = std::min(elements, packs * (own + 1) / members * pack);
      std::vector<View> outs;
      for (const CollectiveTask* task : meeting.tasks) {
        if (task->call_.outputs[index].dtype != call_.outputs[index].dtype) refuse("members' dtypes differ");
        outs.push_back(viewOf(task->call_.outputs[index]).at(from));
      }
      reduce(launch, meeting, index, from, to - from, outs);
    }
  } else if (call_.kernel == "reduce_scatter") {
    for (size_t index = 0; index < call_.outputs.size(); index++) {
      const Operand& out = call_.outputs[index];
      int64_t from = 0;
      for (size_t member = 0; member < member_; member++) from += meeting.tasks[member]->call_.outputs[index].elements;
      if (from + out.elements > call_.inputs[index].elements) refuse("more values to scatter than there are");
      reduce(launch, meeting, index, from, out.elements, {viewOf(out)});
    }
  } else if (call_.kernel == "all_gather") {
    for (size_t index = 0; index < call_.outputs.size(); index++) {
      int64_t at = 0;
      for (const CollectiveTask* task : meeting.tasks) {
        const Sent& sent = task->sent_[index];
        if (at + sent.elements > call_.outputs[index].elements) refuse("more values than the output holds");
        move(launch, viewOf(call_.outputs[index]).at(at), sent.view, sent.elements);
        at += sent.elements;
      }
    }
  } else if (call_.kernel == "all_to_all") {
    allToAll(launch, meeting);
  } else if (call_.kernel == "broadcast") {
    const CollectiveTask& root = *meeting.tasks[call_.root];
    for (size_t index = 0; index < call_.outputs.size(); index++) {
      move(launch, viewOf(call_.outputs[index]), root.sent_[index].view, root.sent_[index].elements);
    }
  } else if (!call_.source) {
    const CollectiveTask& other = *meeting.tasks[1 - member_];
    for (size_t index = 0; index < call_.outputs.size(); index++) {
      move(launch, viewOf(call_.outputs[index]), other.sent_[index].view, other.sent_[index].elements);
    }
  }
}

void CollectiveTask::allToAll(const Launch& launch, const Meeting& meeting) {
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

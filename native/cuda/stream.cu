#include "stream.h"

#include <cstdint>
#include <string>
#include <utility>

namespace tandem::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
}

Scratch::Scratch(const Launch& launch, size_t bytes) : stream_(launch.stream) {
  if (bytes > 0) check(cudaMallocAsync(&data_, bytes, stream_), "cudaMallocAsync");
}

Scratch::~Scratch() {
  if (data_ != nullptr) cudaFreeAsync(data_, stream_);
}

namespace {

std::string describe(const FaultSlot& slot) {
  const std::string value = std::to_string(slot.value);
  const std::string limit = std::to_string(slot.limit);
  const std::string name = slot.kernel == nullptr ? "a kernel" : slot.kernel;
  switch (slot.kind) {
    case Wrong::token: return name + ": token " + value + " outside the vocabulary of " + limit;
    case Wrong::target: return name + ": target " + value + " outside the vocabulary of " + limit;
    case Wrong::expert: return name + ": expert " + value + " of " + limit;
    case Wrong::slot: return name + ": slot " + value + " of " + limit;
    case Wrong::row: return name + ": row " + value + " of " + limit;
    case Wrong::column: return name + ": column " + value + " of " + limit;
    case Wrong::counts: return name + ": counts of " + value + " for " + limit + " rows";
    case Wrong::gather:
    case Wrong::choice: return name + ": token " + value + " of " + limit;
    case Wrong::none: break;
  }
  return name + ": a fault without a kind";
}

}  // namespace

void RankState::look() {
  const volatile FaultSlot* slot = faults;
  if (slot->state != 2 || shared.faulted()) return;
  shared.fail({FaultKind::value, rank, faults->op, -1, describe(*faults)});
}

/** The quickest of a few tries: whatever comes between the host's clock and the GPU's is by how much they may differ. */
Epoch::Epoch(const Shared& shared) {
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  int64_t least = INT64_MAX;
  for (int attempt = 0; attempt < 20; attempt++) {
    cudaEvent_t candidate = nullptr;
    check(cudaEventCreate(&candidate), "cudaEventCreate");
    // read before, so that the GPU's times are never later than the host's
    const int64_t before = shared.now();
    check(cudaEventRecord(candidate, nullptr), "cudaEventRecord");
    check(cudaEventSynchronize(candidate), "cudaEventSynchronize");
    const int64_t took = shared.now() - before;
    if (took < least) {
      least = took;
      nanoseconds = before;
      std::swap(event, candidate);
    }
    if (candidate != nullptr) cudaEventDestroy(candidate);
  }
}

Epoch::~Epoch() {
  if (event != nullptr) cudaEventDestroy(event);
}

Lane::Lane(RankState& rank, int lane) : rank_(rank), lane_(lane) {
  check(cudaSetDevice(rank_.device), "cudaSetDevice");
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  thread_ = std::thread([this] { loop(); });
}

void Lane::finish() {
  {
    const std::lock_guard lock(queueMutex_);
    ending_ = true;
  }
  submitted_.notify_all();
  wake();
  if (thread_.joinable()) thread_.join();
  cudaStreamSynchronize(stream_);
}

Lane::~Lane() {
  finish();
  for (const Mark& mark : marks_) {
    cudaEventDestroy(mark.event);
    if (mark.start != nullptr) cudaEventDestroy(mark.start);
  }
  if (base_ != nullptr) cudaEventDestroy(base_);
  for (cudaEvent_t event : spare_) cudaEventDestroy(event);
  cudaStreamDestroy(stream_);
}

void Lane::submit(Item item) {
  {
    const std::lock_guard lock(queueMutex_);
    queue_.push_back(std::move(item));
  }
  submitted_.notify_one();
}

void Lane::loop() {
  cudaSetDevice(rank_.device);
  for (;;) {
    Item item;
    {
      std::unique_lock lock(queueMutex_);
      submitted_.wait(lock, [this] { return !queue_.empty() || ending_; });
      if (queue_.empty()) return;
      item = std::move(queue_.front());
      queue_.pop_front();
    }
    runOne(item);
  }
}

void Lane::runOne(const Item& item) {
  const bool timed = rank_.timed && !item.more && pointOf(opOf(item.at)) == item.at;
  Mark mark = {item.at, nullptr, nullptr, item.after, 0};
  try {
    for (size_t other = 0; other < laneCount; other++) {
      if (item.after[other] == noPoint || static_cast<int>(other) == lane_) continue;
      Lane* lane = rank_.lanes[other].get();
      if (lane != nullptr) lane->orderAfter(stream_, item.after[other]);
    }
    rank_.look();
    if (timed && !rank_.shared.faulted()) {
      mark.start = takeEvent();
      mark.launched = rank_.shared.now();
      check(cudaEventRecord(mark.start, stream_), "cudaEventRecord");
    }
    if (!rank_.shared.faulted()) {
      Run run{*this, {stream_, item.scaled ? item.scalars.data() : nullptr, {rank_.faults, opOf(item.at), nullptr}}, item.position};
      item.task->run(run);
      check(cudaGetLastError(), "a launch");
    }
    if (!item.more) {
      mark.event = takeEvent();
      check(cudaEventRecord(mark.event, stream_), "cudaEventRecord");
    }
  } catch (const OpFault& fault) {
    rank_.shared.fail({fault.kind, rank_.rank, opOf(item.at), fault.peer, fault.what()});
  } catch (const BadCall& bad) {
    rank_.shared.fail({FaultKind::value, rank_.rank, opOf(item.at), -1, bad.what()});
  } catch (const std::exception& error) {
    rank_.shared.fail({FaultKind::device, rank_.rank, opOf(item.at), -1, error.what()});
  }
  if (item.more) return;
  {
    const std::lock_guard lock(marksMutex_);
    launched_ = item.at;
    if (mark.event != nullptr) marks_.push_back(mark);
  }
  launchedMore_.notify_all();
}

cudaEvent_t Lane::takeEvent() {
  {
    const std::lock_guard lock(marksMutex_);
    if (!spare_.empty()) {
      cudaEvent_t event = spare_.back();
      spare_.pop_back();
      return event;
    }
  }
  cudaEvent_t event = nullptr;
  const unsigned flags = cudaEventBlockingSync | (rank_.timed ? 0u : cudaEventDisableTiming);
  check(cudaEventCreateWithFlags(&event, flags), "cudaEventCreate");
  return event;
}

void Lane::awaitLaunch(Point point) {
  std::unique_lock lock(marksMutex_);
  launchedMore_.wait(lock, [&] { return launched_ >= point || rank_.shared.faulted(); });
}

void Lane::orderAfter(cudaStream_t stream, Point point) {
  awaitLaunch(point);
  const std::lock_guard lock(marksMutex_);
  for (const Mark& mark : marks_) {
    if (mark.at < point) continue;
    // under the lock: a mark that is retired may be recorded anew
    check(cudaStreamWaitEvent(stream, mark.event, 0), "cudaStreamWaitEvent");
    return;
  }
}

void Lane::wake() {
  // with the lock: whoever is about to sleep has looked before, or will be told
  { const std::lock_guard lock(marksMutex_); }
  launchedMore_.notify_all();
}

/** Of a mark that has been reached, under the lock. */
void Lane::retire(const Mark& mark) {
  reached_ = mark.at;
  if (mark.start == nullptr) {
    spare_.push_back(mark.event);
    return;
  }
  const auto since = [&](cudaEvent_t event) {
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, base_ == nullptr ? rank_.epoch->event : base_, event);
    const int64_t from = base_ == nullptr ? rank_.epoch->nanoseconds : baseNanoseconds_;
    return from + static_cast<int64_t>(static_cast<double>(milliseconds) * 1e6);
  };
  const int64_t start = std::max(since(mark.start), mark.launched);
  const OpTime time = {opOf(mark.at), lane_, start, std::max(since(mark.event), start)};
  times_.push_back({time, mark.after});
  spare_.push_back(mark.start);
  if (time.end - (base_ == nullptr ? rank_.epoch->nanoseconds : baseNanoseconds_) < 50'000'000) {
    spare_.push_back(mark.event);
    return;
  }
  if (base_ != nullptr) spare_.push_back(base_);
  base_ = mark.event;
  baseNanoseconds_ = time.end;
}

Point Lane::ended() {
  std::optional<Fault> fault;
  Point reached = noPoint;
  {
    const std::lock_guard lock(marksMutex_);
    while (!marks_.empty()) {
      const cudaError_t status = cudaEventQuery(marks_.front().event);
      if (status == cudaErrorNotReady) break;
      if (status != cudaSuccess && !fault) {
        fault = Fault{FaultKind::device, rank_.rank, opOf(marks_.front().at), -1,
                      std::string("the GPU failed: ") + cudaGetErrorString(status)};
      }
      retire(marks_.front());
      marks_.pop_front();
    }
    // after a fault some ops were never launched, and have no mark
    if (marks_.empty() && rank_.shared.faulted()) reached_ = launched_;
    reached = reached_;
  }
  // without the lock: whoever is told of a fault may want it
  rank_.look();
  if (fault && !rank_.shared.faulted()) rank_.shared.fail(*fault);
  return reached;
}

void Lane::wait(Point point) {
  awaitLaunch(point);
  Pace pace;
  while (ended() < point && !rank_.shared.faulted()) std::this_thread::sleep_for(pace.next());
}

void Lane::takeTimes(std::vector<TimedOp>& into) {
  ended();
  const std::lock_guard lock(marksMutex_);
  into.insert(into.end(), times_.begin(), times_.end());
  times_.clear();
}

}  // namespace tandem::cuda

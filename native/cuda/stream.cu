#include "stream.h"

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

// Header-only; its functions look for a profiler when first called, and do nothing without one.
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define TANDEM_HAS_NVTX 1
#endif

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

/** A range of the thread that launches, which profilers show around the launches of one op. */
class Range {
 public:
#ifdef TANDEM_HAS_NVTX
  explicit Range(const char* name) { nvtxRangePushA(name); }
  ~Range() { nvtxRangePop(); }
#else
  explicit Range(const char*) {}
#endif
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

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

/**
 * Of a few tries that in which the GPU came soonest after the host had asked, by both clocks: so the GPU's times are the host's but
 * for as long as a launch takes at least. Where one took less later, an op seems to start before it is launched: `late`.
 */
Epoch::Epoch(const Shared& shared) {
  constexpr int tries = 20;
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  std::array<cudaEvent_t, tries> events{};
  std::array<int64_t, tries> asked{};
  for (int i = 0; i < tries; i++) {
    check(cudaEventCreate(&events[i]), "cudaEventCreate");
    asked[i] = shared.now();
    check(cudaEventRecord(events[i], nullptr), "cudaEventRecord");
    check(cudaEventSynchronize(events[i]), "cudaEventSynchronize");
  }
  int best = 0;
  int64_t least = INT64_MAX;
  for (int i = 0; i < tries; i++) {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, events[0], events[i]), "cudaEventElapsedTime");
    const int64_t late = static_cast<int64_t>(static_cast<double>(milliseconds) * 1e6) - (asked[i] - asked[0]);
    if (late >= least) continue;
    least = late;
    best = i;
  }
  event = events[best];
  nanoseconds = asked[best];
  for (int i = 0; i < tries; i++) {
    if (i != best) cudaEventDestroy(events[i]);
  }
}

Epoch::~Epoch() {
  if (event != nullptr) cudaEventDestroy(event);
}

bool lanesHavePriority() {
  const char* wish = std::getenv("TANDEM_CUDA_PRIORITY");
  return wish == nullptr || std::string(wish) != "0";
}

Lane::Lane(RankState& rank, int lane) : rank_(rank), lane_(lane) {
  check(cudaSetDevice(rank_.device), "cudaSetDevice");
  int least = 0;
  int greatest = 0;
  check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
  // Whoever communicates or copies needs few blocks, and is not to wait until a large product has begun all of its own.
  const bool first = lane != computeLane && lane < programLanes && lanesHavePriority();
  check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, first ? greatest : least), "cudaStreamCreate");
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
      const Range range(item.task->name.c_str());
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
  bool awaited = false;
  {
    const std::lock_guard lock(marksMutex_);
    launched_ = item.at;
    if (mark.event != nullptr) marks_.push_back(mark);
    awaited = launched_ >= awaited_;
    if (awaited) awaited_ = std::numeric_limits<Point>::max();
  }
  if (awaited) launchedMore_.notify_all();
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
  launchedMore_.wait(lock, [&] {
    if (launched_ >= point || rank_.shared.faulted()) return true;
    awaited_ = std::min(awaited_, point);
    return false;
  });
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
  const int64_t start = since(mark.start);
  const int64_t ended = since(mark.event);
  rank_.epoch->startedTooEarly(mark.launched - start);
  const OpTime time = {opOf(mark.at), lane_, start, std::max(ended, start)};
  times_.push_back({time, mark.after});
  spare_.push_back(mark.start);
  if (ended - (base_ == nullptr ? rank_.epoch->nanoseconds : baseNanoseconds_) < 50'000'000) {
    spare_.push_back(mark.event);
    return;
  }
  if (base_ != nullptr) spare_.push_back(base_);
  base_ = mark.event;
  baseNanoseconds_ = ended;
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
  const Pace pace;
  while (ended() < point && !rank_.shared.faulted()) {
    const auto sleep = pace.next();
    if (sleep.count() == 0) std::this_thread::yield();
    else std::this_thread::sleep_for(sleep);
  }
}

void Lane::takeTimes(std::vector<TimedOp>& into) {
  const std::lock_guard lock(marksMutex_);
  if (times_.empty()) return;
  // all ops of a GPU alike, so that what happened before something else on it is told so, whoever's they are
  const int64_t late = rank_.epoch->late();
  for (TimedOp& op : times_) {
    op.time.start += late;
    op.time.end += late;
    into.push_back(op);
  }
  times_.clear();
}

}  // namespace tandem::cuda

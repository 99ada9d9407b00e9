#include "stream.h"

#include "graphs.h"

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
  if (bytes == 0) return;
  ScratchSpace* const space = launch.space;
  const size_t from = space == nullptr ? 0 : space->used;
  if (space != nullptr) space->used += (bytes + 255) / 256 * 256;
  if (space != nullptr && space->data != nullptr) {
    if (space->used > space->bytes) throw ScratchShort();
    data_ = space->data + from;
    return;
  }
  check(cudaMallocAsync(&data_, bytes, stream_), "cudaMallocAsync");
  own_ = true;
}

Scratch::~Scratch() {
  if (own_) cudaFreeAsync(data_, stream_);
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

Lane::Lane(RankState& rank, int lane) : rank_(rank), lane_(lane), graphed_(rank.graphs) {
  check(cudaSetDevice(rank_.device), "cudaSetDevice");
  int least = 0;
  int greatest = 0;
  check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
  // Whoever communicates or copies needs few blocks, and is not to wait until a large product has begun all of its own.
  const bool first = lane != computeLane && lane < programLanes && lanesHavePriority();
  const int priority = first ? greatest : least;
  check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, priority), "cudaStreamCreate");
  if (graphed_) graphs_ = std::make_unique<Graphs>(*this, priority);
  thread_ = std::thread([this] { loop(); });
}

void Lane::finish() {
  queue_.end();
  wake();
  if (thread_.joinable()) thread_.join();
  cudaStreamSynchronize(stream_);
}

Lane::~Lane() {
  finish();
  graphs_.reset();
  for (const Mark& mark : marks_) {
    cudaEventDestroy(mark.event);
    if (mark.start != nullptr) cudaEventDestroy(mark.start);
  }
  if (base_ != nullptr) cudaEventDestroy(base_);
  for (cudaEvent_t event : spare_) cudaEventDestroy(event);
  cudaStreamDestroy(stream_);
}

void Lane::loop() {
  cudaSetDevice(rank_.device);
  std::vector<Item> items;
  while (queue_.next(items)) {
    if (items.size() > 1 && runTogether(items)) continue;
    for (const Item& item : items) runOne(item);
  }
}

/** What the item waits for in other lanes; of a stretch only the first does. */
void Lane::waitFor(const Item& item) {
  for (size_t other = 0; other < laneCount; other++) {
    if (item.after[other] == noPoint || static_cast<int>(other) == lane_) continue;
    Lane* lane = rank_.lanes[other].get();
    if (lane != nullptr) lane->orderAfter(stream_, item.after[other]);
  }
  rank_.look();
}

/** What goes wrong becomes a fault of that item. */
template <class Body>
void Lane::failing(const Item& item, const Body& body) {
  try {
    body();
  } catch (const OpFault& fault) {
    rank_.shared.fail({fault.kind, rank_.rank, opOf(item.at), fault.peer, fault.what()});
  } catch (const BadCall& bad) {
    rank_.shared.fail({FaultKind::value, rank_.rank, opOf(item.at), -1, bad.what()});
  } catch (const std::exception& error) {
    rank_.shared.fail({FaultKind::device, rank_.rank, opOf(item.at), -1, error.what()});
  }
}

/** All of a stretch as a graph, with one mark at its end. False when they are to be launched one by one. */
bool Lane::runTogether(const std::vector<Item>& items) {
  Mark mark = {items.back().at, nullptr, nullptr, noEvents, 0};
  failing(items.front(), [&] {
    waitFor(items.front());
    if (rank_.shared.faulted() || !graphs_->launch(items)) return;
    mark.event = takeEvent();
    check(cudaEventRecord(mark.event, stream_), "cudaEventRecord");
  });
  if (mark.event == nullptr) return false;
  passed(mark);
  return true;
}

void Lane::runOne(const Item& item) {
  const bool timed = rank_.timed && !item.more && pointOf(opOf(item.at)) == item.at;
  Mark mark = {item.at, nullptr, nullptr, item.after, 0};
  failing(item, [&] {
    waitFor(item);
    if (timed && !rank_.shared.faulted()) {
      mark.start = takeEvent();
      mark.launched = rank_.shared.now();
      check(cudaEventRecord(mark.start, stream_), "cudaEventRecord");
    }
    if (!rank_.shared.faulted()) {
      ScratchSpace space;
      Run run{*this,
              {stream_, item.scaled ? item.scalars.data() : nullptr, {rank_.faults, opOf(item.at), nullptr}, graphed_ ? &space : nullptr},
              item.position};
      const Range range(item.task->name.c_str());
      item.task->run(run);
      check(cudaGetLastError(), "a launch");
      item.task->scratchBytes = std::max(item.task->scratchBytes, space.used);
    }
    if (!item.more) {
      mark.event = takeEvent();
      check(cudaEventRecord(mark.event, stream_), "cudaEventRecord");
    }
  });
  if (!item.more) passed(mark);
}

/** The lane's thread has launched all up to there. */
void Lane::passed(const Mark& mark) {
  bool awaited = false;
  {
    const std::lock_guard lock(marksMutex_);
    launched_ = mark.at;
    if (mark.event != nullptr)
      marks_.push_back(mark);
    else if (mark.start != nullptr)
      spare_.push_back(mark.start);
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
  queue_.interrupt();
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

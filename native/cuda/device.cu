// A rank on a GPU: values in and out, ops to its lanes, and what somebody waits for.
#include "device.h"

#include <algorithm>
#include <cstring>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "collectives.h"
#include "machine.h"
#include "map.cuh"
#include "remote.h"
#include "tasks.h"
#include "transfer.cuh"

namespace tandem::cuda {

namespace {

/** Host values: float32, or int32 of integers. */
Dtype valuesDtype(Dtype dtype) { return isInteger(dtype) ? Dtype::int32 : Dtype::float32; }

}  // namespace

CudaDevice::CudaDevice(CudaMachine& machine, int rank, int device, double deviceBytes, double hostBytes)
    : machine_(machine),
      state_{machine.shared(), rank, device, machine.options().timed, nullptr, {}, nullptr, machine.graphCounts()},
      capacities_{deviceBytes, hostBytes} {
  check(cudaSetDevice(device), "cudaSetDevice");
  void* slot = nullptr;
  check(cudaHostAlloc(&slot, sizeof(FaultSlot), cudaHostAllocPortable | cudaHostAllocMapped), "cudaHostAlloc");
  state_.faults = new (slot) FaultSlot{};
  memories_[0] = std::make_unique<Memory>(device, Place::device);
  memories_[1] = std::make_unique<Memory>(device, Place::host);
  if (state_.timed) state_.epoch = machine.epoch(device);
  watcher_ = std::thread([this] { watchLoop(); });
}

CudaDevice::~CudaDevice() {
  stop();
  for (auto& lane : state_.lanes) lane.reset();
  cudaFreeHost(state_.faults);
}

void CudaDevice::stop() {
  {
    const std::lock_guard lock(watchMutex_);
    ending_ = true;
  }
  watched_.notify_all();
  if (watcher_.joinable()) watcher_.join();
  for (auto& lane : state_.lanes) {
    if (lane) lane->finish();
  }
}

/** From any rank's thread, while another may be making a lane. */
void CudaDevice::seeEnds() {
  std::vector<Lane*> lanes;
  {
    const std::lock_guard lock(watchMutex_);
    for (auto& lane : state_.lanes) {
      if (lane) lanes.push_back(lane.get());
    }
  }
  for (Lane* lane : lanes) lane->ended();
}

/** From whichever thread found the fault, while another may be making a lane. */
void CudaDevice::wake() {
  const std::lock_guard lock(watchMutex_);
  for (auto& lane : state_.lanes) {
    if (lane) lane->wake();
  }
  watched_.notify_all();
}

Lane& CudaDevice::lane(int index) {
  auto& lane = state_.lanes[static_cast<size_t>(index)];
  if (!lane) {
    auto made = std::make_unique<Lane>(state_, index);
    const std::lock_guard lock(watchMutex_);
    lane = std::move(made);
  }
  return *lane;
}

Events CudaDevice::reached() const {
  Events events;
  for (int lane = 0; lane < laneCount; lane++) events[static_cast<size_t>(lane)] = ended(lane);
  return events;
}

Block CudaDevice::allocate(Place place, int64_t storageBytes, int) {
  return memories_[static_cast<size_t>(place)]->allocate(static_cast<size_t>(storageBytes), reached());
}

void CudaDevice::deallocate(Place place, void* data, const Events& after) {
  memories_[static_cast<size_t>(place)]->deallocate(data, after);
}

void CudaDevice::put(int index, Point at, const Events& after, std::function<void(const Launch&)> body) {
  Item item;
  item.own = std::make_unique<BodyTask>(std::move(body));
  item.task = item.own.get();
  item.at = at;
  item.after = after;
  enqueue(index, std::move(item));
}

void CudaDevice::enqueue(int index, Item item) {
  Lane& own = lane(index);
  const bool capturable = item.task->capturable() && !item.more && !item.task->unfit.load(std::memory_order_relaxed);
  item.planned = plan_.place(index, {item.task->number, item.at, item.after, capturable, item.own == nullptr});
  own.submit(std::move(item));
}

bool CudaDevice::fill(int index, const Operand& to, Point at, const Events& after) {
  const View view = viewOf(to);
  const int64_t bytes = storageBytes(to.dtype, to.elements);
  const Place place = to.place;
  put(index, at, after, [=](const Launch& launch) {
    if (place == Place::host) return each(launch, bytes, Zero{view});
    if (bytes > 0) check(cudaMemsetAsync(view.data, 0, static_cast<size_t>(bytes), launch.stream), "cudaMemsetAsync");
  });
  return false;
}

bool CudaDevice::upload(int index, const Operand& to, const void* values, Point at, const Events& after) {
  // by way of pinned memory, which comes back when the lane has passed this point
  const auto bytes = static_cast<size_t>(to.elements) * 4;
  // none that is in use: this thread has other ranks to serve, and may be what that use waits for
  const Block staged = memories_[1]->allocate(bytes, reached(), true);
  if (staged.data == nullptr) {
    machine_.abort({FaultKind::memory, state_.rank, -1, -1, "no pinned memory of the host for values to upload"});
    return true;
  }
  if (bytes > 0) std::memcpy(staged.data, values, bytes);
  const View view = viewOf(to);
  const View from = {staged.data, valuesDtype(to.dtype)};
  const int64_t elements = to.elements;
  put(index, at, after, [=](const Launch& launch) { transfer(launch, view, from, elements); });
  Events passed = noEvents;
  passed[static_cast<size_t>(index)] = at;
  memories_[1]->deallocate(staged.data, passed);
  return false;
}

bool CudaDevice::download(int index, const Operand& from, void* values, Point at, const Events& after) {
  const View view = viewOf(from);
  const int64_t elements = from.elements;
  put(index, at, after, [=](const Launch& launch) {
    const auto bytes = static_cast<size_t>(elements) * 4;
    if (bytes == 0) return;
    const bool straight = view.dtype == valuesDtype(view.dtype);
    const Scratch scratch(launch, straight ? 0 : bytes);
    const View wide = straight ? view : View{scratch.as<void>(), valuesDtype(view.dtype)};
    transfer(launch, wide, view, elements);
    // into pageable memory: this thread waits for it
    check(cudaMemcpyAsync(values, wide.data, bytes, cudaMemcpyDefault, launch.stream), "cudaMemcpyAsync");
    check(cudaStreamSynchronize(launch.stream), "cudaStreamSynchronize");
  });
  return false;
}

std::unique_ptr<Task> CudaDevice::prepare(const Call& call) {
  std::unique_ptr<Task> task = make(call);
  static_cast<CudaTask&>(*task).name = call.kernel;
  return task;
}

std::unique_ptr<Task> CudaDevice::make(const Call& call) {
  check(cudaSetDevice(state_.device), "cudaSetDevice");
  if (call.kernel == "barrier" || call.kernel == "profiled") return std::make_unique<BodyTask>([](const Launch&) {});
  if (isCollective(call.kernel)) {
    RemoteRanks* const remote = machine_.remote();
    const size_t member = memberOf(call, state_.rank, remote == nullptr ? machine_.options().ranks : remote->size());
    if (remote != nullptr && call.group->members.size() > 1) return remote->collective(call, member);
    return std::make_unique<CollectiveTask>(call, machine_.communicator(*call.group), member);
  }
  call.checkPlaces();
  if (call.kernel == "h2d" || call.kernel == "d2h" || call.kernel == "d2d") return std::make_unique<CopyTask>(call);
  const Kernel* kernel = kernelNamed(call.kernel);
  if (kernel == nullptr) throw BadCall(call.kernel + ": the cuda backend has no such kernel");
  return std::make_unique<KernelTask>(*kernel, call);
}

std::unique_ptr<Task> CudaDevice::hostTask(std::function<void()> body) {
  return std::make_unique<BodyTask>([body = std::move(body)](const Launch& launch) {
    check(cudaStreamSynchronize(launch.stream), "cudaStreamSynchronize");
    body();
  });
}

void CudaDevice::submit(int index, Task& task, Point at, const Events& after, const double* scalars, bool more) {
  Item item;
  item.task = static_cast<CudaTask*>(&task);
  item.at = at;
  item.after = after;
  item.position = item.task->nextPosition();
  if (scalars != nullptr) {
    item.scaled = true;
    std::copy(scalars, scalars + item.task->scalars, item.scalars.begin());
  }
  item.more = more;
  enqueue(index, std::move(item));
}

Point CudaDevice::ended(int index) const {
  Lane* lane = state_.lanes[static_cast<size_t>(index)].get();
  return lane == nullptr ? noPoint : lane->ended();
}

bool CudaDevice::watch(int index, Point point) {
  if (ended(index) >= point) return true;
  plan_.awaited(index, point);
  {
    const std::lock_guard lock(watchMutex_);
    Point& watch = watches_[static_cast<size_t>(index)];
    if (watch == noPoint || point < watch) watch = point;
  }
  watched_.notify_all();
  return false;
}

/** Looks at watched lanes, at once and less often the longer nothing comes, and sleeps while nobody watches. */
void CudaDevice::watchLoop() {
  cudaSetDevice(state_.device);
#ifdef __linux__
  // A sleep of some microseconds is one, not one of fifty more.
  prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0);
#endif
  std::unique_lock lock(watchMutex_);
  Pace pace;
  while (!ending_) {
    // without the lock: who looks may find a fault, and tell everyone
    const std::array<Point, laneCount> asked = watches_;
    lock.unlock();
    std::array<Point, laneCount> now{};
    for (int index = 0; index < laneCount; index++) {
      if (asked[static_cast<size_t>(index)] != noPoint) now[static_cast<size_t>(index)] = ended(index);
    }
    lock.lock();
    // told to end while nobody held the lock: nobody will say so again
    if (ending_) return;
    bool any = false;
    bool due = false;
    for (size_t index = 0; index < laneCount; index++) {
      if (watches_[index] == noPoint) continue;
      any = true;
      if (now[index] < watches_[index]) continue;
      watches_[index] = noPoint;
      due = true;
    }
    if (due) {
      lock.unlock();
      machine_.options().onProgress();
      lock.lock();
      pace = {};
    } else if (any) {
      const auto sleep = pace.next();
      if (sleep.count() > 0) {
        watched_.wait_for(lock, sleep);
      } else {
        lock.unlock();
        std::this_thread::yield();
        lock.lock();
      }
    } else {
      watched_.wait(lock);
      pace = {};
    }
  }
}

void CudaDevice::wait(int index, Point point) {
  if (ended(index) >= point) return;
  plan_.awaited(index, point);
  lane(index).wait(point);
}

std::vector<OpTime> CudaDevice::takeTimes() {
  // what any rank's ops tell of a GPU's clock holds for all of its ranks
  machine_.seeEnds();
  std::vector<TimedOp> ops;
  for (auto& lane : state_.lanes) {
    if (lane) lane->takeTimes(ops);
  }
  return times_.inOrder(std::move(ops));
}

}  // namespace tandem::cuda

// The cuda backend: ranks on GPUs, each lane a stream, memory of the driver's, collectives between ranks of one process and of several. What
// other libraries of NVIDIA's give is opened at run time.
#include "machine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <unistd.h>

#include "collectives.h"
#include "cublaslt.h"
#include "graphs.h"
#include "map.cuh"
#include "memory.h"
#include "plan.h"
#include "remote.h"
#include "tasks.h"
#include "times.h"
#include "transfer.cuh"

namespace tandem::cuda {

namespace {

/** Host values: float32, or int32 of integers. */
Dtype valuesDtype(Dtype dtype) { return isInteger(dtype) ? Dtype::int32 : Dtype::float32; }

class CudaMachine;

class CudaDevice : public Device {
 public:
  CudaDevice(CudaMachine& machine, int rank, int device, double deviceBytes, double hostBytes);
  ~CudaDevice() override;

  double capacityBytes(Place place) const override { return capacities_[static_cast<size_t>(place)]; }
  int64_t storageBytes(Dtype dtype, int64_t elements) const override { return elements * storedBytes(dtype); }
  Block allocate(Place place, int64_t storageBytes, int lane) override;
  void deallocate(Place place, void* data, const Events& after) override;
  bool fill(int lane, const Operand& to, Point at, const Events& after) override;
  bool upload(int lane, const Operand& to, const void* values, Point at, const Events& after) override;
  bool download(int lane, const Operand& from, void* values, Point at, const Events& after) override;
  std::unique_ptr<Task> prepare(const Call& call) override;
  std::unique_ptr<Task> hostTask(std::function<void()> body) override;
  void submit(int lane, Task& task, Point at, const Events& after, const double* scalars, bool more) override;
  void endStep() override { plan_.endStep(); }
  Point ended(int lane) const override;
  bool watch(int lane, Point point) override;
  void wait(int lane, Point point) override;
  std::vector<OpTime> takeTimes() override;

  /** Looks how far all lanes are. */
  void seeEnds();
  void wake();
  /** Ends all threads; lanes must not wait for one another any more, which a fault sees to. */
  void stop();

 private:
  Events reached() const;
  std::unique_ptr<Task> make(const Call& call);
  void put(int lane, Point at, const Events& after, std::function<void(const Launch&)> body);
  void enqueue(int lane, Item item);
  void checkPlaces(const Call& call) const;
  Lane& lane(int index);
  void watchLoop();

  CudaMachine& machine_;
  RankState state_;
  std::array<double, placeCount> capacities_{};
  std::array<std::unique_ptr<Memory>, placeCount> memories_;

  OrderedTimes times_;
  Plan plan_{state_.graphs != nullptr, [this](int lane, int64_t ticket) { state_.lanes[static_cast<size_t>(lane)]->broken(ticket); }};

  std::mutex watchMutex_;
  std::condition_variable watched_;
  std::array<Point, laneCount> watches_{};
  bool ending_ = false;
  std::thread watcher_;
};

class CudaMachine : public Machine {
 public:
  explicit CudaMachine(const MachineOptions& options) : options_(options) {
    if (options_.ranks < 1) throw BadCall("session: " + std::to_string(options_.ranks) + " ranks; expected at least 1");
    for (const auto& [name, value] : options_.settings) {
      if (name != "graphs") throw BadCall("session: the cuda backend has no setting \"" + name + "\"; it has \"graphs\"");
      if (value != 0 && value != 1) throw BadCall("session: graphs is " + std::to_string(value) + "; expected 0 or 1");
    }
    int devices = 0;
    check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
    if (devices == 0) throw std::runtime_error("no GPU that CUDA can use");
    // Ranks of one process share GPUs that reach each other; one of several processes has its own.
    const int used = options_.peers == nullptr ? std::min(devices, options_.ranks) : 1;
    const int first = options_.peers == nullptr ? 0 : options_.firstDevice % devices;
    if (options_.peers != nullptr) tellApart(options_.firstDevice / devices);
    for (int device = 0; device < used; device++) prepareDevice(first + device, first, used);
    const double hostBytes = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE)) / 2;
    for (int rank = 0; rank < options_.ranks; rank++) {
      const int device = first + rank % used;
      const int sharing = options_.ranks / used + (rank % used < options_.ranks % used ? 1 : 0);
      size_t free = 0;
      size_t total = 0;
      check(cudaSetDevice(device), "cudaSetDevice");
      check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
      // a part stays for scratch and the libraries' own
      devices_.push_back(std::make_unique<CudaDevice>(*this, options_.firstRank + rank, device, 0.9 * static_cast<double>(free) / sharing,
                                                      hostBytes / options_.ranks));
    }
    if (options_.peers != nullptr) remote_ = std::make_unique<RemoteRanks>(*options_.peers, shared_, first);
    shared_.onFault([this] {
      if (remote_) remote_->wake();
      for (auto& device : devices_) device->wake();
      {
        const std::lock_guard lock(communicatorsMutex_);
        for (const auto& [members, communicator] : communicators_) communicator->wake();
      }
      options_.onProgress();
    });
  }

  ~CudaMachine() override {
    if (remote_) remote_->closing();
    shared_.fail({FaultKind::closed, -1, -1, -1, "the session was closed"});
    // all threads of all ranks end before anything goes: whoever finds a fault meanwhile tells everyone
    for (auto& device : devices_) device->stop();
    remote_.reset();
  }

  Device& device(int rank) override { return *devices_.at(static_cast<size_t>(rank)); }
  std::optional<Fault> fault() const override { return shared_.fault(); }
  void abort(const Fault& fault) override { shared_.fail(fault); }
  int64_t nowNanoseconds() const override { return shared_.now(); }

  Replays replays() const override {
    if (!graphs_) return {"off: TANDEM_CUDA_GRAPHS=0, or the setting graphs: 0, says so"};
    if (options_.timed) return {"off: the times of each op are recorded"};
    return {counts_.state(), counts_.captured, counts_.launched, counts_.tasks};
  }
  /** Null where nothing is replayed. */
  GraphCounts* graphCounts() { return graphs_ && !options_.timed ? &counts_ : nullptr; }

  std::shared_ptr<Communicator> communicator(const Group& group) {
    const std::lock_guard lock(communicatorsMutex_);
    auto& found = communicators_[{group.name, group.members}];
    if (!found) found = std::make_shared<Communicator>(shared_, group);
    return found;
  }

  /** Of the device, which is the current one. */
  std::shared_ptr<const Epoch> epoch(int device) {
    auto& found = epochs_[device];
    if (!found) found = std::make_shared<Epoch>(shared_);
    return found;
  }

  void seeEnds() {
    for (auto& device : devices_) device->seeEnds();
  }

  Shared& shared() { return shared_; }
  const MachineOptions& options() const { return options_; }
  /** Ranks of other processes; null where there are none. */
  RemoteRanks* remote() { return remote_.get(); }

 private:
  /** NCCL takes ranks of one host on one GPU for a mistake; on as many GPUs as ranks each round of them is a host of its own. */
  static void tellApart(int round) {
    if (round == 0) return;
    char host[256] = {};
    gethostname(host, sizeof host - 1);
    setenv("NCCL_HOSTID", (std::string(host) + " round " + std::to_string(round)).c_str(), 0);
  }

  /** Peers may read each other's memory, the pool's too, and the pool keeps what it has. */
  static void prepareDevice(int device, int first, int devices) {
    check(cudaSetDevice(device), "cudaSetDevice");
    cudaMemPool_t pool = nullptr;
    check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
    uint64_t keep = ~uint64_t{0};
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
    for (int peer = first; peer < first + devices; peer++) {
      if (peer == device) continue;
      int reachable = 0;
      check(cudaDeviceCanAccessPeer(&reachable, device, peer), "cudaDeviceCanAccessPeer");
      if (reachable == 0) {
        throw std::runtime_error("GPU " + std::to_string(device) + " cannot reach the memory of GPU " + std::to_string(peer) +
                                 "; ranks of one process need that");
      }
      const cudaError_t status = cudaDeviceEnablePeerAccess(peer, 0);
      if (status == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError();
      } else {
        check(status, "cudaDeviceEnablePeerAccess");
      }
      cudaMemAccessDesc access{};
      access.location.type = cudaMemLocationTypeDevice;
      access.location.id = peer;
      access.flags = cudaMemAccessFlagsProtReadWrite;
      check(cudaMemPoolSetAccess(pool, &access, 1), "cudaMemPoolSetAccess");
    }
  }

  const MachineOptions options_;
  const bool graphs_ = options_.settings.count("graphs") != 0 ? options_.settings.at("graphs") == 1 : graphsWished();
  GraphCounts counts_;
  Shared shared_;
  std::mutex communicatorsMutex_;
  /** A group is its name and its ranks, in order. */
  std::map<std::pair<std::string, std::vector<int>>, std::shared_ptr<Communicator>> communicators_;
  std::map<int, std::shared_ptr<const Epoch>> epochs_;
  std::vector<std::unique_ptr<CudaDevice>> devices_;
  std::unique_ptr<RemoteRanks> remote_;
};

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

void CudaDevice::checkPlaces(const Call& call) const {
  const auto expect = [&](const std::vector<Operand>& operands, const char* side, Place place) {
    for (size_t i = 0; i < operands.size(); i++) {
      if (operands[i].place == place) continue;
      throw BadCall(call.kernel + ": " + side + " " + std::to_string(i) + " lies in " +
                    (place == Place::device ? "host" : "device") + " memory; expected " +
                    (place == Place::device ? "device" : "host"));
    }
  };
  expect(call.inputs, "input", call.kernel == "h2d" ? Place::host : call.place);
  expect(call.outputs, "output", call.kernel == "d2h" ? Place::host : call.place);
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
    if (!call.group) throw BadCall(call.kernel + ": no group");
    const auto& members = call.group->members;
    const auto own = std::find(members.begin(), members.end(), state_.rank);
    if (own == members.end()) {
      throw BadCall(call.kernel + ": rank " + std::to_string(state_.rank) + " is not in group \"" + call.group->name + "\"");
    }
    const int ranks = machine_.remote() == nullptr ? machine_.options().ranks : machine_.remote()->size();
    for (const int member : members) {
      if (member < 0 || member >= ranks) {
        throw BadCall(call.kernel + ": group \"" + call.group->name + "\" has rank " + std::to_string(member) +
                      "; the session has " + std::to_string(ranks));
      }
    }
    if (machine_.remote() != nullptr && members.size() > 1) {
      return machine_.remote()->collective(call, static_cast<size_t>(own - members.begin()));
    }
    return std::make_unique<CollectiveTask>(call, machine_.communicator(*call.group),
                                            static_cast<size_t>(own - members.begin()));
  }
  checkPlaces(call);
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

}  // namespace

std::unique_ptr<Machine> open(const MachineOptions& options) { return std::make_unique<CudaMachine>(options); }

}  // namespace tandem::cuda

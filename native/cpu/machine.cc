// The cpu backend: lanes of threads, memories from the heap, collectives between threads. Every dtype is stored in four bytes:
// float32 on the dtype's grid, or int32.
#include "machine.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "collectives.h"
#include "gemm.h"
#include "kernels.h"
#include "memory.h"
#include "remote-task.h"
#include "rounding.h"
#include "worker.h"

namespace tandem {

namespace {

size_t bytesOf(const Operand& operand) { return static_cast<size_t>(operand.elements) * 4; }

void round(const Operand& operand) {
  if (isInteger(operand.dtype)) {
    roundInPlace(static_cast<int32_t*>(operand.data), operand.elements, operand.dtype);
  } else {
    roundInPlace(static_cast<float*>(operand.data), operand.elements, operand.dtype);
  }
}

/** A kernel: work, then the outputs rounded to their dtypes. */
class KernelTask : public CpuTask {
 public:
  KernelTask(const Call& call, Work work, bool roundsItself) : work_(std::move(work)) {
    for (const Operand& out : call.outputs) {
      if (!roundsItself && out.dtype != Dtype::float32 && out.dtype != Dtype::int32) rounded_.push_back(out);
    }
  }

  void run(Run& run) override {
    work_(run.scalars);
    for (const Operand& out : rounded_) round(out);
  }

 private:
  const Work work_;
  std::vector<Operand> rounded_;
};

class CopyTask : public CpuTask {
 public:
  explicit CopyTask(const Call& call) : from_(input(call, 0)), to_(output(call, 0)) {
    if (isInteger(from_.dtype) != isInteger(to_.dtype)) {
      throw BadCall(call.kernel + ": integer and float tensors do not mix");
    }
    if (from_.elements != to_.elements) {
      throw BadCall(call.kernel + ": " + std::to_string(from_.elements) + " values into " + std::to_string(to_.elements));
    }
  }

  void run(Run&) override {
    if (from_.elements > 0 && from_.data != to_.data) std::memmove(to_.data, from_.data, bytesOf(from_));
    if (to_.dtype != from_.dtype) round(to_);
  }

 private:
  const Operand from_;
  const Operand to_;
};

/** Whatever the layer itself puts into a lane. */
class BodyTask : public CpuTask {
 public:
  explicit BodyTask(std::function<void()> body) : body_(std::move(body)) {}
  void run(Run&) override { body_(); }

 private:
  const std::function<void()> body_;
};

class CpuMachine;

class CpuDevice : public Device {
 public:
  CpuDevice(CpuMachine& machine, int rank);

  double capacityBytes(Place place) const override { return memories_[static_cast<size_t>(place)]->capacityBytes(); }
  int64_t storageBytes(Dtype, int64_t elements) const override { return elements * 4; }
  Block allocate(Place place, int64_t storageBytes, int lane) override;
  void deallocate(Place place, void* data, const Events& after) override;
  bool fill(int lane, const Operand& to, Point at, const Events& after) override;
  bool upload(int lane, const Operand& to, const void* values, Point at, const Events& after) override;
  bool download(int lane, const Operand& from, void* values, Point at, const Events& after) override;
  std::unique_ptr<Task> prepare(const Call& call) override;
  std::unique_ptr<Task> hostTask(std::function<void()> body) override { return std::make_unique<BodyTask>(std::move(body)); }
  void submit(int lane, Task& task, Point at, const Events& after, const double* scalars, bool more) override;
  Point ended(int lane) const override { return lanes_.progress[static_cast<size_t>(lane)].reached(); }
  bool watch(int lane, Point point) override;
  void wait(int lane, Point point) override;
  std::vector<OpTime> takeTimes() override;

  void poison() {
    for (const auto& memory : memories_) memory->poison(reached());
  }
  /** Ends the lanes; they must not wait for one another any more, which a fault sees to. */
  void end() {
    for (auto& queue : queues_) queue.reset();
  }

 private:
  Events reached() const {
    Events ended;
    for (size_t lane = 0; lane < laneCount; lane++) ended[lane] = lanes_.progress[lane].reached();
    return ended;
  }
  bool free(int lane, const Events& after) const;
  void put(int lane, Point at, const Events& after, std::function<void()> body);
  Lane& queue(int lane);

  CpuMachine& machine_;
  RankLanes lanes_;
  std::array<std::unique_ptr<Memory>, placeCount> memories_;
  /** The last point that was put into each lane. */
  Events tails_ = noEvents;
  // Last, so that threads end before what they use.
  std::array<std::unique_ptr<Lane>, laneCount> queues_;
};

class CpuMachine : public Machine {
 public:
  CpuMachine(const MachineOptions& options, std::unique_ptr<Discipline> discipline)
      : options_(options), discipline_(std::move(discipline)) {
    for (int rank = 0; rank < options_.ranks; rank++) devices_.push_back(std::make_unique<CpuDevice>(*this, rank));
    discipline_->betweenOps = [this] {
      for (auto& device : devices_) device->poison();
    };
    if (options_.mesh != nullptr) remote_ = std::make_unique<RemoteRanks>(shared_, *options_.mesh);
    shared_.onFault([this] {
      {
        const std::lock_guard lock(communicatorsMutex_);
        for (const auto& [group, communicator] : communicators_) communicator->wake();
      }
      discipline_->failed();
      options_.onProgress();
    });
  }

  ~CpuMachine() override {
    shared_.fail({FaultKind::closed, -1, -1, -1, "the session was closed"});
    for (auto& device : devices_) device->end();
  }

  Device& device(int rank) override { return *devices_.at(static_cast<size_t>(rank)); }
  std::optional<Fault> fault() const override { return shared_.fault(); }
  void abort(const Fault& fault) override { shared_.fail(fault); }
  int64_t nowNanoseconds() const override { return shared_.now(); }

  std::shared_ptr<Communicator> communicator(const Group& group) {
    const std::lock_guard lock(communicatorsMutex_);
    auto& found = communicators_[{group.name, group.members}];
    if (!found) found = std::make_shared<Communicator>(shared_, group);
    return found;
  }

  Shared& shared() { return shared_; }
  const MachineOptions& options() const { return options_; }
  Discipline& discipline() { return *discipline_; }
  /** Ranks of other processes; null where there are none. */
  RemoteRanks* remote() { return remote_.get(); }

 private:
  const MachineOptions options_;
  Shared shared_;
  std::mutex communicatorsMutex_;
  std::map<std::pair<std::string, std::vector<int>>, std::shared_ptr<Communicator>> communicators_;
  const std::unique_ptr<Discipline> discipline_;
  std::unique_ptr<RemoteRanks> remote_;
  std::vector<std::unique_ptr<CpuDevice>> devices_;
};

CpuDevice::CpuDevice(CpuMachine& machine, int rank)
    : machine_(machine), lanes_{machine.shared(), machine.options().firstRank + rank, machine.options().timed, {}} {
  // Ranks share the memory of the process, and so do a rank's two places.
  const double bytes = memoryBytes() / machine.options().ranks;
  MeshPeers* const peers = machine.options().mesh;
  LentMemory* const lent = peers == nullptr ? nullptr : peers->mesh().lentMemory();
  for (auto& memory : memories_) memory = std::make_unique<Memory>(!machine.discipline().prompt(), bytes, lent);
}

Block CpuDevice::allocate(Place place, int64_t storageBytes, int) {
  return memories_[static_cast<size_t>(place)]->allocate(static_cast<size_t>(storageBytes), reached());
}

void CpuDevice::deallocate(Place place, void* data, const Events& after) {
  memories_[static_cast<size_t>(place)]->deallocate(data, after, reached());
}

/** Whether work of that lane may be done from here: everything before it has ended, and nobody delays it on purpose. */
bool CpuDevice::free(int lane, const Events& after) const {
  if (!machine_.discipline().prompt()) return false;
  for (size_t other = 0; other < laneCount; other++) {
    if (lanes_.progress[other].reached() < after[other]) return false;
  }
  return lanes_.progress[static_cast<size_t>(lane)].reached() >= tails_[static_cast<size_t>(lane)];
}

void CpuDevice::put(int lane, Point at, const Events& after, std::function<void()> body) {
  Item item;
  item.own = std::make_unique<BodyTask>(std::move(body));
  item.task = item.own.get();
  item.at = at;
  item.after = after;
  tails_[static_cast<size_t>(lane)] = at;
  queue(lane).submit(std::move(item));
}

bool CpuDevice::fill(int lane, const Operand& to, Point at, const Events& after) {
  // Large ones are the lane's work: this thread has others to serve.
  constexpr size_t small = size_t{1} << 14;
  const size_t bytes = bytesOf(to);
  if (bytes <= small && free(lane, after)) {
    std::memset(to.data, 0, bytes);
    return true;
  }
  put(lane, at, after, [data = to.data, bytes] { std::memset(data, 0, bytes); });
  return false;
}

bool CpuDevice::upload(int lane, const Operand& to, const void* values, Point at, const Events& after) {
  const size_t bytes = bytesOf(to);
  if (free(lane, after)) {
    std::memcpy(to.data, values, bytes);
    round(to);
    return true;
  }
  std::shared_ptr<char[]> staged(new char[bytes]);
  std::memcpy(staged.get(), values, bytes);
  put(lane, at, after, [to, staged, bytes] {
    std::memcpy(to.data, staged.get(), bytes);
    round(to);
  });
  return false;
}

bool CpuDevice::download(int lane, const Operand& from, void* values, Point at, const Events& after) {
  const size_t bytes = bytesOf(from);
  if (free(lane, after)) {
    std::memcpy(values, from.data, bytes);
    return true;
  }
  put(lane, at, after, [from, values, bytes] { std::memcpy(values, from.data, bytes); });
  return false;
}

std::unique_ptr<Task> CpuDevice::prepare(const Call& call) {
  if (call.kernel == "barrier" || call.kernel == "profiled") return hostTask([] {});
  if (isCollective(call.kernel)) {
    RemoteRanks* const remote = machine_.remote();
    const size_t member = memberOf(call, lanes_.rank, remote == nullptr ? machine_.options().ranks : remote->size());
    if (remote != nullptr && call.group->members.size() > 1) return remote->collective(call, member);
    return std::make_unique<CollectiveTask>(call, machine_.communicator(*call.group), member);
  }
  call.checkPlaces();
  if (call.kernel == "h2d" || call.kernel == "d2h" || call.kernel == "d2d") return std::make_unique<CopyTask>(call);
  const Kernel* kernel = kernelNamed(call.kernel);
  // A list of tensors is made of the kernel itself, which takes one at a time.
  const bool isList = !call.parts.empty() && call.parts.front().kernel == call.kernel;
  if (kernel == nullptr && call.parts.empty()) throw BadCall(call.kernel + ": the cpu backend has no such kernel");
  auto task = kernel == nullptr || isList
                  ? std::make_unique<KernelTask>(call, compositeWork(call), false)
                  : std::make_unique<KernelTask>(call, kernel->prepare(call), kernel->roundsItself);
  task->scalars = call.scalars.size();
  return task;
}

Lane& CpuDevice::queue(int lane) {
  auto& queue = queues_[static_cast<size_t>(lane)];
  if (queue) return *queue;
  try {
    queue = machine_.discipline().lane(lanes_, lane, machine_.options().onProgress);
  } catch (const std::system_error& error) {
    queue = std::make_unique<DeadLane>(lanes_, lane);
    machine_.abort({FaultKind::thread, lanes_.rank, -1, -1,
                    std::string("no thread for a lane: ") + error.what() +
                        "; fewer ranks, or a higher limit of processes (ulimit -u, pids.max), would do"});
  }
  return *queue;
}

void CpuDevice::submit(int lane, Task& task, Point at, const Events& after, const double* scalars, bool more) {
  Item item;
  item.task = static_cast<CpuTask*>(&task);
  item.at = at;
  item.after = after;
  item.position = item.task->nextPosition();
  if (scalars != nullptr) {
    item.scaled = true;
    std::copy(scalars, scalars + item.task->scalars, item.scalars.begin());
  }
  item.more = more;
  tails_[static_cast<size_t>(lane)] = at;
  queue(lane).submit(std::move(item));
}

bool CpuDevice::watch(int lane, Point point) {
  if (ended(lane) >= point) return true;
  return queue(lane).watch(point);
}

void CpuDevice::wait(int lane, Point point) {
  if (ended(lane) >= point) return;
  queue(lane).hurry();
  lanes_.progress[static_cast<size_t>(lane)].wait(point);
}

std::vector<OpTime> CpuDevice::takeTimes() {
  std::vector<OpTime> times;
  for (auto& queue : queues_) {
    if (queue) queue->takeTimes(times);
  }
  return times;
}

class Threads : public Discipline {
 public:
  std::unique_ptr<Lane> lane(RankLanes& lanes, int lane, const std::function<void()>& onProgress) override {
    return std::make_unique<Worker>(lanes, lane, onProgress);
  }
};

Backend::Availability probeCpu() {
  Backend::Availability here;
  here.devices.push_back(std::to_string(std::thread::hardware_concurrency()) + " hardware threads");
  if (!openBlasFound()) {
    here.missing.emplace_back("OpenBLAS, for faster matrix products; on Debian \"apt-get install libopenblas0\"");
  }
  return here;
}

}  // namespace

std::unique_ptr<Machine> openThreads(const MachineOptions& options, std::unique_ptr<Discipline> discipline) {
  if (options.ranks < 1) throw BadCall("session: " + std::to_string(options.ranks) + " ranks; expected at least 1");
  return std::make_unique<CpuMachine>(options, std::move(discipline));
}

Backend cpuBackend() {
  return {"cpu", "threads of this process", probeCpu, cpuKernels, [](const MachineOptions& options) {
            for (const auto& [name, value] : options.settings) throw BadCall("cpu: no setting \"" + name + "\"");
            return openThreads(options, std::make_unique<Threads>());
          }};
}

}  // namespace tandem

// The cpu backend: a worker per rank and lane, memories from the heap, collectives between workers.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "collectives.h"
#include "kernels.h"
#include "memory.h"
#include "rounding.h"
#include "worker.h"

namespace tandem {

namespace {

/** A kernel: work, then the outputs rounded to their dtypes. */
class KernelTask : public CpuTask {
 public:
  KernelTask(const Call& call, Work work, bool roundsItself)
      : work_(std::move(work)), nanoseconds_(static_cast<int64_t>(call.seconds * 1e9)) {
    for (const Operand& out : call.outputs) {
      if (!roundsItself && out.dtype != Dtype::float32 && out.dtype != Dtype::int32) rounded_.push_back(out);
    }
  }

  void run(Run& run) override {
    const int64_t start = nanoseconds_ > 0 ? run.shared.now() : 0;
    if (work_) work_();
    for (const Operand& out : rounded_) {
      if (isInteger(out.dtype)) {
        roundInPlace(static_cast<int32_t*>(out.data), out.elements, out.dtype);
      } else {
        roundInPlace(static_cast<float*>(out.data), out.elements, out.dtype);
      }
    }
    if (nanoseconds_ > 0) run.shared.sleepUntil(start + nanoseconds_);
  }

 private:
  const Work work_;
  const int64_t nanoseconds_;
  std::vector<Operand> rounded_;
};

/** A bus between the memories of one rank, and whether it is emulated. */
struct Bus {
  Bus(double bytesPerSecond, double latencySeconds)
      : emulated(std::isfinite(bytesPerSecond) || latencySeconds > 0),
        link(bytesPerSecond),
        latency(static_cast<int64_t>(latencySeconds * 1e9)) {}

  const bool emulated;
  Link link;
  const int64_t latency;
};

class CopyTask : public CpuTask {
 public:
  CopyTask(const Call& call, Bus* bus) : bus_(bus), from_(input(call, 0)), to_(output(call, 0)) {
    if (isInteger(from_.dtype) != isInteger(to_.dtype)) {
      throw BadCall(call.kernel + ": integer and float tensors do not mix");
    }
  }

  void run(Run& run) override {
    const int64_t start = run.shared.now();
    if (from_.elements > 0 && from_.data != to_.data) {
      std::memcpy(to_.data, from_.data, static_cast<size_t>(from_.elements) * 4);
    }
    if (to_.dtype != from_.dtype) {
      if (isInteger(to_.dtype)) {
        roundInPlace(static_cast<int32_t*>(to_.data), to_.elements, to_.dtype);
      } else {
        roundInPlace(static_cast<float*>(to_.data), to_.elements, to_.dtype);
      }
    }
    if (bus_ == nullptr || !bus_->emulated) return;
    const int64_t passed = bus_->link.reserve(static_cast<double>(from_.sizeBytes), start);
    run.shared.sleepUntil(passed + bus_->latency);
  }

 private:
  Bus* const bus_;
  const Operand from_;
  const Operand to_;
};

class CpuMachine;

class CpuDevice : public Device {
 public:
  CpuDevice(CpuMachine& machine, int rank) : machine_(machine), rank_(rank) {}

  void* allocate(Place place, Dtype dtype, int64_t elements) override;
  void deallocate(Place place, void* data, const Events& after) override;
  void write(const Operand& to, const void* values) override;
  void read(const Operand& from, void* values) override;
  std::unique_ptr<Task> prepare(const Call& call) override;
  void submit(int lane, Task& task, int32_t op, const Events& after) override;
  int32_t ended(int lane) const override { return progress_[static_cast<size_t>(lane)].reached(); }
  bool watch(int lane, int32_t op) override;
  std::vector<OpTime> takeTimes() override;
  /** Ends the lanes; they must not wait for one another any more, which a fault sees to. */
  void end() {
    for (auto& worker : workers_) worker.reset();
  }

 private:
  Events reached() const {
    Events ended;
    for (int lane = 0; lane < laneCount; lane++) ended[static_cast<size_t>(lane)] = this->ended(lane);
    return ended;
  }
  void checkPlaces(const Call& call) const;
  Worker& worker(int lane);

  CpuMachine& machine_;
  const int rank_;
  std::array<Progress, laneCount> progress_;
  std::array<Memory, 2> memories_;
  std::unique_ptr<Bus> h2d_, d2h_;
  // Last, so that threads end before what they use.
  std::array<std::unique_ptr<Worker>, laneCount> workers_;

  friend class CpuMachine;
};

class CpuMachine : public Machine {
 public:
  explicit CpuMachine(MachineOptions options) : options_(std::move(options)) {
    for (const double rate : options_.linkBytesPerSecond) links_.push_back(std::make_unique<Link>(rate));
    for (int rank = 0; rank < options_.ranks; rank++) {
      devices_.push_back(std::make_unique<CpuDevice>(*this, rank));
      devices_.back()->h2d_ = std::make_unique<Bus>(options_.h2dBytesPerSecond, options_.h2dLatencySeconds);
      devices_.back()->d2h_ = std::make_unique<Bus>(options_.d2hBytesPerSecond, options_.d2hLatencySeconds);
    }
    shared_.onFault([this] {
      {
        const std::lock_guard lock(communicatorsMutex_);
        for (const auto& [key, communicator] : communicators_) communicator->wake();
      }
      options_.onProgress();
    });
  }

  ~CpuMachine() override {
    shared_.fail("the session was closed");
    for (auto& device : devices_) device->end();
  }

  Device& device(int rank) override { return *devices_.at(static_cast<size_t>(rank)); }
  std::optional<std::string> fault() const override { return shared_.fault(); }
  int64_t nowNanoseconds() const override { return shared_.now(); }

  std::shared_ptr<Communicator> communicator(const Group& group) {
    std::string key = group.name;
    for (const int member : group.members) key += "," + std::to_string(member);
    const std::lock_guard lock(communicatorsMutex_);
    auto& found = communicators_[key];
    if (!found) found = std::make_shared<Communicator>(shared_, group);
    return found;
  }

  Shared& shared() { return shared_; }
  const MachineOptions& options() const { return options_; }
  std::vector<std::unique_ptr<Link>>& links() { return links_; }

 private:
  const MachineOptions options_;
  Shared shared_;
  std::vector<std::unique_ptr<Link>> links_;
  std::mutex communicatorsMutex_;
  std::map<std::string, std::shared_ptr<Communicator>> communicators_;
  std::vector<std::unique_ptr<CpuDevice>> devices_;
};

void* CpuDevice::allocate(Place place, Dtype, int64_t elements) {
  // Every dtype is stored in four bytes: float32 on the dtype's grid, or int32.
  const auto bytes = static_cast<size_t>(elements) * 4;
  void* block = memories_[static_cast<size_t>(place)].allocate(bytes, reached());
  if (block != nullptr && bytes > 0) std::memset(block, 0, bytes);
  return block;
}

void CpuDevice::deallocate(Place place, void* data, const Events& after) {
  memories_[static_cast<size_t>(place)].deallocate(data, after, reached());
}

void CpuDevice::write(const Operand& to, const void* values) {
  if (to.elements == 0) return;
  std::memcpy(to.data, values, static_cast<size_t>(to.elements) * 4);
  if (isInteger(to.dtype)) {
    roundInPlace(static_cast<int32_t*>(to.data), to.elements, to.dtype);
  } else {
    roundInPlace(static_cast<float*>(to.data), to.elements, to.dtype);
  }
}

void CpuDevice::read(const Operand& from, void* values) {
  if (from.elements > 0) std::memcpy(values, from.data, static_cast<size_t>(from.elements) * 4);
}

void CpuDevice::checkPlaces(const Call& call) const {
  const auto expect = [&](const std::vector<Operand>& operands, const char* side, Place place) {
    for (size_t i = 0; i < operands.size(); i++) {
      if (operands[i].place == place) continue;
      throw BadCall(call.kernel + ": " + side + " " + std::to_string(i) + " lies in " +
                    (place == Place::device ? "host" : "device") + " memory; expected " +
                    (place == Place::device ? "device" : "host"));
    }
  };
  expect(call.inputs, "input", call.kernel == "h2d" ? Place::host : Place::device);
  expect(call.outputs, "output", call.kernel == "d2h" ? Place::host : Place::device);
}

std::unique_ptr<Task> CpuDevice::prepare(const Call& call) {
  if (call.kernel == "barrier" || call.kernel == "profiled") return std::make_unique<KernelTask>(call, nullptr, true);
  if (isCollective(call.kernel)) {
    if (!call.group) throw BadCall(call.kernel + ": no group");
    const auto& members = call.group->members;
    const auto own = std::find(members.begin(), members.end(), rank_);
    if (own == members.end()) {
      throw BadCall(call.kernel + ": rank " + std::to_string(rank_) + " is not in group \"" + call.group->name + "\"");
    }
    for (const int member : members) {
      if (member < 0 || member >= machine_.options().ranks) {
        throw BadCall(call.kernel + ": group \"" + call.group->name + "\" has rank " + std::to_string(member) +
                      "; the session has " + std::to_string(machine_.options().ranks));
      }
    }
    return std::make_unique<CollectiveTask>(call, machine_.communicator(*call.group),
                                            static_cast<size_t>(own - members.begin()), machine_.links());
  }
  checkPlaces(call);
  if (call.kernel == "h2d") return std::make_unique<CopyTask>(call, h2d_.get());
  if (call.kernel == "d2h") return std::make_unique<CopyTask>(call, d2h_.get());
  if (call.kernel == "d2d") return std::make_unique<CopyTask>(call, nullptr);
  const Kernel* kernel = kernelNamed(call.kernel);
  if (kernel == nullptr) throw BadCall(call.kernel + ": the cpu backend has no such kernel");
  return std::make_unique<KernelTask>(call, kernel->prepare(call), kernel->roundsItself);
}

Worker& CpuDevice::worker(int lane) {
  auto& worker = workers_[static_cast<size_t>(lane)];
  if (!worker) {
    const MachineOptions& options = machine_.options();
    worker = std::make_unique<Worker>(machine_.shared(), rank_, lane, progress_, options.timed, options.onProgress);
  }
  return *worker;
}

void CpuDevice::submit(int lane, Task& task, int32_t op, const Events& after) {
  worker(lane).submit(static_cast<CpuTask&>(task), op, after);
}

bool CpuDevice::watch(int lane, int32_t op) {
  if (op < 0) return true;
  return worker(lane).watch(op);
}

std::vector<OpTime> CpuDevice::takeTimes() {
  std::vector<OpTime> times;
  for (auto& worker : workers_) {
    if (worker) worker->takeTimes(times);
  }
  return times;
}

}  // namespace

std::unique_ptr<Machine> openCpu(MachineOptions options) {
  if (options.ranks < 1) throw BadCall("session: " + std::to_string(options.ranks) + " ranks; expected at least 1");
  return std::make_unique<CpuMachine>(std::move(options));
}

namespace {

std::vector<const KernelTable*> tables() {
  return {&activationKernels, &attentionKernels,  &elementwiseKernels, &embeddingKernels,     &expertFfnKernels,
          &kvCacheKernels,    &kvScoreKernels,    &kvSelectKernels,    &linearKernels,        &lossKernels,
          &moeGateKernels,    &moeKernels,        &moeOrderKernels,    &normalizationKernels, &optimizerKernels,
          &packingKernels,    &ropeKernels,       &rowKernels,         &tokenWindowKernels};
}

}  // namespace

std::vector<std::string> cpuKernels() {
  std::vector<std::string> names = collectiveNames;
  for (const char* name : {"h2d", "d2h", "d2d", "barrier", "profiled"}) names.emplace_back(name);
  for (const KernelTable* table : tables()) {
    for (const Kernel& kernel : *table) names.emplace_back(kernel.name);
  }
  return names;
}

const Kernel* kernelNamed(const std::string& name) {
  static const std::map<std::string, const Kernel*> byName = [] {
    std::map<std::string, const Kernel*> entries;
    for (const KernelTable* table : tables()) {
      for (const Kernel& kernel : *table) entries.emplace(kernel.name, &kernel);
    }
    return entries;
  }();
  const auto found = byName.find(name);
  return found == byName.end() ? nullptr : found->second;
}

}  // namespace tandem

#include "emulation.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <tuple>

namespace tandem {

namespace {

/** Bytes pass one after another: what comes later is sent when what came before has passed. */
class Link {
 public:
  explicit Link(double bytesPerSecond) : bytesPerSecond_(bytesPerSecond) {}

  /** When the last of `bytes`, ready at `now`, has passed. */
  int64_t reserve(double bytes, int64_t now) {
    const std::lock_guard lock(mutex_);
    freeAt_ = std::max(static_cast<double>(now), freeAt_) + bytes / bytesPerSecond_ * 1e9;
    return static_cast<int64_t>(freeAt_);
  }

 private:
  const double bytesPerSecond_;
  double freeAt_ = 0;
  std::mutex mutex_;
};

int64_t nanoseconds(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

/** One collective on its links: it crosses them once all members are in place. */
struct Crossing {
  size_t arrived = 0;
  size_t left = 0;
  int64_t start = 0;
  int64_t deadline = 0;
};

/** The collectives of one group on emulated links, by the order of submission. */
struct Crossings {
  std::mutex mutex;
  std::map<int64_t, Crossing> open;
  std::map<int, int64_t> next;
};

class EmulatedMachine;

/** An op between two looks at the clock; what it takes beyond its own time it sleeps. */
class EmulatedTask : public Task {
 public:
  std::unique_ptr<Task> inner;
  /** Absent where the op takes the time that it takes. */
  std::unique_ptr<Task> before, after;

  int64_t workspaceBytes() const override { return inner->workspaceBytes(); }

  struct Launch {
    int32_t op;
    int64_t position;
    int64_t start = 0;
  };
  std::mutex mutex;
  /** Launched and not ended, in the lane's order. */
  std::deque<Launch> launches;
  size_t begun = 0;
  std::shared_ptr<Crossings> crossings;
};

class EmulatedDevice : public Device {
 public:
  EmulatedDevice(EmulatedMachine& machine, Device& inner, int rank, const Emulation& emulation)
      : machine_(machine),
        inner_(inner),
        rank_(rank),
        h2d_(emulation.h2d.bytesPerSecond),
        d2h_(emulation.d2h.bytesPerSecond),
        emulation_(emulation) {}

  double capacityBytes(Place place) const override { return inner_.capacityBytes(place); }
  int64_t storageBytes(Dtype dtype, int64_t elements) const override { return inner_.storageBytes(dtype, elements); }
  Block allocate(Place place, int64_t bytes, int lane) override { return inner_.allocate(place, bytes, lane); }
  void deallocate(Place place, void* data, const Events& after) override { inner_.deallocate(place, data, after); }
  bool fill(int lane, const Operand& to, Point at, const Events& after) override { return inner_.fill(lane, to, at, after); }
  bool upload(int lane, const Operand& to, const void* values, Point at, const Events& after) override {
    return inner_.upload(lane, to, values, at, after);
  }
  bool download(int lane, const Operand& from, void* values, Point at, const Events& after) override {
    return inner_.download(lane, from, values, at, after);
  }
  std::unique_ptr<Task> prepare(const Call& call) override;
  std::unique_ptr<Task> hostTask(std::function<void()> body) override {
    auto task = std::make_unique<EmulatedTask>();
    task->inner = inner_.hostTask(std::move(body));
    return task;
  }
  void submit(int lane, Task& task, Point at, const Events& after, const double* scalars, bool more) override;
  void endStep() override { inner_.endStep(); }
  Point ended(int lane) const override { return inner_.ended(lane); }
  bool watch(int lane, Point point) override { return inner_.watch(lane, point); }
  void wait(int lane, Point point) override { inner_.wait(lane, point); }
  std::vector<OpTime> takeTimes() override;

 private:
  void enclose(EmulatedTask& task, const Call& call);

  EmulatedMachine& machine_;
  Device& inner_;
  const int rank_;
  Link h2d_, d2h_;
  const Emulation& emulation_;
  std::mutex startsMutex_;
  /** When ops really began whose time the inner device takes from their last part. */
  std::map<int32_t, int64_t> starts_;
  /** When each lane's last op ended whose time was taken. */
  std::array<int64_t, laneCount> laneEnds_{};
};

class EmulatedMachine : public Machine {
 public:
  EmulatedMachine(const Backend& backend, const MachineOptions& options, const Emulation& emulation)
      : timed(options.timed), emulation_(emulation) {
    for (const double rate : emulation_.linkBytesPerSecond) links.push_back(std::make_unique<Link>(rate));
    MachineOptions inner = options;
    inner.onProgress = [this, tell = options.onProgress] {
      if (open_.load() && inner_->fault()) wake();
      tell();
    };
    inner_ = backend.open(inner);
    open_ = true;
    if (inner_->fault()) wake();
    for (int rank = 0; rank < options.ranks; rank++) {
      devices_.push_back(std::make_unique<EmulatedDevice>(*this, inner_->device(rank), rank, emulation_));
    }
  }
  ~EmulatedMachine() override {
    open_ = false;
    wake();
    // Its lanes ask it for the time and for faults until they have ended; `reset` would forget it first.
    delete inner_.get();
    static_cast<void>(inner_.release());
  }

  Device& device(int rank) override { return *devices_.at(static_cast<size_t>(rank)); }
  std::optional<Fault> fault() const override { return inner_->fault(); }
  void abort(const Fault& fault) override {
    inner_->abort(fault);
    wake();
  }
  int64_t nowNanoseconds() const override { return inner_->nowNanoseconds(); }
  Replays replays() const override { return inner_->replays(); }

  /** Sleeps until then, or until something failed. */
  void sleepUntil(int64_t then) {
    std::unique_lock lock(mutex_);
    const auto left = std::chrono::nanoseconds(then - inner_->nowNanoseconds());
    if (left.count() <= 0) return;
    woken_.wait_for(lock, left, [this] { return ended_; });
  }

  std::shared_ptr<Crossings> crossings(const Group& group) {
    const std::lock_guard lock(mutex_);
    auto& found = crossings_[{group.name, group.members}];
    if (!found) found = std::make_shared<Crossings>();
    return found;
  }

  const bool timed;
  std::vector<std::unique_ptr<Link>> links;

 private:
  void wake() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    woken_.notify_all();
  }

  const Emulation emulation_;
  std::mutex mutex_;
  std::condition_variable woken_;
  bool ended_ = false;
  std::map<std::pair<std::string, std::vector<int>>, std::shared_ptr<Crossings>> crossings_;
  std::atomic<bool> open_{false};
  std::unique_ptr<Machine> inner_;
  std::vector<std::unique_ptr<EmulatedDevice>> devices_;
};

std::unique_ptr<Task> EmulatedDevice::prepare(const Call& call) {
  auto task = std::make_unique<EmulatedTask>();
  task->inner = inner_.prepare(call);
  if (!(call.seconds >= 0) || !std::isfinite(call.seconds) || !(call.latencySeconds >= 0)) {
    throw BadCall(call.kernel + ": takes " + std::to_string(call.seconds) + " s");
  }
  for (const Load& load : call.loads) {
    if (load.link >= 0 && static_cast<size_t>(load.link) < machine_.links.size()) continue;
    throw BadCall(call.kernel + ": no link " + std::to_string(load.link) + "; the session has " +
                  std::to_string(machine_.links.size()));
  }
  enclose(*task, call);
  return task;
}

void EmulatedDevice::enclose(EmulatedTask& task, const Call& call) {
  const Bus* bus = nullptr;
  Link* link = nullptr;
  if (call.kernel == "h2d") {
    bus = &emulation_.h2d;
    link = &h2d_;
  }
  if (call.kernel == "d2h") {
    bus = &emulation_.d2h;
    link = &d2h_;
  }
  if (bus != nullptr && std::isinf(bus->bytesPerSecond) && bus->latencySeconds == 0) bus = nullptr;
  const bool crosses = call.group && (!call.loads.empty() || call.latencySeconds > 0);
  if (bus == nullptr && !crosses && call.seconds <= 0) return;
  if (crosses) task.crossings = machine_.crossings(*call.group);

  const auto bytes = static_cast<double>(call.inputs.empty() ? 0 : call.inputs[0].sizeBytes);
  task.before = inner_.hostTask([this, &task, loads = call.loads, latency = nanoseconds(call.latencySeconds),
                                 members = call.group ? call.group->members.size() : 1] {
    const std::lock_guard lock(task.mutex);
    EmulatedTask::Launch& launch = task.launches[task.begun++];
    launch.start = machine_.nowNanoseconds();
    if (!task.crossings) return;
    const std::lock_guard crossing(task.crossings->mutex);
    Crossing& all = task.crossings->open[launch.position];
    if (++all.arrived < members) return;
    all.start = launch.start;
    all.deadline = launch.start;
    for (const Load& load : loads) {
      all.deadline = std::max(all.deadline, machine_.links[static_cast<size_t>(load.link)]->reserve(load.bytes, launch.start));
    }
    all.deadline += latency;
  });
  task.after = inner_.hostTask([this, &task, bus, link, bytes, least = nanoseconds(call.seconds),
                                members = call.group ? call.group->members.size() : 1] {
    EmulatedTask::Launch launch{};
    {
      const std::lock_guard lock(task.mutex);
      launch = task.launches.front();
      task.launches.pop_front();
      task.begun--;
    }
    int64_t deadline = launch.start + least;
    if (bus != nullptr) {
      deadline = std::max(deadline, link->reserve(bytes, launch.start) + nanoseconds(bus->latencySeconds));
    }
    if (task.crossings) {
      const std::lock_guard lock(task.crossings->mutex);
      const auto crossing = task.crossings->open.find(launch.position);
      launch.start = crossing->second.start;
      deadline = std::max(launch.start + least, crossing->second.deadline);
      if (++crossing->second.left == members) task.crossings->open.erase(crossing);
    }
    if (machine_.timed) {
      const std::lock_guard lock(startsMutex_);
      starts_[launch.op] = launch.start;
    }
    machine_.sleepUntil(deadline);
  });
}

void EmulatedDevice::submit(int lane, Task& task, Point at, const Events& after, const double* scalars,
                            bool more) {
  auto& enclosed = static_cast<EmulatedTask&>(task);
  if (!enclosed.before) {
    inner_.submit(lane, *enclosed.inner, at, after, scalars, more);
    return;
  }
  EmulatedTask::Launch launch{opOf(at), 0};
  if (enclosed.crossings) {
    const std::lock_guard lock(enclosed.crossings->mutex);
    launch.position = enclosed.crossings->next[rank_]++;
  }
  {
    const std::lock_guard lock(enclosed.mutex);
    enclosed.launches.push_back(launch);
  }
  inner_.submit(lane, *enclosed.before, at, after, nullptr, true);
  inner_.submit(lane, *enclosed.inner, at, noEvents, scalars, true);
  inner_.submit(lane, *enclosed.after, at, noEvents, nullptr, more);
}

std::vector<OpTime> EmulatedDevice::takeTimes() {
  std::vector<OpTime> times = inner_.takeTimes();
  const std::lock_guard lock(startsMutex_);
  for (OpTime& time : times) {
    int64_t& laneEnd = laneEnds_[static_cast<size_t>(time.lane)];
    const auto start = starts_.find(time.op);
    if (start != starts_.end()) {
      // by the host's clock, which a device's own may differ from by a fraction of a microsecond
      time.start = std::max(start->second, laneEnd);
      time.end = std::max(time.end, time.start);
      starts_.erase(start);
    }
    laneEnd = time.end;
  }
  return times;
}

}  // namespace

std::unique_ptr<Machine> openEmulated(const Backend& backend, const MachineOptions& options, const Emulation& emulation) {
  for (const double rate : emulation.linkBytesPerSecond) {
    if (!(rate > 0)) throw BadCall("session: a link of " + std::to_string(rate) + " bytes per second");
  }
  for (const Bus& bus : {emulation.h2d, emulation.d2h}) {
    if (bus.bytesPerSecond > 0 && bus.latencySeconds >= 0) continue;
    throw BadCall("session: a bus needs a positive rate and no negative latency");
  }
  return std::make_unique<EmulatedMachine>(backend, options, emulation);
}

}  // namespace tandem

// The deferred backend: the cpu backend with everything put off for as long as the contract allows, and then done in an order
// drawn from a seed. Nothing runs before somebody waits for it (or the program sleeps); what runs next is any op whose events
// are reached. Memory is handed out again while it is in use, and poisoned when it is not. What only a GPU would show - a missing
// edge, memory read too early or too late, a value taken too late - shows here, the same way each time (native/README.md).
#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <limits>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels.h"
#include "machine.h"
#include "program-thread.h"

namespace tandem {

namespace {

constexpr Point nobody = std::numeric_limits<Point>::max();

/** SplitMix64. */
struct Draw {
  uint64_t state;
  uint64_t next() {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  size_t below(size_t count) { return static_cast<size_t>(next() % count); }
};

class DeferredLane;

/** Runs the ops of all lanes of all ranks, one at a time; the members of a collective together. */
class Schedule {
 public:
  Schedule(uint64_t seed, Discipline& discipline) : discipline_(discipline), draw_{seed} {}

  void add(DeferredLane& lane);
  void remove(DeferredLane& lane);
  /** Everything is changed under this lock. */
  std::mutex mutex;
  void changed() { changed_.notify_all(); }
  /** The thread that submits. */
  ProgramThread program;

 private:
  void loop();
  bool wanted() const;
  std::vector<DeferredLane*> enabled();
  void run(DeferredLane& lane, std::unique_lock<std::mutex>& lock);

  Discipline& discipline_;
  Draw draw_;
  std::condition_variable changed_;
  std::vector<DeferredLane*> lanes_;
  bool ending_ = false;
  std::thread thread_;
};

class DeferredLane : public Lane {
 public:
  DeferredLane(Schedule& schedule, RankLanes& lanes, int lane, const std::function<void()>& onProgress)
      : schedule(schedule), lanes(lanes), lane(lane), onProgress(onProgress) {
    schedule.add(*this);
  }
  /** Everything queued has passed by then. */
  ~DeferredLane() override { schedule.remove(*this); }

  void submit(Item item) override {
    schedule.program.here();
    const std::lock_guard lock(schedule.mutex);
    queue.push_back(std::move(item));
    schedule.changed();
  }
  bool watch(Point point) override {
    const std::lock_guard lock(schedule.mutex);
    if (progress().reached() >= point) return true;
    watched = std::min(watched, point);
    schedule.changed();
    return false;
  }
  void hurry() override {
    const std::lock_guard lock(schedule.mutex);
    hurried = true;
    schedule.changed();
  }
  void takeTimes(std::vector<OpTime>& into) override {
    const std::lock_guard lock(schedule.mutex);
    into.insert(into.end(), times.begin(), times.end());
    times.clear();
  }

  Progress& progress() { return lanes.progress[static_cast<size_t>(lane)]; }
  bool ready() const {
    if (queue.empty()) return false;
    for (size_t other = 0; other < laneCount; other++) {
      if (lanes.progress[other].reached() < queue.front().after[other]) return false;
    }
    return true;
  }

  Schedule& schedule;
  RankLanes& lanes;
  const int lane;
  const std::function<void()>& onProgress;
  std::deque<Item> queue;
  std::vector<OpTime> times;
  Point watched = nobody;
  bool hurried = false;
  bool ending = false;
};

void Schedule::add(DeferredLane& lane) {
  const std::lock_guard lock(mutex);
  if (lanes_.empty()) {
    ending_ = false;
    thread_ = std::thread([this] { loop(); });
  }
  lanes_.push_back(&lane);
}

void Schedule::remove(DeferredLane& lane) {
  std::unique_lock lock(mutex);
  lane.ending = true;
  changed_.notify_all();
  changed_.wait(lock, [&] { return lane.queue.empty(); });
  lanes_.erase(std::find(lanes_.begin(), lanes_.end(), &lane));
  ending_ = lanes_.empty();
  if (!ending_) return;
  changed_.notify_all();
  lock.unlock();
  thread_.join();
}

/** Whether somebody waits for something. */
bool Schedule::wanted() const {
  return std::any_of(lanes_.begin(), lanes_.end(), [](const DeferredLane* lane) {
    return lane->watched != nobody || lane->hurried || lane->ending || (lane->lanes.shared.faulted() && !lane->queue.empty());
  });
}

/** Lanes whose next op may run; one for all members of a collective. */
std::vector<DeferredLane*> Schedule::enabled() {
  std::vector<DeferredLane*> lanes;
  std::map<std::pair<const void*, int64_t>, size_t> arrived;
  for (DeferredLane* lane : lanes_) {
    if (!lane->ready()) continue;
    const Item& item = lane->queue.front();
    if (item.task->meets() != nullptr && !lane->lanes.shared.faulted()) {
      if (++arrived[{item.task->meets(), item.position}] < item.task->members()) continue;
    }
    lanes.push_back(lane);
  }
  return lanes;
}

void Schedule::loop() {
  // A program that asks and does not wait must come to its end, too: when it sleeps, or has computed for long. One that is merely
  // slow, or has no core for a while, is not done submitting: what is drawn must not depend on that.
  constexpr auto patience = std::chrono::milliseconds(2);
  constexpr int longest = 500;
  bool impatient = false;
  int waits = 0;
  std::unique_lock lock(mutex);
  while (!ending_) {
    const std::vector<DeferredLane*> choices = enabled();
    if (choices.empty()) {
      impatient = false;
      changed_.wait(lock);
      continue;
    }
    if (!impatient && !wanted()) {
      waits = changed_.wait_for(lock, patience) == std::cv_status::timeout ? waits + 1 : 0;
      impatient = waits > 0 && (waits >= longest || program.sleeps());
      continue;
    }
    waits = 0;
    run(*choices[draw_.below(choices.size())], lock);
  }
}

/** Runs the lane's next op, and those that it meets. */
void Schedule::run(DeferredLane& chosen, std::unique_lock<std::mutex>& lock) {
  std::vector<DeferredLane*> together;
  const void* const meets = chosen.queue.front().task->meets();
  for (DeferredLane* lane : lanes_) {
    if (lane == &chosen) together.push_back(lane);
    if (lane == &chosen || meets == nullptr || !lane->ready()) continue;
    const Item& item = lane->queue.front();
    if (item.task->meets() == meets && item.position == chosen.queue.front().position) together.push_back(lane);
  }
  std::vector<Item> items;
  for (DeferredLane* lane : together) items.push_back(std::move(lane->queue.front()));
  std::vector<int64_t> starts(items.size());
  // Only this thread takes ops off a queue, so the lanes stay as they are meanwhile.
  lock.unlock();
  std::vector<std::thread> members;
  for (size_t i = 1; i < items.size(); i++) {
    members.emplace_back([&, i] { starts[i] = runItem(items[i], together[i]->lanes); });
  }
  starts[0] = runItem(items[0], together[0]->lanes);
  for (std::thread& member : members) member.join();
  lock.lock();
  bool tell = false;
  for (size_t i = 0; i < items.size(); i++) {
    DeferredLane& lane = *together[i];
    Item& item = items[i];
    // A task that kept the address of what it was given finds nothing there.
    item.scalars.fill(std::nan(""));
    lane.queue.pop_front();
    if (item.more) continue;
    if (lane.lanes.timed && pointOf(opOf(item.at)) == item.at) {
      lane.times.push_back({opOf(item.at), lane.lane, starts[i], lane.lanes.shared.now()});
    }
    lane.progress().raise(item.at);
    if (item.at >= lane.watched) {
      lane.watched = nobody;
      tell = true;
    }
    if (lane.queue.empty()) lane.hurried = false;
  }
  discipline_.betweenOps();
  changed_.notify_all();
  if (!tell) return;
  const std::function<void()>& onProgress = together[0]->onProgress;
  lock.unlock();
  onProgress();
  lock.lock();
}

class Deferred : public Discipline {
 public:
  explicit Deferred(uint64_t seed) : schedule_(seed, *this) {}
  std::unique_ptr<Lane> lane(RankLanes& lanes, int lane, const std::function<void()>& onProgress) override {
    return std::make_unique<DeferredLane>(schedule_, lanes, lane, onProgress);
  }
  bool prompt() const override { return false; }
  void failed() override {
    const std::lock_guard lock(schedule_.mutex);
    schedule_.changed();
  }

 private:
  Schedule schedule_;
};

}  // namespace

Backend deferredBackend() {
  return {"deferred", "the cpu backend with everything put off and reordered, for tests", cpuBackend().probe, cpuKernels,
          [](const MachineOptions& options) {
            uint64_t seed = 0;
            for (const auto& [name, value] : options.settings) {
              if (name != "seed") throw BadCall("deferred: no setting \"" + name + "\"; known: seed");
              seed = static_cast<uint64_t>(static_cast<int64_t>(value));
            }
            return openThreads(options, std::make_unique<Deferred>(seed));
          }};
}

}  // namespace tandem

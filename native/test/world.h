// What the native tests share: a world of ranks on any backend, and waiting as JavaScript does.
#pragma once

#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <string>

#include "../emulation.h"
#include "../rank.h"

namespace tandem {

extern int failures;

inline void expect(bool holds, const std::string& what) {
  if (holds) return;
  failures++;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
}

/** Waits as JavaScript does: armed watches, and a call from any thread. */
struct Waiter {
  std::mutex mutex;
  std::condition_variable told;
  int calls = 0;

  void progress() {
    const std::lock_guard lock(mutex);
    calls++;
    told.notify_all();
  }

  template <class Reached>
  void until(Reached reached) {
    for (;;) {
      std::unique_lock lock(mutex);
      const int before = calls;
      lock.unlock();
      if (reached()) return;
      lock.lock();
      told.wait(lock, [&] { return calls != before; });
    }
  }

  void drain(std::vector<std::unique_ptr<Rank>>& ranks) {
    for (auto& rank : ranks) {
      for (int lane = 0; lane < programLanes; lane++) until([&] { return rank->watch(lane, rank->submitted(lane)); });
    }
  }
};

/** Which backend a test runs on. */
struct On {
  std::string backend = "cpu";
  int seed = 0;

  std::string name() const { return backend + (backend == "deferred" ? " " + std::to_string(seed) : ""); }
};

/** Machine and ranks; ranks end after the lanes that run what they prepared. */
struct World {
  Waiter waiter;
  std::unique_ptr<Machine> machine;
  std::vector<std::unique_ptr<Rank>> ranks;
  int32_t nextTensor = 0;

  explicit World(const On& on, int count, std::vector<double> links = {}) {
    MachineOptions options;
    options.ranks = count;
    options.timed = true;
    if (on.backend == "deferred") options.settings["seed"] = on.seed;
    options.onProgress = [this] { waiter.progress(); };
    const Emulation emulation = {{HUGE_VAL}, {HUGE_VAL}, std::move(links)};
    machine = openEmulated(backendNamed(on.backend), options, emulation);
    for (int rank = 0; rank < count; rank++) {
      ranks.push_back(std::make_unique<Rank>(machine->device(rank), HUGE_VAL, HUGE_VAL));
    }
  }
  ~World() { machine.reset(); }

  void drain() { waiter.drain(ranks); }
  std::string fault() const {
    const auto found = machine->fault();
    return found ? found->message : "";
  }

  int32_t tensor(int rank, const Shape& shape, const std::vector<float>& values = {}, Dtype dtype = Dtype::float32,
                 Place place = Place::device) {
    const int32_t id = nextTensor++;
    expect(ranks[static_cast<size_t>(rank)]->allocate(id, place, dtype, shape), "allocation");
    if (!values.empty()) {
      ranks[static_cast<size_t>(rank)]->upload(id, values.data(), static_cast<int64_t>(values.size()), false);
    }
    return id;
  }
  int32_t integers(int rank, const Shape& shape, const std::vector<int32_t>& values) {
    const int32_t id = tensor(rank, shape, {}, Dtype::int32);
    ranks[static_cast<size_t>(rank)]->upload(id, values.data(), static_cast<int64_t>(values.size()), true);
    return id;
  }
  std::vector<float> values(int rank, int32_t id, size_t count) {
    std::vector<float> result(count);
    ranks[static_cast<size_t>(rank)]->read(id, result.data(), static_cast<int64_t>(count), false);
    return result;
  }
  /** As `values`, asked for while its writers may be queued. */
  std::vector<float> awaited(int rank, int32_t id, size_t count) {
    Rank& own = *ranks[static_cast<size_t>(rank)];
    const int32_t download = own.download(id);
    waiter.until([&] { return own.arrived(download); });
    std::vector<float> result(count);
    own.take(download, result.data(), static_cast<int64_t>(count), false);
    return result;
  }
};

inline Call callOf(const char* kernel, int lane, std::map<std::string, Attribute> attributes = {}) {
  Call call;
  call.kernel = kernel;
  call.lane = lane;
  call.attributes = std::move(attributes);
  return call;
}

inline std::vector<float> ramp(size_t count, float step = 0.01f) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; i++) values[i] = std::sin(static_cast<float>(i) * step);
  return values;
}

/** Programs that are right, and programs that are wrong in the way that only a device that is late shows (deferred.cc). */
void deferredPrograms();

}  // namespace tandem

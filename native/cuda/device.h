// A rank on a GPU: its lanes, its two memories, and who looks how far the lanes are for whoever waits on the program's side.
#pragma once

#include <array>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "memory.h"
#include "plan.h"
#include "stream.h"

namespace tandem::cuda {

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

}  // namespace tandem::cuda

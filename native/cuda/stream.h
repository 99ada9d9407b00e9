// One lane on a GPU: a stream, and a thread that launches prepared ops into it first in, first out. A mark is an event after
// an op: what other lanes' streams wait for, and what tells the host how far the lane is.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "../cpu/shared.h"
#include "kernels.h"
#include "launch-queue.h"
#include "stretches.h"
#include "times.h"

namespace tandem::cuda {

class Graphs;
class Lane;

/**
 * When to look at the GPU again: at once for as long as a kernel or a small copy takes, so that a program that reads a value to go on is
 * not kept for the sleep that it happens to fall into; later after a 256th of what was waited, at most a millisecond.
 */
class Pace {
 public:
  /** None: look again without sleeping. */
  std::chrono::microseconds next() const {
    const auto waited = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begun_);
    if (waited < std::chrono::microseconds(300)) return std::chrono::microseconds(0);
    return std::clamp(waited / 256, std::chrono::microseconds(5), std::chrono::microseconds(1000));
  }

 private:
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
};

/** What a task sees when its lane comes to it. */
struct Run {
  Lane& lane;
  Launch launch;
  /** Of a collective, among those of its communicator; counted where ops are submitted. */
  int64_t position;
};

class CudaTask : public Task {
 public:
  virtual void run(Run& run) = 0;
  /** Whether a graph may hold what it launches. */
  virtual bool capturable() const { return false; }
  /** Position of the next submission, for tasks that have one. */
  virtual int64_t nextPosition() { return 0; }
  /** Scalars that a launch may be given. */
  size_t scalars = 0;
  /** Under which profilers show its launches; a kernel's name. */
  std::string name = "values";
  /** No other task has it, before or after. */
  const int64_t number = ++numbers;
  /** Most scratch that a launch took so far; counted where stretches become graphs. */
  size_t scratchBytes = 0;
  /** A graph cannot be told this task's numbers anew. */
  std::atomic<bool> unfit{false};

 private:
  static inline std::atomic<int64_t> numbers{0};
};

/** A point on a GPU's clock, and when that was on the host's; one for all ranks on that GPU. */
struct Epoch {
  /** On the current device. */
  explicit Epoch(const Shared& shared);
  ~Epoch();
  Epoch(const Epoch&) = delete;
  Epoch& operator=(const Epoch&) = delete;

  /** By so much the GPU's times are to be told later for this op to start when it was launched at the earliest. */
  void startedTooEarly(int64_t by) const {
    int64_t known = late_.load();
    while (by > known && !late_.compare_exchange_weak(known, by)) {
    }
  }
  /** What is to be added to the GPU's times, as far as is known by now. */
  int64_t late() const { return late_.load(); }

  cudaEvent_t event = nullptr;
  int64_t nanoseconds = 0;

 private:
  mutable std::atomic<int64_t> late_{0};
};

/** Graphs made, graphs launched, and tasks that were launched so, of all lanes of a machine; and what could not be one. */
class GraphCounts {
 public:
  std::atomic<int64_t> captured{0}, launched{0}, tasks{0};

  /** A stretch is not tried again. */
  void refused(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    if (refused_++ == 0) reason_ = reason;
  }
  /** "on", and why stretches are launched op by op all the same. */
  std::string state() const {
    const std::lock_guard lock(mutex_);
    if (refused_ == 0) return "on";
    return "on, but for stretches that no graph can be: " + std::to_string(refused_) + ", the first of them for " + reason_;
  }

 private:
  mutable std::mutex mutex_;
  int64_t refused_ = 0;
  std::string reason_;
};

/** What all lanes of a rank share. */
struct RankState {
  Shared& shared;
  int rank;
  int device;
  bool timed;
  FaultSlot* faults;
  std::array<std::unique_ptr<Lane>, laneCount> lanes;
  /** Null where ops are not timed. */
  std::shared_ptr<const Epoch> epoch;
  /** Stretches that come again are launched as graphs (stretches.h); null where they are not. */
  GraphCounts* graphs = nullptr;

  /** Turns what a kernel has reported into a fault of the machine. */
  void look();
};

struct Item {
  CudaTask* task = nullptr;
  /** A task that the item owns. */
  std::unique_ptr<CudaTask> own;
  Point at = noPoint;
  Events after = noEvents;
  std::array<double, maxScalars> scalars{};
  bool scaled = false;
  int64_t position = 0;
  /** Another task of the same op follows: nobody waits for this one. */
  bool more = false;
  /** What it is of a stretch. */
  Planned planned;
};

/** Whether blocks of other lanes are placed before those of the compute lane that are still to begin: TANDEM_CUDA_PRIORITY=0 says no. */
bool lanesHavePriority();

class Lane {
 public:
  Lane(RankState& rank, int lane);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;
  /** Ends the thread once everything queued has passed, after a fault that is soon, and waits for what was launched. */
  void finish();

  void submit(Item item) { queue_.push(std::move(item)); }
  /** The rest of a stretch will not come. */
  void broken(int64_t ticket) { queue_.broken(ticket); }
  /** The point that the GPU has reached. From any thread. */
  Point ended();
  /** Waits until the GPU has reached the point. */
  void wait(Point point);
  /** Of ops that were seen to have ended (`ended`) since the last call, with what they waited for. */
  void takeTimes(std::vector<TimedOp>& into);

  cudaStream_t stream() const { return stream_; }
  RankState& rank() { return rank_; }
  /** Makes `stream` wait for that point of this lane, once it is launched. */
  void orderAfter(cudaStream_t stream, Point point);
  /** Whoever waits for launches looks again: something failed. */
  void wake();

 private:
  struct Mark {
    Point at;
    cudaEvent_t event;
    /** Null where ops are not timed, or the mark is not an op's. */
    cudaEvent_t start;
    Events after;
    /** When the host launched it: no op starts before. */
    int64_t launched;
  };

  void loop();
  void waitFor(const Item& item);
  template <class Body>
  void failing(const Item& item, const Body& body);
  bool runTogether(const std::vector<Item>& items);
  void runOne(const Item& item);
  void passed(const Mark& mark);
  cudaEvent_t takeEvent();
  void retire(const Mark& mark);
  void awaitLaunch(Point point);

  RankState& rank_;
  const int lane_;
  const bool graphed_;
  cudaStream_t stream_ = nullptr;
  LaunchQueue<Item> queue_;
  /** Of the lane's thread. */
  std::unique_ptr<Graphs> graphs_;

  std::mutex marksMutex_;
  std::condition_variable launchedMore_;
  std::deque<Mark> marks_;
  std::vector<cudaEvent_t> spare_;
  Point launched_ = noPoint;
  /** The first launch that somebody sleeps for: only then is anybody woken. */
  Point awaited_ = std::numeric_limits<Point>::max();
  Point reached_ = noPoint;
  std::vector<TimedOp> times_;
  /** Times are told from this event on, for they are told in milliseconds of float32; null: the rank's first. */
  cudaEvent_t base_ = nullptr;
  int64_t baseNanoseconds_ = 0;

  std::thread thread_;
};

}  // namespace tandem::cuda

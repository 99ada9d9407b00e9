// A lane of the cpu backend: takes ops in order and has ended them in order. Who runs them when is the lane's affair: a thread
// of its own (worker.h), or a schedule that looks for trouble (deferred.h). Knows nothing of kernels, memory or other ranks.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "../backend.h"
#include "progress.h"
#include "shared.h"

namespace tandem {

/** What a running op may know and change of its run. */
struct Run {
  Shared& shared;
  /** The op's place in its communicator's order; collectives only. */
  int64_t position;
  /** When the op started; a collective when all members are in place, among processes when this one is. */
  int64_t start;
  /** What the launch gave anew; null where it gave nothing. */
  const double* scalars;
};

/** An op of the cpu backend. Throws for a fault that only values can show. */
class CpuTask : public Task {
 public:
  virtual void run(Run& run) = 0;
  /** How many numbers a launch may give it. */
  size_t scalars = 0;
  /** Called at submission, from the program's thread: the position that the run will be given. */
  virtual int64_t nextPosition() { return 0; }
  /** The other members' ops of a collective must run beside it; for others, nothing. */
  virtual const void* meets() const { return nullptr; }
  virtual size_t members() const { return 1; }
};

/** A submission. */
struct Item {
  CpuTask* task;
  Point at;
  Events after;
  int64_t position = 0;
  /** Another task of the same op follows. */
  bool more = false;
  /** Owned by the submission where the layer made it. */
  std::unique_ptr<CpuTask> own;
  bool scaled = false;
  std::array<double, maxScalars> scalars;
};

class Lane {
 public:
  virtual ~Lane() = default;
  virtual void submit(Item item) = 0;
  virtual bool watch(Point point) = 0;
  /** Somebody waits, and asks for no call. */
  virtual void hurry() {}
  virtual void takeTimes(std::vector<OpTime>& into) = 0;
};

/** What the lanes of one rank share. */
struct RankLanes {
  Shared& shared;
  int rank;
  bool timed;
  std::array<Progress, laneCount> progress;
};

/** Runs the item's task, unless something failed before, and keeps its fault. Returns when it started. */
int64_t runItem(const Item& item, RankLanes& lanes);

}  // namespace tandem

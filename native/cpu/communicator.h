// Where the members of a group meet: collectives of one communicator pair up by the order of their submission, whichever
// lane they run on. Knows nothing of what a collective computes.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../backend.h"
#include "shared.h"

namespace tandem {

class CollectiveTask;

/** One collective, from the first member's arrival to the last one's departure. */
class Meeting {
 public:
  explicit Meeting(size_t members) : tasks(members, nullptr) {}

  /** Waits until all members have called it once more. Everything written before is visible to all afterwards. */
  void barrier();

  std::vector<CollectiveTask*> tasks;
  /** When the last member came. */
  int64_t start = 0;

 private:
  friend class Communicator;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t arrived_ = 0;
  bool abandoned_ = false;
  size_t waiting_ = 0;
  uint64_t round_ = 0;
  size_t left_ = 0;
};

class Communicator {
 public:
  Communicator(Shared& shared, Group group);

  const Group& group() const { return group_; }
  /** Position of the next collective that this member submits; counted from one thread. */
  int64_t nextPosition(size_t member) { return next_[member]++; }

  /**
   * Waits for all members at that position. The last one to come calls `begin` before any goes on; what it throws, it
   * throws for that member, and the others give up. Null when something failed meanwhile.
   */
  std::shared_ptr<Meeting> meet(int64_t position, size_t member, CollectiveTask& task,
                                const std::function<void(Meeting&)>& begin);
  /** A member's last word on a meeting that it met in. */
  void leave(int64_t position, Meeting& meeting);
  /** Ends the wait of whoever waits to meet. */
  void wake();

 private:
  std::shared_ptr<Meeting> at(int64_t position);

  Shared& shared_;
  const Group group_;
  std::vector<int64_t> next_;
  std::mutex mutex_;
  std::map<int64_t, std::shared_ptr<Meeting>> meetings_;
};

}  // namespace tandem

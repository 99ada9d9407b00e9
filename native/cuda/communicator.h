// Where the members of a group meet before they launch a collective: pairs collectives up by the order of their submission.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "../cpu/shared.h"

namespace tandem::cuda {

class CollectiveTask;

/** One collective, from the first member's arrival on. */
class Meeting {
 public:
  Meeting(Shared& shared, size_t members) : tasks(members, nullptr), shared_(shared) {}

  /**
   * Waits until all members have called it as often as this one. The last to come calls `last` before any goes on. False when
   * something failed meanwhile.
   */
  template <class Last>
  bool arrive(Last last) {
    std::unique_lock lock(mutex_);
    const uint64_t round = round_;
    if (++waiting_ == tasks.size()) {
      last();
      waiting_ = 0;
      round_++;
      changed_.notify_all();
      return true;
    }
    changed_.wait(lock, [&] { return round_ != round || shared_.faulted(); });
    return round_ != round;
  }

  void wake() {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }

  std::vector<CollectiveTask*> tasks;

 private:
  Shared& shared_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t waiting_ = 0;
  uint64_t round_ = 0;
};

class Communicator {
 public:
  Communicator(Shared& shared, Group group) : shared_(shared), group_(std::move(group)), next_(group_.members.size(), 0) {}

  const Group& group() const { return group_; }
  /** Counted from one thread. */
  int64_t nextPosition(size_t member) { return next_[member]++; }

  std::shared_ptr<Meeting> at(int64_t position) {
    const std::lock_guard lock(mutex_);
    auto& found = meetings_[position];
    auto meeting = found.meeting;
    if (!meeting) meeting = found.meeting = std::make_shared<Meeting>(shared_, group_.members.size());
    if (++found.members == group_.members.size()) meetings_.erase(position);
    live_.emplace(meeting.get(), meeting);
    return meeting;
  }

  void left(const std::shared_ptr<Meeting>& meeting) {
    const std::lock_guard lock(mutex_);
    live_.erase(meeting.get());
  }

  void wake() {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, meeting] : live_) {
      if (const auto alive = meeting.lock()) alive->wake();
    }
  }

 private:
  struct Entry {
    std::shared_ptr<Meeting> meeting;
    size_t members = 0;
  };

  Shared& shared_;
  const Group group_;
  std::vector<int64_t> next_;
  std::mutex mutex_;
  std::map<int64_t, Entry> meetings_;
  std::map<Meeting*, std::weak_ptr<Meeting>> live_;
};

}  // namespace tandem::cuda

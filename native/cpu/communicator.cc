#include "communicator.h"

#include <utility>

namespace tandem {

void Meeting::barrier() {
  std::unique_lock lock(mutex_);
  const uint64_t round = round_;
  if (++waiting_ == tasks.size()) {
    waiting_ = 0;
    round_++;
    changed_.notify_all();
    return;
  }
  changed_.wait(lock, [&] { return round_ != round; });
}

Communicator::Communicator(Shared& shared, Group group)
    : shared_(shared), group_(std::move(group)), next_(group_.members.size(), 0) {}

std::shared_ptr<Meeting> Communicator::at(int64_t position) {
  const std::lock_guard lock(mutex_);
  auto& meeting = meetings_[position];
  if (!meeting) meeting = std::make_shared<Meeting>(group_.members.size());
  return meeting;
}

std::shared_ptr<Meeting> Communicator::meet(int64_t position, size_t member, CollectiveTask& task,
                                            const std::function<void(Meeting&)>& begin) {
  const std::shared_ptr<Meeting> meeting = at(position);
  std::unique_lock lock(meeting->mutex_);
  if (meeting->abandoned_) return nullptr;
  meeting->tasks[member] = &task;
  if (++meeting->arrived_ == meeting->tasks.size()) {
    try {
      begin(*meeting);
    } catch (...) {
      meeting->abandoned_ = true;
      meeting->changed_.notify_all();
      throw;
    }
    meeting->round_++;
    meeting->changed_.notify_all();
    return meeting;
  }
  meeting->changed_.wait(lock, [&] { return meeting->round_ > 0 || meeting->abandoned_ || shared_.faulted(); });
  // Once all have met, all go through with it: nobody's memory may return while another reads it.
  if (meeting->round_ > 0) return meeting;
  meeting->abandoned_ = true;
  meeting->changed_.notify_all();
  return nullptr;
}

void Communicator::leave(int64_t position, Meeting& meeting) {
  bool last = false;
  {
    const std::lock_guard lock(meeting.mutex_);
    last = ++meeting.left_ == meeting.tasks.size();
  }
  if (!last) return;
  const std::lock_guard lock(mutex_);
  meetings_.erase(position);
}

void Communicator::wake() {
  const std::lock_guard lock(mutex_);
  for (const auto& [position, meeting] : meetings_) {
    const std::lock_guard inner(meeting->mutex_);
    meeting->changed_.notify_all();
  }
}

}  // namespace tandem

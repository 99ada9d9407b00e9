// Which of a lane's tasks come again and again in the same order, so that they may be launched as one graph: found where ops are
// submitted, by what is submitted. Knows nothing of CUDA, nor of what a task does.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tandem::cuda {

/** One task of a stretch: which (a number that no other task has), and how many ops after the stretch's first. */
struct StretchTask {
  int64_t task;
  int32_t offset;
  bool operator==(const StretchTask& other) const { return task == other.task && offset == other.offset; }
};

/**
 * Tasks that followed one another in one lane, with nothing between them that a graph cannot hold, and nobody who waits for one of
 * them but the last. A task has its memory and its shapes once and for all, so the same tasks are the same kernels, addresses and
 * shapes; numbers given at a launch may differ.
 */
struct Stretch {
  explicit Stretch(std::vector<StretchTask> tasks) : tasks(std::move(tasks)) {}

  const std::vector<StretchTask> tasks;
  /** Set by the lane: it cannot be a graph. */
  std::atomic<bool> refused{false};
  /** Captures that failed; of the lane. */
  int failures = 0;
  /** Times that the lane did not wait for the rest of it. */
  std::atomic<int32_t> givenUp{0};
  /** Forgotten: its graph may go once it is not under way. */
  std::atomic<bool> dropped{false};

  // of who submits
  int64_t sightings = 0;
  int64_t lastSeen = 0;
  int64_t met = 0;
  int64_t missed = 0;
};

/** How a task is to be handed to its lane. */
struct Planned {
  /** The task begins this stretch, all of which is expected; null elsewhere. */
  std::shared_ptr<Stretch> opens;
  /** The stretch that the task is a part of, by a number that rises; 0 where it is in none. */
  int64_t ticket = 0;
  /** The task is the stretch's last. */
  bool completes = false;
  /** What was expected under this ticket will not come; 0 where nothing was given up. */
  int64_t broken = 0;
};

/**
 * The tasks of one lane, as they are submitted. Tasks that came twice in the same order, up to the same ends, are expected to come so
 * again as soon as the first of them does: the lane then waits for the rest and launches them at once. Calls come from one thread.
 */
class Stretches {
 public:
  struct Limits {
    /** Fewer tasks are not worth a graph. */
    size_t shortest = 4;
    /** More are cut: who waits for a stretch waits for all of it. */
    size_t longest = 1024;
    /** Stretches that are remembered; the one that was not seen for longest goes. */
    size_t kept = 256;
  };

  Stretches() = default;
  explicit Stretches(const Limits& limits) : limits_(limits) {}

  /** A task of op `op`; `capturable`: a graph may hold it; `waits`: for other lanes, so that nothing before it may wait with it. */
  Planned submit(int64_t task, int32_t op, bool capturable, bool waits) {
    Planned planned;
    if (!capturable || waits) planned.broken = close();
    if (!capturable) return planned;
    if (run_.size() == limits_.longest) endRun();
    if (open_) {
      const StretchTask& expected = open_->tasks[at_];
      if (expected == StretchTask{task, op - openedAt_}) {
        planned.ticket = ticket_;
        if (++at_ == open_->tasks.size()) {
          planned.completes = true;
          open_->met++;
          open_ = nullptr;
        }
      } else {
        planned.broken = giveUp();
      }
    }
    if (planned.ticket == 0) {
      if (std::shared_ptr<Stretch> expected = expectedFrom(task)) {
        open_ = planned.opens = std::move(expected);
        openedAt_ = op;
        at_ = 1;
        planned.ticket = ++ticket_;
      }
    }
    run_.push_back({task, op, false});
    return planned;
  }

  /**
   * Somebody (another lane, the host) waits for that op, or for the last one before it in this lane: a stretch ends there, from the next
   * time on. The ticket that is given up, or 0.
   */
  int64_t await(int32_t op) {
    if (run_.empty() || op < run_.front().op) return 0;
    auto after = std::upper_bound(run_.begin(), run_.end(), op, [](int32_t given, const Run& one) { return given < one.op; });
    (after - 1)->last = true;
    // nothing has come after it: what came is known now, whether or not a step ever ends
    if (after == run_.end()) endRun();
    return open_ && op >= openedAt_ ? giveUp() : 0;
  }

  /** Nothing that follows belongs to what came before: the end of a step, or work that no graph holds. The ticket given up, or 0. */
  int64_t close() {
    endRun();
    return open_ ? giveUp() : 0;
  }

  size_t kept() const { return kept_; }

 private:
  struct Run {
    int64_t task;
    int32_t op;
    /** Somebody waits for it. */
    bool last;
  };

  int64_t giveUp() {
    open_->missed++;
    open_ = nullptr;
    return ticket_;
  }

  /** The stretch that begins with the task: of several the one that was seen last. */
  std::shared_ptr<Stretch> expectedFrom(int64_t task) const {
    const auto found = known_.find(task);
    if (found == known_.end()) return nullptr;
    std::shared_ptr<Stretch> best;
    for (const auto& one : found->second) {
      if (one->sightings < 2 || one->refused.load(std::memory_order_relaxed)) continue;
      // what is announced in vain keeps the lane waiting
      if (one->missed + one->givenUp.load(std::memory_order_relaxed) > one->met + tolerated) continue;
      if (best == nullptr || one->lastSeen > best->lastSeen) best = one;
    }
    return best;
  }

  void endRun() {
    for (size_t first = 0; first < run_.size();) {
      size_t end = first;
      while (end < run_.size() && !run_[end++].last) {
      }
      if (end - first >= limits_.shortest) saw(first, end);
      first = end;
    }
    run_.clear();
  }

  void saw(size_t first, size_t end) {
    const auto same = [&](const Stretch& stretch) {
      if (stretch.tasks.size() != end - first) return false;
      for (size_t i = first; i < end; i++) {
        if (!(stretch.tasks[i - first] == StretchTask{run_[i].task, run_[i].op - run_[first].op})) return false;
      }
      return true;
    };
    auto known = known_.find(run_[first].task);
    if (known != known_.end()) {
      for (const auto& stretch : known->second) {
        if (!same(*stretch)) continue;
        stretch->sightings++;
        stretch->lastSeen = ++seen_;
        return;
      }
    }
    if (kept_ == limits_.kept) forgetOldest();
    std::vector<StretchTask> tasks;
    tasks.reserve(end - first);
    for (size_t i = first; i < end; i++) tasks.push_back({run_[i].task, run_[i].op - run_[first].op});
    auto made = std::make_shared<Stretch>(std::move(tasks));
    made->sightings = 1;
    made->lastSeen = ++seen_;
    known_[run_[first].task].push_back(std::move(made));
    kept_++;
  }

  void forgetOldest() {
    auto oldest = known_.end();
    size_t which = 0;
    for (auto entry = known_.begin(); entry != known_.end(); ++entry) {
      for (size_t i = 0; i < entry->second.size(); i++) {
        if (oldest != known_.end() && oldest->second[which]->lastSeen <= entry->second[i]->lastSeen) continue;
        oldest = entry;
        which = i;
      }
    }
    if (oldest == known_.end()) return;
    oldest->second[which]->dropped.store(true, std::memory_order_relaxed);
    oldest->second.erase(oldest->second.begin() + static_cast<std::ptrdiff_t>(which));
    if (oldest->second.empty()) known_.erase(oldest);
    kept_--;
  }

  /** Times that a stretch may be expected in vain, beyond those that it came. */
  static constexpr int64_t tolerated = 3;

  const Limits limits_{};
  /** What came since the last end, one entry a task. */
  std::vector<Run> run_;
  /** By their first task. */
  std::unordered_map<int64_t, std::vector<std::shared_ptr<Stretch>>> known_;
  size_t kept_ = 0;
  int64_t seen_ = 0;
  /** What is expected: its first op, and how many of its tasks have come. */
  std::shared_ptr<Stretch> open_;
  int32_t openedAt_ = 0;
  size_t at_ = 0;
  int64_t ticket_ = 0;
};

}  // namespace tandem::cuda

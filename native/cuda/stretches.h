// Which of a lane's tasks come again and again in the same order, so that they may be launched as one graph: found where ops are
// submitted, by what is submitted. Knows nothing of CUDA, nor of what a task does.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "seams.h"

namespace tandem::cuda {

/** Most tasks of a stretch. */
constexpr size_t longestStretch = 1024;

/**
 * Tasks that followed one another in one lane, with nothing between them that a graph cannot hold, and nobody who waits for one of
 * them but the last; each by a number that no other task has. A task has its memory and its shapes once and for all, so the same tasks
 * are the same kernels, addresses and shapes; numbers given at a launch may differ, and those of their ops.
 */
struct Stretch {
  explicit Stretch(std::vector<int64_t> tasks) : tasks(std::move(tasks)) {}

  const std::vector<int64_t> tasks;
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
  bool whole = false;
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

/** What ends a stretch before a task. */
enum class Before : uint8_t {
  nothing,
  /** Something of the program's, which is there again when the program does the same: an op that it waits for, or that no graph holds. */
  program,
  /** What the layer does when it happens to: values that come and go. */
  layer
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
    size_t longest = longestStretch;
    /** Stretches that are remembered; the one that was not seen for longest goes. */
    size_t kept = 256;
    /** Fewer tasks are not cut off for a seam (seams.h): small pieces are many launches, and soon too few tasks for a graph. */
    size_t piece = 8;
    Seams::Limits seams{};
  };

  Stretches() = default;
  explicit Stretches(const Limits& limits) : limits_(limits), seams_(limits.seams) {}

  /** A task of op `op`; `capturable`: a graph may hold it; `before`: for what nothing that came earlier may wait with it. */
  Planned submit(int64_t task, int32_t op, bool capturable, Before before) {
    Planned planned;
    if (!capturable || before != Before::nothing) planned.broken = endAt(before == Before::program ? Cut::program : Cut::other);
    if (!capturable) return planned;
    if (previous_ != 0) {
      if (seam_) seams_.cut(previous_, task);
      else if (seams_.between(previous_, task) && sinceCut() >= limits_.piece) run_.back().cut = Cut::program;
    }
    previous_ = task;
    seam_ = false;
    if (run_.size() == limits_.longest) endRun(Cut::other);
    if (open_) {
      if (open_->tasks[at_] == task) {
        planned.ticket = ticket_;
        if (++at_ == open_->tasks.size()) {
          planned.completes = true;
          open_->met++;
          open_ = nullptr;
        }
      } else {
        planned.broken = giveUp();
        // what comes instead may come instead again
        if (!run_.empty()) run_.back().cut = Cut::program;
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
    run_.push_back({task, op, Cut::none});
    return planned;
  }

  /**
   * Somebody (another lane, the host) waits for that op, or for the last one before it in this lane: a stretch ends there, from the next
   * time on; always, where it is an op of the program's that waits. The ticket that is given up, or 0.
   */
  int64_t await(int32_t op, bool byProgram) {
    if (run_.empty() || op < run_.front().op) return 0;
    auto after = std::upper_bound(run_.begin(), run_.end(), op, [](int32_t given, const Run& one) { return given < one.op; });
    Run& last = *(after - 1);
    if (last.cut != Cut::program) last.cut = byProgram ? Cut::program : Cut::other;
    if (after != run_.end()) {
      if (byProgram) seams_.cut(last.task, after->task);
    } else {
      seam_ = seam_ || byProgram;
      // nothing has come after it: what came is known now, whether or not a step ever ends
      endRun(last.cut);
    }
    return open_ && op >= openedAt_ ? giveUp() : 0;
  }

  /** Nothing that follows belongs to what came before: the end of a step. The ticket given up, or 0. */
  int64_t close() {
    const int64_t broken = endAt(Cut::program);
    previous_ = 0;
    seam_ = false;
    return broken;
  }

  size_t kept() const { return kept_; }

 private:
  /** What is behind a task that no stretch goes on from: of the program, as `Before`, or a step's end; or anything else. */
  enum class Cut : uint8_t { none, program, other };
  struct Run {
    int64_t task;
    int32_t op;
    Cut cut;
  };

  /** Tasks since the last end. */
  size_t sinceCut() const {
    size_t count = 0;
    while (count < run_.size() && run_[run_.size() - 1 - count].cut == Cut::none) count++;
    return count;
  }

  int64_t endAt(Cut cut) {
    endRun(cut);
    if (cut == Cut::program) seam_ = true;
    else previous_ = 0;
    return open_ ? giveUp() : 0;
  }

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

  void endRun(Cut cut) {
    if (!run_.empty() && run_.back().cut == Cut::none) run_.back().cut = cut;
    for (size_t first = 0; first < run_.size();) {
      size_t end = first;
      while (run_[end++].cut == Cut::none) {
      }
      saw(first, end);
      first = end;
    }
    run_.clear();
  }

  void saw(size_t first, size_t end) {
    std::vector<int64_t> tasks;
    tasks.reserve(end - first);
    for (size_t i = first; i < end; i++) tasks.push_back(run_[i].task);
    const bool whole = run_[end - 1].cut == Cut::program;
    std::shared_ptr<Stretch> last, found;
    if (const auto known = known_.find(tasks[0]); known != known_.end()) {
      for (const auto& stretch : known->second) {
        if (last == nullptr || stretch->lastSeen > last->lastSeen) last = stretch;
        if (stretch->tasks == tasks) found = stretch;
      }
    }
    if (last != nullptr && last != found) learn(*last, tasks, whole);
    if (tasks.size() < limits_.shortest) return;
    if (found == nullptr) {
      if (kept_ == limits_.kept) forgetOldest();
      found = std::make_shared<Stretch>(std::move(tasks));
      known_[found->tasks[0]].push_back(found);
      kept_++;
    }
    found->sightings++;
    found->lastSeen = ++seen_;
    found->whole = whole;
  }

  /** Both began with the same task: a seam is where they part, and where they meet again. `whole`: the program ended it there. */
  void learn(const Stretch& last, const std::vector<int64_t>& tasks, bool whole) {
    const std::vector<int64_t>& others = last.tasks;
    const auto [one, other] = std::mismatch(tasks.begin(), tasks.end(), others.begin(), others.end());
    // where one is the other's beginning, and not for the layer's sake
    if (one == tasks.end() && !whole) return;
    if (other == others.end() && !last.whole) return;
    if (one != tasks.end()) seams_.cut(*(one - 1), *one);
    if (other != others.end()) seams_.cut(*(other - 1), *other);
    const std::unordered_set<int64_t> rest(other, others.end());
    const auto again = std::find_if(one, tasks.end(), [&](int64_t task) { return rest.count(task) != 0; });
    if (again == tasks.end()) return;
    const auto there = std::find(other, others.end(), *again);
    seams_.cut(*(again - 1), *again);
    seams_.cut(*(there - 1), *there);
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
  Seams seams_;
  /** The lane's last task in this step, with nothing of the layer's behind it; and whether something of the program's is. */
  int64_t previous_ = 0;
  bool seam_ = false;
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

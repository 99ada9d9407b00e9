// Where the tasks of a lane do not always follow one another: what is cut there now and then is cut there always, so that stretches are
// the same in every step, whatever a step sends, waits for or does besides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>

namespace tandem::cuda {

/** Tasks by their numbers, which are not 0. */
class Seams {
 public:
  struct Limits {
    /** Times that a seam is passed with nothing to show for it before it is one no longer. */
    int64_t idle = 1000;
    /** Ends and beginnings that are remembered; of more, none. */
    size_t kept = 4096;
  };

  Seams() = default;
  explicit Seams(const Limits& limits) : limits_(limits) {}

  /** There is something between these two, one after the other, or there may be. */
  void cut(int64_t before, int64_t after) {
    if (ends_.size() + begins_.size() >= limits_.kept) {
      ends_.clear();
      begins_.clear();
    }
    ends_[before] = 0;
    begins_[after] = 0;
  }

  /**
   * One came right behind the other. True where there is a seam: the one was followed by something else before, or the other came behind
   * something else, and so there is one at what both meet besides.
   */
  bool between(int64_t before, int64_t after) {
    if (ends_.empty() && begins_.empty()) return false;
    const auto end = ends_.find(before);
    const auto begin = begins_.find(after);
    if (end == ends_.end() && begin == begins_.end()) return false;
    // what is there because of the other is as old as that
    const int64_t ended = end == ends_.end() ? begin->second : end->second;
    const int64_t began = begin == begins_.end() ? end->second : begin->second;
    pass(ends_, before, ended + 1);
    pass(begins_, after, began + 1);
    return true;
  }

  size_t kept() const { return ends_.size() + begins_.size(); }

 private:
  /** How often each was passed in vain. */
  using Idle = std::unordered_map<int64_t, int64_t>;

  void pass(Idle& idle, int64_t task, int64_t times) {
    if (times > limits_.idle) idle.erase(task);
    else idle[task] = times;
  }

  const Limits limits_{};
  /** Tasks that a stretch ends with, and those that one begins with. */
  Idle ends_;
  Idle begins_;
};

}  // namespace tandem::cuda

// Stretches of a lane as CUDA graphs: captured once, told what is new, launched. Knows nothing of how stretches are found.
#pragma once

#include <memory>
#include <vector>

#include "stream.h"

namespace tandem::cuda {

/** False where TANDEM_CUDA_GRAPHS is 0. */
bool graphsWished();

/** The graphs of one lane; of its thread alone, but for the end. */
class Graphs {
 public:
  Graphs(Lane& lane, int priority);
  /** When nothing is under way any more. */
  ~Graphs();
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  /**
   * Puts all items of a stretch into the lane's stream. False where they are to be launched one by one: nothing was launched then.
   * Throws std::runtime_error where the launch fails.
   */
  bool launch(const std::vector<Item>& items);

 private:
  class Graph;

  /** Throws where it cannot be a graph. */
  std::unique_ptr<Graph> capture(const std::vector<Item>& items);
  void makeScratch(const std::vector<Item>& items);
  void retire(const Stretch* stretch);
  void sweep();

  Lane& lane_;
  /** Work is captured on a stream of its own, so that the lane's never is in the middle of a capture. */
  cudaStream_t stream_ = nullptr;
  /** On the device: numbers of the ops of the graph that runs. */
  std::shared_ptr<int32_t> numbers_;
  /** Of whatever runs: tasks of a lane follow one another. */
  std::shared_ptr<char> scratch_;
  size_t scratchBytes_ = 0;
  std::vector<std::unique_ptr<Graph>> graphs_;
  /** May be under way still. */
  std::vector<std::unique_ptr<Graph>> retired_;
};

}  // namespace tandem::cuda

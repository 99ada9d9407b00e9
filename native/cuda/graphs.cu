#include "graphs.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

namespace tandem::cuda {

namespace {

/** The numbers of a stretch's ops, which are others at every launch: what its kernels report. */
struct OpNumbers {
  int32_t* of;
  int32_t first;
  int32_t count;
  /** By how much each comes after the first. */
  uint16_t after[longestStretch];
};
// all of a kernel's parameters
static_assert(sizeof(OpNumbers) <= 4096);

__global__ void beginStretch(OpNumbers numbers) {
  for (int i = threadIdx.x; i < numbers.count; i += blockDim.x) numbers.of[i] = numbers.first + numbers.after[i];
}
constexpr int beginThreads = 256;

/** More ops of other lanes between are not told: the tasks are launched one by one. */
bool numbersFit(const std::vector<Item>& items) {
  return opOf(items.back().at) - opOf(items.front().at) <= std::numeric_limits<uint16_t>::max();
}

OpNumbers numbersOf(const std::vector<Item>& items, int32_t* of) {
  OpNumbers numbers{of, opOf(items.front().at), static_cast<int32_t>(items.size()), {}};
  for (size_t i = 0; i < items.size(); i++) numbers.after[i] = static_cast<uint16_t>(opOf(items[i].at) - numbers.first);
  return numbers;
}

using Nodes = std::vector<cudaGraphNode_t>;

/** A task that is launched by itself from now on. */
[[noreturn]] void unfit(const Item& item, const char* why) {
  item.task->unfit = true;
  throw std::runtime_error(item.task->name + ": " + why);
}

/** Captures that failed before a stretch is no longer tried. */
constexpr int mostFailures = 2;

/** Memory in the lane's order, given back in the same. */
template <class T>
std::shared_ptr<T> memoryOf(cudaStream_t stream, size_t bytes) {
  void* data = nullptr;
  check(cudaMallocAsync(&data, bytes, stream), "cudaMallocAsync");
  return {static_cast<T*>(data), [stream](T* memory) { cudaFreeAsync(memory, stream); }};
}

/** The node that a capture has come to: null at its beginning, none where it has come to several at once. */
std::optional<cudaGraphNode_t> lastNode(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaGraphNode_t* nodes = nullptr;
  size_t count = 0;
#if CUDART_VERSION >= 13000
  const cudaGraphEdgeData* edges = nullptr;
  const cudaError_t error = cudaStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &nodes, &edges, &count);
#else
  const cudaError_t error = cudaStreamGetCaptureInfo_v2(stream, &status, nullptr, nullptr, &nodes, &count);
#endif
  if (error != cudaSuccess || status != cudaStreamCaptureStatusActive || count > 1) {
    cudaGetLastError();
    return std::nullopt;
  }
  return count == 0 ? nullptr : nodes[0];
}

/** What the node waits for, null where that is nothing; none where it is several. */
std::optional<cudaGraphNode_t> nodeBefore(cudaGraphNode_t node) {
  cudaGraphNode_t before[2] = {};
  size_t count = 2;
#if CUDART_VERSION >= 13000
  cudaGraphEdgeData edges[2] = {};
  const cudaError_t error = cudaGraphNodeGetDependencies(node, before, edges, &count);
#else
  const cudaError_t error = cudaGraphNodeGetDependencies(node, before, &count);
#endif
  if (error != cudaSuccess || count > 1) {
    cudaGetLastError();
    return std::nullopt;
  }
  return count == 0 ? nullptr : before[0];
}

/** One capture, which ends with this, whatever happens. */
class Capture {
 public:
  explicit Capture(cudaStream_t stream) : stream_(stream) {
    // other threads allocate and free meanwhile
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
  }
  ~Capture() {
    if (!ended_) cudaStreamEndCapture(stream_, &graph_);
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
    cudaGetLastError();
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  /** Runs a task into it, whose op's number will be found there. Nodes in order; none where they are no chain. */
  std::optional<Nodes> record(Lane& lane, const Item& item, const int32_t* number, ScratchSpace space, bool nodes) {
    const auto before = nodes ? lastNode(stream_) : std::nullopt;
    space.used = 0;
    Run run{lane,
            {stream_, item.scaled ? item.scalars.data() : nullptr, {lane.rank().faults, 0, nullptr, number}, &space},
            item.position};
    item.task->run(run);
    check(cudaGetLastError(), "a launch");
    if (!before) return std::nullopt;
    auto node = lastNode(stream_);
    Nodes made;
    while (node && *node != *before) {
      // past the beginning without having met it
      if (*node == nullptr) return std::nullopt;
      made.push_back(*node);
      node = nodeBefore(*node);
    }
    if (!node) return std::nullopt;
    std::reverse(made.begin(), made.end());
    return made;
  }

  void end() {
    ended_ = true;
    check(cudaStreamEndCapture(stream_, &graph_), "cudaStreamEndCapture");
  }
  /** The graph, of which whoever takes it lets go. */
  cudaGraph_t take() { return std::exchange(graph_, nullptr); }

 private:
  const cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  bool ended_ = false;
};

/** Makes a node of an executable graph do what another one does, of the same kind. */
bool become(cudaGraphExec_t executable, cudaGraphNode_t node, cudaGraphNode_t other) {
  cudaGraphNodeType kind{};
  cudaGraphNodeType otherKind{};
  if (cudaGraphNodeGetType(node, &kind) != cudaSuccess || cudaGraphNodeGetType(other, &otherKind) != cudaSuccess) return false;
  if (kind != otherKind) return false;
  switch (kind) {
    case cudaGraphNodeTypeKernel: {
      cudaKernelNodeParams with{};
      return cudaGraphKernelNodeGetParams(other, &with) == cudaSuccess &&
             cudaGraphExecKernelNodeSetParams(executable, node, &with) == cudaSuccess;
    }
    case cudaGraphNodeTypeMemset: {
      cudaMemsetParams with{};
      return cudaGraphMemsetNodeGetParams(other, &with) == cudaSuccess &&
             cudaGraphExecMemsetNodeSetParams(executable, node, &with) == cudaSuccess;
    }
    case cudaGraphNodeTypeMemcpy: {
      cudaMemcpy3DParms with{};
      return cudaGraphMemcpyNodeGetParams(other, &with) == cudaSuccess &&
             cudaGraphExecMemcpyNodeSetParams(executable, node, &with) == cudaSuccess;
    }
    default: return false;
  }
}

}  // namespace

bool graphsWished() {
  const char* wish = std::getenv("TANDEM_CUDA_GRAPHS");
  return wish == nullptr || std::strcmp(wish, "0") != 0;
}

/** A stretch that was captured. */
class Graphs::Graph {
 public:
  /** A task whose launches are given numbers, and those of the last launch. */
  struct Told {
    size_t index;
    Nodes nodes;
    std::array<double, maxScalars> scalars;
    bool scaled;

    bool differsFrom(const Item& item) const {
      return scaled != item.scaled || !std::equal(scalars.begin(), scalars.begin() + item.task->scalars, item.scalars.begin());
    }
  };

  Graph(std::shared_ptr<Stretch> stretch, std::shared_ptr<char> scratch, size_t scratchBytes, std::shared_ptr<int32_t> numbers)
      : stretch(std::move(stretch)), scratch(std::move(scratch)), scratchBytes(scratchBytes), numbers(std::move(numbers)) {}
  ~Graph() {
    if (executable != nullptr) cudaGraphExecDestroy(executable);
    if (graph != nullptr) cudaGraphDestroy(graph);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  /** Tells it the numbers of this launch, and those of its ops. Throws where it cannot be told them: it is of no use any more. */
  void tell(Lane& lane, cudaStream_t stream, const std::vector<Item>& items) {
    std::vector<Told*> changed;
    for (Told& one : told) {
      if (one.differsFrom(items[one.index])) changed.push_back(&one);
    }
    if (!changed.empty()) change(lane, stream, items, changed);
    OpNumbers told = numbersOf(items, numbers.get());
    void* arguments[] = {&told};
    cudaKernelNodeParams with{};
    with.func = reinterpret_cast<void*>(beginStretch);
    with.gridDim = dim3(1);
    with.blockDim = dim3(beginThreads);
    with.kernelParams = arguments;
    check(cudaGraphExecKernelNodeSetParams(executable, begins, &with), "cudaGraphExecKernelNodeSetParams");
  }

  const std::shared_ptr<Stretch> stretch;
  const std::shared_ptr<char> scratch;
  const size_t scratchBytes;
  const std::shared_ptr<int32_t> numbers;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cudaGraphNode_t begins = nullptr;
  std::vector<Told> told;
  /** Its last launch. */
  Point last = noPoint;

 private:
  /** The tasks are captured anew, by themselves, and their nodes take over what comes of it. */
  void change(Lane& lane, cudaStream_t stream, const std::vector<Item>& items, const std::vector<Told*>& changed) {
    std::vector<Nodes> anew;
    Capture capture(stream);
    for (const Told* one : changed) {
      const Item& item = items[one->index];
      auto nodes = capture.record(lane, item, numbers.get() + one->index, {scratch.get(), scratchBytes}, true);
      if (!nodes || nodes->size() != one->nodes.size()) unfit(item, "other numbers take other launches");
      anew.push_back(std::move(*nodes));
    }
    capture.end();
    for (size_t i = 0; i < changed.size(); i++) {
      Told& one = *changed[i];
      const Item& item = items[one.index];
      for (size_t k = 0; k < anew[i].size(); k++) {
        if (!become(executable, one.nodes[k], anew[i][k])) unfit(item, "a graph cannot be told its numbers anew");
      }
      one.scalars = item.scalars;
      one.scaled = item.scaled;
    }
  }
};

Graphs::Graphs(Lane& lane, int priority) : lane_(lane) {
  check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, priority), "cudaStreamCreate");
}

Graphs::~Graphs() {
  graphs_.clear();
  retired_.clear();
  numbers_.reset();
  scratch_.reset();
  cudaStreamDestroy(stream_);
}

/** What the greediest of the tasks takes, with room to grow where that may depend on numbers of the launch. */
void Graphs::makeScratch(const std::vector<Item>& items) {
  size_t bytes = 0;
  size_t wanted = size_t{1} << 16;
  for (const Item& item : items) {
    bytes = std::max(bytes, item.task->scratchBytes);
    wanted = std::max(wanted, (item.task->scalars > 0 ? 2 : 1) * item.task->scratchBytes);
  }
  if (scratch_ != nullptr && bytes <= scratchBytes_) return;
  scratchBytes_ = 0;
  scratch_ = memoryOf<char>(lane_.stream(), wanted);
  scratchBytes_ = wanted;
}

std::unique_ptr<Graphs::Graph> Graphs::capture(const std::vector<Item>& items) {
  const std::shared_ptr<Stretch>& stretch = items.front().planned.opens;
  if (numbers_ == nullptr) numbers_ = memoryOf<int32_t>(lane_.stream(), longestStretch * sizeof(int32_t));
  makeScratch(items);
  auto made = std::make_unique<Graph>(stretch, scratch_, scratchBytes_, numbers_);
  Capture capture(stream_);
  beginStretch<<<1, beginThreads, 0, stream_>>>(numbersOf(items, numbers_.get()));
  check(cudaGetLastError(), "a launch");
  const auto begins = lastNode(stream_);
  if (!begins || *begins == nullptr) throw std::runtime_error("a capture that tells nothing of its nodes");
  made->begins = *begins;
  for (size_t i = 0; i < items.size(); i++) {
    const Item& item = items[i];
    const bool told = item.task->scalars > 0;
    auto nodes = capture.record(lane_, item, numbers_.get() + i, {scratch_.get(), scratchBytes_}, told);
    if (!told) continue;
    if (!nodes) unfit(item, "its launches do not follow one another");
    made->told.push_back({i, std::move(*nodes), item.scalars, item.scaled});
  }
  capture.end();
  made->graph = capture.take();
  check(cudaGraphInstantiate(&made->executable, made->graph, 0), "cudaGraphInstantiate");
  lane_.rank().graphs->captured++;
  return made;
}

void Graphs::retire(const Stretch* stretch) {
  for (auto graph = graphs_.begin(); graph != graphs_.end(); ++graph) {
    if ((*graph)->stretch.get() != stretch) continue;
    retired_.push_back(std::move(*graph));
    graphs_.erase(graph);
    return;
  }
}

/** Graphs of stretches that are forgotten go, once they are not under way. */
void Graphs::sweep() {
  for (size_t i = 0; i < graphs_.size();) {
    if (graphs_[i]->stretch->dropped.load(std::memory_order_relaxed)) retire(graphs_[i]->stretch.get());
    else i++;
  }
  const Point ended = lane_.ended();
  retired_.erase(std::remove_if(retired_.begin(), retired_.end(), [&](const auto& graph) { return graph->last <= ended; }),
                 retired_.end());
}

bool Graphs::launch(const std::vector<Item>& items) {
  Stretch& stretch = *items.front().planned.opens;
  if (stretch.refused.load(std::memory_order_relaxed) || !numbersFit(items)) return false;
  Graph* graph = nullptr;
  for (const auto& one : graphs_) {
    if (one->stretch.get() == &stretch) graph = one.get();
  }
  // What fails here is no fault: the tasks are launched by themselves, and what is wrong with them shows then.
  try {
    if (graph == nullptr) {
      sweep();
      graphs_.push_back(capture(items));
      graph = graphs_.back().get();
    }
    graph->tell(lane_, stream_, items);
  } catch (const ScratchShort&) {
    // the next launch by itself tells how much there must be
    retire(&stretch);
    cudaGetLastError();
    return false;
  } catch (const std::exception& error) {
    retire(&stretch);
    cudaGetLastError();
    const bool unfit = std::any_of(items.begin(), items.end(), [](const Item& item) { return item.task->unfit.load(); });
    if (unfit || ++stretch.failures > mostFailures) {
      stretch.refused = true;
      lane_.rank().graphs->refused(error.what());
    }
    return false;
  }
  check(cudaGraphLaunch(graph->executable, lane_.stream()), "cudaGraphLaunch");
  graph->last = items.back().at;
  lane_.rank().graphs->launched++;
  lane_.rank().graphs->tasks += static_cast<int64_t>(items.size());
  return true;
}

}  // namespace tandem::cuda

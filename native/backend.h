// What a backend is: lanes that run prepared ops in order, events between them, two memories per rank, kernels and
// collectives. The cpu backend (cpu/) fills it in with threads; a CUDA backend is to fill in the same with streams.
// Knows nothing of JavaScript.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

namespace tandem {

/** The order is that of exec/native.ts. */
enum class Dtype : uint8_t { float32, bfloat16, float16, float8, float4, int8, int32 };
enum class Place : uint8_t { device, host };

inline bool isInteger(Dtype dtype) { return dtype == Dtype::int8 || dtype == Dtype::int32; }

/** The FIFO queues of one rank, as core/machine/lane.ts has them: compute, inter, intra, h2d, d2h. */
constexpr int laneCount = 5;

using Shape = std::vector<int64_t>;
using Attribute = std::variant<double, std::string, bool>;

/** A call that cannot be: the message says what was given and what is expected. RangeError in JavaScript. */
class BadCall : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/** The memory of a tensor as an op sees it. */
struct Operand {
  void* data = nullptr;
  Dtype dtype = Dtype::float32;
  Place place = Place::device;
  Shape shape;
  int64_t elements = 0;
  /** Bytes that the tensor counts for, by its dtype; what a backend stores may be wider. */
  int64_t sizeBytes = 0;
};

/** The ranks that take part in a collective, in group order. Members that name the same communicator meet. */
struct Group {
  std::string name;
  std::vector<int> members;
};

/** Bytes that one collective puts on one emulated link. */
struct Load {
  int link;
  double bytes;
};

/** Everything about an op that does not change from one submission to the next. */
struct Call {
  std::string kernel;
  int lane = 0;
  std::map<std::string, Attribute> attributes;
  std::vector<Operand> inputs;
  std::vector<Operand> outputs;
  std::optional<Group> group;
  /** The op takes at least this long, asleep. */
  double seconds = 0;
  std::vector<Load> loads;
  double latencySeconds = 0;

  double number(const char* name) const;
  int64_t integer(const char* name) const;
  bool flag(const char* name) const;
  const std::string& text(const char* name) const;
  /** Whole numbers in a text, "3,0,-1"; none in "". */
  std::vector<int64_t> integers(const char* name) const;
};

/**
 * Events of one rank: for each lane the op that it must have ended, -1 for none. A lane is FIFO, so that settles all of its
 * earlier ops, and a point in the lanes' progress is one number per lane.
 */
using Events = std::array<int32_t, laneCount>;
constexpr Events noEvents = {-1, -1, -1, -1, -1};

/** When an op ran, in nanoseconds since the machine was opened. */
struct OpTime {
  int32_t op;
  int32_t lane;
  int64_t start;
  int64_t end;
};

/** An op that a device has prepared; only that device knows what is in it. */
class Task {
 public:
  virtual ~Task() = default;
};

/** One rank's share of a machine. Calls come from one thread; only `ended` may be asked from any. */
class Device {
 public:
  virtual ~Device() = default;

  /** Memory for that many elements, all zeros; null when there is none. */
  virtual void* allocate(Place place, Dtype dtype, int64_t elements) = 0;
  /** Stream-ordered: the memory may be used again once all events are reached. */
  virtual void deallocate(Place place, void* data, const Events& after) = 0;
  /** Values in and out, at once: float32 for float dtypes, int32 for integer dtypes. Written values are rounded. */
  virtual void write(const Operand& to, const void* values) = 0;
  virtual void read(const Operand& from, void* values) = 0;

  /** Throws BadCall. */
  virtual std::unique_ptr<Task> prepare(const Call& call) = 0;
  /**
   * Puts a task into its lane as `op`, to start when all events are reached. Ops of a rank count up from 0 over all lanes.
   * The task must live until the lane has ended the op.
   */
  virtual void submit(int lane, Task& task, int32_t op, const Events& after) = 0;

  /** The op that the lane ended last; -1 while none has. What it wrote is visible to whoever has asked. */
  virtual int32_t ended(int lane) const = 0;
  /** True when the lane has ended `op`; otherwise `onProgress` is called, from any thread, once it has. */
  virtual bool watch(int lane, int32_t op) = 0;
  /** Times of ops that ended since the last call. */
  virtual std::vector<OpTime> takeTimes() = 0;
};

struct MachineOptions {
  int ranks = 1;
  /** Emulated buses between host and device memory; infinite and 0 where copies go as fast as they can. */
  double h2dBytesPerSecond = 0, h2dLatencySeconds = 0;
  double d2hBytesPerSecond = 0, d2hLatencySeconds = 0;
  std::vector<double> linkBytesPerSecond;
  bool timed = false;
  std::function<void()> onProgress;
};

/** All ranks of one process. Its destructor ends all lanes: ops that run end first, queued ones do not run. */
class Machine {
 public:
  virtual ~Machine() = default;
  virtual Device& device(int rank) = 0;
  /** The first fault of any op. From then on queued ops end without computing anything. */
  virtual std::optional<std::string> fault() const = 0;
  virtual int64_t nowNanoseconds() const = 0;
};

/** The machine of the cpu backend. */
std::unique_ptr<Machine> openCpu(MachineOptions options);
/** Names of the kernels that the cpu backend has. */
std::vector<std::string> cpuKernels();

}  // namespace tandem

// What a backend is: lanes that run prepared ops in order, events between them, two memories per rank, kernels and
// collectives. Threads fill it in (cpu/), and a GPU's streams can: nothing here assumes that memory is the host's, that a
// dtype takes so many bytes, or that anything has happened when a call returns. Knows nothing of JavaScript or of emulation.
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
#include <utility>
#include <variant>
#include <vector>

namespace tandem {

/** The order is that of exec/native.ts. */
enum class Dtype : uint8_t { float32, bfloat16, float16, float8, float4, int8, int32 };
constexpr int dtypeCount = 7;
constexpr int bitsOf[dtypeCount] = {32, 16, 16, 8, 4, 8, 32};
enum class Place : uint8_t { device, host };
constexpr int placeCount = 2;

/** Of their numbers; throw BadCall for a number that is none. */
Dtype dtypeOf(int64_t code);
Place placeOf(int64_t code);

/** "float32", "bfloat16", ... */
const char* nameOf(Dtype dtype);

inline bool isInteger(Dtype dtype) { return dtype == Dtype::int8 || dtype == Dtype::int32; }

/**
 * The FIFO queues of one rank: those of programs, as core/machine/lane.ts has them (compute, inter, intra, h2d, d2h), and one
 * that no program names, for values that the host gives and takes.
 */
constexpr int programLanes = 5;
constexpr int computeLane = 0;
constexpr int interLane = 1;
constexpr int intraLane = 2;
constexpr int valuesLane = 5;
constexpr int laneCount = 6;

/**
 * A point in the order of one rank. Ops count up from 0 over all lanes; what the layer itself puts into a lane between two ops
 * (fills, uploads, downloads) has points between theirs. A lane is FIFO, so one point settles all of its earlier ones.
 */
using Point = int64_t;
constexpr Point noPoint = 0;
constexpr int pointBits = 20;
inline Point pointOf(int32_t op) { return (static_cast<Point>(op) + 1) << pointBits; }
/** The op at that point, or the last one before it; -1 where there is none. */
inline int32_t opOf(Point point) { return static_cast<int32_t>((point >> pointBits) - 1); }

/** Points that must have ended, one for each lane; noPoint where a lane does not matter. */
using Events = std::array<Point, laneCount>;
constexpr Events noEvents = {noPoint, noPoint, noPoint, noPoint, noPoint, noPoint};

using Shape = std::vector<int64_t>;
using Attribute = std::variant<double, std::string, bool>;

/** Scalars that one launch may be given at most. */
constexpr size_t maxScalars = 8;

/** A call that cannot be: the message says what was given and what is expected. RangeError in JavaScript. */
class BadCall : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

enum class FaultKind : uint8_t {
  /** Values that an op cannot work with: a token outside its vocabulary. */
  value,
  /** Members of a collective contradict each other. */
  collective,
  /** The system has no memory left. */
  memory,
  /** The system gives no more threads. */
  thread,
  /** The device or its driver failed. */
  device,
  /** Another rank is gone, or does not answer. */
  peer,
  /** The program gave up (Machine::abort). */
  aborted,
  closed
};
/** "value", "collective", ... */
const char* nameOf(FaultKind kind);

struct Fault {
  FaultKind kind = FaultKind::device;
  /** The rank that it happened to, and the op; -1 where it is no one's. */
  int rank = -1;
  int32_t op = -1;
  /** The rank that is to blame, where that is another; else -1. */
  int peer = -1;
  std::string message;
};

/** Thrown while an op runs. The lane adds rank and op. */
class OpFault : public std::runtime_error {
 public:
  OpFault(FaultKind kind, const std::string& message, int peer = -1)
      : std::runtime_error(message), kind(kind), peer(peer) {}
  const FaultKind kind;
  const int peer;
};

/** The memory of a tensor as an op sees it. `data` is an address on the device, and need not be the host's. */
struct Operand {
  void* data = nullptr;
  Dtype dtype = Dtype::float32;
  Place place = Place::device;
  Shape shape;
  int64_t elements = 0;
  /** Bytes that the tensor counts for, by its dtype; what a backend stores may be wider. */
  int64_t sizeBytes = 0;
};

/** The ranks that take part in a collective, in group order. Groups of one name and the same ranks are one communicator. */
struct Group {
  std::string name;
  std::vector<int> members;
};

/** Bytes that one collective puts on one emulated link; backends ignore it, see emulation.h. */
struct Load {
  int link;
  double bytes;
};

/**
 * A kernel inside a composite one. Its operands are places among the inputs of the whole, then its outputs, then its inner
 * values.
 */
struct Part {
  std::string kernel;
  std::map<std::string, Attribute> attributes;
  std::vector<int> inputs, outputs;
};

struct Scalar;

/** Everything about an op that does not change from one submission to the next. */
struct Call {
  std::string kernel;
  int lane = 0;
  std::map<std::string, Attribute> attributes;
  /** Number attributes that a submission may give anew, in the order in which it gives them. */
  std::vector<std::string> scalars;
  std::vector<Operand> inputs;
  std::vector<Operand> outputs;
  /** Where they lie, but for copies between the two. A kernel that draws first values works in the host's memory too. */
  Place place = Place::device;
  /**
   * Of a composite kernel, or of one over lists of tensors: what it is made of, in order, and the values that only pass between
   * its parts, without memory. A backend that has no kernel for the whole runs the parts (`partOf`).
   */
  std::vector<Part> parts;
  std::vector<Operand> inner;
  std::optional<Group> group;
  /** Emulation (emulation.h): the op takes at least `seconds`, and its bytes cross links. */
  double seconds = 0;
  std::vector<Load> loads;
  double latencySeconds = 0;

  double number(const char* name) const;
  int64_t integer(const char* name) const;
  bool flag(const char* name) const;
  const std::string& text(const char* name) const;
  /** Whole numbers in a text, "3,0,-1"; none in "". */
  std::vector<int64_t> integers(const char* name) const;
  /** Rows of each member of the group, "3,0,5", or none for as many of each; throws BadCall for what cannot be rows. */
  std::vector<int64_t> rows(const char* name) const;
  /** Rows that an all-to-all sends to each member, and receives of each; one where it does not say. */
  std::pair<std::vector<int64_t>, std::vector<int64_t>> rowsExchanged() const;
  /** Throws BadCall where an operand lies in the memory in which its kernel does not expect it. */
  void checkPlaces() const;
  /** An attribute that may change from launch to launch; fixed where the kernel declares it no scalar. */
  Scalar scalar(const char* name) const;
};

/** A part of a composite call as a call of its own, on the whole's lane and scalars; throws BadCall for a place that is none. */
Call partOf(const Call& whole, const Part& part);

/** A number attribute of one op: its own value, or that of the launch. */
struct Scalar {
  /** Place among the launch's scalars; -1 where it is fixed. */
  int index = -1;
  double fixed = 0;
  /** `launch` is null where a submission gave none. */
  double operator()(const double* launch) const { return index < 0 || launch == nullptr ? fixed : launch[index]; }
};

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
  /** Scratch that its lane keeps for it; ops of a lane follow one another, so a lane needs that of its greediest op. */
  virtual int64_t workspaceBytes() const { return 0; }
};

/** Memory, and the events that whoever uses it must wait for: earlier uses of it may not have ended. */
struct Block {
  void* data = nullptr;
  Events readyAfter = noEvents;
};

/**
 * One rank's share of a machine. Calls come from one thread; only `ended` may be asked from any. Nothing here waits, but
 * `wait`. Points given to one lane rise.
 */
class Device {
 public:
  virtual ~Device() = default;

  /** Bytes of that memory that this rank may have, for storage. */
  virtual double capacityBytes(Place place) const = 0;
  /**
   * Bytes that so many elements take where they are stored: at least those that they count for. A wider dtype's element takes
   * no more than the same bits of a narrower one do, so that tensors find room in an arena of a dtype no wider than theirs.
   */
  virtual int64_t storageBytes(Dtype dtype, int64_t elements) const = 0;
  /**
   * Stream-ordered: memory for use in that lane first, with any content; data is null when there is none. 256-byte aligned.
   */
  virtual Block allocate(Place place, int64_t storageBytes, int lane) = 0;
  /** Stream-ordered: the memory may be used again once all events are reached. */
  virtual void deallocate(Place place, void* data, const Events& after) = 0;

  // Host values. Each is work of the lane at that point, after those events; true where it was done before the call returned,
  // and the lane will not come to that point.

  /** Zeros. */
  virtual bool fill(int lane, const Operand& to, Point at, const Events& after) = 0;
  /** float32 for float dtypes, int32 for integer dtypes, rounded to the dtype. Copied before the call returns. */
  virtual bool upload(int lane, const Operand& to, const void* values, Point at, const Events& after) = 0;
  /** The same out; `values` must live until the lane has ended that point, or the device is gone. */
  virtual bool download(int lane, const Operand& from, void* values, Point at, const Events& after) = 0;

  /** Throws BadCall. Operands have passed the kernel's signature already (catalogue.h). */
  virtual std::unique_ptr<Task> prepare(const Call& call) = 0;
  /** A task that calls `body` on a thread of the host when its lane comes to it. It must not throw. */
  virtual std::unique_ptr<Task> hostTask(std::function<void()> body) = 0;
  /**
   * Puts a task into its lane, to start when all events are reached. The task must live until the lane has passed it.
   * `scalars` has as many numbers as Call::scalars, or is null where the launch gives none; it is copied before the call
   * returns. With `more`, another task of the same op follows: the lane reaches the point with the last of them, and the op's
   * time is the last one's. Never throws for the device's sake: what goes wrong is a fault.
   */
  virtual void submit(int lane, Task& task, Point at, const Events& after, const double* scalars, bool more = false) = 0;
  /** A step of the program is submitted: where a backend may end a captured graph, and trim. */
  virtual void endStep() {}

  /** The point that the lane has reached; noPoint at first. What it wrote is visible to whoever has asked. */
  virtual Point ended(int lane) const = 0;
  /** True when the lane has reached the point; otherwise `onProgress` is called, from any thread, once it has. */
  virtual bool watch(int lane, Point point) = 0;
  /** Sleeps until the lane has reached the point; after a fault that is soon. */
  virtual void wait(int lane, Point point) = 0;
  /** Times of ops that ended since the last call. */
  virtual std::vector<OpTime> takeTimes() = 0;
};

/** Work that came again and was launched as a whole (CUDA graphs). */
struct Replays {
  /** "on", or "off: " and why; empty where a backend has no such thing. */
  std::string state;
  /** Stretches of ops that were made into one launch, such launches, and ops launched so. */
  int64_t captured = 0, launched = 0, ops = 0;
};

class MeshPeers;
class Peers;

struct MachineOptions {
  /** Ranks of this process; device 0 is rank `firstRank` of the world. */
  int ranks = 1;
  int firstRank = 0;
  /** The processes of the world's other ranks, and connections to them; null where all are here. Outlives the machine. */
  MeshPeers* mesh = nullptr;
  /** The same, for backends that bring a transport of their own. */
  Peers* peers = nullptr;
  /** Of several devices of this host, that of the first rank of this process; the next rank has the next one. */
  int firstDevice = 0;
  bool timed = false;
  /** Settings of one backend alone, by name; a backend refuses those it does not know. */
  std::map<std::string, double> settings;
  /** Called from any thread: a watched point is reached, or there is a fault. */
  std::function<void()> onProgress = [] {};
};

/** All ranks of one process. Its destructor ends all lanes: ops that run end first, queued ones do not run. */
class Machine {
 public:
  virtual ~Machine() = default;
  virtual Device& device(int rank) = 0;
  /** The first fault of any op. From then on queued ops end without computing anything, and nobody waits for ever. */
  virtual std::optional<Fault> fault() const = 0;
  /** Ends everything with this fault, unless there is one already. From any thread. */
  virtual void abort(const Fault& fault) = 0;
  virtual int64_t nowNanoseconds() const = 0;
  virtual Replays replays() const { return {}; }
};

/** A kind of machine, and whether it can be opened here. */
struct Backend {
  struct Availability {
    bool available = true;
    /** What ranks would run on, for people. */
    std::vector<std::string> devices;
    /** What it has opened, with versions, and what it does without. */
    std::vector<std::string> uses;
    /** What is missing and how to get it: reasons why it is not available, or what would make it faster. */
    std::vector<std::string> missing;
  };

  std::string name;
  std::string title;
  Availability (*probe)();
  std::vector<std::string> (*kernels)();
  /** Throws BadCall for options that cannot be, std::runtime_error where the backend is not available. */
  std::unique_ptr<Machine> (*open)(const MachineOptions& options);
};

/** Every backend of this build, in the order in which `auto` would rather not have them: cpu first. */
const std::vector<Backend>& backends();
/** Throws BadCall that names the known ones. */
const Backend& backendNamed(const std::string& name);
std::unique_ptr<Machine> openBackend(const std::string& name, const MachineOptions& options);

}  // namespace tandem

// One rank in program order: its tensors and what they count for, its prepared ops, and which point a lane must wait for.
// The same for every backend; knows nothing of JavaScript or of how a device runs anything.
#pragma once

#include <array>
#include <memory>
#include <unordered_map>
#include <vector>

#include "backend.h"

namespace tandem {

/** An op and its lane. */
struct Writer {
  int lane;
  int32_t op;
};

class Rank {
 public:
  /** Capacities in counted bytes; HUGE_VAL leaves it to the device. */
  Rank(Device& device, double deviceBytes, double hostBytes);
  ~Rank();
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  /** False when the tensor does not fit. Accounted in program order. All zeros, or with any content. */
  bool allocate(int32_t id, Place place, Dtype dtype, Shape shape, bool zeros = true);
  /**
   * A tensor that lies within another one, an arena, so many counted bytes into it (a multiple of 256, or 0). Its content is
   * what lies there; it waits for earlier views that it overlaps. Its dtype is no narrower than the arena's.
   */
  void view(int32_t id, int32_t arena, int64_t offsetBytes, Dtype dtype, Shape shape);
  /** Views first, then what they lie in. */
  void free(int32_t id);
  double capacityBytes(Place place) const { return capacityBytes_[static_cast<size_t>(place)]; }
  double freeBytes(Place place) const;
  /** Scratch that the lanes keep for prepared ops, beside what tensors count for. */
  int64_t workspaceBytes() const;

  /** After every earlier op that names the tensor and before every later one; copied before the call returns. */
  void upload(int32_t id, const void* values, int64_t elements, bool integers);
  /**
   * A kernel that works on the tensor in place, as an upload that comes from nowhere: after every earlier op that names the
   * tensor and before every later one.
   */
  void draw(int32_t id, Call call);
  /** Whether all uploads and drawn values are there; otherwise the machine's onProgress is called once some are. */
  bool settled() { return device_.watch(valuesLane, tails_[valuesLane]); }
  /** The values at once; the op that last wrote the tensor must have ended. */
  void read(int32_t id, void* values, int64_t elements, bool integers);
  /** The values once every earlier writer has ended: a number to ask `arrived` with, and then to `take` them. */
  int32_t download(int32_t id);
  /**
   * The same once all is there that an op would find which is submitted next, to that lane with those edges: also what was written
   * there by another name in the tensor's arena.
   */
  int32_t downloadFor(int32_t id, int lane, const int32_t* edges, int count);
  /** Whether the values are there; otherwise the machine's onProgress is called once they are. */
  bool arrived(int32_t download);
  void take(int32_t download, void* values, int64_t elements, bool integers);

  /** Operands of `call` are those of the tensors; its lists are filled in here. */
  int32_t prepare(Call call, const std::vector<int32_t>& reads, const std::vector<int32_t>& writes);
  void release(int32_t handle);
  /** The op's position in program order. `edges` are earlier ops; `scalars` the values of Call::scalars, or none. */
  int32_t submit(int32_t handle, const int32_t* edges, int count, const double* scalars = nullptr, int scalarCount = 0);
  void endStep() { device_.endStep(); }

  /** The op that the lane ended last, or an earlier op of another lane; -1 while none has. */
  int32_t ended(int lane) const { return opOf(device_.ended(lane)); }
  int32_t submitted(int lane) const { return opTails_[static_cast<size_t>(lane)]; }
  bool watch(int lane, int32_t op);
  /** The op that last wrote the tensor, and its lane; op -1 where none did. */
  Writer writerOf(int32_t id);
  std::vector<OpTime> takeTimes() { return device_.takeTimes(); }

 private:
  struct Tensor;
  /** A view that is gone, whose bytes may still be in use. */
  struct Past {
    int64_t begin, end;
    Events lastUse;
  };
  struct Tensor {
    Operand operand;
    bool live = true;
    Writer writer{0, -1};
    /** What must have ended before its values are there to read: its writer, or an upload. */
    Events written = noEvents;
    /** What whoever names it next must wait for; noEvents once that is known to have ended. */
    Events ready = noEvents;
    bool pending = false;
    /** Zeros that nobody has needed yet. */
    bool blank = false;
    /** The last point of each lane that names it. */
    Events lastUse = noEvents;
    std::shared_ptr<Tensor> arena;
    int64_t offsetBytes = 0;
    int views = 0;
    std::vector<Past> past;
  };
  struct Prepared {
    std::unique_ptr<Task> task;
    int lane = 0;
    std::vector<std::shared_ptr<Tensor>> reads;
    std::vector<std::shared_ptr<Tensor>> writes;
    std::string name;
    int scalars = 0;
    /** The scalar that a launch must give; empty where all have values of their own. */
    std::string needed;
    Point last = noPoint;
  };
  struct Download {
    std::vector<char> values;
    int64_t elements = 0;
    bool integers = false;
    Point at = noPoint;
  };

  Tensor& tensor(int32_t id, const char* what);
  Prepared& prepared(int32_t handle, const char* what);
  Point nextPoint();
  int laneOf(int32_t op) const;
  int32_t downloadAfter(Tensor& from, Events after);
  /** What those ops have done; `name` asks. */
  Events behind(const int32_t* edges, int count, const std::string& name) const;
  bool reached(const Events& events) const;
  void waitFor(Tensor& tensor, Events& after);
  void given(Tensor& tensor, Point at);
  void blank(Tensor& tensor, int lane);
  void sweep();

  // Lanes of recent ops, by op modulo its size; who asks for an older one gets a wait that is longer, never shorter.
  static constexpr size_t recent = size_t{1} << 16;

  Device& device_;
  std::array<double, placeCount> capacityBytes_;
  std::array<double, placeCount> usedBytes_{0, 0};
  std::array<int64_t, laneCount> workspaceBytes_{};
  std::unordered_map<int32_t, std::shared_ptr<Tensor>> tensors_;
  std::vector<std::unique_ptr<Prepared>> prepared_;
  std::vector<int32_t> vacant_;
  // Released while queued: kept until their lane has passed them.
  std::vector<std::unique_ptr<Prepared>> retired_;
  std::unordered_map<int32_t, Download> downloads_;
  int32_t nextDownload_ = 0;
  int32_t nextOp_ = 0;
  Point lastPoint_ = noPoint;
  /** The last point and the last op of each lane. */
  Events tails_ = noEvents;
  std::array<int32_t, laneCount> opTails_{-1, -1, -1, -1, -1, -1};
  std::vector<uint8_t> laneOf_ = std::vector<uint8_t>(recent);
};

}  // namespace tandem

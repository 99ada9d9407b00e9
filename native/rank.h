// One rank in program order: its tensors and what they count for, its prepared ops, and which op a lane must wait for.
// The same for every backend; knows nothing of JavaScript or of how a device runs anything.
#pragma once

#include <array>
#include <limits>
#include <unordered_map>

#include "backend.h"

namespace tandem {

/** An op and its lane. */
struct Writer {
  int lane;
  int32_t op;
};

class Rank {
 public:
  Rank(Device& device, double deviceBytes, double hostBytes);
  ~Rank();
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  /** False when the tensor does not fit. Accounted in program order. */
  bool allocate(int32_t id, Place place, Dtype dtype, Shape shape);
  void free(int32_t id);
  double freeBytes(Place place) const;
  void write(int32_t id, const void* values, int64_t elements, bool integers);
  void read(int32_t id, void* values, int64_t elements, bool integers);

  /** Operands of `call` are those of the tensors; its lists are filled in here. */
  int32_t prepare(Call call, const std::vector<int32_t>& reads, const std::vector<int32_t>& writes);
  void release(int32_t handle);
  /** The op's position in program order. `edges` are earlier ops. */
  int32_t submit(int32_t handle, const int32_t* edges, int count);

  int32_t ended(int lane) const { return device_.ended(lane); }
  int32_t submitted(int lane) const { return tails_[lane]; }
  bool watch(int lane, int32_t op);
  /** The op that last wrote the tensor, and its lane; op -1 where none did. */
  Writer writerOf(int32_t id);
  std::vector<OpTime> takeTimes() { return device_.takeTimes(); }

 private:
  struct Tensor {
    Operand operand;
    bool live = true;
    Writer writer{0, -1};
    /** The last op of each lane that names it; -1 where none does. */
    Events lastUse = noEvents;
  };
  struct Prepared {
    std::unique_ptr<Task> task;
    int lane = 0;
    std::vector<std::shared_ptr<Tensor>> reads;
    std::vector<std::shared_ptr<Tensor>> writes;
    std::string name;
    int32_t lastOp = -1;
  };

  Tensor& tensor(int32_t id, const char* what);
  int laneOf(int32_t op) const;
  void checkIdle(const Tensor& tensor, int32_t id, const char* what) const;
  void sweep();

  // Lanes of recent ops, by op modulo its size; who asks for an older one gets a wait that is longer, never shorter.
  static constexpr size_t recent = size_t{1} << 16;

  Device& device_;
  const std::array<double, 2> capacityBytes_;
  std::array<double, 2> usedBytes_{0, 0};
  std::unordered_map<int32_t, std::shared_ptr<Tensor>> tensors_;
  std::vector<std::unique_ptr<Prepared>> prepared_;
  std::vector<int32_t> vacant_;
  // Released while queued: kept until their lane has passed them.
  std::vector<std::unique_ptr<Prepared>> retired_;
  int32_t nextOp_ = 0;
  Events tails_ = noEvents;
  std::vector<uint8_t> laneOf_ = std::vector<uint8_t>(recent);
};

}  // namespace tandem

#include "rank.h"

#include <algorithm>
#include <limits>

namespace tandem {

namespace {

constexpr int bitsOf[] = {32, 16, 16, 8, 4, 8, 32};

int64_t elementsOf(const Shape& shape) {
  int64_t elements = 1;
  for (const int64_t extent : shape) elements *= extent;
  return elements;
}

}  // namespace

Rank::Rank(Device& device, double deviceBytes, double hostBytes)
    : device_(device), capacityBytes_{deviceBytes, hostBytes} {}

Rank::~Rank() = default;

bool Rank::allocate(int32_t id, Place place, Dtype dtype, Shape shape) {
  if (tensors_.count(id) != 0) throw BadCall("tensor " + std::to_string(id) + " is allocated already");
  auto made = std::make_shared<Tensor>();
  Operand& operand = made->operand;
  operand.dtype = dtype;
  operand.place = place;
  operand.elements = elementsOf(shape);
  operand.shape = std::move(shape);
  operand.sizeBytes = (operand.elements * bitsOf[static_cast<int>(dtype)] + 7) / 8;
  const auto where = static_cast<size_t>(place);
  if (static_cast<double>(operand.sizeBytes) > capacityBytes_[where] - usedBytes_[where]) return false;
  operand.data = device_.allocate(place, dtype, operand.elements);
  if (operand.data == nullptr) return false;
  usedBytes_[where] += static_cast<double>(operand.sizeBytes);
  tensors_.emplace(id, std::move(made));
  return true;
}

void Rank::free(int32_t id) {
  Tensor& freed = tensor(id, "free");
  device_.deallocate(freed.operand.place, freed.operand.data, freed.lastUse);
  usedBytes_[static_cast<size_t>(freed.operand.place)] -= static_cast<double>(freed.operand.sizeBytes);
  freed.live = false;
  tensors_.erase(id);
}

double Rank::freeBytes(Place place) const {
  const auto where = static_cast<size_t>(place);
  return capacityBytes_[where] - usedBytes_[where];
}

Rank::Tensor& Rank::tensor(int32_t id, const char* what) {
  const auto found = tensors_.find(id);
  if (found == tensors_.end()) {
    throw BadCall(std::string(what) + ": tensor " + std::to_string(id) + " is not allocated");
  }
  return *found->second;
}

namespace {

void checkValues(const Operand& operand, int32_t id, int64_t elements, bool integers) {
  if (elements == operand.elements && integers == isInteger(operand.dtype)) return;
  throw BadCall("tensor " + std::to_string(id) + " has " + std::to_string(operand.elements) +
                (isInteger(operand.dtype) ? " int32" : " float32") + " values; " + std::to_string(elements) +
                (integers ? " int32" : " float32") + " were given");
}

}  // namespace

void Rank::checkIdle(const Tensor& tensor, int32_t id, const char* what) const {
  for (int lane = 0; lane < laneCount; lane++) {
    if (tensor.lastUse[lane] <= device_.ended(lane)) continue;
    throw BadCall(std::string(what) + ": op " + std::to_string(tensor.lastUse[lane]) + ", which names tensor " +
                  std::to_string(id) + ", has not ended");
  }
}

void Rank::write(int32_t id, const void* values, int64_t elements, bool integers) {
  Tensor& to = tensor(id, "write");
  checkValues(to.operand, id, elements, integers);
  checkIdle(to, id, "write");
  device_.write(to.operand, values);
}

void Rank::read(int32_t id, void* values, int64_t elements, bool integers) {
  Tensor& from = tensor(id, "read");
  checkValues(from.operand, id, elements, integers);
  if (from.writer.op > device_.ended(from.writer.lane)) {
    throw BadCall("read: op " + std::to_string(from.writer.op) + ", which writes tensor " + std::to_string(id) +
                  ", has not ended");
  }
  device_.read(from.operand, values);
}

int32_t Rank::prepare(Call call, const std::vector<int32_t>& reads, const std::vector<int32_t>& writes) {
  sweep();
  auto made = std::make_unique<Prepared>();
  const auto take = [this, &call](const std::vector<int32_t>& ids, std::vector<std::shared_ptr<Tensor>>& tensors,
                                  std::vector<Operand>& operands) {
    for (const int32_t id : ids) {
      operands.push_back(tensor(id, call.kernel.c_str()).operand);
      tensors.push_back(tensors_.at(id));
    }
  };
  take(reads, made->reads, call.inputs);
  take(writes, made->writes, call.outputs);
  if (call.lane < 0 || call.lane >= laneCount) throw BadCall(call.kernel + ": no lane " + std::to_string(call.lane));
  made->lane = call.lane;
  made->name = call.kernel;
  made->task = device_.prepare(call);
  if (vacant_.empty()) {
    prepared_.push_back(std::move(made));
    return static_cast<int32_t>(prepared_.size() - 1);
  }
  const int32_t handle = vacant_.back();
  vacant_.pop_back();
  prepared_[static_cast<size_t>(handle)] = std::move(made);
  return handle;
}

void Rank::release(int32_t handle) {
  if (handle < 0 || static_cast<size_t>(handle) >= prepared_.size() || !prepared_[static_cast<size_t>(handle)]) {
    throw BadCall("release: no prepared op " + std::to_string(handle));
  }
  retired_.push_back(std::move(prepared_[static_cast<size_t>(handle)]));
  vacant_.push_back(handle);
  sweep();
}

void Rank::sweep() {
  const auto gone = [this](const std::unique_ptr<Prepared>& op) { return op->lastOp <= device_.ended(op->lane); };
  retired_.erase(std::remove_if(retired_.begin(), retired_.end(), gone), retired_.end());
}

int32_t Rank::submit(int32_t handle, const int32_t* edges, int count) {
  if (handle < 0 || static_cast<size_t>(handle) >= prepared_.size() || !prepared_[static_cast<size_t>(handle)]) {
    throw BadCall("submit: no prepared op " + std::to_string(handle));
  }
  if (nextOp_ == std::numeric_limits<int32_t>::max()) throw BadCall("submit: 2^31 ops were submitted already");
  Prepared& op = *prepared_[static_cast<size_t>(handle)];
  for (const auto* operands : {&op.reads, &op.writes}) {
    for (const auto& tensor : *operands) {
      if (!tensor->live) throw BadCall(op.name + ": names a tensor that was freed");
    }
  }
  Events after = noEvents;
  for (int i = 0; i < count; i++) {
    const int32_t edge = edges[i];
    if (edge < 0 || edge >= nextOp_) throw BadCall(op.name + ": no op " + std::to_string(edge) + " to wait for");
    const int lane = laneOf(edge);
    if (lane >= 0) {
      after[lane] = std::max(after[lane], edge);
      continue;
    }
    // So old that its lane is forgotten: wait for every lane up to there.
    for (int other = 0; other < laneCount; other++) after[other] = std::max(after[other], std::min(edge, tails_[other]));
  }
  // its own lane is FIFO anyway
  after[op.lane] = -1;

  const int32_t id = nextOp_++;
  for (const auto& tensor : op.reads) tensor->lastUse[op.lane] = id;
  for (const auto& tensor : op.writes) {
    tensor->lastUse[op.lane] = id;
    tensor->writer = {op.lane, id};
  }
  op.lastOp = id;
  tails_[op.lane] = id;
  laneOf_[static_cast<size_t>(id) % recent] = static_cast<uint8_t>(op.lane);
  device_.submit(op.lane, *op.task, id, after);
  return id;
}

int Rank::laneOf(int32_t op) const {
  return static_cast<size_t>(nextOp_ - op) > recent ? -1 : laneOf_[static_cast<size_t>(op) % recent];
}

bool Rank::watch(int lane, int32_t op) {
  if (op > tails_[lane]) {
    throw BadCall("watch: op " + std::to_string(op) + " was not submitted to lane " + std::to_string(lane));
  }
  return device_.watch(lane, op);
}

Writer Rank::writerOf(int32_t id) { return tensor(id, "writerOf").writer; }

}  // namespace tandem

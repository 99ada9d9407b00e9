#include "rank.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "catalogue.h"

namespace tandem {

namespace {

constexpr int64_t viewAlignment = 256;

/** Elements and bytes of which nobody has as many: what is more is a mistake, and would overflow. */
constexpr double unreal = 9007199254740992.0;

int64_t elementsOf(const Shape& shape, int32_t id) {
  double elements = 1;
  for (const int64_t extent : shape) {
    if (extent < 0) throw BadCall("tensor " + std::to_string(id) + ": an extent of " + std::to_string(extent));
    elements *= static_cast<double>(extent);
  }
  if (elements > unreal) throw BadCall("tensor " + std::to_string(id) + ": more than 2^53 elements");
  return static_cast<int64_t>(elements);
}

void merge(Events& into, const Events& events) {
  for (size_t lane = 0; lane < laneCount; lane++) into[lane] = std::max(into[lane], events[lane]);
}

void describe(Operand& operand, int32_t id, Place place, Dtype dtype, Shape shape) {
  operand.dtype = dtype;
  operand.place = place;
  operand.elements = elementsOf(shape, id);
  operand.shape = std::move(shape);
  operand.sizeBytes = (operand.elements * bitsOf[static_cast<size_t>(dtype)] + 7) / 8;
}

void checkValues(const Operand& operand, int32_t id, int64_t elements, bool integers) {
  if (elements == operand.elements && integers == isInteger(operand.dtype)) return;
  throw BadCall("tensor " + std::to_string(id) + " has " + std::to_string(operand.elements) +
                (isInteger(operand.dtype) ? " int32" : " float32") + " values; " + std::to_string(elements) +
                (integers ? " int32" : " float32") + " were given");
}

}  // namespace

Rank::Rank(Device& device, double deviceBytes, double hostBytes)
    : device_(device),
      capacityBytes_{std::min(deviceBytes, device.capacityBytes(Place::device)),
                     std::min(hostBytes, device.capacityBytes(Place::host))} {}

Rank::~Rank() = default;

bool Rank::allocate(int32_t id, Place place, Dtype dtype, Shape shape, bool zeros) {
  if (tensors_.count(id) != 0) throw BadCall("tensor " + std::to_string(id) + " is allocated already");
  auto made = std::make_shared<Tensor>();
  Operand& operand = made->operand;
  describe(operand, id, place, dtype, std::move(shape));
  const auto where = static_cast<size_t>(place);
  if (static_cast<double>(operand.sizeBytes) > freeBytes(place)) return false;
  const Block block = device_.allocate(place, device_.storageBytes(dtype, operand.elements), 0);
  if (block.data == nullptr) return false;
  operand.data = block.data;
  made->ready = block.readyAfter;
  made->blank = zeros && operand.elements > 0;
  made->pending = made->ready != noEvents;
  usedBytes_[where] += static_cast<double>(operand.sizeBytes);
  tensors_.emplace(id, std::move(made));
  return true;
}

void Rank::view(int32_t id, int32_t arena, int64_t offsetBytes, Dtype dtype, Shape shape) {
  if (tensors_.count(id) != 0) throw BadCall("tensor " + std::to_string(id) + " is allocated already");
  Tensor& within = tensor(arena, "view");
  auto made = std::make_shared<Tensor>();
  Operand& operand = made->operand;
  describe(operand, id, within.operand.place, dtype, std::move(shape));
  const std::string what = "view " + std::to_string(id) + " of tensor " + std::to_string(arena) + ": ";
  if (within.arena) throw BadCall(what + "that is a view itself");
  if (within.blank) blank(within, valuesLane);
  const auto bits = static_cast<int64_t>(bitsOf[static_cast<size_t>(within.operand.dtype)]);
  if (bitsOf[static_cast<size_t>(dtype)] < bits) throw BadCall(what + "its dtype is narrower than the arena's");
  if (offsetBytes < 0 || offsetBytes % viewAlignment != 0) {
    throw BadCall(what + "an offset of " + std::to_string(offsetBytes) + " B; expected a multiple of 256");
  }
  if (offsetBytes > within.operand.sizeBytes - operand.sizeBytes) {
    throw BadCall(what + std::to_string(operand.sizeBytes) + " B at " + std::to_string(offsetBytes) + " in " +
                  std::to_string(within.operand.sizeBytes) + " B");
  }
  const int64_t stored = device_.storageBytes(within.operand.dtype, offsetBytes * 8 / bits);
  operand.data = static_cast<char*>(within.operand.data) + stored;
  made->ready = within.ready;
  made->offsetBytes = offsetBytes;
  const int64_t end = offsetBytes + operand.sizeBytes;
  auto& past = within.past;
  past.erase(std::remove_if(past.begin(), past.end(), [this](const Past& one) { return reached(one.lastUse); }), past.end());
  for (const Past& one : past) {
    if (one.begin < end && offsetBytes < one.end) merge(made->ready, one.lastUse);
  }
  made->pending = made->ready != noEvents;
  made->arena = tensors_.at(arena);
  within.views++;
  tensors_.emplace(id, std::move(made));
}

void Rank::free(int32_t id) {
  Tensor& freed = tensor(id, "free");
  if (freed.views > 0) {
    throw BadCall("free: " + std::to_string(freed.views) + " views lie in tensor " + std::to_string(id));
  }
  if (freed.arena) {
    merge(freed.arena->lastUse, freed.lastUse);
    freed.arena->views--;
    freed.arena->past.push_back({freed.offsetBytes, freed.offsetBytes + freed.operand.sizeBytes, freed.lastUse});
  } else {
    // What was never used may still be waiting for earlier uses of its memory.
    Events after = freed.lastUse;
    if (freed.pending) merge(after, freed.ready);
    device_.deallocate(freed.operand.place, freed.operand.data, after);
    usedBytes_[static_cast<size_t>(freed.operand.place)] -= static_cast<double>(freed.operand.sizeBytes);
  }
  freed.live = false;
  tensors_.erase(id);
}

double Rank::freeBytes(Place place) const {
  const auto where = static_cast<size_t>(place);
  const double workspace = place == Place::device ? static_cast<double>(workspaceBytes()) : 0;
  return std::max(0.0, capacityBytes_[where] - usedBytes_[where] - workspace);
}

int64_t Rank::workspaceBytes() const {
  int64_t bytes = 0;
  for (const int64_t lane : workspaceBytes_) bytes += lane;
  return bytes;
}

Rank::Tensor& Rank::tensor(int32_t id, const char* what) {
  const auto found = tensors_.find(id);
  if (found == tensors_.end()) {
    throw BadCall(std::string(what) + ": tensor " + std::to_string(id) + " is not allocated");
  }
  return *found->second;
}

Point Rank::nextPoint() {
  const Point next = lastPoint_ + 1;
  if (opOf(next) != opOf(lastPoint_)) throw BadCall("more than a million transfers since the last op");
  return lastPoint_ = next;
}

bool Rank::reached(const Events& events) const {
  for (int lane = 0; lane < laneCount; lane++) {
    if (device_.ended(lane) < events[static_cast<size_t>(lane)]) return false;
  }
  return true;
}

void Rank::waitFor(Tensor& tensor, Events& after) {
  if (!tensor.pending) return;
  if (reached(tensor.ready)) {
    tensor.pending = false;
    tensor.ready = noEvents;
  } else {
    merge(after, tensor.ready);
  }
}

/** Zeros are written where the tensor is used first: in that lane they cost no other lane a wait. */
void Rank::blank(Tensor& tensor, int lane) {
  tensor.blank = false;
  Events after = noEvents;
  waitFor(tensor, after);
  after[static_cast<size_t>(lane)] = noPoint;
  const Point at = nextPoint();
  if (device_.fill(lane, tensor.operand, at, after)) return;
  tails_[static_cast<size_t>(lane)] = at;
  tensor.lastUse[static_cast<size_t>(lane)] = at;
  tensor.ready = noEvents;
  tensor.ready[static_cast<size_t>(lane)] = at;
  tensor.pending = true;
}

void Rank::upload(int32_t id, const void* values, int64_t elements, bool integers) {
  Tensor& to = tensor(id, "upload");
  checkValues(to.operand, id, elements, integers);
  if (elements == 0) return;
  to.blank = false;
  Events after = to.lastUse;
  waitFor(to, after);
  after[valuesLane] = noPoint;
  const Point at = nextPoint();
  if (!device_.upload(valuesLane, to.operand, values, at, after)) given(to, at);
}

/** The values lane has something to put there. */
void Rank::given(Tensor& to, Point at) {
  tails_[valuesLane] = at;
  to.lastUse[valuesLane] = at;
  to.written = noEvents;
  to.written[valuesLane] = at;
  to.ready = to.written;
  to.pending = true;
}

void Rank::draw(int32_t id, Call call) {
  sweep();
  Tensor& to = tensor(id, call.kernel.c_str());
  call.inputs = call.outputs = {to.operand};
  call.place = to.operand.place;
  checkOperands(call);
  auto drawing = std::make_unique<Prepared>();
  drawing->task = device_.prepare(call);
  drawing->lane = valuesLane;
  if (to.operand.elements == 0) return;
  if (to.blank) blank(to, valuesLane);
  Events after = to.lastUse;
  waitFor(to, after);
  after[valuesLane] = noPoint;
  const Point at = drawing->last = nextPoint();
  device_.submit(valuesLane, *drawing->task, at, after, nullptr);
  given(to, at);
  retired_.push_back(std::move(drawing));
}

void Rank::read(int32_t id, void* values, int64_t elements, bool integers) {
  Tensor& from = tensor(id, "read");
  checkValues(from.operand, id, elements, integers);
  for (int lane = 0; lane < programLanes; lane++) {
    const Point writer = from.written[static_cast<size_t>(lane)];
    if (writer <= device_.ended(lane)) continue;
    throw BadCall("read: op " + std::to_string(opOf(writer)) + ", which writes tensor " + std::to_string(id) +
                  ", has not ended");
  }
  if (elements == 0) return;
  if (from.blank) blank(from, valuesLane);
  Events after = from.written;
  waitFor(from, after);
  after[valuesLane] = noPoint;
  const Point at = nextPoint();
  if (device_.download(valuesLane, from.operand, values, at, after)) return;
  tails_[valuesLane] = at;
  from.lastUse[valuesLane] = at;
  device_.wait(valuesLane, at);
}

int32_t Rank::download(int32_t id) {
  Tensor& from = tensor(id, "download");
  return downloadAfter(from, noEvents);
}

int32_t Rank::downloadFor(int32_t id, int lane, const int32_t* edges, int count) {
  Tensor& from = tensor(id, "download");
  Events after = behind(edges, count, "download");
  const auto own = static_cast<size_t>(lane);
  after[own] = std::max(after[own], tails_[own]);
  if (from.arena) waitFor(*from.arena, after);
  return downloadAfter(from, after);
}

int32_t Rank::downloadAfter(Tensor& from, Events after) {
  const int32_t number = nextDownload_++;
  Download& made = downloads_[number];
  made.elements = from.operand.elements;
  made.integers = isInteger(from.operand.dtype);
  made.values.resize(static_cast<size_t>(made.elements) * 4);
  if (made.elements == 0) return number;
  if (from.blank) blank(from, valuesLane);
  merge(after, from.written);
  waitFor(from, after);
  after[valuesLane] = noPoint;
  const Point at = nextPoint();
  if (device_.download(valuesLane, from.operand, made.values.data(), at, after)) return number;
  made.at = at;
  tails_[valuesLane] = at;
  from.lastUse[valuesLane] = at;
  // Who overwrites it next must not come before, by whatever name in its arena.
  for (Tensor* one : {&from, from.arena.get()}) {
    if (one == nullptr) continue;
    one->ready[valuesLane] = at;
    one->pending = true;
  }
  return number;
}

bool Rank::arrived(int32_t download) {
  const auto found = downloads_.find(download);
  if (found == downloads_.end()) throw BadCall("arrived: no download " + std::to_string(download));
  return device_.watch(valuesLane, found->second.at);
}

void Rank::take(int32_t download, void* values, int64_t elements, bool integers) {
  const auto found = downloads_.find(download);
  if (found == downloads_.end()) throw BadCall("take: no download " + std::to_string(download));
  const Download& made = found->second;
  if (device_.ended(valuesLane) < made.at) throw BadCall("take: the values are still on their way");
  if (elements != made.elements || integers != made.integers) {
    throw BadCall("take: " + std::to_string(made.elements) + (made.integers ? " int32" : " float32") + " values; " +
                  std::to_string(elements) + (integers ? " int32" : " float32") + " were asked for");
  }
  if (elements > 0) std::copy(made.values.begin(), made.values.end(), static_cast<char*>(values));
  downloads_.erase(found);
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
  if (call.lane < 0 || call.lane >= programLanes) throw BadCall(call.kernel + ": no lane " + std::to_string(call.lane));
  if (call.scalars.size() > maxScalars) throw BadCall(call.kernel + ": more than 8 scalars");
  made->lane = call.lane;
  made->name = call.kernel;
  made->scalars = static_cast<int>(call.scalars.size());
  for (const std::string& scalar : call.scalars) {
    if (call.attributes.count(scalar) == 0 && made->needed.empty()) made->needed = scalar;
  }
  checkOperands(call);
  made->task = device_.prepare(call);
  auto& workspace = workspaceBytes_[static_cast<size_t>(call.lane)];
  workspace = std::max(workspace, made->task->workspaceBytes());
  if (vacant_.empty()) {
    prepared_.push_back(std::move(made));
    return static_cast<int32_t>(prepared_.size() - 1);
  }
  const int32_t handle = vacant_.back();
  vacant_.pop_back();
  prepared_[static_cast<size_t>(handle)] = std::move(made);
  return handle;
}

Rank::Prepared& Rank::prepared(int32_t handle, const char* what) {
  if (handle < 0 || static_cast<size_t>(handle) >= prepared_.size() || !prepared_[static_cast<size_t>(handle)]) {
    throw BadCall(std::string(what) + ": no prepared op " + std::to_string(handle));
  }
  return *prepared_[static_cast<size_t>(handle)];
}

void Rank::release(int32_t handle) {
  prepared(handle, "release");
  retired_.push_back(std::move(prepared_[static_cast<size_t>(handle)]));
  vacant_.push_back(handle);
  sweep();
}

void Rank::sweep() {
  const auto gone = [this](const std::unique_ptr<Prepared>& op) { return op->last <= device_.ended(op->lane); };
  retired_.erase(std::remove_if(retired_.begin(), retired_.end(), gone), retired_.end());
}

int32_t Rank::submit(int32_t handle, const int32_t* edges, int count, const double* scalars, int scalarCount) {
  Prepared& op = prepared(handle, "submit");
  if (nextOp_ == std::numeric_limits<int32_t>::max()) throw BadCall("submit: 2^31 ops were submitted already");
  if (scalarCount != op.scalars && !(scalarCount == 0 && op.needed.empty())) {
    throw BadCall(op.name + ": " + std::to_string(scalarCount) + " scalars; expected " + std::to_string(op.scalars) +
                  (op.needed.empty() ? "" : ", among them \"" + op.needed + "\""));
  }
  for (int i = 0; i < scalarCount; i++) {
    if (!std::isfinite(scalars[i])) throw BadCall(op.name + ": scalar " + std::to_string(i) + " is not finite");
  }
  Events after = behind(edges, count, op.name);
  for (const auto* operands : {&op.reads, &op.writes}) {
    for (const auto& tensor : *operands) {
      if (!tensor->live) throw BadCall(op.name + ": names a tensor that was freed");
      if (tensor->blank) blank(*tensor, op.lane);
      if (tensor->pending) waitFor(*tensor, after);
      if (tensor->arena && tensor->arena->pending) waitFor(*tensor->arena, after);
    }
  }
  const auto lane = static_cast<size_t>(op.lane);
  // its own lane is FIFO anyway
  after[lane] = noPoint;

  const int32_t id = nextOp_++;
  const Point at = lastPoint_ = pointOf(id);
  for (const auto& tensor : op.reads) tensor->lastUse[lane] = at;
  for (const auto& tensor : op.writes) {
    tensor->lastUse[lane] = at;
    tensor->writer = {op.lane, id};
    tensor->written = noEvents;
    tensor->written[lane] = at;
  }
  op.last = at;
  tails_[lane] = at;
  opTails_[lane] = id;
  laneOf_[static_cast<size_t>(id) % recent] = static_cast<uint8_t>(op.lane);
  device_.submit(op.lane, *op.task, at, after, scalarCount > 0 ? scalars : nullptr);
  return id;
}

Events Rank::behind(const int32_t* edges, int count, const std::string& name) const {
  Events after = noEvents;
  for (int i = 0; i < count; i++) {
    const int32_t edge = edges[i];
    if (edge < 0 || edge >= nextOp_) throw BadCall(name + ": no op " + std::to_string(edge) + " to wait for");
    const int lane = laneOf(edge);
    if (lane >= 0) {
      after[static_cast<size_t>(lane)] = std::max(after[static_cast<size_t>(lane)], pointOf(edge));
      continue;
    }
    // So old that its lane is forgotten: wait for every lane up to there.
    for (size_t other = 0; other < laneCount; other++) {
      after[other] = std::max(after[other], std::min(pointOf(edge), tails_[other]));
    }
  }
  return after;
}

int Rank::laneOf(int32_t op) const {
  return static_cast<size_t>(nextOp_ - op) > recent ? -1 : laneOf_[static_cast<size_t>(op) % recent];
}

bool Rank::watch(int lane, int32_t op) {
  if (op > opTails_[static_cast<size_t>(lane)]) {
    throw BadCall("watch: op " + std::to_string(op) + " was not submitted to lane " + std::to_string(lane));
  }
  return op < 0 || device_.watch(lane, pointOf(op));
}

Writer Rank::writerOf(int32_t id) { return tensor(id, "writerOf").writer; }

}  // namespace tandem

#include "remote.h"

#include <algorithm>
#include <cstdlib>

#include "message.h"

namespace tandem::cuda {

bool narrowSumsByNccl() {
  static const bool wished = [] {
    const char* wish = std::getenv("TANDEM_CUDA_NCCL_SUMS");
    return wish != nullptr && std::string(wish) == "1";
  }();
  return wished;
}

namespace {

bool powerOfTwo(size_t n) { return (n & (n - 1)) == 0; }

bool isEven(const std::vector<int64_t>& counts) {
  return std::all_of(counts.begin(), counts.end(), [&](int64_t n) { return n == counts[0]; });
}

/** Rows of each member, where the call may say them; else as many of each. */
std::vector<int64_t> countsOf(const Call& call, size_t members, bool said) {
  std::vector<int64_t> counts = said ? call.rows("counts") : std::vector<int64_t>();
  if (counts.empty()) counts.assign(members, 1);
  return counts;
}

bool overlap(const Operand& a, const Operand& b) {
  const auto start = [](const Operand& one) { return static_cast<const char*>(one.data); };
  const auto end = [&](const Operand& one) { return start(one) + one.elements * storedBytes(one.dtype); };
  return start(a) < end(b) && start(b) < end(a);
}

/**
 * Takes one step or two: messages to and from the other members, and, where values are added, the sums to all. Reductions that
 * NCCL does with the same result are NCCL's: of float32, and of two members' 16-bit values, in a group whose size divides exactly.
 */
class RemoteTask : public CudaTask {
 public:
  RemoteTask(const Call& call, size_t member, std::shared_ptr<NcclCommunicator> communicator, std::shared_ptr<LaunchOrder> order,
             Peers& peers)
      : kernel_(call.kernel),
        inputs_(call.inputs),
        outputs_(call.outputs),
        members_(call.group->members.size()),
        own_(member),
        wire_(call.text("wire")),
        meaning_(peers.meaningOf(call, member)),
        communicator_(std::move(communicator)),
        order_(std::move(order)),
        peers_(peers) {
    const std::vector<Operand>& sent = inputs_.empty() ? outputs_ : inputs_;
    for (const Operand& tensor : sent) encodings_.push_back(encodingOf(tensor.dtype, wire_));
    for (const Operand& in : inputs_) {
      for (const Operand& out : outputs_) overwrites_ = overwrites_ || overlap(in, out);
    }
    plan(call);
  }

  int64_t nextPosition() override { return order_->take(); }

  void run(Run& run) override {
    if (!order_->await(run.position)) return;
    struct Passing {
      LaunchOrder& order;
      ~Passing() { order.passed(); }
    } passing{*order_};
    if (!peers_.enter()) return;
    struct Leaving {
      Peers& peers;
      ~Leaving() { peers.leave(); }
    } leaving{peers_};
    body_(run.launch);
  }

 private:
  using Body = std::function<void(const Launch&)>;

  void plan(const Call& call);
  void planReduction(const Call& call);
  void planGather(const Call& call);
  void planExchange(const std::vector<Spans>& sends, const std::vector<Spans>& receives, bool alike);
  Body exchange(const std::vector<Operand>& from, const std::vector<Spans>& sends, const std::vector<Operand>& to,
                const std::vector<Spans>& receives, const std::vector<Encoding>& encodings, bool alike, bool direct) const;
  Body reduceOnOwn(const std::vector<Spans>& sends, const Spans& own, double over) const;
  Body reduceEverything(double over) const;
  bool reducedByNccl(double over) const;
  Body reduceByNccl(bool scatters, double over) const;
  Body scatterOneByOne(NcclType type, NcclReduce how) const;
  bool oneByOne() const;

  /** A member's equal share of all values, in pieces of so many that every encoding has whole bytes. */
  Spans share(const std::vector<Operand>& tensors, size_t member) const {
    constexpr int64_t piece = 16;
    const int64_t total = elementsOf(tensors);
    const int64_t pieces = ceilDiv(total, piece);
    const auto cut = [&](size_t i) {
      return std::min(total, pieces * static_cast<int64_t>(i) / static_cast<int64_t>(members_) * piece);
    };
    return stretchOf(tensors, cut(member), cut(member + 1));
  }

  /** Scales of all inputs, if any has one. */
  class Scales {
   public:
    Scales(const Launch& launch, const std::vector<Operand>& tensors, const std::vector<Encoding>& encodings)
        : scratch_(launch, any(encodings) ? 4 * tensors.size() : 0) {
      if (!any(encodings)) return;
      check(cudaMemsetAsync(scratch_.as<void>(), 0, 4 * tensors.size(), launch.stream), "cudaMemsetAsync");
      for (size_t i = 0; i < tensors.size(); i++) {
        if (!encodings[i].scaled) continue;
        scaleBlocks(launch, viewOf(tensors[i]), tensors[i].elements, std::max<int64_t>(1, tensors[i].elements),
                    {scratch_.as<float>() + i, Dtype::float32}, encodings[i].format);
      }
      data = scratch_.as<float>();
    }
    const float* data = nullptr;

   private:
    static bool any(const std::vector<Encoding>& encodings) {
      return std::any_of(encodings.begin(), encodings.end(), [](const Encoding& one) { return one.scaled; });
    }
    const Scratch scratch_;
  };

  void launch(const Launch& launch, const std::function<void(const NcclCalls&)>& calls) const {
    communicator_->launch(launch.stream, meaning_, calls);
  }

  const std::string kernel_;
  const std::vector<Operand> inputs_;
  const std::vector<Operand> outputs_;
  const size_t members_;
  const size_t own_;
  const std::string wire_;
  const Meaning meaning_;
  const std::shared_ptr<NcclCommunicator> communicator_;
  const std::shared_ptr<LaunchOrder> order_;
  Peers& peers_;
  std::vector<Encoding> encodings_;
  /** An output lies where an input does. Known here alone: whatever members must do alike cannot depend on it. */
  bool overwrites_ = false;
  Body body_;
};

/** Whether NCCL's own reduction gives what core's does, but for the order in which float32 values of many members are added. */
bool RemoteTask::reducedByNccl(double over) const {
  if (inputs_.empty() || (over != 1 && !powerOfTwo(members_))) return false;
  const Dtype dtype = inputs_[0].dtype;
  const bool narrow = dtype == Dtype::bfloat16 || dtype == Dtype::float16;
  if (dtype != Dtype::float32 && !(narrow && (members_ == 2 || narrowSumsByNccl()))) return false;
  for (size_t i = 0; i < inputs_.size(); i++) {
    if (inputs_[i].dtype != dtype || outputs_[i].dtype != dtype || encodings_[i].dtype != dtype) return false;
  }
  return true;
}

/** Messages to all, and from all into the places where they belong. */
RemoteTask::Body RemoteTask::exchange(const std::vector<Operand>& from, const std::vector<Spans>& sends,
                                      const std::vector<Operand>& to, const std::vector<Spans>& receives,
                                      const std::vector<Encoding>& encodings, bool alike, bool direct) const {
  std::vector<Message> out;
  std::vector<Message> in;
  for (size_t member = 0; member < members_; member++) {
    out.push_back(alike && member > 0 ? out[0] : Message(from, sends[member], encodings));
    in.push_back(Message(to, receives[member], encodings));
  }
  return [this, out, in, alike, direct, from, encodings](const Launch& launch) {
    const Scales scales(launch, from, encodings);
    // places of messages that have to be written, or kept, on the way
    int64_t bytes = 0;
    std::vector<int64_t> outAt(members_, -1);
    std::vector<int64_t> inAt(members_, -1);
    const auto place = [&](std::vector<int64_t>& at, size_t member, int64_t size) {
      at[member] = bytes;
      bytes += aligned(size);
    };
    const bool stays = in[own_].empty() || out[own_].liesWhere(in[own_]);
    // as it lies on either side: then what stays here goes by the same launch
    const bool byNccl = !stays && direct && out[own_].piecesInPlace() && in[own_].piecesInPlace();
    for (size_t member = 0; member < members_; member++) {
      const bool again = alike && member > 0;
      if (!out[member].empty() && !out[member].piecesInPlace() && !again) place(outAt, member, out[member].bytes());
      if (again) outAt[member] = outAt[0];
      const bool straight = direct && in[member].piecesInPlace();
      if (member != own_ && !in[member].empty() && !straight) place(inAt, member, in[member].bytes());
    }
    const void* own = out[own_].inPlace();
    int64_t ownAt = outAt[own_];
    if (!stays && !byNccl && ownAt < 0 && own == nullptr) {
      ownAt = bytes;
      bytes += aligned(out[own_].bytes());
    }
    const Scratch scratch(launch, static_cast<size_t>(bytes));
    const auto written = [&](int64_t at) { return scratch.as<char>(static_cast<size_t>(at)); };
    for (size_t member = 0; member < members_; member++) {
      if (outAt[member] >= 0 && !(alike && member > 0)) out[member].pack(launch, written(outAt[member]), scales.data);
    }
    if (ownAt != outAt[own_]) out[own_].pack(launch, written(ownAt), scales.data);
    this->launch(launch, [&](const NcclCalls& calls) {
      const auto send = [&](size_t member) {
        for (const Piece& piece : out[member].pieces()) {
          calls.send(outAt[member] < 0 ? piece.inPlace : written(outAt[member] + piece.at), piece.bytes, static_cast<int>(member));
        }
      };
      const auto receive = [&](size_t member) {
        for (const Piece& piece : in[member].pieces()) {
          calls.receive(inAt[member] < 0 ? piece.inPlace : written(inAt[member] + piece.at), piece.bytes, static_cast<int>(member));
        }
      };
      for (size_t step = 1; step < members_; step++) {
        send((own_ + step) % members_);
        receive((own_ + members_ - step) % members_);
      }
      if (!byNccl) return;
      send(own_);
      receive(own_);
    });
    // what stays here goes the same way, but for the journey
    if (!stays && !byNccl) in[own_].unpack(launch, ownAt < 0 ? own : written(ownAt));
    for (size_t member = 0; member < members_; member++) {
      if (inAt[member] >= 0) in[member].unpack(launch, written(inAt[member]));
    }
  };
}

/** Everybody's values of the own places, added here in group order. */
RemoteTask::Body RemoteTask::reduceOnOwn(const std::vector<Spans>& sends, const Spans& own, double over) const {
  std::vector<Message> out;
  for (const Spans& spans : sends) out.push_back(Message(inputs_, spans, encodings_));
  const Message sums(outputs_, own, encodings_);
  return [this, out, sums, over](const Launch& launch) {
    const Scales scales(launch, inputs_, encodings_);
    const int64_t each = aligned(sums.bytes());
    int64_t bytes = each * static_cast<int64_t>(members_);
    std::vector<int64_t> at(members_, -1);
    for (size_t member = 0; member < members_; member++) {
      if (member == own_ || out[member].empty() || out[member].inPlace() != nullptr) continue;
      at[member] = bytes;
      bytes += aligned(out[member].bytes());
    }
    const Scratch scratch(launch, static_cast<size_t>(bytes));
    const auto come = [&](size_t member) { return scratch.as<char>(static_cast<size_t>(each) * member); };
    const auto go = [&](size_t member) -> void* {
      return at[member] < 0 ? out[member].inPlace() : scratch.as<char>(static_cast<size_t>(at[member]));
    };
    for (size_t member = 0; member < members_; member++) {
      if (member == own_) out[member].pack(launch, come(member), scales.data);
      if (at[member] >= 0) out[member].pack(launch, go(member), scales.data);
    }
    this->launch(launch, [&](const NcclCalls& calls) {
      for (size_t step = 1; step < members_; step++) {
        const size_t next = (own_ + step) % members_;
        const size_t before = (own_ + members_ - step) % members_;
        if (!out[next].empty()) calls.send(go(next), out[next].bytes(), static_cast<int>(next));
        if (!sums.empty()) calls.receive(come(before), sums.bytes(), static_cast<int>(before));
      }
    });
    sums.add(launch, scratch.as<char>(), static_cast<int64_t>(members_), over);
  };
}

/** The same of all values: everybody gets everything, and adds for itself. */
RemoteTask::Body RemoteTask::reduceEverything(double over) const {
  const Message out(inputs_, allOf(inputs_), encodings_);
  const Message sums(outputs_, allOf(outputs_), encodings_);
  return [this, out, sums, over](const Launch& launch) {
    const Scales scales(launch, inputs_, encodings_);
    const int64_t each = aligned(sums.bytes());
    const Scratch scratch(launch, static_cast<size_t>(each) * members_);
    void* const own = scratch.as<char>(static_cast<size_t>(each) * own_);
    out.pack(launch, own, scales.data);
    this->launch(launch, [&](const NcclCalls& calls) {
      if (each > 0) calls.allGather(own, scratch.as<void>(), each);
    });
    sums.add(launch, scratch.as<char>(), static_cast<int64_t>(members_), over);
  };
}

/**
 * NCCL's reduction, of as many values on every member: what is told alike (collective-plan.h) gives the count. Whether a member's
 * tensors lie as NCCL takes them is its own affair.
 */
RemoteTask::Body RemoteTask::reduceByNccl(bool scatters, double over) const {
  const NcclType type = inputs_[0].dtype == Dtype::float32    ? NcclType::float32
                        : inputs_[0].dtype == Dtype::bfloat16 ? NcclType::bfloat16
                                                              : NcclType::float16;
  const NcclReduce how = over == 1 ? NcclReduce::sum : NcclReduce::average;
  if (scatters && inputs_.size() > 1 && oneByOne()) return scatterOneByOne(type, how);
  const std::vector<int64_t> even(members_, 1);
  std::vector<Message> parts;
  for (size_t member = 0; member < (scatters ? members_ : 1); member++) {
    parts.push_back(Message(inputs_, scatters ? rowsOf(inputs_, even, member) : allOf(inputs_), encodings_));
  }
  const Message sums(outputs_, allOf(outputs_), encodings_);
  const int64_t part = parts[0].bytes();
  if (part == 0) return [this](const Launch& launch) { this->launch(launch, [](const NcclCalls&) {}); };
  const int64_t count = part / storedBytes(inputs_[0].dtype);
  // one tensor lies as NCCL wants it: part behind part
  void* const whole = scatters ? (inputs_.size() == 1 ? inputs_[0].data : nullptr) : parts[0].inPlace();
  const bool staged = whole == nullptr || sums.inPlace() == nullptr || (scatters && overwrites_);
  return [=](const Launch& launch) {
    const int64_t sent = part * static_cast<int64_t>(parts.size());
    const Scratch scratch(launch, staged ? static_cast<size_t>(aligned(sent) + part) : 0);
    const void* const from = staged ? scratch.as<char>() : whole;
    void* const to = !staged ? sums.inPlace() : scratch.as<char>(scatters ? static_cast<size_t>(aligned(sent)) : 0);
    for (size_t i = 0; staged && i < parts.size(); i++) {
      parts[i].pack(launch, scratch.as<char>(static_cast<size_t>(part) * i), nullptr);
    }
    this->launch(launch, [&](const NcclCalls& calls) {
      if (scatters) {
        calls.reduceScatter(from, to, count, type, how);
      } else {
        calls.allReduce(from, to, count, type, how);
      }
    });
    if (staged) sums.unpack(launch, to);
  };
}

/** Each tensor's parts lie one behind another, so NCCL takes it as it is; sums that would overwrite values come to lie aside first. */
RemoteTask::Body RemoteTask::scatterOneByOne(NcclType type, NcclReduce how) const {
  std::vector<Message> sums;
  for (size_t i = 0; i < outputs_.size(); i++) sums.push_back(Message({outputs_[i]}, {{0, 0, outputs_[i].elements}}, {encodings_[i]}));
  return [=](const Launch& launch) {
    int64_t bytes = 0;
    std::vector<int64_t> at;
    for (const Message& sum : sums) {
      at.push_back(bytes);
      bytes += aligned(sum.bytes());
    }
    const Scratch scratch(launch, overwrites_ ? static_cast<size_t>(bytes) : 0);
    const auto target = [&](size_t i) -> void* {
      return overwrites_ ? scratch.as<char>(static_cast<size_t>(at[i])) : outputs_[i].data;
    };
    this->launch(launch, [&](const NcclCalls& calls) {
      for (size_t i = 0; i < sums.size(); i++) {
        if (!sums[i].empty()) calls.reduceScatter(inputs_[i].data, target(i), outputs_[i].elements, type, how);
      }
    });
    for (size_t i = 0; overwrites_ && i < sums.size(); i++) sums[i].unpack(launch, target(i));
  };
}

void RemoteTask::planReduction(const Call& call) {
  const bool scatters = kernel_ == "reduce_scatter";
  const double over = call.text("reduce") == "avg" ? static_cast<double>(members_) : 1;
  const std::vector<int64_t> counts = countsOf(call, members_, scatters);
  if (reducedByNccl(over) && isEven(counts)) {
    body_ = reduceByNccl(scatters, over);
    return;
  }
  std::vector<Spans> sends;
  if (scatters) {
    Spans own;
    for (size_t member = 0; member < members_; member++) sends.push_back(rowsOf(inputs_, counts, member));
    for (const Span& span : sends[own_]) own.push_back({span.tensor, 0, span.count});
    body_ = reduceOnOwn(sends, own, over);
    return;
  }
  // everything to everybody, where that is fewer bytes than a share for each and the sums back
  const Message sent(inputs_, allOf(inputs_), encodings_);
  std::vector<Encoding> plain;
  for (const Operand& out : outputs_) plain.push_back(encodingOf(out.dtype, ""));
  const Message sums(outputs_, allOf(outputs_), plain);
  if (sent.bytes() * static_cast<int64_t>(members_) <= sent.bytes() + sums.bytes()) {
    body_ = reduceEverything(over);
    return;
  }
  for (size_t member = 0; member < members_; member++) sends.push_back(share(inputs_, member));
  const Body first = reduceOnOwn(sends, sends[own_], over);
  const Body second = exchange(outputs_, std::vector<Spans>(members_, sends[own_]), outputs_, sends, plain, true, true);
  body_ = [first, second](const Launch& launch) {
    first(launch);
    second(launch);
  };
}

void RemoteTask::planExchange(const std::vector<Spans>& sends, const std::vector<Spans>& receives, bool alike) {
  body_ = exchange(inputs_, sends, outputs_, receives, encodings_, alike, !overwrites_);
}

/** Whether NCCL takes the tensors one by one, in one launch: they are few and large. By sizes that all members know. */
bool RemoteTask::oneByOne() const {
  const auto bytes = [&](size_t i) { return inputs_[i].elements * storedBytes(inputs_[i].dtype); };
  int64_t all = 0;
  for (size_t i = 0; i < inputs_.size(); i++) all += bytes(i);
  return inputs_.size() == 1 || worthPieces(inputs_.size(), all);
}

void RemoteTask::planGather(const Call& call) {
  const std::vector<int64_t> counts = countsOf(call, members_, true);
  // Tensors as they are: the parts come to lie one behind another. All members take this way or none, so it depends only on what
  // they have told each other.
  bool plain = isEven(counts) && oneByOne();
  for (size_t i = 0; i < inputs_.size(); i++) {
    plain = plain && encodings_[i].dtype == outputs_[i].dtype && inputs_[i].dtype == outputs_[i].dtype;
  }
  if (plain) {
    struct Part {
      Message whole;
      char* to;
      /** Where the own part waits while others' overwrite it; -1: it need not. */
      int64_t asideAt;
    };
    std::vector<Part> parts;
    int64_t aside = 0;
    for (size_t i = 0; i < inputs_.size(); i++) {
      const Message whole({inputs_[i]}, {{0, 0, inputs_[i].elements}}, {encodings_[i]});
      char* const to = static_cast<char*>(outputs_[i].data);
      // NCCL takes the own part from where it belongs, or from elsewhere; what others' parts overwrite has to be put aside.
      const bool put = overwrites_ && whole.inPlace() != to + whole.bytes() * static_cast<int64_t>(own_);
      parts.push_back({whole, to, put ? aside : -1});
      if (put) aside += aligned(whole.bytes());
    }
    body_ = [this, parts, aside](const Launch& launch) {
      const Scratch scratch(launch, static_cast<size_t>(aside));
      const auto source = [&](const Part& part) -> void* {
        return part.asideAt < 0 ? part.whole.inPlace() : scratch.as<char>(static_cast<size_t>(part.asideAt));
      };
      for (const Part& part : parts) {
        if (part.asideAt >= 0) part.whole.pack(launch, source(part), nullptr);
      }
      this->launch(launch, [&](const NcclCalls& calls) {
        for (const Part& part : parts) {
          if (!part.whole.empty()) calls.allGather(source(part), part.to, part.whole.bytes());
        }
      });
    };
    return;
  }
  std::vector<Spans> sends(members_);
  std::vector<Spans> receives(members_);
  for (size_t member = 0; member < members_; member++) {
    sends[member] = allOf(inputs_);
    receives[member] = rowsOf(outputs_, counts, member);
  }
  planExchange(sends, receives, true);
}

void RemoteTask::plan(const Call& call) {
  std::vector<Spans> sends(members_);
  std::vector<Spans> receives(members_);
  if (kernel_ == "all_reduce" || kernel_ == "reduce_scatter") return planReduction(call);
  if (kernel_ == "all_gather") return planGather(call);
  if (kernel_ == "all_to_all") {
    const auto [sendCounts, receiveCounts] = call.rowsExchanged();
    for (size_t member = 0; member < members_; member++) {
      sends[member] = rowsOf(inputs_, sendCounts, member);
      receives[member] = rowsOf(outputs_, receiveCounts, member);
    }
    return planExchange(sends, receives, false);
  }
  if (kernel_ == "broadcast") {
    const auto root = static_cast<int>(call.integer("root"));
    const Message sent(inputs_, allOf(inputs_), encodings_);
    const Message received(outputs_, allOf(outputs_), encodings_);
    const bool isRoot = static_cast<int>(own_) == root;
    body_ = [=](const Launch& launch) {
      // the others' inputs are not looked at
      const Scales scales(launch, inputs_, isRoot ? encodings_ : std::vector<Encoding>());
      const bool straight = received.inPlace() != nullptr && (!isRoot || sent.inPlace() != nullptr);
      const Scratch scratch(launch, straight ? 0 : static_cast<size_t>(received.bytes()));
      void* const buffer = straight ? received.inPlace() : scratch.as<void>();
      if (isRoot && !straight) sent.pack(launch, buffer, scales.data);
      this->launch(launch, [&](const NcclCalls& calls) {
        if (!received.empty()) calls.broadcast(straight && isRoot ? sent.inPlace() : buffer, buffer, received.bytes(), root);
      });
      if (!straight) received.unpack(launch, buffer);
    };
    return;
  }
  // send_recv
  if (call.flag("source")) {
    sends[1 - own_] = allOf(inputs_);
  } else {
    receives[1 - own_] = allOf(outputs_);
  }
  planExchange(sends, receives, false);
}

}  // namespace

RemoteRanks::RemoteRanks(Peers& peers, Shared& shared, int device)
    : peers_(peers), shared_(shared), device_(device), order_(std::make_shared<LaunchOrder>(shared)) {
  peers_.link(shared);
  watcher_ = std::thread([this] { watch(); });
}

RemoteRanks::~RemoteRanks() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  woken_.notify_all();
  watcher_.join();
  for (const auto& [circle, communicator] : communicators_) communicator->leave();
  peers_.unlink();
}

void RemoteRanks::wake() {
  order_->wake();
  { const std::lock_guard lock(mutex_); }
  woken_.notify_all();
}

std::shared_ptr<NcclCommunicator> RemoteRanks::communicator(const Circle& circle) {
  const std::lock_guard lock(mutex_);
  auto& found = communicators_[circle];
  if (!found) found = std::make_shared<NcclCommunicator>(peers_, shared_, circle, device_);
  return found;
}

std::unique_ptr<CudaTask> RemoteRanks::collective(const Call& call, size_t member) {
  return std::make_unique<RemoteTask>(call, member, communicator({*call.group, call.lane}), order_, peers_);
}

void RemoteRanks::closing() {
  // From here on nothing is launched; what was may not end, nor what is being launched.
  bool underWay = order_->close();
  const std::lock_guard lock(mutex_);
  for (const auto& [circle, communicator] : communicators_) underWay = underWay || communicator->busy();
  if (!underWay || cut_) return;
  cut_ = true;
  // stays inside, so that the others learn that this rank has stopped
  peers_.enter();
}

/** Looks after communicators: tells of what NCCL noticed, and ends them when something failed anywhere. */
void RemoteRanks::watch() {
  cudaSetDevice(device_);
  // The transport notices a rank that is gone, and knows which; NCCL only that a connection ended. It says so if nobody else does.
  const auto patience = std::chrono::duration<double>(peers_.lostAfterSeconds() + 2);
  std::optional<std::chrono::steady_clock::time_point> troubled;
  std::unique_lock lock(mutex_);
  while (!ending_) {
    const auto fault = shared_.fault();
    if (fault && (cut_ || fault->kind != FaultKind::closed)) {
      const auto communicators = communicators_;
      lock.unlock();
      for (const auto& [circle, communicator] : communicators) communicator->abort();
      return;
    }
    const auto communicators = communicators_;
    lock.unlock();
    std::optional<Fault> trouble;
    for (const auto& [circle, communicator] : communicators) {
      if (!trouble) trouble = communicator->trouble();
    }
    const auto now = std::chrono::steady_clock::now();
    if (trouble && !troubled) troubled = now;
    if (trouble && now - *troubled > patience && !shared_.faulted()) shared_.fail(*trouble);
    lock.lock();
    if (!ending_) woken_.wait_for(lock, std::chrono::milliseconds(100));
  }
}

}  // namespace tandem::cuda

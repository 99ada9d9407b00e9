// Sums with ranks of other processes: by NCCL where it can, or added here in group order.
#include <algorithm>
#include <cstdlib>

#include "remote-task.h"
#include "remote.h"

namespace tandem::cuda {

bool narrowSumsByNccl() {
  static const bool wished = [] {
    const char* wish = std::getenv("TANDEM_CUDA_NCCL_SUMS");
    return wish == nullptr || std::string(wish) != "0";
  }();
  return wished;
}

/** Whether NCCL's own reduction gives what core's does, but for the order, and how often 16-bit values of many members are rounded. */
bool RemoteTask::reducedByNccl() const {
  if (inputs_.empty()) return false;
  const Dtype dtype = inputs_[0].dtype;
  const bool narrow = dtype == Dtype::bfloat16 || dtype == Dtype::float16;
  if (dtype != Dtype::float32 && !(narrow && (members_ == 2 || narrowSumsByNccl()))) return false;
  for (size_t i = 0; i < inputs_.size(); i++) {
    if (inputs_[i].dtype != dtype || outputs_[i].dtype != dtype || encodings_[i].dtype != dtype) return false;
  }
  return true;
}

Spans RemoteTask::share(const std::vector<Operand>& tensors, size_t member) const {
  constexpr int64_t piece = 16;
  const int64_t total = elementsOf(tensors);
  const int64_t pieces = ceilDiv(total, piece);
  const auto cut = [&](size_t i) {
    return std::min(total, pieces * static_cast<int64_t>(i) / static_cast<int64_t>(members_) * piece);
  };
  return stretchOf(tensors, cut(member), cut(member + 1));
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

/**
 * Everybody's bytes, one member's behind another's. Two, and more that are each on a host of its own, send them to each other: a ring of
 * NCCL's would hand on a chunk only when the last one has come, which over a link that takes time is slower by that time for each, and
 * crosses no link less often. Of members that share a host's link to others it does.
 */
void RemoteTask::gatherEqual(const NcclCalls& calls, char* at, int64_t each) const {
  if (each == 0) return;
  char* const own = at + each * static_cast<int64_t>(own_);
  if (!sendsAll_) {
    calls.allGather(own, at, each);
    return;
  }
  for (size_t step = 1; step < members_; step++) {
    const size_t next = (own_ + step) % members_;
    const size_t before = (own_ + members_ - step) % members_;
    calls.send(own, each, static_cast<int>(next));
    calls.receive(at + each * static_cast<int64_t>(before), each, static_cast<int>(before));
  }
}

/** The same of all values: everybody gets everything, and adds for itself. */
RemoteTask::Body RemoteTask::reduceEverything(double over) const {
  const Message out(inputs_, allOf(inputs_), encodings_);
  const Message sums(outputs_, allOf(outputs_), encodings_);
  return [this, out, sums, over](const Launch& launch) {
    const Scales scales(launch, inputs_, encodings_);
    const int64_t each = aligned(sums.bytes());
    const Scratch scratch(launch, static_cast<size_t>(each) * members_);
    out.pack(launch, scratch.as<char>(static_cast<size_t>(each) * own_), scales.data);
    this->launch(launch, [&](const NcclCalls& calls) { gatherEqual(calls, scratch.as<char>(), each); });
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

/** Everybody's share to all by NCCL's own gather: shares differ by a piece at most, and all take as much room as the largest. */
RemoteTask::Body RemoteTask::gatherShares(const std::vector<Spans>& shares, const std::vector<Encoding>& encodings) const {
  std::vector<Message> parts;
  int64_t most = 0;
  for (const Spans& spans : shares) {
    parts.push_back(Message(outputs_, spans, encodings));
    most = std::max(most, aligned(parts.back().bytes()));
  }
  return [this, parts, most](const Launch& launch) {
    const Scratch scratch(launch, static_cast<size_t>(most) * members_);
    const auto at = [&](size_t member) { return scratch.as<char>(static_cast<size_t>(most) * member); };
    parts[own_].pack(launch, at(own_), nullptr);
    this->launch(launch, [&](const NcclCalls& calls) { gatherEqual(calls, scratch.as<char>(), most); });
    for (size_t member = 0; member < members_; member++) {
      if (member != own_) parts[member].unpack(launch, at(member));
    }
  };
}

void RemoteTask::planReduction(const Call& call) {
  const bool scatters = kernel_ == "reduce_scatter";
  const double over = call.text("reduce") == "avg" ? static_cast<double>(members_) : 1;
  const std::vector<int64_t> counts = countsOf(call, members_, scatters);
  if (reducedByNccl() && isEven(counts)) {
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
  const Body second = gatherShares(sends, plain);
  body_ = [first, second](const Launch& launch) {
    first(launch);
    second(launch);
  };
}

}  // namespace tandem::cuda

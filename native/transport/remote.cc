#include "remote.h"

#include <algorithm>
#include <cstring>
#include <deque>

#include "../cpu/rounding.h"

namespace tandem {

namespace {

/** Values that travel as one message: what is added while the next is on its way. */
constexpr int64_t chunkValues = int64_t{1} << 18;
/** Chunks of each peer that are awaited at once: bounds what is staged. */
constexpr size_t windowChunks = 8;

// Parts of a collective's messages, above the chunk's number.
constexpr uint32_t firstPhase = 0;
constexpr uint32_t secondPhase = uint32_t{1} << 31;

uint64_t fnv(const std::string& text, uint64_t hash = 0xcbf29ce484222325u) {
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

int64_t sum(const std::vector<int64_t>& counts, size_t first = 0, size_t last = SIZE_MAX) {
  int64_t total = 0;
  for (size_t i = first; i < std::min(last, counts.size()); i++) total += counts[i];
  return total;
}

char* at(void* data, int64_t element) { return static_cast<char*>(data) + element * 4; }
const char* at(const void* data, int64_t element) { return static_cast<const char*>(data) + element * 4; }

}  // namespace

RemoteCollective::RemoteCollective(const Call& call, size_t member)
    : kernel_(call.kernel),
      inputs_(call.inputs),
      outputs_(call.outputs),
      members_(call.group->members),
      member_(member),
      wire_(call.text("wire")) {
  if (wire_ == "float32") wire_.clear();
  const size_t members = members_.size();
  for (const Operand& in : inputs_) packingOf(in.dtype, wire_);
  if (kernel_ == "all_reduce" || kernel_ == "reduce_scatter") {
    const std::string& reduce = call.text("reduce");
    if (reduce != "sum" && reduce != "avg") {
      throw BadCall(kernel_ + ": attribute \"reduce\" is \"" + reduce + "\"; expected \"sum\" or \"avg\"");
    }
    if (reduce == "avg") over_ = static_cast<double>(members);
  }
  if (call.attributes.count("ranks") != 0 && call.integer("ranks") != static_cast<int64_t>(members)) {
    throw BadCall(kernel_ + ": attribute \"ranks\" is " + std::to_string(call.integer("ranks")) + " in a group of " +
                  std::to_string(members));
  }
  if (kernel_ == "all_gather" || kernel_ == "reduce_scatter") counts_ = call.integers("counts");
  if (counts_.empty()) counts_.assign(members, 1);
  if (kernel_ == "all_to_all") {
    sendCounts_ = call.integers("sendCounts");
    receiveCounts_ = call.integers("receiveCounts");
    if (sendCounts_.empty() && receiveCounts_.empty()) {
      sendCounts_.assign(members, 1);
      receiveCounts_.assign(members, 1);
    }
  }
  if (counts_.size() != members ||
      (kernel_ == "all_to_all" && (sendCounts_.size() != members || receiveCounts_.size() != members))) {
    throw BadCall(kernel_ + ": counts do not fit a group of " + std::to_string(members));
  }
  if (kernel_ == "broadcast") {
    const int64_t root = call.integer("root");
    if (root < 0 || static_cast<size_t>(root) >= members) {
      throw BadCall("broadcast: root " + std::to_string(root) + " in a group of " + std::to_string(members));
    }
    root_ = static_cast<size_t>(root);
  }
  if (kernel_ == "send_recv") {
    source_ = call.flag("source");
    if (members != 2) throw BadCall("send_recv: expected a group of one source and one destination");
  } else if (inputs_.size() != outputs_.size()) {
    throw BadCall(kernel_ + ": " + std::to_string(inputs_.size()) + " inputs and " + std::to_string(outputs_.size()) +
                  " outputs");
  }
  checkSizes();
  describe(call);
}

void RemoteCollective::checkSizes() const {
  const auto bad = [&](size_t tensor) {
    throw BadCall(kernel_ + ": operand " + std::to_string(tensor) + " has " +
                  std::to_string(inputs_[tensor].elements) + " values in and " +
                  std::to_string(outputs_[tensor].elements) + " out, in a group of " +
                  std::to_string(members_.size()));
  };
  for (size_t i = 0; kernel_ != "send_recv" && i < inputs_.size(); i++) {
    const int64_t in = inputs_[i].elements;
    const int64_t out = outputs_[i].elements;
    const int64_t whole = kernel_ == "reduce_scatter" ? in : out;
    const int64_t part = kernel_ == "reduce_scatter" ? out : in;
    if (isInteger(inputs_[i].dtype) != isInteger(outputs_[i].dtype)) {
      throw BadCall(kernel_ + ": integer and float tensors do not mix");
    }
    if (kernel_ == "all_reduce" || kernel_ == "broadcast") {
      if (in != out) bad(i);
    } else if (kernel_ == "all_to_all") {
      const int64_t sends = sum(sendCounts_);
      const int64_t receives = sum(receiveCounts_);
      if (sendCounts_[member_] != receiveCounts_[member_]) bad(i);
      if ((sends > 0 && in % sends != 0) || (sends > 0 && in / sends * receives != out)) bad(i);
    } else {
      const int64_t rows = sum(counts_);
      if (rows > 0 && (whole % rows != 0 || whole / rows * counts_[member_] != part)) bad(i);
    }
  }
}

void RemoteCollective::describe(const Call& call) {
  std::string group;
  for (const int rank : members_) group += std::to_string(rank) + ",";
  const uint64_t hash = fnv(group);
  communicator_ = static_cast<uint32_t>(hash ^ hash >> 32);
  int64_t bytes = 0;
  for (const Operand& one : inputs_.empty() ? outputs_ : inputs_) bytes += one.sizeBytes;
  meaning_.text = kernel_ + " of " + std::to_string(bytes) + " B";
  std::string alike = group + kernel_ + " " + wire_ + " " + std::to_string(over_) + " " + std::to_string(root_);
  if (!wire_.empty()) meaning_.text += " as " + wire_;
  if (over_ != 1) meaning_.text += ", averaged";
  if (kernel_ == "broadcast") meaning_.text += " from member " + std::to_string(root_);
  // Sizes that members share; those of rows that differ show in what is sent.
  const bool uneven = kernel_ == "all_to_all" || kernel_ == "send_recv" || call.attributes.count("counts") != 0;
  for (const int64_t count : kernel_ == "all_gather" || kernel_ == "reduce_scatter" ? counts_ : std::vector<int64_t>()) {
    alike += " " + std::to_string(count);
  }
  alike += " " + std::to_string(inputs_.empty() ? outputs_.size() : inputs_.size());
  for (const Operand& one : inputs_.empty() ? outputs_ : inputs_) {
    alike += " " + std::to_string(static_cast<int>(one.dtype));
    if (!uneven || kernel_ == "reduce_scatter") alike += "x" + std::to_string(one.elements);
  }
  meaning_.digest = fnv(alike);
}

RemoteCollective::Spans RemoteCollective::allOf(const std::vector<Operand>& tensors) const {
  Spans spans;
  for (size_t i = 0; i < tensors.size(); i++) spans.push_back({i, 0, tensors[i].elements});
  return spans;
}

/** A member's equal share of all values, tensor after tensor. */
RemoteCollective::Spans RemoteCollective::share(const std::vector<Operand>& tensors, size_t member) const {
  int64_t total = 0;
  for (const Operand& one : tensors) total += one.elements;
  const auto members = static_cast<int64_t>(members_.size());
  const auto own = static_cast<int64_t>(member);
  const auto cut = [&](int64_t i) { return total / members * i + total % members * i / members; };
  const int64_t first = cut(own);
  const int64_t last = cut(own + 1);
  Spans spans;
  int64_t before = 0;
  for (size_t i = 0; i < tensors.size(); i++) {
    const int64_t from = std::max(first, before);
    const int64_t to = std::min(last, before + tensors[i].elements);
    if (from < to) spans.push_back({i, from - before, to - from});
    before += tensors[i].elements;
  }
  return spans;
}

/** What a member gets of each input of a reduce-scatter. */
RemoteCollective::Spans RemoteCollective::scatterPart(size_t member) const {
  Spans spans;
  const int64_t rows = sum(counts_);
  for (size_t i = 0; rows > 0 && i < inputs_.size(); i++) {
    const int64_t unit = inputs_[i].elements / rows;
    spans.push_back({i, sum(counts_, 0, member) * unit, counts_[member] * unit});
  }
  return spans;
}

/** Where a member's values lie in each output of an all-gather. */
RemoteCollective::Spans RemoteCollective::gatherPart(size_t member) const {
  Spans spans;
  const int64_t rows = sum(counts_);
  for (size_t i = 0; rows > 0 && i < outputs_.size(); i++) {
    const int64_t unit = outputs_[i].elements / rows;
    spans.push_back({i, sum(counts_, 0, member) * unit, counts_[member] * unit});
  }
  return spans;
}

/** All-to-all: what goes to a member, and where what comes from one lies. */
RemoteCollective::Spans RemoteCollective::sentTo(size_t member) const {
  Spans spans;
  const int64_t rows = sum(sendCounts_);
  for (size_t i = 0; rows > 0 && i < inputs_.size(); i++) {
    const int64_t unit = inputs_[i].elements / rows;
    spans.push_back({i, sum(sendCounts_, 0, member) * unit, sendCounts_[member] * unit});
  }
  return spans;
}

RemoteCollective::Spans RemoteCollective::receivedFrom(size_t member) const {
  Spans spans;
  const int64_t rows = sum(receiveCounts_);
  for (size_t i = 0; rows > 0 && i < outputs_.size(); i++) {
    const int64_t unit = outputs_[i].elements / rows;
    spans.push_back({i, sum(receiveCounts_, 0, member) * unit, receiveCounts_[member] * unit});
  }
  return spans;
}

/**
 * Whether every member takes everything and adds for itself: fewer bytes than a share for each and the sums back where there
 * are two, or where what is sent is much narrower than what comes out.
 */
bool RemoteCollective::oneShot() const {
  size_t sent = 0;
  size_t sums = 0;
  for (size_t i = 0; i < inputs_.size(); i++) {
    sent += packedBytes(packingOf(inputs_[i].dtype, wire_), inputs_[i].elements);
    sums += packedBytes(packingOf(outputs_[i].dtype, ""), outputs_[i].elements);
  }
  return sent * members_.size() <= sent + sums;
}

/** One submission on its way. */
class RemoteCollective::Run {
 public:
  Run(const RemoteCollective& of, Mesh& mesh, uint32_t position)
      : of_(of), exchange_(mesh, of.communicator_, position, of.meaning_) {}

  Exchange& exchange() { return exchange_; }

  /** Inputs as they are read while outputs are written: copied where an output lies in the same place. */
  void lendInputs(bool stage) {
    for (const Operand& in : of_.inputs_) {
      scales_.push_back(packingScale(packingOf(in.dtype, of_.wire_), in.data, in.elements));
      bool clash = false;
      for (const Operand& out : of_.outputs_) clash = clash || out.data == in.data;
      if (!stage || !clash) {
        inputs_.push_back(in.data);
        continue;
      }
      copies_.emplace_back(static_cast<size_t>(in.elements));
      if (in.elements > 0) std::memcpy(copies_.back().data(), in.data, static_cast<size_t>(in.elements) * 4);
      inputs_.push_back(copies_.back().data());
    }
  }

  /** Spans cut into chunks of about `chunkValues`. */
  static std::vector<Spans> chunksOf(const Spans& spans) {
    std::vector<Spans> chunks;
    int64_t room = 0;
    for (Span span : spans) {
      while (span.count > 0) {
        if (room == 0) {
          chunks.emplace_back();
          room = chunkValues;
        }
        const int64_t count = std::min(span.count, room);
        chunks.back().push_back({span.tensor, span.from, count});
        span.from += count;
        span.count -= count;
        room -= count;
      }
    }
    return chunks;
  }

  /** The destination of a point-to-point message has no inputs: there what comes out says how it travels. */
  Packing sentAs(size_t tensor) const {
    const std::vector<Operand>& sent = of_.inputs_.empty() ? of_.outputs_ : of_.inputs_;
    return packingOf(sent[tensor].dtype, of_.wire_);
  }
  Packing summedAs(size_t tensor) const { return packingOf(of_.outputs_[tensor].dtype, ""); }

  template <typename As>
  static size_t bytesOf(const Spans& spans, As as) {
    size_t bytes = 0;
    for (const Span& span : spans) bytes += packedBytes(as(span.tensor), span.count);
    return bytes;
  }

  /** Sends inputs to a member; from where they lie, if they lie in one piece as they travel. */
  void sendInputs(size_t member, uint32_t part, const Spans& spans, size_t tally) {
    send(member, part, spans, tally, [&](size_t i) { return sentAs(i); },
         [&](size_t i) { return static_cast<const void*>(inputs_[i]); }, [&](size_t i) { return scales_[i]; });
  }

  void sendOutputs(size_t member, uint32_t part, const Spans& spans, size_t tally) {
    send(member, part, spans, tally, [&](size_t i) { return summedAs(i); },
         [&](size_t i) { return static_cast<const void*>(of_.outputs_[i].data); }, [](size_t) { return 0.0f; });
  }

  /** Receives what `as` says; straight into the outputs where that is how they lie. Returns the staging, empty for none. */
  template <typename As>
  std::vector<char>& receive(size_t member, uint32_t part, const Spans& spans, size_t tally, As as, bool direct) {
    const size_t bytes = bytesOf(spans, as);
    staging_.emplace_back();
    std::vector<char>& stage = staging_.back();
    if (bytes == 0) return stage;
    const Span& first = spans[0];
    if (direct && spans.size() == 1 && isRaw(as(first.tensor)) && isRaw(summedAs(first.tensor))) {
      exchange_.receive(rankOf(member), part, at(of_.outputs_[first.tensor].data, first.from), bytes, tally);
      return stage;
    }
    stage.resize(bytes);
    exchange_.receive(rankOf(member), part, stage.data(), bytes, tally);
    return stage;
  }

  /** Puts what was staged into the outputs; spans are places there. */
  template <typename As>
  void store(const std::vector<char>& stage, const Spans& spans, As as) {
    const char* from = stage.data();
    for (const Span& span : spans) {
      if (stage.empty()) return;
      const Operand& out = of_.outputs_[span.tensor];
      char* to = at(out.data, span.from);
      from = unpack(as(span.tensor), from, span.count, to);
      roundTo(out, to, span.count);
    }
  }

  /** Copies own inputs as others would get them; `from` and `to` are alike but for their places. */
  void keep(const Spans& from, const Spans& to) {
    std::vector<char> packed;
    for (size_t i = 0; i < from.size(); i++) {
      const Span& span = from[i];
      const Packing as = sentAs(span.tensor);
      packed.resize(packedBytes(as, span.count));
      pack(as, scales_[span.tensor], at(inputs_[span.tensor], span.from), span.count, packed.data());
      if (span.count > 0) store(packed, {to[i]}, [&](size_t) { return as; });
    }
  }

  /**
   * Adds all members' values of the spans in group order into the outputs, `shift` places before where they lie in the inputs.
   * `staged[member]` is what came of each other member.
   */
  void reduce(const Spans& spans, const std::vector<const std::vector<char>*>& staged,
              const std::vector<int64_t>& shift) {
    std::vector<const char*> from(of_.members_.size(), nullptr);
    for (size_t member = 0; member < from.size(); member++) {
      if (staged[member] != nullptr) from[member] = staged[member]->data();
    }
    for (const Span& span : spans) {
      const Operand& out = of_.outputs_[span.tensor];
      const bool integers = isInteger(of_.inputs_[span.tensor].dtype);
      sums_.assign(static_cast<size_t>(span.count), 0.0);
      values_.resize(static_cast<size_t>(span.count));
      for (size_t member = 0; member < from.size(); member++) {
        const void* values = values_.data();
        if (member != of_.member_) {
          from[member] = unpack(sentAs(span.tensor), from[member], span.count, values_.data());
        } else if (isRaw(sentAs(span.tensor))) {
          values = at(inputs_[span.tensor], span.from);
        } else {
          own_.resize(packedBytes(sentAs(span.tensor), span.count));
          pack(sentAs(span.tensor), scales_[span.tensor], at(inputs_[span.tensor], span.from), span.count, own_.data());
          unpack(sentAs(span.tensor), own_.data(), span.count, values_.data());
        }
        if (integers) {
          const auto* data = static_cast<const int32_t*>(values);
          for (size_t i = 0; i < sums_.size(); i++) sums_[i] += data[i];
        } else {
          const auto* data = static_cast<const float*>(values);
          for (size_t i = 0; i < sums_.size(); i++) sums_[i] += static_cast<double>(data[i]);
        }
      }
      char* to = at(out.data, span.from - (shift.empty() ? 0 : shift[span.tensor]));
      if (integers) {
        auto* data = reinterpret_cast<int32_t*>(to);
        for (size_t i = 0; i < sums_.size(); i++) data[i] = toInt32(sums_[i] / of_.over_);
      } else {
        auto* data = reinterpret_cast<float*>(to);
        for (size_t i = 0; i < sums_.size(); i++) data[i] = static_cast<float>(sums_[i] / of_.over_);
      }
      roundTo(out, to, span.count);
    }
  }

  void reduceFromAll(const std::vector<Spans>& spansTo, const Spans& own, const std::vector<int64_t>& shift,
                     bool gather);
  void exchangeAll(const std::vector<Spans>& sendTo, const std::vector<Spans>& receiveFrom);
  void broadcast();

  void finish() {
    if (!exchange_.waitAll()) failed();
  }

  [[noreturn]] void failed() const {
    const auto fault = exchange_.fault();
    const MeshFault what = fault ? *fault : MeshFault{MeshFault::Kind::lost, -1, "the transport has ended"};
    throw OpFault(what.kind == MeshFault::Kind::mismatch ? FaultKind::collective : FaultKind::peer, what.message,
                  what.rank);
  }

 private:
  int rankOf(size_t member) const { return of_.members_[member]; }

  static void roundTo(const Operand& out, char* to, int64_t count) {
    if (isInteger(out.dtype)) {
      roundInPlace(reinterpret_cast<int32_t*>(to), count, out.dtype);
    } else {
      roundInPlace(reinterpret_cast<float*>(to), count, out.dtype);
    }
  }

  template <typename As, typename Data, typename Scale>
  void send(size_t member, uint32_t part, const Spans& spans, size_t tally, As as, Data data, Scale scale) {
    const size_t bytes = bytesOf(spans, as);
    if (bytes == 0) return;
    if (spans.size() == 1 && isRaw(as(spans[0].tensor))) {
      exchange_.send(rankOf(member), part, at(data(spans[0].tensor), spans[0].from), bytes, tally);
      return;
    }
    staging_.emplace_back(bytes);
    char* to = staging_.back().data();
    for (const Span& span : spans) {
      to = pack(as(span.tensor), scale(span.tensor), at(data(span.tensor), span.from), span.count, to);
    }
    exchange_.send(rankOf(member), part, staging_.back().data(), bytes, tally);
  }

  const RemoteCollective& of_;
  std::vector<const void*> inputs_;
  std::vector<float> scales_;
  std::deque<std::vector<float>> copies_;
  // Kept until the exchange has ended: others read and write here.
  std::deque<std::vector<char>> staging_;
  std::vector<double> sums_;
  std::vector<float> values_;
  std::vector<char> own_;
  Exchange exchange_;
};

/**
 * Every member sends each other the spans that it reduces; what comes in is added chunk by chunk. With `gather`, sums go to all
 * members at the places where they were reduced.
 */
void RemoteCollective::Run::reduceFromAll(const std::vector<Spans>& spansTo, const Spans& own,
                                          const std::vector<int64_t>& shift, bool gather) {
  const size_t members = of_.members_.size();
  const auto as = [&](size_t i) { return sentAs(i); };
  const auto sums = [&](size_t i) { return summedAs(i); };
  const std::vector<Spans> mine = chunksOf(own);
  // Tallies: what comes of chunk c is 2c, what goes out 2c + 1, everything of the second phase 0 again at the end.
  std::vector<std::vector<const std::vector<char>*>> staged(mine.size());
  const auto await = [&](size_t chunk) {
    for (size_t member = 0; member < members; member++) {
      staged[chunk].push_back(member == of_.member_ ? nullptr
                                                    : &receive(member, firstPhase + static_cast<uint32_t>(chunk),
                                                               mine[chunk], 2 * chunk, as, false));
    }
  };
  for (size_t chunk = 0; chunk < std::min(windowChunks, mine.size()); chunk++) await(chunk);

  std::vector<std::vector<Spans>> theirs(members);
  std::vector<std::vector<const std::vector<char>*>> results(members);
  size_t longest = 0;
  for (size_t member = 0; member < members; member++) {
    theirs[member] = chunksOf(spansTo[member]);
    longest = std::max(longest, member == of_.member_ ? 0 : theirs[member].size());
  }
  const size_t second = 2 * std::max(mine.size(), longest) + 2;
  for (size_t chunk = 0; chunk < longest; chunk++) {
    for (size_t i = 1; i < members; i++) {
      const size_t member = (of_.member_ + i) % members;
      if (chunk < theirs[member].size()) {
        sendInputs(member, firstPhase + static_cast<uint32_t>(chunk), theirs[member][chunk], 2 * chunk + 1);
      }
    }
  }
  for (size_t member = 0; gather && member < members; member++) {
    if (member == of_.member_) continue;
    for (size_t chunk = 0; chunk < theirs[member].size(); chunk++) {
      results[member].push_back(&receive(member, secondPhase + static_cast<uint32_t>(chunk), theirs[member][chunk],
                                         second, sums, true));
    }
  }
  for (size_t chunk = 0; chunk < mine.size(); chunk++) {
    if (!exchange_.wait(2 * chunk)) failed();
    // Without a second phase sums go where others' values of the same places may still be read from.
    if (!gather && !exchange_.wait(2 * chunk + 1)) failed();
    reduce(mine[chunk], staged[chunk], shift);
    for (const std::vector<char>* stage : staged[chunk]) {
      if (stage != nullptr) std::vector<char>().swap(*const_cast<std::vector<char>*>(stage));
    }
    if (chunk + windowChunks < mine.size()) await(chunk + windowChunks);
    for (size_t i = 1; gather && i < members; i++) {
      sendOutputs((of_.member_ + i) % members, secondPhase + static_cast<uint32_t>(chunk), mine[chunk], second);
    }
  }
  finish();
  for (size_t member = 0; gather && member < members; member++) {
    for (size_t chunk = 0; chunk < results[member].size(); chunk++) {
      store(*results[member][chunk], theirs[member][chunk], sums);
    }
  }
}

/** Every member sends spans of its inputs to each other, which end up as they are at places of the outputs. */
void RemoteCollective::Run::exchangeAll(const std::vector<Spans>& sendTo, const std::vector<Spans>& receiveFrom) {
  const size_t members = of_.members_.size();
  const auto as = [&](size_t i) { return sentAs(i); };
  std::vector<std::vector<Spans>> into(members);
  std::vector<std::vector<const std::vector<char>*>> staged(members);
  for (size_t member = 0; member < members; member++) {
    if (member == of_.member_) continue;
    into[member] = chunksOf(receiveFrom[member]);
    for (size_t chunk = 0; chunk < into[member].size(); chunk++) {
      staged[member].push_back(&receive(member, static_cast<uint32_t>(chunk), into[member][chunk], 0, as, true));
    }
  }
  for (size_t i = 1; i < members; i++) {
    const size_t member = (of_.member_ + i) % members;
    const std::vector<Spans> chunks = chunksOf(sendTo[member]);
    for (size_t chunk = 0; chunk < chunks.size(); chunk++) {
      sendInputs(member, static_cast<uint32_t>(chunk), chunks[chunk], 0);
    }
  }
  if (!sendTo[of_.member_].empty()) keep(sendTo[of_.member_], receiveFrom[of_.member_]);
  finish();
  for (size_t member = 0; member < members; member++) {
    for (size_t chunk = 0; chunk < staged[member].size(); chunk++) {
      store(*staged[member][chunk], into[member][chunk], as);
    }
  }
}

/** The root gives each member a share, which that member hands to all: the root sends little more than everything once. */
void RemoteCollective::Run::broadcast() {
  const size_t members = of_.members_.size();
  const size_t own = of_.member_;
  const auto as = [&](size_t i) { return sentAs(i); };
  std::vector<std::vector<Spans>> shares(members);
  for (size_t member = 0; member < members; member++) shares[member] = chunksOf(of_.share(of_.inputs_, member));
  if (own == of_.root_) {
    for (size_t member = 0; member < members; member++) {
      for (size_t chunk = 0; chunk < shares[member].size(); chunk++) {
        // The root's own share goes to everybody from here.
        for (size_t to = 0; to < members; to++) {
          if (to == own || (member != own && to != member)) continue;
          const uint32_t phase = member == own ? secondPhase : firstPhase;
          sendInputs(to, phase + static_cast<uint32_t>(chunk), shares[member][chunk], 0);
        }
      }
    }
    keep(of_.allOf(of_.inputs_), of_.allOf(of_.outputs_));
    finish();
    return;
  }
  std::vector<const std::vector<char>*> mine;
  for (size_t chunk = 0; chunk < shares[own].size(); chunk++) {
    mine.push_back(&receive(of_.root_, firstPhase + static_cast<uint32_t>(chunk), shares[own][chunk], 1 + chunk, as, false));
  }
  std::vector<std::vector<const std::vector<char>*>> staged(members);
  for (size_t member = 0; member < members; member++) {
    if (member == own) continue;
    for (size_t chunk = 0; chunk < shares[member].size(); chunk++) {
      staged[member].push_back(&receive(member, secondPhase + static_cast<uint32_t>(chunk), shares[member][chunk], 0, as, true));
    }
  }
  for (size_t chunk = 0; chunk < mine.size(); chunk++) {
    if (!exchange_.wait(1 + chunk)) failed();
    for (size_t i = 1; i < members; i++) {
      const size_t to = (own + i) % members;
      if (to == of_.root_) continue;
      exchange_.send(rankOf(to), secondPhase + static_cast<uint32_t>(chunk), mine[chunk]->data(), mine[chunk]->size(), 0);
    }
  }
  finish();
  for (size_t chunk = 0; chunk < mine.size(); chunk++) store(*mine[chunk], shares[own][chunk], as);
  for (size_t member = 0; member < members; member++) {
    for (size_t chunk = 0; chunk < staged[member].size(); chunk++) {
      store(*staged[member][chunk], shares[member][chunk], as);
    }
  }
}

int64_t RemoteCollective::run(Mesh& mesh, uint32_t position) const {
  Run run(*this, mesh, position);
  try {
    carryOut(run);
  } catch (const OpFault&) {
    throw;
  } catch (const std::exception& error) {
    // Others wait for what will not come.
    mesh.fail({MeshFault::Kind::protocol, mesh.rank(), kernel_ + ": " + error.what()});
    throw;
  }
  return run.exchange().metNanoseconds();
}

void RemoteCollective::carryOut(Run& run) const {
  const size_t members = members_.size();
  std::vector<Spans> to(members);
  std::vector<Spans> from(members);
  if (kernel_ == "all_reduce") {
    run.lendInputs(false);
    const bool alone = oneShot();
    for (size_t member = 0; member < members; member++) {
      to[member] = alone ? allOf(inputs_) : share(inputs_, member);
    }
    run.reduceFromAll(to, to[member_], {}, !alone);
  } else if (kernel_ == "reduce_scatter") {
    run.lendInputs(true);
    std::vector<int64_t> shift;
    for (size_t member = 0; member < members; member++) to[member] = scatterPart(member);
    for (const Span& span : to[member_]) shift.push_back(span.from);
    run.reduceFromAll(to, to[member_], shift, false);
  } else if (kernel_ == "all_gather") {
    run.lendInputs(true);
    for (size_t member = 0; member < members; member++) {
      to[member] = allOf(inputs_);
      from[member] = gatherPart(member);
    }
    run.exchangeAll(to, from);
  } else if (kernel_ == "all_to_all") {
    run.lendInputs(true);
    for (size_t member = 0; member < members; member++) {
      to[member] = sentTo(member);
      from[member] = receivedFrom(member);
    }
    run.exchangeAll(to, from);
  } else if (kernel_ == "broadcast") {
    run.lendInputs(false);
    run.broadcast();
  } else {
    run.lendInputs(false);
    if (source_) {
      to[1 - member_] = allOf(inputs_);
    } else {
      from[1 - member_] = allOf(outputs_);
    }
    run.exchangeAll(to, from);
  }
}

}  // namespace tandem

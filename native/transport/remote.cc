#include "remote.h"

#include <algorithm>
#include <cstring>
#include <deque>

#include "../cpu/ordered-sum.h"
#include "../cpu/rounding.h"

namespace tandem {

namespace {

/** Values that travel as one message: what is added while the next is on its way. */
constexpr auto chunkValues = static_cast<int64_t>(chunkBytes / 4);
/** Chunks of each peer that are awaited at once: bounds what is staged. Assumed, as chunks are. */
constexpr size_t windowChunks = 8;

// Parts of a collective's messages, above the chunk's number.
constexpr uint32_t firstPhase = 0;
constexpr uint32_t secondPhase = uint32_t{1} << 31;

char* at(void* data, int64_t element) { return static_cast<char*>(data) + element * 4; }
const char* at(const void* data, int64_t element) { return static_cast<const char*>(data) + element * 4; }

/** One submission on its way. */
class Submission {
 public:
  Submission(const CollectivePlan& of, Mesh& mesh, uint32_t communicator, uint32_t position)
      : of_(of), pool_(mesh.staging()), exchange_(mesh, communicator, position, of.meaning, of.ranks) {}

  /** Inputs as they are read while outputs are written: copied where an output lies in the same place. */
  void lendInputs(bool stage) {
    for (const Operand& in : of_.inputs) {
      scales_.push_back(packingScale(packingOf(in.dtype, of_.wire), in.data, in.elements));
      bool clash = false;
      for (const Operand& out : of_.outputs) clash = clash || out.data == in.data;
      if (!stage || !clash) {
        inputs_.push_back(in.data);
        continue;
      }
      staging_.push_back(pool_.take(static_cast<size_t>(in.elements) * 4));
      if (in.elements > 0) std::memcpy(staging_.back().data(), in.data, staging_.back().size());
      inputs_.push_back(staging_.back().data());
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

  Packing sentAs(size_t tensor) const { return of_.sentAs(tensor); }
  Packing summedAs(size_t tensor) const { return of_.summedAs(tensor); }

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
         [&](size_t i) { return static_cast<const void*>(of_.outputs[i].data); }, [](size_t) { return 0.0f; });
  }

  /** Receives what `as` says; straight into the outputs where that is how they lie. Returns the staging, empty for none. */
  template <typename As>
  Staging::Piece& receive(size_t member, uint32_t part, const Spans& spans, size_t tally, As as, bool direct) {
    const size_t bytes = bytesOf(spans, as);
    staging_.emplace_back();
    Staging::Piece& stage = staging_.back();
    if (bytes == 0) return stage;
    const Span& first = spans[0];
    if (direct && spans.size() == 1 && isRaw(as(first.tensor)) && isRaw(summedAs(first.tensor))) {
      exchange_.receive(rankOf(member), part, at(of_.outputs[first.tensor].data, first.from), bytes, tally);
      return stage;
    }
    stage = pool_.take(bytes);
    exchange_.receive(rankOf(member), part, stage.data(), bytes, tally);
    return stage;
  }

  /** Puts what was staged into the outputs; spans are places there. */
  template <typename As>
  void store(Staging::Piece& stage, const Spans& spans, As as) {
    if (stage.empty()) return;
    unpackInto(stage.data(), spans, as);
    stage.release();
  }

  template <typename As>
  void unpackInto(const char* from, const Spans& spans, As as) {
    for (const Span& span : spans) {
      const Operand& out = of_.outputs[span.tensor];
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
      // Who gets nothing from anybody has no place for it either.
      if (span.count == 0) continue;
      const Packing as = sentAs(span.tensor);
      // In place, and what others are being sent.
      const void* there = at(of_.outputs[to[i].tensor].data, to[i].from);
      if (isRaw(as) && there == at(inputs_[span.tensor], span.from)) continue;
      packed.resize(packedBytes(as, span.count));
      pack(as, scales_[span.tensor], at(inputs_[span.tensor], span.from), span.count, packed.data());
      unpackInto(packed.data(), {to[i]}, [&](size_t) { return as; });
    }
  }

  /**
   * Adds all members' values of the spans in group order into the outputs, `shift` places before where they lie in the inputs.
   * `staged[member]` is what came of each other member.
   */
  void reduce(const Spans& spans, const std::vector<Staging::Piece*>& staged, const std::vector<int64_t>& shift) {
    std::vector<const char*> from;
    for (const Staging::Piece* stage : staged) from.push_back(stage == nullptr ? nullptr : stage->data());
    double sums[sumTile];
    for (const Span& span : spans) {
      const Operand& out = of_.outputs[span.tensor];
      const bool integers = isInteger(of_.inputs[span.tensor].dtype);
      const int64_t to = span.from - (shift.empty() ? 0 : shift[span.tensor]);
      for (int64_t first = 0; first < span.count; first += sumTile) {
        const int64_t count = std::min(sumTile, span.count - first);
        std::fill(sums, sums + count, 0.0);
        for (size_t member = 0; member < from.size(); member++) {
          addTo(sums, valuesOf(span, from[member], first, count), count, integers);
        }
        storeSums(sums, count, of_.over, out.dtype, at(out.data, to + first));
      }
      for (const char*& one : from) {
        if (one != nullptr) one += packedBytes(sentAs(span.tensor), span.count);
      }
    }
    for (Staging::Piece* stage : staged) {
      if (stage != nullptr) stage->release();
    }
  }

  void carryOut();

 private:
  void reduceFromAll(const std::vector<Spans>& spansTo, const Spans& own, const std::vector<int64_t>& shift,
                     bool gather);
  void exchangeAll(const std::vector<Spans>& sendTo, const std::vector<Spans>& receiveFrom);
  void broadcast();

  /**
   * Until all members have come. Whoever sent to some before would fill its link with what these could as well get later, since nobody
   * is done before the last has come; and that one would wait behind it, and be late for the next collective too.
   */
  void meet() {
    if (!exchange_.waitForMembers()) failed();
  }

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
  int rankOf(size_t member) const { return of_.ranks[member]; }

  /** Values [first, first + count) of a span as its receivers get them: packed at `packed`, or this member's own where that is null. */
  const void* valuesOf(const Span& span, const char* packed, int64_t first, int64_t count) {
    const Packing as = sentAs(span.tensor);
    if (packed == nullptr) {
      const char* const own = at(inputs_[span.tensor], span.from + first);
      if (isRaw(as)) return own;
      pack(as, scales_[span.tensor], own, count, tilePacked_);
      unpack(as, tilePacked_, count, tile_);
      return tile_;
    }
    // Behind values of fewer bits they need not lie where words may.
    const char* const there = packed + 4 * first;
    if (isRaw(as) && reinterpret_cast<uintptr_t>(there) % 4 == 0) return there;
    unpackPart(as, packed, first, count, tile_);
    return tile_;
  }

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
    if (packed_.spans != spans || packed_.from != data(spans[0].tensor)) {
      staging_.push_back(pool_.take(bytes));
      packed_ = {spans, data(spans[0].tensor), staging_.back().data()};
      char* to = staging_.back().data();
      for (const Span& span : spans) {
        to = pack(as(span.tensor), scale(span.tensor), at(data(span.tensor), span.from), span.count, to);
      }
    }
    exchange_.send(rankOf(member), part, packed_.bytes, bytes, tally);
  }

  const CollectivePlan& of_;
  std::vector<const void*> inputs_;
  std::vector<float> scales_;
  Staging& pool_;
  // Kept until the exchange has ended: others read and write here.
  std::deque<Staging::Piece> staging_;
  /** What was packed last: the next member may get the same. */
  struct {
    Spans spans;
    const void* from = nullptr;
    const char* bytes = nullptr;
  } packed_;
  float tile_[sumTile];
  char tilePacked_[4 + 4 * sumTile];
  Exchange exchange_;
};

/**
 * Every member sends each other the spans that it reduces; what comes in is added chunk by chunk. With `gather`, sums go to all
 * members at the places where they were reduced.
 */
void Submission::reduceFromAll(const std::vector<Spans>& spansTo, const Spans& own, const std::vector<int64_t>& shift,
                        bool gather) {
  const size_t members = of_.ranks.size();
  const auto as = [&](size_t i) { return sentAs(i); };
  const auto sums = [&](size_t i) { return summedAs(i); };
  const std::vector<Spans> mine = chunksOf(own);
  // Tallies: of the first phase, what comes of chunk c is 2c and what goes out 2c + 1; of the second, behind all these, everything
  // that goes out is one and what comes of chunk c follows it.
  std::vector<std::vector<Staging::Piece*>> staged(mine.size());
  const auto await = [&](size_t chunk) {
    for (size_t member = 0; member < members; member++) {
      staged[chunk].push_back(member == of_.own ? nullptr
                                                : &receive(member, firstPhase + static_cast<uint32_t>(chunk),
                                                           mine[chunk], 2 * chunk, as, false));
    }
  };
  for (size_t chunk = 0; chunk < std::min(windowChunks, mine.size()); chunk++) await(chunk);

  std::vector<std::vector<Spans>> theirs(members);
  std::vector<std::vector<Staging::Piece*>> results(members);
  size_t longest = 0;
  for (size_t member = 0; member < members; member++) {
    theirs[member] = chunksOf(spansTo[member]);
    longest = std::max(longest, member == of_.own ? 0 : theirs[member].size());
  }
  const size_t second = 2 * std::max(mine.size(), longest) + 2;
  meet();
  for (size_t chunk = 0; chunk < longest; chunk++) {
    for (size_t i = 1; i < members; i++) {
      const size_t member = (of_.own + i) % members;
      if (chunk < theirs[member].size()) {
        sendInputs(member, firstPhase + static_cast<uint32_t>(chunk), theirs[member][chunk], 2 * chunk + 1);
      }
    }
  }
  for (size_t chunk = 0; chunk < std::max(mine.size(), longest); chunk++) {
    // Sums go where values that are sent may lie: this member's own, or, of a second phase, those of others. Who sends these is told of the
    // place as soon as it is free, and not when the first phase's have come: of a long link that is a way sooner.
    if (!exchange_.wait(2 * chunk + 1)) failed();
    for (size_t member = 0; gather && member < members; member++) {
      if (member == of_.own || chunk >= theirs[member].size()) continue;
      results[member].push_back(&receive(member, secondPhase + static_cast<uint32_t>(chunk), theirs[member][chunk],
                                         second + 1 + chunk, sums, true));
    }
    if (chunk >= mine.size()) continue;
    if (!exchange_.wait(2 * chunk)) failed();
    reduce(mine[chunk], staged[chunk], shift);
    if (chunk + windowChunks < mine.size()) await(chunk + windowChunks);
    for (size_t i = 1; gather && i < members; i++) {
      sendOutputs((of_.own + i) % members, secondPhase + static_cast<uint32_t>(chunk), mine[chunk], second);
    }
  }
  for (size_t chunk = 0; gather && chunk < longest; chunk++) {
    if (!exchange_.wait(second + 1 + chunk)) failed();
    for (size_t member = 0; member < members; member++) {
      if (chunk < results[member].size()) store(*results[member][chunk], theirs[member][chunk], sums);
    }
  }
  finish();
}

/** Every member sends spans of its inputs to each other, which end up as they are at places of the outputs. */
void Submission::exchangeAll(const std::vector<Spans>& sendTo, const std::vector<Spans>& receiveFrom) {
  const size_t members = of_.ranks.size();
  const auto as = [&](size_t i) { return sentAs(i); };
  std::vector<std::vector<Spans>> into(members);
  std::vector<std::vector<Staging::Piece*>> staged(members);
  for (size_t member = 0; member < members; member++) {
    if (member == of_.own) continue;
    into[member] = chunksOf(receiveFrom[member]);
    for (size_t chunk = 0; chunk < into[member].size(); chunk++) {
      staged[member].push_back(&receive(member, static_cast<uint32_t>(chunk), into[member][chunk], 0, as, true));
    }
  }
  std::vector<std::vector<Spans>> outOf(members);
  size_t longest = 0;
  for (size_t member = 0; member < members; member++) {
    if (member != of_.own) outOf[member] = chunksOf(sendTo[member]);
    longest = std::max(longest, outOf[member].size());
  }
  meet();
  // A chunk to all before the next: what is the same for all is packed once.
  for (size_t chunk = 0; chunk < longest; chunk++) {
    for (size_t i = 1; i < members; i++) {
      const size_t member = (of_.own + i) % members;
      if (chunk < outOf[member].size()) sendInputs(member, static_cast<uint32_t>(chunk), outOf[member][chunk], 0);
    }
  }
  if (!sendTo[of_.own].empty()) keep(sendTo[of_.own], receiveFrom[of_.own]);
  finish();
  for (size_t member = 0; member < members; member++) {
    for (size_t chunk = 0; chunk < staged[member].size(); chunk++) {
      store(*staged[member][chunk], into[member][chunk], as);
    }
  }
}

/** The root gives each member a share, which that member hands to all: the root sends little more than everything once. */
void Submission::broadcast() {
  const size_t members = of_.ranks.size();
  const size_t own = of_.own;
  const auto as = [&](size_t i) { return sentAs(i); };
  std::vector<std::vector<Spans>> shares(members);
  for (size_t member = 0; member < members; member++) shares[member] = chunksOf(of_.share(of_.inputs, member));
  if (own == of_.root) {
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
    keep(allOf(of_.inputs), allOf(of_.outputs));
    finish();
    return;
  }
  std::vector<Staging::Piece*> mine;
  for (size_t chunk = 0; chunk < shares[own].size(); chunk++) {
    mine.push_back(&receive(of_.root, firstPhase + static_cast<uint32_t>(chunk), shares[own][chunk], 1 + chunk, as, false));
  }
  std::vector<std::vector<Staging::Piece*>> staged(members);
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
      if (to == of_.root) continue;
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

void Submission::carryOut() {
  const size_t members = of_.ranks.size();
  std::vector<Spans> to(members);
  std::vector<Spans> from(members);
  if (of_.kernel == "all_reduce") {
    lendInputs(false);
    const bool alone = of_.oneShot();
    for (size_t member = 0; member < members; member++) {
      to[member] = alone ? allOf(of_.inputs) : of_.share(of_.inputs, member);
    }
    reduceFromAll(to, to[of_.own], {}, !alone);
  } else if (of_.kernel == "reduce_scatter") {
    lendInputs(true);
    std::vector<int64_t> shift;
    for (size_t member = 0; member < members; member++) to[member] = of_.scatterPart(member);
    for (const Span& span : to[of_.own]) shift.push_back(span.from);
    reduceFromAll(to, to[of_.own], shift, false);
  } else if (of_.kernel == "all_gather") {
    lendInputs(true);
    for (size_t member = 0; member < members; member++) {
      to[member] = allOf(of_.inputs);
      from[member] = of_.gatherPart(member);
    }
    exchangeAll(to, from);
  } else if (of_.kernel == "all_to_all") {
    lendInputs(true);
    for (size_t member = 0; member < members; member++) {
      to[member] = of_.sentTo(member);
      from[member] = of_.receivedFrom(member);
    }
    exchangeAll(to, from);
  } else if (of_.kernel == "broadcast") {
    lendInputs(false);
    broadcast();
  } else {
    lendInputs(false);
    if (of_.source) {
      to[1 - of_.own] = allOf(of_.inputs);
    } else {
      from[1 - of_.own] = allOf(of_.outputs);
    }
    exchangeAll(to, from);
  }
}

}  // namespace

void RemoteCollective::run(Mesh& mesh, uint32_t communicator, uint32_t position) const {
  Submission submission(plan_, mesh, communicator, position);
  try {
    submission.carryOut();
  } catch (const OpFault&) {
    throw;
  } catch (const std::exception& error) {
    // Others wait for what will not come.
    mesh.fail({MeshFault::Kind::protocol, mesh.rank(), plan_.kernel + ": " + error.what()});
    throw;
  }
}

}  // namespace tandem

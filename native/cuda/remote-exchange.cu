// Values that go to other processes as they are: exchanged, gathered and broadcast.
#include "remote-task.h"

namespace tandem::cuda {

/** Messages to all, and from all into the places where they belong. */
void RemoteTask::planExchange(const std::vector<Spans>& sends, const std::vector<Spans>& receives, bool alike) {
  std::vector<Message> out;
  std::vector<Message> in;
  for (size_t member = 0; member < members_; member++) {
    out.push_back(alike && member > 0 ? out[0] : Message(inputs_, sends[member], encodings_));
    in.push_back(Message(outputs_, receives[member], encodings_));
  }
  body_ = [this, out, in, alike, direct = !overwrites_](const Launch& launch) {
    const Scales scales(launch, inputs_, encodings_);
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

void RemoteTask::planBroadcast(const Call& call) {
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
}

}  // namespace tandem::cuda

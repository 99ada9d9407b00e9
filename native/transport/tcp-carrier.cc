#include "tcp-carrier.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace tandem {

TcpCarrier::TcpCarrier(Owner& owner, const std::vector<std::vector<int>>& streams, int64_t tickNanoseconds, Neighbours neighbours)
    : Carrier(static_cast<int>(streams.front().size())), owner_(owner), neighbours_(std::move(neighbours)) {
  Connections::Handler& handler = *this;
  for (const std::vector<int>& fds : streams) streams_.push_back(std::make_unique<Connections>(handler, fds, tickNanoseconds));
}

TcpCarrier::~TcpCarrier() {
  for (const auto& stream : streams_) stream->end();
  streams_.clear();
}

void TcpCarrier::start() {
  for (const auto& stream : streams_) {
    running_++;
    try {
      stream->start();
    } catch (...) {
      running_--;
      throw;
    }
  }
}

void TcpCarrier::send(int peer, const TransferKey& key, uint32_t, const std::shared_ptr<Outgoing>& outgoing) {
  std::optional<uint64_t> place;
  if (outgoing->bytes >= lentBytesMin && memoryOf(peer) != nullptr) place = LentMemory::here()->placeOf(outgoing->data, outgoing->bytes);
  for (size_t at = 0; at < outgoing->bytes; at += segmentBytes) {
    Frame frame;
    frame.type = place ? lentFrame : dataFrame;
    frame.key = key;
    frame.offset = at;
    frame.length = std::min(segmentBytes, outgoing->bytes - at);
    Connections& stream = *streams_[streamOf(frame)];
    if (!place) {
      stream.enqueue(peer, frame, "", outgoing->data + at, outgoing);
      continue;
    }
    {
      const std::lock_guard lock(mutex_);
      lent_[{peer, key, at}] = outgoing;
    }
    const uint64_t there = *place + at;
    stream.enqueue(peer, frame, std::string(reinterpret_cast<const char*>(&there), sizeof there), nullptr, nullptr);
  }
}

/** Segments of a message go by all connections in turn, and what is said of one by its own. */
size_t TcpCarrier::streamOf(const Frame& frame) const {
  return (frame.key.position + frame.key.part + frame.offset / segmentBytes) % streams_.size();
}

/** Null where that rank is no neighbour. */
BorrowedMemory* TcpCarrier::memoryOf(int peer) const {
  return neighbours_.memory.empty() ? nullptr : neighbours_.memory[static_cast<size_t>(peer)].get();
}

/** A segment lies in its sender's memory: takes it from there. */
void TcpCarrier::lent(int peer, const Frame& frame, const std::string& text) {
  uint64_t place = 0;
  std::memcpy(&place, text.data(), sizeof place);
  Frame answer = frame;
  answer.type = takenFrame;
  Connections& stream = *streams_[streamOf(frame)];
  BorrowedMemory& memory = *memoryOf(peer);
  switch (memory.reaches(place, frame.length)) {
    case BorrowedMemory::Reach::nowhere:
      owner_.refuse(peer, "lends memory that it has not");
      return;
    case BorrowedMemory::Reach::noRoom:
      answer.kind = 1;
      stream.enqueue(peer, answer, "", nullptr, nullptr);
      return;
    case BorrowedMemory::Reach::whole: break;
  }
  const std::shared_ptr<Incoming> into = owner_.awaited(peer, frame.key, frame.offset, frame.length);
  if (!into) {
    owner_.refuse(peer, "sent data that nobody awaits");
    return;
  }
  // Whoever has taken it back has failed, and says so by words.
  if (!memory.copy(place, into->data + frame.offset, frame.length)) return;
  stream.enqueue(peer, answer, "", nullptr, nullptr);
  countReceived(peer, frame.length);
  if (into->moved(frame.length)) owner_.received(peer, frame.key, into);
}

/** A peer has taken a segment, or cannot. */
void TcpCarrier::taken(int peer, const Frame& frame) {
  std::shared_ptr<Outgoing> outgoing;
  {
    const std::lock_guard lock(mutex_);
    const auto found = lent_.find({peer, frame.key, frame.offset});
    if (found != lent_.end() && frame.length == std::min<uint64_t>(segmentBytes, found->second->bytes - frame.offset)) {
      outgoing = std::move(found->second);
      lent_.erase(found);
    }
  }
  if (!outgoing) {
    owner_.refuse(peer, "has taken what it was not lent");
  } else if (frame.kind == 0) {
    wrote(peer, frame.length, outgoing);
  } else {
    Frame data = frame;
    data.type = dataFrame;
    data.kind = 0;
    streams_[streamOf(frame)]->enqueue(peer, data, "", outgoing->data + frame.offset, outgoing);
  }
}

void TcpCarrier::halt() {
  halting_ = true;
  // Those whose copy is not whole by now are not to take it for one.
  if (neighbours_.page) neighbours_.page->withdraw();
  for (const auto& stream : streams_) stream->poke();
}

void TcpCarrier::flush() {
  for (const auto& stream : streams_) stream->end();
  for (const auto& stream : streams_) stream->join();
}

std::string TcpCarrier::begin(int peer, const Frame& frame, std::shared_ptr<Incoming>& into) {
  const bool lends = frame.type == lentFrame && memoryOf(peer) != nullptr;
  const bool takes = frame.type == takenFrame && memoryOf(peer) != nullptr;
  if ((frame.type != dataFrame && !lends && !takes) || frame.textBytes != (lends ? sizeof(uint64_t) : 0)) return "sent what is no frame";
  if (frame.type != dataFrame) return "";
  into = owner_.awaited(peer, frame.key, frame.offset, frame.length);
  return into ? "" : "sent data that nobody awaits";
}

void TcpCarrier::arrived(int peer, const Frame& frame, std::string text, const std::shared_ptr<Incoming>& into) {
  if (frame.type == lentFrame) {
    lent(peer, frame, text);
  } else if (frame.type == takenFrame) {
    taken(peer, frame);
  } else if (into->moved(frame.length)) {
    owner_.received(peer, frame.key, into);
  }
}

void TcpCarrier::read(int peer, size_t dataBytes) {
  owner_.heard(peer);
  countReceived(peer, dataBytes);
}

void TcpCarrier::wrote(int peer, size_t dataBytes, const std::shared_ptr<Outgoing>& of) {
  countSent(peer, dataBytes);
  if (of->moved(dataBytes)) owner_.sent(of);
}

void TcpCarrier::ended(int peer, const std::string& why) { owner_.cutOff(peer, why); }

void TcpCarrier::refused(int peer, const std::string& problem) { owner_.refuse(peer, problem); }

void TcpCarrier::noMemory(int peer) { owner_.cutOff(peer, "cannot be heard: there is no memory for what it sends"); }

void TcpCarrier::over() {
  if (--running_ == 0) owner_.still();
}

}  // namespace tandem

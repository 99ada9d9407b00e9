#include "tcp-carrier.h"

#include <algorithm>

namespace tandem {

TcpCarrier::TcpCarrier(Owner& owner, const std::vector<std::vector<int>>& streams, int64_t tickNanoseconds)
    : Carrier(static_cast<int>(streams.front().size())), owner_(owner) {
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
  size_t stream = (key.position + key.part) % streams_.size();
  for (size_t at = 0; at < outgoing->bytes; at += segmentBytes) {
    Frame frame;
    frame.type = dataFrame;
    frame.key = key;
    frame.offset = at;
    frame.length = std::min(segmentBytes, outgoing->bytes - at);
    streams_[stream]->enqueue(peer, frame, "", outgoing->data + at, outgoing);
    stream = (stream + 1) % streams_.size();
  }
}

void TcpCarrier::halt() {
  halting_ = true;
  for (const auto& stream : streams_) stream->poke();
}

void TcpCarrier::flush() {
  for (const auto& stream : streams_) stream->end();
  for (const auto& stream : streams_) stream->join();
}

std::string TcpCarrier::begin(int peer, const Frame& frame, std::shared_ptr<Incoming>& into) {
  if (frame.type != dataFrame || frame.textBytes > 0) return "sent what is no frame";
  into = owner_.awaited(peer, frame.key, frame.offset, frame.length);
  return into ? "" : "sent data that nobody awaits";
}

void TcpCarrier::arrived(int peer, const Frame& frame, std::string, const std::shared_ptr<Incoming>& into) {
  if (into->moved(frame.length)) owner_.received(peer, frame.key, into);
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

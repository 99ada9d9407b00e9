// What a mesh hears by its control connections and of what carries data, and what silence means.
#include <cstdio>

#include "mesh-parts.h"
#include "mesh.h"

namespace tandem {

namespace {

/** A connection that ended without a goodbye is forgiven for so long: the goodbye comes by another. Assumed: well above a thread's wait. */
constexpr int64_t graceNanoseconds = 500'000'000;
/**
 * This process itself was stopped for so long: what it did not hear meanwhile says nothing of others. Assumed: well below
 * `lostAfterSeconds`.
 */
constexpr int64_t absentNanoseconds = 2'000'000'000;

}  // namespace

// Control connections

void Mesh::control(int peer, const Frame& frame, const std::string& text) {
  control_->enqueue(peer, frame, text.substr(0, textMaxOf(frame.type)), nullptr, nullptr);
}

std::string Mesh::begin(int, const Frame& frame, std::shared_ptr<Incoming>&) {
  if (frame.type == dataFrame || frame.type > byeFrame || frame.textBytes > textMaxOf(frame.type)) return "sent what is no frame";
  const bool fault = frame.type == faultFrame;
  if (fault && (frame.kind > static_cast<uint8_t>(MeshFault::Kind::protocol) ||
                frame.offset >= static_cast<uint64_t>(options_.size))) {
    return "sent a fault of no kind, or of no rank";
  }
  return "";
}

void Mesh::arrived(int peer, const Frame& frame, std::string text, const std::shared_ptr<Incoming>&) {
  switch (frame.type) {
    case readyFrame:
      if (!failed()) ready(peer, frame, text);
      return;
    case noteFrame:
      deliver(peer, std::move(text));
      return;
    case faultFrame:
      fail({static_cast<MeshFault::Kind>(frame.kind), static_cast<int>(frame.offset), text}, false);
      return;
    case byeFrame: {
      Peer& one = *peers_[static_cast<size_t>(peer)];
      one.left = true;
      // What it sent before its goodbye may still be on its way by other connections.
      if (owes(peer)) one.suspect = monotonicNanoseconds();
      deliver(peer, std::nullopt);
      return;
    }
    default:
      return;
  }
}

void Mesh::read(int peer, size_t) { heard(peer); }

void Mesh::ended(int peer, const std::string& why) {
  if (peers_[static_cast<size_t>(peer)]->left || ending_ || failed()) return;
  // Words come by one connection, in order: where that ends without a goodbye, none will come.
  lose(peer, why);
}

void Mesh::refused(int peer, const std::string& problem) { refuse(peer, problem); }

void Mesh::noMemory(int peer) {
  fail({MeshFault::Kind::protocol, options_.rank, "no memory for what rank " + std::to_string(peer) + " sends"});
}

void Mesh::turn(int64_t now) {
  if (now - lastWatch_ < nanosecondsOf(options_.heartbeatSeconds) / 2) return;
  if (lastWatch_ != 0 && now - lastWatch_ > absentNanoseconds) {
    for (auto& peer : peers_) peer->heard = now;
  }
  lastWatch_ = now;
  if (!failed() && !ending_) watchPeers(now);
}

/** Tells peers that this rank lives, and looks who has fallen silent. */
void Mesh::watchPeers(int64_t now) {
  for (int rank = 0; rank < options_.size; rank++) {
    if (rank == options_.rank) continue;
    Peer& peer = *peers_[static_cast<size_t>(rank)];
    if (peer.suspect != 0 && now - peer.suspect > graceNanoseconds) {
      if (!peer.left || owes(rank)) return lose(rank, peer.left ? "has ended" : whyGone(rank));
      peer.suspect = 0;
    }
    if (peer.left) continue;
    if (now - peer.heard > nanosecondsOf(options_.lostAfterSeconds)) {
      char text[64];
      std::snprintf(text, sizeof text, "has sent nothing for %.1f s", static_cast<double>(now - peer.heard) * 1e-9);
      return lose(rank, text);
    }
    if (control_->queued(rank) < 4) control(rank, Frame(), "");
  }
}

std::string Mesh::whyGone(int peer) const {
  const std::lock_guard lock(mutex_);
  const std::string& why = peers_[static_cast<size_t>(peer)]->why;
  return why.empty() ? "has gone away" : why;
}

// What carries data

std::shared_ptr<Incoming> Mesh::awaited(int peer, const TransferKey& key, uint64_t offset, uint64_t length) {
  const std::lock_guard lock(mutex_);
  const auto found = incoming_.find({peer, key});
  if (found == incoming_.end() || !found->second->begins(offset, length)) return nullptr;
  return found->second;
}

void Mesh::sent(const std::shared_ptr<Outgoing>& outgoing) { outgoing->exchange->ended(outgoing->tally); }

void Mesh::received(int peer, const TransferKey& key, const std::shared_ptr<Incoming>& incoming) {
  {
    const std::lock_guard lock(mutex_);
    incoming_.erase({peer, key});
  }
  incoming->exchange->ended(incoming->tally);
}

void Mesh::heard(int peer) { peers_[static_cast<size_t>(peer)]->heard = monotonicNanoseconds(); }

void Mesh::cutOff(int peer, const std::string& why) {
  if (!connected_.load(std::memory_order_acquire)) return lose(peer, why);
  Peer& one = *peers_[static_cast<size_t>(peer)];
  if (one.left || ending_ || failed()) return;
  {
    const std::lock_guard lock(mutex_);
    if (one.why.empty()) one.why = why;
  }
  if (one.suspect == 0) one.suspect = monotonicNanoseconds();
}

void Mesh::refuse(int peer, const std::string& what) {
  fail({MeshFault::Kind::protocol, peer, "rank " + std::to_string(peer) + " " + what});
}

void Mesh::still() {
  if (failed()) settle();
}

}  // namespace tandem

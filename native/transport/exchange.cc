// Transfers that one thread waits for together.
#include <stdexcept>
#include <utility>

#include "mesh-parts.h"
#include "mesh.h"

namespace tandem {

Exchange::Exchange(Mesh& mesh, uint32_t communicator, uint32_t position, Meaning meaning,
                   const std::vector<int>& members)
    : mesh_(mesh),
      communicator_(communicator),
      position_(position),
      meaning_(std::move(meaning)),
      awaited_(static_cast<size_t>(mesh.size()), false),
      untold_(awaited_) {
  for (const int rank : members) {
    if (mesh_.known(rank) == mesh.rank() || awaited_[static_cast<size_t>(rank)]) continue;
    mesh_.other(rank);
    awaited_[static_cast<size_t>(rank)] = true;
    absent_++;
  }
  untold_ = awaited_;
  std::vector<std::pair<int, Meaning>> early;
  {
    const std::lock_guard lock(mesh_.mutex_);
    if (!mesh_.exchanges_.emplace(std::make_pair(communicator_, position_), this).second) {
      throw std::invalid_argument("collective " + std::to_string(position_) + " is under way already");
    }
    for (auto one = mesh_.readies_.begin(); one != mesh_.readies_.end();) {
      const auto& [peer, key] = one->first;
      if (key.communicator != communicator_ || key.position != position_) {
        one++;
        continue;
      }
      cameHere(peer);
      early.emplace_back(peer, one->second.meaning);
      one = key.part == herePart ? mesh_.readies_.erase(one) : std::next(one);
    }
  }
  for (const auto& [peer, theirs] : early) mesh_.check(peer, {communicator_, position_, 0}, meaning_, theirs);
}

Exchange::~Exchange() {
  waitAll();
  mesh_.forget(*this);
}

/** A peer has said that it is there. */
void Exchange::cameHere(int peer) {
  const std::lock_guard lock(mutex_);
  if (!awaited_[static_cast<size_t>(peer)]) return;
  awaited_[static_cast<size_t>(peer)] = false;
  absent_--;
  if (absent_ == 0) changed_.notify_all();
}

bool Exchange::awaits(int peer) {
  const std::lock_guard lock(mutex_);
  return awaited_[static_cast<size_t>(peer)];
}

/** Tells members that were asked for nothing that this rank is there. */
void Exchange::announce() {
  for (int peer = 0; peer < mesh_.size(); peer++) {
    if (!untold_[static_cast<size_t>(peer)]) continue;
    untold_[static_cast<size_t>(peer)] = false;
    mesh_.announce(*this, peer);
  }
}

std::optional<MeshFault> Exchange::fault() const { return mesh_.fault(); }

void Exchange::add(size_t tally) {
  const std::lock_guard lock(mutex_);
  if (tally >= open_.size()) open_.resize(tally + 1, 0);
  open_[tally]++;
  openInAll_++;
}

void Exchange::ended(size_t tally) {
  // Under the lock to the end: whoever waits may destroy this as soon as it is let go.
  const std::lock_guard lock(mutex_);
  open_[tally]--;
  openInAll_--;
  if (open_[tally] == 0) changed_.notify_all();
}

void Exchange::send(int peer, uint32_t part, const void* data, size_t bytes, size_t tally) {
  if (bytes == 0) return;
  mesh_.other(peer);
  mesh_.post(*this, peer, part, data, bytes, tally);
}

void Exchange::receive(int peer, uint32_t part, void* data, size_t bytes, size_t tally) {
  if (bytes == 0) return;
  mesh_.other(peer);
  untold_[static_cast<size_t>(peer)] = false;
  mesh_.expect(*this, peer, part, data, bytes, tally);
}

bool Exchange::wait(size_t tally) {
  std::unique_lock lock(mutex_);
  if (tally >= open_.size()) return !mesh_.failed();
  changed_.wait(lock, [&] { return open_[tally] == 0 || (mesh_.failed() && mesh_.isStill()); });
  return open_[tally] == 0;
}

bool Exchange::waitForMembers() {
  announce();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return absent_ == 0 || (mesh_.failed() && mesh_.isStill()); });
  return absent_ == 0;
}

bool Exchange::waitAll() {
  announce();
  std::unique_lock lock(mutex_);
  const auto over = [&] { return openInAll_ == 0 && absent_ == 0; };
  changed_.wait(lock, [&] { return over() || (mesh_.failed() && mesh_.isStill()); });
  return over();
}

}  // namespace tandem

#include "remote-task.h"

#include <utility>

#include "../transport/remote.h"

namespace tandem {

namespace {

class RemoteTask : public CpuTask {
 public:
  RemoteTask(const Call& call, size_t member, RemoteRanks& ranks, std::shared_ptr<int64_t> position)
      : collective_(call, member), ranks_(ranks), position_(std::move(position)) {}

  void run(Run& run) override {
    if (!ranks_.enter()) return;
    try {
      collective_.run(ranks_.mesh(), static_cast<uint32_t>(run.position));
    } catch (...) {
      ranks_.leave();
      throw;
    }
    ranks_.leave();
  }

  int64_t nextPosition() override { return (*position_)++; }

 private:
  const RemoteCollective collective_;
  RemoteRanks& ranks_;
  const std::shared_ptr<int64_t> position_;
};

}  // namespace

RemoteRanks::RemoteRanks(Shared& shared, Mesh& mesh) : shared_(shared), mesh_(mesh) {
  onFault_ = mesh_.onFault([this](const MeshFault& fault) {
    // What failed here first has told the mesh.
    if (shared_.faulted()) return;
    const bool clash = fault.kind == MeshFault::Kind::mismatch;
    shared_.fail({clash ? FaultKind::collective : FaultKind::peer, mesh_.rank(), -1, fault.rank, fault.message});
  });
  shared_.onFault([this] { failed(); });
}

RemoteRanks::~RemoteRanks() {
  mesh_.forgetFault(onFault_);
}

/** Something failed here: others must not wait for this rank. */
void RemoteRanks::failed() {
  const auto fault = shared_.fault();
  if (!fault || mesh_.failed()) return;
  std::string message = "rank " + std::to_string(mesh_.rank()) + ": " + fault->message;
  if (fault->kind == FaultKind::closed) {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    // A machine that is closed between collectives is nobody's loss.
    if (inside_ == 0) return;
    message = "rank " + std::to_string(mesh_.rank()) + " has stopped";
  }
  mesh_.fail({MeshFault::Kind::told, mesh_.rank(), std::move(message)});
}

bool RemoteRanks::enter() {
  const std::lock_guard lock(mutex_);
  if (!closing_) inside_++;
  return !closing_;
}

void RemoteRanks::leave() {
  const std::lock_guard lock(mutex_);
  inside_--;
}

std::unique_ptr<CpuTask> RemoteRanks::collective(const Call& call, size_t member) {
  auto& position = positions_[{call.group->name, call.group->members}];
  if (!position) position = std::make_shared<int64_t>(0);
  return std::make_unique<RemoteTask>(call, member, *this, position);
}

}  // namespace tandem

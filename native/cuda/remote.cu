#include "remote.h"

#include "remote-task.h"

namespace tandem::cuda {

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

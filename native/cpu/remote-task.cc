#include "remote-task.h"

#include <utility>

#include "../transport/remote.h"

namespace tandem {

namespace {

class RemoteTask : public CpuTask {
 public:
  RemoteTask(const Call& call, size_t member, MeshPeers& peers, std::shared_ptr<int64_t> position)
      : collective_(call, member), peers_(peers), communicator_(peers.communicator(*call.group)), position_(std::move(position)) {}

  void run(Run& run) override {
    if (!peers_.enter()) return;
    try {
      collective_.run(peers_.mesh(), communicator_, static_cast<uint32_t>(run.position));
    } catch (...) {
      peers_.leave();
      throw;
    }
    peers_.leave();
  }

  int64_t nextPosition() override { return (*position_)++; }

 private:
  const RemoteCollective collective_;
  MeshPeers& peers_;
  const uint32_t communicator_;
  const std::shared_ptr<int64_t> position_;
};

}  // namespace

std::unique_ptr<CpuTask> RemoteRanks::collective(const Call& call, size_t member) {
  auto& position = positions_[{call.group->name, call.group->members}];
  if (!position) position = std::make_shared<int64_t>(0);
  return std::make_unique<RemoteTask>(call, member, peers_, position);
}

}  // namespace tandem

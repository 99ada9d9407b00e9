// Collectives of the cpu backend with ranks of other processes: a lane's thread runs them over the mesh.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../transport/mesh-peers.h"
#include "lane.h"

namespace tandem {

class RemoteRanks {
 public:
  RemoteRanks(Shared& shared, MeshPeers& peers) : peers_(peers) { peers_.link(shared); }
  ~RemoteRanks() { peers_.unlink(); }
  RemoteRanks(const RemoteRanks&) = delete;
  RemoteRanks& operator=(const RemoteRanks&) = delete;

  /** Ranks of the world. */
  int size() const { return peers_.size(); }
  /** Throws BadCall. */
  std::unique_ptr<CpuTask> collective(const Call& call, size_t member);

 private:
  MeshPeers& peers_;
  /** Collectives that each communicator has submitted here; one is its name and its ranks, in order. */
  std::map<std::pair<std::string, std::vector<int>>, std::shared_ptr<int64_t>> positions_;
};

}  // namespace tandem

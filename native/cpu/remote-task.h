// Collectives of the cpu backend with ranks of other processes: a lane's thread runs them over the mesh. What goes wrong on
// one side ends the other.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "../transport/mesh.h"
#include "lane.h"

namespace tandem {

class RemoteRanks {
 public:
  RemoteRanks(Shared& shared, Mesh& mesh);
  ~RemoteRanks();

  /** Ranks of the world. */
  int size() const { return mesh_.size(); }
  /** Throws BadCall. */
  std::unique_ptr<CpuTask> collective(const Call& call, size_t member);

  /** A lane's thread enters the mesh; false when the machine is closing. */
  bool enter();
  void leave();
  Mesh& mesh() { return mesh_; }

 private:
  void failed();

  Shared& shared_;
  Mesh& mesh_;
  /** Collectives that each communicator has submitted here; one is its name and its ranks, in order. */
  std::map<std::pair<std::string, std::vector<int>>, std::shared_ptr<int64_t>> positions_;
  int onFault_;
  std::mutex mutex_;
  /** Lanes in the middle of a collective. */
  int inside_ = 0;
  bool closing_ = false;
};

}  // namespace tandem

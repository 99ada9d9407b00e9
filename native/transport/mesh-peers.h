// The ranks of other processes as backends see them (peers.h), over a mesh. What goes wrong on one side ends the other.
#pragma once

#include <mutex>
#include <optional>

#include "../peers.h"
#include "mesh.h"

namespace tandem {

class MeshPeers : public Peers {
 public:
  /** `session` counts the machines that ran on this mesh before; all ranks open theirs in the same order. */
  MeshPeers(Mesh& mesh, uint32_t session) : mesh_(mesh), session_(session) {}
  ~MeshPeers() override { unlink(); }

  int rank() const override { return mesh_.rank(); }
  int size() const override { return mesh_.size(); }
  double lostAfterSeconds() const override { return mesh_.lostAfterSeconds(); }
  bool areApart(const std::vector<int>& ranks) const override { return mesh_.areApart(ranks); }
  void link(Shared& shared) override;
  void unlink() override;
  bool enter() override;
  void leave() override;
  std::string fromFirst(const Circle& circle, const std::string& own) override;
  Meaning meaningOf(const Call& call, size_t member) const override;
  std::unique_ptr<Announcement> announce(const Circle& circle, uint32_t position, const Meaning& meaning) override;

  Mesh& mesh() { return mesh_; }
  /** Names a group's collectives that go over the mesh itself; another one in every session, since positions begin anew. */
  uint32_t communicator(const Group& group) const;

 private:
  void failed(Shared& shared);

  Mesh& mesh_;
  const uint32_t session_;
  std::optional<int> onFault_;
  std::mutex mutex_;
  /** Lanes in the middle of a collective. */
  int inside_ = 0;
  bool closing_ = false;
};

}  // namespace tandem

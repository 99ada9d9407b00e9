// Which transport carries a job's messages: all ranks tell each other what they have, try it, and come to the same conclusion.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mesh.h"
#include "tcp-carrier.h"
#include "ucx-carrier.h"

namespace tandem {

struct TransportChoice {
  /** Connected; null where TCP is to be used, and memory between neighbours. */
  std::unique_ptr<UcxCarrier> ucx;
  Neighbours neighbours;
  /** "tcp", "ucx"; "memory" where all ranks are neighbours. */
  std::string name = "tcp";
  /** Why, for people. */
  std::string because;
};

/**
 * `fds`: a fresh connection to each peer, -1 for the rank itself; all ranks call this with the same wish. Throws NoMesh where UCX must
 * be and cannot, where a peer does not answer, and soon where that is cancelled.
 */
TransportChoice chooseTransport(Carrier::Owner& owner, const MeshOptions& options, const std::vector<int>& fds, double timeoutSeconds,
                               const Cancellation& by);

}  // namespace tandem

// Which transport carries a job's messages: all ranks tell each other what they have, try it, and come to the same conclusion.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mesh.h"
#include "ucx-carrier.h"

namespace tandem {

struct TransportChoice {
  /** Connected; null where TCP is to be used. */
  std::unique_ptr<UcxCarrier> ucx;
  /** Why, for people. */
  std::string because;
};

/**
 * `fds`: a fresh connection to each peer, -1 for the rank itself; all ranks call this with the same wish. Throws NoMesh where UCX must
 * be and cannot, and where a peer does not answer.
 */
TransportChoice chooseTransport(Carrier::Owner& owner, const MeshOptions& options, const std::vector<int>& fds, double timeoutSeconds);

}  // namespace tandem

// How UCX is set up for a rank, where the user's own variables (UCX_...) do not say. Knows nothing of messages.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tandem::ucx {

/** Names of UCX's variables without their prefix, and values. */
using Settings = std::vector<std::pair<std::string, std::string>>;

/** Whether the user lets UCX use shared memory. */
bool mayShareMemory();
/** Whether there is an adapter for RDMA with a port that is up, and that this process may open; `root`: where /sys and /dev are. */
bool hasRdma(const std::string& root = "");
/** For ranks that read each other's memory: that of UCX_TLS which is shared memory, and nothing else. */
Settings settingsOfMemory();
/** For all others; `host`: the address of the interface to use. */
Settings settingsOfNetwork(const std::string& host);

}  // namespace tandem::ucx

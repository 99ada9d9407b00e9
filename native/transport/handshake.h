// Connections between the processes of a job: both ends prove that they know the job's key, by challenge and response, before
// anything else is said. Whoever cannot, or is slow about it, is turned away without holding up the others.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "mesh.h"
#include "until.h"

namespace tandem {

/** Listens on `host`, any port; tells which. Throws NoMesh. */
int listenOn(const std::string& host, int& port);

/**
 * Connects to every lower rank and takes connections from every higher one, `connections` of each. Returns file descriptors by
 * peer and connection, non-blocking; none for the rank itself. Closes the listener. Throws NoMesh, with nothing left open;
 * soon where that is cancelled.
 */
std::vector<std::vector<int>> joinPeers(int listener, const MeshOptions& options, const std::string& key, int connections,
                                        const std::vector<Address>& addresses, double timeoutSeconds,
                                        const Cancellation* by = nullptr);

/** All of it, to or from a connection that does not block; false when that has ended, or the wait. */
bool sendWhole(int fd, const std::string& bytes, const Until& until);
bool receiveWhole(int fd, std::string& bytes, const Until& until);

/** What nobody can guess: 16 bytes. Throws NoMesh. */
std::string freshMark();

}  // namespace tandem

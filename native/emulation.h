// Slower worlds on one machine: buses, links and devices that take time, around any backend. An op is enclosed between two
// steps of the host, one that looks at the clock and one that sleeps. Backends know nothing of it.
#pragma once

#include "backend.h"

namespace tandem {

/** A way that bytes take: a transfer of n bytes takes at least latencySeconds + n / bytesPerSecond, after those before it. */
struct Bus {
  double bytesPerSecond;
  double latencySeconds = 0;
};

struct Emulation {
  /** Between host and device memory of each rank; infinitely fast where copies go as fast as they can. */
  Bus h2d, d2h;
  /** Links that collectives may cross (Call::loads), each first in, first out, shared by all collectives of the process. */
  std::vector<double> linkBytesPerSecond;
};

/**
 * A machine of that backend on which buses take time, collectives their links' time (Call::loads, Call::latencySeconds), and
 * ops at least their seconds (Call::seconds). Throws BadCall for rates that are not positive.
 */
std::unique_ptr<Machine> openEmulated(const Backend& backend, const MachineOptions& options, const Emulation& emulation);

}  // namespace tandem

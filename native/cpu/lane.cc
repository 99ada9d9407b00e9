#include "lane.h"

namespace tandem {

int64_t runItem(const Item& item, RankLanes& lanes) {
  Shared& shared = lanes.shared;
  Run run{shared, item.position, lanes.timed ? shared.now() : 0, item.scaled ? item.scalars.data() : nullptr};
  if (shared.faulted()) return run.start;
  Fault fault;
  try {
    item.task->run(run);
    return run.start;
  } catch (const OpFault& error) {
    fault = {error.kind, lanes.rank, opOf(item.at), error.peer, error.what()};
  } catch (const std::bad_alloc&) {
    fault = {FaultKind::memory, lanes.rank, opOf(item.at), -1, "the system has no memory left"};
  } catch (const std::exception& error) {
    fault = {FaultKind::value, lanes.rank, opOf(item.at), -1, error.what()};
  }
  shared.fail(fault);
  return run.start;
}

}  // namespace tandem

// Which backends this build has.
#include "backend.h"

#include "cpu/machine.h"
#include "cuda-library.h"

namespace tandem {

const char* nameOf(FaultKind kind) {
  switch (kind) {
    case FaultKind::value: return "value";
    case FaultKind::collective: return "collective";
    case FaultKind::memory: return "memory";
    case FaultKind::thread: return "thread";
    case FaultKind::device: return "device";
    case FaultKind::peer: return "peer";
    case FaultKind::aborted: return "aborted";
    case FaultKind::closed: return "closed";
  }
  return "device";
}

const std::vector<Backend>& backends() {
  static const std::vector<Backend> all = {cpuBackend(), deferredBackend(), cudaBackend()};
  return all;
}

const Backend& backendNamed(const std::string& name) {
  std::string known;
  for (const Backend& backend : backends()) {
    if (backend.name == name) return backend;
    known += (known.empty() ? "" : ", ") + backend.name;
  }
  throw BadCall("no backend \"" + name + "\" in this build; known: " + known);
}

std::unique_ptr<Machine> openBackend(const std::string& name, const MachineOptions& options) {
  return backendNamed(name).open(options);
}

}  // namespace tandem

// The cuda backend: ranks on GPUs, each lane a stream, memory of the driver's, collectives between ranks of one process and of several.
// What other libraries of NVIDIA's give is opened at run time.
#include "machine.h"

#include <algorithm>

#include <unistd.h>

#include "collectives.h"
#include "device.h"
#include "graphs.h"
#include "remote.h"

namespace tandem::cuda {

namespace {

/** NCCL takes ranks of one host on one GPU for a mistake; on as many GPUs as ranks each round of them is a host of its own. */
void tellApart(int round) {
  if (round == 0) return;
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  setenv("NCCL_HOSTID", (std::string(host) + " round " + std::to_string(round)).c_str(), 0);
}

/** Peers may read each other's memory, the pool's too, and the pool keeps what it has. */
void prepareDevice(int device, int first, int devices) {
  check(cudaSetDevice(device), "cudaSetDevice");
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
  uint64_t keep = ~uint64_t{0};
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
  for (int peer = first; peer < first + devices; peer++) {
    if (peer == device) continue;
    int reachable = 0;
    check(cudaDeviceCanAccessPeer(&reachable, device, peer), "cudaDeviceCanAccessPeer");
    if (reachable == 0) {
      throw std::runtime_error("GPU " + std::to_string(device) + " cannot reach the memory of GPU " + std::to_string(peer) +
                               "; ranks of one process need that");
    }
    const cudaError_t status = cudaDeviceEnablePeerAccess(peer, 0);
    if (status == cudaErrorPeerAccessAlreadyEnabled) {
      cudaGetLastError();
    } else {
      check(status, "cudaDeviceEnablePeerAccess");
    }
    cudaMemAccessDesc access{};
    access.location.type = cudaMemLocationTypeDevice;
    access.location.id = peer;
    access.flags = cudaMemAccessFlagsProtReadWrite;
    check(cudaMemPoolSetAccess(pool, &access, 1), "cudaMemPoolSetAccess");
  }
}

}  // namespace

CudaMachine::CudaMachine(const MachineOptions& options)
    : options_(options),
      graphs_(options_.settings.count("graphs") != 0 ? options_.settings.at("graphs") == 1 : graphsWished()) {
  if (options_.ranks < 1) throw BadCall("session: " + std::to_string(options_.ranks) + " ranks; expected at least 1");
  for (const auto& [name, value] : options_.settings) {
    if (name != "graphs") throw BadCall("session: the cuda backend has no setting \"" + name + "\"; it has \"graphs\"");
    if (value != 0 && value != 1) throw BadCall("session: graphs is " + std::to_string(value) + "; expected 0 or 1");
  }
  int devices = 0;
  check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  if (devices == 0) throw std::runtime_error("no GPU that CUDA can use");
  // Ranks of one process share GPUs that reach each other; one of several processes has its own.
  const int used = options_.peers == nullptr ? std::min(devices, options_.ranks) : 1;
  const int first = options_.peers == nullptr ? 0 : options_.firstDevice % devices;
  if (options_.peers != nullptr) tellApart(options_.firstDevice / devices);
  for (int device = 0; device < used; device++) prepareDevice(first + device, first, used);
  const double hostBytes = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE)) / 2;
  for (int rank = 0; rank < options_.ranks; rank++) {
    const int device = first + rank % used;
    const int sharing = options_.ranks / used + (rank % used < options_.ranks % used ? 1 : 0);
    size_t free = 0;
    size_t total = 0;
    check(cudaSetDevice(device), "cudaSetDevice");
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    // a part stays for scratch and the libraries' own
    devices_.push_back(std::make_unique<CudaDevice>(*this, options_.firstRank + rank, device, 0.9 * static_cast<double>(free) / sharing,
                                                    hostBytes / options_.ranks));
  }
  if (options_.peers != nullptr) remote_ = std::make_unique<RemoteRanks>(*options_.peers, shared_, first);
  shared_.onFault([this] {
    if (remote_) remote_->wake();
    for (auto& device : devices_) device->wake();
    {
      const std::lock_guard lock(communicatorsMutex_);
      for (const auto& [members, communicator] : communicators_) communicator->wake();
    }
    options_.onProgress();
  });
}

CudaMachine::~CudaMachine() {
  if (remote_) remote_->closing();
  shared_.fail({FaultKind::closed, -1, -1, -1, "the session was closed"});
  // all threads of all ranks end before anything goes: whoever finds a fault meanwhile tells everyone
  for (auto& device : devices_) device->stop();
  remote_.reset();
}

Device& CudaMachine::device(int rank) { return *devices_.at(static_cast<size_t>(rank)); }

Replays CudaMachine::replays() const {
  if (!graphs_) return {"off: TANDEM_CUDA_GRAPHS=0, or the setting graphs: 0, says so"};
  if (options_.timed) return {"off: the times of each op are recorded"};
  return {counts_.state(), counts_.captured, counts_.launched, counts_.tasks};
}

std::shared_ptr<Communicator> CudaMachine::communicator(const Group& group) {
  const std::lock_guard lock(communicatorsMutex_);
  auto& found = communicators_[{group.name, group.members}];
  if (!found) found = std::make_shared<Communicator>(shared_, group);
  return found;
}

std::shared_ptr<const Epoch> CudaMachine::epoch(int device) {
  auto& found = epochs_[device];
  if (!found) found = std::make_shared<Epoch>(shared_);
  return found;
}

void CudaMachine::seeEnds() {
  for (auto& device : devices_) device->seeEnds();
}

std::unique_ptr<Machine> open(const MachineOptions& options) { return std::make_unique<CudaMachine>(options); }

}  // namespace tandem::cuda

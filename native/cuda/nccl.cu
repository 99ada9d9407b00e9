#include "nccl.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <thread>

#include "kernels.h"
#include "library.h"

namespace tandem::cuda {

namespace {

// Names and layouts of NCCL's own header, version 2.17 and later.
struct UniqueId {
  char bytes[128];
};

struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  /** The version that this layout is of; what later ones have besides keeps its default. */
  unsigned version = 21701;
  int blocking = 0;
  int clusterSize = INT_MIN;
  int leastBlocks = INT_MIN;
  int mostBlocks = INT_MIN;
  const char* network = nullptr;
  int splitShare = INT_MIN;
};

enum Result { success = 0, remoteError = 6, inProgress = 7 };

struct Functions {
  int (*version)(int*);
  const char* (*errorString)(int);
  const char* (*lastError)(void*);
  int (*uniqueId)(UniqueId*);
  int (*join)(void**, int, UniqueId, int, Config*);
  int (*finalize)(void*);
  int (*destroy)(void*);
  int (*abort)(void*);
  int (*asyncError)(void*, int*);
  int (*groupStart)();
  int (*groupEnd)();
  int (*allReduce)(const void*, void*, size_t, int, int, void*, cudaStream_t);
  int (*reduceScatter)(const void*, void*, size_t, int, int, void*, cudaStream_t);
  int (*allGather)(const void*, void*, size_t, int, void*, cudaStream_t);
  int (*broadcast)(const void*, void*, size_t, int, int, void*, cudaStream_t);
  int (*send)(const void*, size_t, int, int, void*, cudaStream_t);
  int (*receive)(void*, size_t, int, int, void*, cudaStream_t);
};

struct Nccl {
  Functions call{};
  std::string missing;
  int version = 0;

  Nccl() {
    const Library library("TANDEM_NCCL", {"libnccl.so.2", "libnccl.so"});
    if (!library.found()) {
      missing = "NCCL, for ranks in several processes (" + library.error() +
                "); put its folder into LD_LIBRARY_PATH, or its path into TANDEM_NCCL";
      return;
    }
    const bool all = library.bind(call.version, "ncclGetVersion") && library.bind(call.errorString, "ncclGetErrorString") &&
                     library.bind(call.lastError, "ncclGetLastError") && library.bind(call.uniqueId, "ncclGetUniqueId") &&
                     library.bind(call.join, "ncclCommInitRankConfig") && library.bind(call.finalize, "ncclCommFinalize") &&
                     library.bind(call.destroy, "ncclCommDestroy") && library.bind(call.abort, "ncclCommAbort") &&
                     library.bind(call.asyncError, "ncclCommGetAsyncError") &&
                     library.bind(call.groupStart, "ncclGroupStart") && library.bind(call.groupEnd, "ncclGroupEnd") &&
                     library.bind(call.allReduce, "ncclAllReduce") &&
                     library.bind(call.reduceScatter, "ncclReduceScatter") &&
                     library.bind(call.allGather, "ncclAllGather") && library.bind(call.broadcast, "ncclBroadcast") &&
                     library.bind(call.send, "ncclSend") && library.bind(call.receive, "ncclRecv");
    if (!all || call.version(&version) != success || version < 21701) {
      missing = "NCCL: the library that was found is older than 2.17.1";
    }
  }
};

const Nccl& nccl() {
  static const Nccl instance;
  return instance;
}

/** A rank that joins must hear of the others within this time; connections are made at the first launch. */
constexpr std::chrono::seconds joinPatience{120};
constexpr std::chrono::seconds leavePatience{10};
/** Launches that others may be behind before this rank waits for them. */
constexpr size_t announcedMost = 16;

/** Who else fails is to blame for a connection that ends. */
FaultKind kindOf(int result) { return result == remoteError ? FaultKind::peer : FaultKind::device; }

[[noreturn]] void refuse(const char* what, int result, void* communicator) {
  const char* detail = nccl().call.lastError(communicator);
  throw OpFault(kindOf(result), std::string("NCCL: ") + what + ": " + nccl().call.errorString(result) +
                                       (detail == nullptr || *detail == 0 ? "" : std::string(" (") + detail + ")"));
}

void expect(const char* what, int result, void* communicator) {
  if (result != success && result != inProgress) refuse(what, result, communicator);
}

}  // namespace

std::string ncclMissing() { return nccl().missing; }

std::string ncclVersion() {
  if (!nccl().missing.empty()) return "";
  const int version = nccl().version;
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100);
}

void NcclCalls::allReduce(const void* from, void* to, int64_t count, NcclType type, NcclReduce reduce) const {
  expect("all-reduce", nccl().call.allReduce(from, to, static_cast<size_t>(count), static_cast<int>(type),
                                             static_cast<int>(reduce), communicator_, stream_), communicator_);
}

void NcclCalls::reduceScatter(const void* from, void* to, int64_t count, NcclType type, NcclReduce reduce) const {
  expect("reduce-scatter", nccl().call.reduceScatter(from, to, static_cast<size_t>(count), static_cast<int>(type),
                                                     static_cast<int>(reduce), communicator_, stream_), communicator_);
}

void NcclCalls::allGather(const void* from, void* to, int64_t bytes) const {
  expect("all-gather", nccl().call.allGather(from, to, static_cast<size_t>(bytes), static_cast<int>(NcclType::byte),
                                             communicator_, stream_), communicator_);
}

void NcclCalls::broadcast(const void* from, void* to, int64_t bytes, int root) const {
  expect("broadcast", nccl().call.broadcast(from, to, static_cast<size_t>(bytes), static_cast<int>(NcclType::byte), root,
                                            communicator_, stream_), communicator_);
}

void NcclCalls::send(const void* from, int64_t bytes, int member) const {
  expect("send", nccl().call.send(from, static_cast<size_t>(bytes), static_cast<int>(NcclType::byte), member, communicator_,
                                  stream_), communicator_);
}

void NcclCalls::receive(void* to, int64_t bytes, int member) const {
  expect("receive", nccl().call.receive(to, static_cast<size_t>(bytes), static_cast<int>(NcclType::byte), member,
                                        communicator_, stream_), communicator_);
}

NcclCommunicator::~NcclCommunicator() {
  if (last_ != nullptr) cudaEventDestroy(last_);
}

size_t NcclCommunicator::own() const {
  const auto& members = circle_.group.members;
  return static_cast<size_t>(std::find(members.begin(), members.end(), peers_.rank()) - members.begin());
}

void NcclCommunicator::settle(const char* what, std::chrono::seconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (int looks = 0;; looks++) {
    int state = success;
    const int result = nccl().call.asyncError(communicator_, &state);
    if (result != success) refuse(what, result, communicator_);
    if (state == success) return;
    if (state != inProgress) refuse(what, state, communicator_);
    if (shared_.faulted()) throw OpFault(FaultKind::aborted, std::string("NCCL: ") + what + " was given up");
    if (std::chrono::steady_clock::now() > deadline) {
      throw OpFault(FaultKind::device, std::string("NCCL: ") + what + " took longer than " +
                                           std::to_string(patience.count()) + " s");
    }
    // connections take long, launches do not
    if (looks < 2000) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  }
}

/** Under the lock. */
void NcclCommunicator::join() {
  check(cudaSetDevice(device_), "cudaSetDevice");
  UniqueId id{};
  std::string text;
  if (own() == 0) {
    expect("making an id", nccl().call.uniqueId(&id), nullptr);
    text.assign(id.bytes, sizeof id.bytes);
  }
  text = peers_.fromFirst(circle_, text);
  std::memcpy(id.bytes, text.data(), sizeof id.bytes);
  Config config;
  void* joined = nullptr;
  const int result =
      nccl().call.join(&joined, static_cast<int>(circle_.group.members.size()), id, static_cast<int>(own()), &config);
  communicator_ = joined;
  expect("joining", result, joined);
  settle("joining", joinPatience);
  check(cudaEventCreateWithFlags(&last_, cudaEventDisableTiming), "cudaEventCreate");
}

void NcclCommunicator::launch(cudaStream_t stream, const Meaning& meaning,
                              const std::function<void(const NcclCalls&)>& calls) {
  if (!nccl().missing.empty()) throw OpFault(FaultKind::device, "there is no " + nccl().missing);
  while (announced_.size() >= announcedMost) announced_.pop_front();
  announced_.push_back(peers_.announce(circle_, position_++, meaning));
  const std::lock_guard lock(mutex_);
  if (ended_) throw OpFault(FaultKind::aborted, "NCCL: the communicator has ended");
  if (communicator_ == nullptr) join();
  expect("a launch", nccl().call.groupStart(), communicator_);
  try {
    calls(NcclCalls(communicator_, stream));
  } catch (...) {
    nccl().call.groupEnd();
    throw;
  }
  expect("a launch", nccl().call.groupEnd(), communicator_);
  settle("a launch", joinPatience);
  check(cudaEventRecord(last_, stream), "cudaEventRecord");
}

std::optional<Fault> NcclCommunicator::trouble() {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || communicator_ == nullptr || ended_) return std::nullopt;
  int state = success;
  const int result = nccl().call.asyncError(communicator_, &state);
  const int what = result != success ? result : state;
  if (what == success || what == inProgress) return std::nullopt;
  const char* detail = nccl().call.lastError(communicator_);
  return Fault{kindOf(what), peers_.rank(), -1, -1,
               std::string("NCCL: ") + nccl().call.errorString(what) + (detail == nullptr ? "" : std::string(": ") + detail)};
}

void NcclCommunicator::abort() {
  // whoever is in a call sees the fault and comes out
  const std::lock_guard lock(mutex_);
  if (ended_.exchange(true) || communicator_ == nullptr) return;
  nccl().call.abort(communicator_);
}

bool NcclCommunicator::busy() const { return last_ != nullptr && cudaEventQuery(last_) == cudaErrorNotReady; }

void NcclCommunicator::leave() {
  announced_.clear();
  const std::lock_guard lock(mutex_);
  if (ended_.exchange(true) || communicator_ == nullptr) return;
  const auto deadline = std::chrono::steady_clock::now() + leavePatience;
  int state = nccl().call.finalize(communicator_);
  while ((state == success || state == inProgress) && std::chrono::steady_clock::now() < deadline) {
    if (nccl().call.asyncError(communicator_, &state) != success || state == success) break;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  if (state == success) {
    nccl().call.destroy(communicator_);
  } else {
    nccl().call.abort(communicator_);
  }
}

}  // namespace tandem::cuda

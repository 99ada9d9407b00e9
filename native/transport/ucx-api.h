// What this project uses of UCX's UCP interface, found at run time: nothing is linked, and no header of it is needed to build.
// Declared after ucp/api/ucp.h and ucp_def.h of UCX 1.13; structures have a mask of the fields that are filled in, and later
// versions only add fields at their ends (compared with 1.10 and 1.23). Knows nothing of ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tandem::ucx {

using Status = int8_t;
constexpr Status statusOk = 0;
constexpr Status statusInProgress = 1;
constexpr Status statusBusy = -15;
constexpr int statusLast = -100;

/** Null for done, an error in disguise, or a request. */
using StatusPointer = void*;
inline bool isError(StatusPointer pointer) {
  return reinterpret_cast<uintptr_t>(pointer) >= static_cast<uintptr_t>(intptr_t{statusLast});
}
inline Status errorOf(StatusPointer pointer) { return static_cast<Status>(reinterpret_cast<intptr_t>(pointer)); }

using Context = struct ContextOpaque*;
using Worker = struct WorkerOpaque*;
using Endpoint = struct EndpointOpaque*;
using Config = struct ConfigOpaque*;
using WorkerAddress = struct AddressOpaque*;

struct Parameters {
  static constexpr uint64_t hasFeatures = 1 << 0;
  static constexpr uint64_t hasEndpoints = 1 << 6;
  static constexpr uint64_t featureTag = 1 << 0;
  static constexpr uint64_t featureWakeup = 1 << 4;

  uint64_t fields = 0;
  uint64_t features = 0;
  size_t requestSize = 0;
  void* requestInit = nullptr;
  void* requestCleanup = nullptr;
  uint64_t tagSenderMask = 0;
  int sharedWorkers = 0;
  size_t estimatedEndpoints = 0;
  size_t estimatedPerNode = 0;
  const char* name = nullptr;
};

struct WorkerParameters {
  static constexpr uint64_t hasThreadMode = 1 << 0;
  static constexpr uint64_t hasFlags = 1 << 5;
  /** Several threads, one at a time. */
  static constexpr int serialized = 1;
  static constexpr uint64_t ignoreRequestLeak = 1 << 0;

  uint64_t fields = 0;
  int threadMode = 0;
  /** ucs_cpu_set_t: 1024 bits. */
  unsigned long cpuMask[16] = {};
  unsigned events = 0;
  void* userData = nullptr;
  int eventFd = 0;
  uint64_t flags = 0;
  const char* name = nullptr;
  size_t messageAlignment = 0;
  uint64_t clientId = 0;
};

struct SocketAddress {
  const void* address = nullptr;
  uint32_t length = 0;
};

struct EndpointParameters {
  static constexpr uint64_t hasAddress = 1 << 0;
  static constexpr uint64_t hasErrorMode = 1 << 1;
  static constexpr uint64_t hasErrorHandler = 1 << 2;
  static constexpr int errorsNone = 0;
  static constexpr int errorsOfPeer = 1;

  uint64_t fields = 0;
  const void* address = nullptr;
  int errorMode = errorsNone;
  void (*onError)(void* argument, Endpoint endpoint, Status status) = nullptr;
  void* onErrorArgument = nullptr;
  void* userData = nullptr;
  unsigned flags = 0;
  SocketAddress socketAddress;
  void* connectionRequest = nullptr;
  const char* name = nullptr;
  SocketAddress localAddress;
};

struct TagInfo {
  uint64_t tag;
  size_t length;
};

struct RequestParameters {
  static constexpr uint32_t hasCallback = 1 << 1;
  static constexpr uint32_t hasUserData = 1 << 2;
  static constexpr uint32_t hasFlags = 1 << 4;
  static constexpr uint32_t hasMemoryType = 1 << 6;
  /** Done at once or not, there is a request: UCX 1.13 says of nothing else how long a message was. */
  static constexpr uint32_t always = 1 << 16;
  static constexpr uint32_t closeByForce = 1 << 0;
  static constexpr int hostMemory = 0;

  uint32_t fields = 0;
  uint32_t flags = 0;
  void* request = nullptr;
  union {
    void (*sent)(void* request, Status status, void* userData);
    void (*received)(void* request, Status status, const TagInfo* info, void* userData);
  } callback = {nullptr};
  uint64_t datatype = 0;
  void* userData = nullptr;
  void* replyBuffer = nullptr;
  int memoryType = hostMemory;
  void* receiveInfo = nullptr;
  void* memoryHandle = nullptr;
};

/** UCP's functions; where the library is not there or of another kind, `missing` says so, and how to get it. */
struct Library {
  std::string missing;
  std::string path;
  /** "1.13.1" */
  std::string version;

  void (*ucp_get_version)(unsigned* major, unsigned* minor, unsigned* release);
  const char* (*ucs_status_string)(Status status);
  Status (*ucp_config_read)(const char* prefix, const char* file, Config* config);
  Status (*ucp_config_modify)(Config config, const char* name, const char* value);
  void (*ucp_config_release)(Config config);
  Status (*ucp_init_version)(unsigned major, unsigned minor, const Parameters* parameters, Config config, Context* context);
  void (*ucp_cleanup)(Context context);
  Status (*ucp_worker_create)(Context context, const WorkerParameters* parameters, Worker* worker);
  void (*ucp_worker_destroy)(Worker worker);
  Status (*ucp_worker_get_address)(Worker worker, WorkerAddress* address, size_t* length);
  void (*ucp_worker_release_address)(Worker worker, WorkerAddress address);
  unsigned (*ucp_worker_progress)(Worker worker);
  Status (*ucp_worker_get_efd)(Worker worker, int* fd);
  Status (*ucp_worker_arm)(Worker worker);
  Status (*ucp_ep_create)(Worker worker, const EndpointParameters* parameters, Endpoint* endpoint);
  StatusPointer (*ucp_ep_close_nbx)(Endpoint endpoint, const RequestParameters* parameters);
  StatusPointer (*ucp_tag_send_nbx)(Endpoint endpoint, const void* data, size_t bytes, uint64_t tag, const RequestParameters* parameters);
  StatusPointer (*ucp_tag_recv_nbx)(Worker worker, void* data, size_t bytes, uint64_t tag, uint64_t mask,
                                    const RequestParameters* parameters);
  Status (*ucp_request_check_status)(void* request);
  Status (*ucp_tag_recv_request_test)(void* request, TagInfo* info);
  void (*ucp_request_cancel)(Worker worker, void* request);
  void (*ucp_request_free)(void* request);
};

/** Opens it once, at the first call: TANDEM_UCX, else libucp.so.0. */
const Library& library();

/** The version of the interface that is asked for; every later one of the same major version has it. */
constexpr unsigned interfaceMajor = 1;
constexpr unsigned interfaceMinor = 10;

}  // namespace tandem::ucx

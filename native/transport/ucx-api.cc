// Finds UCX at run time.
#include "ucx-api.h"

#include <dlfcn.h>

#include <cstdlib>

namespace tandem::ucx {

namespace {

const char* const howToGet = "on Debian \"apt-get install libucx0\" provides it, and TANDEM_UCX may be a path to libucp.so.0";

/**
 * UCX reads variables when it is loaded. Where the user has not said otherwise: signals stay ours, what it has to say goes to standard
 * error and only where it gives up, and variables of other programs are no business of its.
 */
void setDefaults() {
  const char* const defaults[][2] = {{"UCX_HANDLE_ERRORS", "none"},
                                     {"UCX_ERROR_SIGNALS", ""},
                                     {"UCX_LOG_FILE", "stderr"},
                                     {"UCX_LOG_LEVEL", "fatal"},
                                     {"UCX_WARN_UNUSED_ENV_VARS", "n"}};
  for (const auto& [name, value] : defaults) ::setenv(name, value, 0);
}

template <typename Function>
bool find(void* library, const char* name, Function& function, std::string& missing) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (function == nullptr && missing.empty()) missing = std::string("UCX has no ") + name;
  return function != nullptr;
}

Library open() {
  Library found{};
  const char* const wanted = std::getenv("TANDEM_UCX");
  found.path = wanted != nullptr && *wanted != '\0' ? wanted : "libucp.so.0";
  setDefaults();
  void* const library = ::dlopen(found.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = ::dlerror();
    found.missing = std::string("UCX: ") + (reason == nullptr ? "not found" : reason) + "; " + howToGet;
    return found;
  }
  if (!find(library, "ucp_get_version", found.ucp_get_version, found.missing)) return found;
  unsigned version[3] = {0, 0, 0};
  found.ucp_get_version(&version[0], &version[1], &version[2]);
  found.version = std::to_string(version[0]) + "." + std::to_string(version[1]) + "." + std::to_string(version[2]);
  if (version[0] != interfaceMajor || version[1] < interfaceMinor) {
    found.missing = "UCX " + found.version + " is there, and one from " + std::to_string(interfaceMajor) + "." +
                    std::to_string(interfaceMinor) + " before 2.0 is needed; " + howToGet;
    return found;
  }
  find(library, "ucs_status_string", found.ucs_status_string, found.missing);
  find(library, "ucp_config_read", found.ucp_config_read, found.missing);
  find(library, "ucp_config_modify", found.ucp_config_modify, found.missing);
  find(library, "ucp_config_release", found.ucp_config_release, found.missing);
  find(library, "ucp_init_version", found.ucp_init_version, found.missing);
  find(library, "ucp_cleanup", found.ucp_cleanup, found.missing);
  find(library, "ucp_worker_create", found.ucp_worker_create, found.missing);
  find(library, "ucp_worker_destroy", found.ucp_worker_destroy, found.missing);
  find(library, "ucp_worker_get_address", found.ucp_worker_get_address, found.missing);
  find(library, "ucp_worker_release_address", found.ucp_worker_release_address, found.missing);
  find(library, "ucp_worker_progress", found.ucp_worker_progress, found.missing);
  find(library, "ucp_worker_get_efd", found.ucp_worker_get_efd, found.missing);
  find(library, "ucp_worker_arm", found.ucp_worker_arm, found.missing);
  find(library, "ucp_ep_create", found.ucp_ep_create, found.missing);
  find(library, "ucp_ep_close_nbx", found.ucp_ep_close_nbx, found.missing);
  find(library, "ucp_tag_send_nbx", found.ucp_tag_send_nbx, found.missing);
  find(library, "ucp_tag_recv_nbx", found.ucp_tag_recv_nbx, found.missing);
  find(library, "ucp_request_check_status", found.ucp_request_check_status, found.missing);
  find(library, "ucp_tag_recv_request_test", found.ucp_tag_recv_request_test, found.missing);
  find(library, "ucp_request_cancel", found.ucp_request_cancel, found.missing);
  find(library, "ucp_request_free", found.ucp_request_free, found.missing);
  return found;
}

}  // namespace

const Library& library() {
  static const Library instance = open();
  return instance;
}

}  // namespace tandem::ucx

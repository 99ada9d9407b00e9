#include "ucx-settings.h"

#include <dirent.h>
#include <ifaddrs.h>
#include <netdb.h>

#include <cstdlib>

namespace tandem::ucx {

namespace {

bool isSet(const char* variable) {
  const char* const value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

/** The name of the interface that has an address; empty where none has. */
std::string interfaceOf(const std::string& host) {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return "";
  std::string name;
  for (const ifaddrs* one = all; one != nullptr && name.empty(); one = one->ifa_next) {
    if (one->ifa_addr == nullptr) continue;
    const int family = one->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    char text[NI_MAXHOST];
    const auto size = static_cast<socklen_t>(family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    if (::getnameinfo(one->ifa_addr, size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0) continue;
    if (host == text) name = one->ifa_name;
  }
  ::freeifaddrs(all);
  return name;
}

std::vector<std::string> namesIn(const std::string& folder) {
  std::vector<std::string> names;
  DIR* const open = ::opendir(folder.c_str());
  if (open == nullptr) return names;
  while (const dirent* one = ::readdir(open)) {
    if (one->d_name[0] != '.') names.emplace_back(one->d_name);
  }
  ::closedir(open);
  return names;
}

const char* const adaptersFolder = "/sys/class/infiniband";

/** The interface that the job was told to use, and all RDMA ports; empty: whatever UCX likes. */
std::string devicesFor(const std::string& host) {
  std::string devices = interfaceOf(host);
  if (devices.empty()) return "";
  const std::string adapters = adaptersFolder;
  for (const std::string& adapter : namesIn(adapters)) {
    for (const std::string& port : namesIn(adapters + "/" + adapter + "/ports")) devices += "," + adapter + ":" + port;
  }
  return devices;
}

}  // namespace

bool mayShareMemory() {
  if (!isSet("UCX_TLS")) return true;
  const std::string wanted = std::string(",") + std::getenv("UCX_TLS") + ",";
  for (const char* const one : {",all,", ",sm,", ",shm,", ",mm,", ",cma,", ",posix,", ",sysv,", ",xpmem,", ",knem,"}) {
    if (wanted.find(one) != std::string::npos) return true;
  }
  return false;
}

bool hasRdma() { return !namesIn(adaptersFolder).empty(); }

Settings settingsOfMemory() {
  // Whoever receives reads: what nobody awaits any more is never written to by others.
  return {{"TLS", "sm"}, {"RNDV_SCHEME", "get_zcopy"}};
}

Settings settingsOfNetwork(const std::string& host) {
  const std::string devices = isSet("UCX_NET_DEVICES") ? "" : devicesFor(host);
  return devices.empty() ? Settings() : Settings{{"NET_DEVICES", devices}};
}

}  // namespace tandem::ucx

#include "ucx-settings.h"

#include <dirent.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "fd.h"

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

/** Ports of adapters for RDMA, as UCX names them, that are up and may be used by this process. */
std::vector<std::string> usablePorts(const std::string& root) {
  const std::string adapters = root + "/sys/class/infiniband/";
  std::vector<std::string> ports;
  for (const std::string& adapter : namesIn(adapters)) {
    const std::vector<std::string> verbs = namesIn(adapters + adapter + "/device/infiniband_verbs");
    const bool opens = std::any_of(verbs.begin(), verbs.end(), [&](const std::string& name) {
      return Fd(::open((root + "/dev/infiniband/" + name).c_str(), O_RDWR | O_CLOEXEC)).get() >= 0;
    });
    if (!opens) continue;
    for (const std::string& port : namesIn(adapters + adapter + "/ports")) {
      // "4: ACTIVE"
      std::string number;
      std::string state;
      std::ifstream(adapters + adapter + "/ports/" + port + "/state") >> number >> state;
      if (state == "ACTIVE") ports.push_back(adapter + ":" + port);
    }
  }
  return ports;
}

/** The interface that the job was told to use, and all ports for RDMA; empty: whatever UCX likes. */
std::string devicesFor(const std::string& host) {
  std::string devices = interfaceOf(host);
  if (devices.empty()) return "";
  for (const std::string& port : usablePorts("")) devices += "," + port;
  return devices;
}

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/** What UCX calls all of shared memory. */
bool hasAll(const std::vector<std::string>& names) { return has(names, "all") || has(names, "sm") || has(names, "shm"); }

/**
 * What the user lets UCX use of shared memory, in words of UCX_TLS: a list of transports, or after a ^ one of what is left out. Empty
 * where messages cannot go by it: cma and knem only carry what others have announced.
 */
std::string memoryTransports() {
  if (!isSet("UCX_TLS")) return "sm";
  std::string list = std::getenv("UCX_TLS");
  const bool negated = list[0] == '^';
  std::istringstream text(list.substr(negated ? 1 : 0));
  std::vector<std::string> names;
  for (std::string name; std::getline(text, name, ',');) names.push_back(name);
  std::vector<std::string> left;
  if (negated) {
    if (hasAll(names)) return "";
    const std::vector<std::string> every = {"mm", "posix", "sysv", "xpmem", "cma", "knem"};
    const bool touched = std::any_of(every.begin(), every.end(), [&](const std::string& name) { return has(names, name); });
    if (!touched) return "sm";
    // Not by a ^ again: that would let in networks. UCX complains of names that it was built without, so only what it always has.
    for (const char* const name : {"posix", "sysv", "cma"}) {
      if (!has(names, name) && !(has(names, "mm") && name != std::string("cma"))) left.emplace_back(name);
    }
  } else {
    if (hasAll(names)) return "sm";
    for (const char* const name : {"mm", "posix", "sysv", "xpmem", "cma", "knem"}) {
      if (has(names, name)) left.emplace_back(name);
    }
  }
  std::string joined;
  bool carries = false;
  for (const std::string& name : left) {
    joined += (joined.empty() ? "" : ",") + name;
    if (name != "cma" && name != "knem") carries = true;
  }
  return carries ? joined : "";
}

}  // namespace

bool mayShareMemory() { return !memoryTransports().empty(); }

bool hasRdma(const std::string& root) { return !usablePorts(root).empty(); }

Settings settingsOfMemory() {
  Settings settings = {{"TLS", memoryTransports()}};
  // Whoever receives reads: what nobody awaits any more is never written to by others.
  if (!isSet("UCX_RNDV_SCHEME")) settings.emplace_back("RNDV_SCHEME", "get_zcopy");
  return settings;
}

Settings settingsOfNetwork(const std::string& host) {
  const std::string devices = isSet("UCX_NET_DEVICES") ? "" : devicesFor(host);
  return devices.empty() ? Settings() : Settings{{"NET_DEVICES", devices}};
}

}  // namespace tandem::ucx

#include "ucx-way.h"

namespace tandem::ucx {

Way::Way(const Library& ucx, const Settings& settings, size_t ranks) : ucx_(ucx) {
  Config config = nullptr;
  Status status = ucx_.ucp_config_read(nullptr, nullptr, &config);
  std::string what = "its configuration";
  if (status == statusOk) {
    what = "its context";
    for (const auto& [name, value] : settings) {
      if (status != statusOk) break;
      status = ucx_.ucp_config_modify(config, name.c_str(), value.c_str());
      if (status != statusOk) what = "UCX_" + name + "=" + value;
    }
    if (status == statusOk) {
      Parameters parameters;
      parameters.fields = Parameters::hasFeatures | Parameters::hasEndpoints;
      parameters.features = Parameters::featureTag | Parameters::featureWakeup;
      parameters.estimatedEndpoints = ranks;
      status = ucx_.ucp_init_version(interfaceMajor, interfaceMinor, &parameters, config, &context_);
    }
    ucx_.ucp_config_release(config);
  }
  if (status == statusOk) {
    WorkerParameters parameters;
    parameters.fields = WorkerParameters::hasThreadMode | WorkerParameters::hasFlags;
    parameters.threadMode = WorkerParameters::serialized;
    parameters.flags = WorkerParameters::ignoreRequestLeak;
    status = ucx_.ucp_worker_create(context_, &parameters, &worker_);
    if (status == statusOk) return;
    what = "its worker";
    ucx_.ucp_cleanup(context_);
  }
  throw NoUcx("UCX " + ucx_.version + ", " + what + ": " + ucx_.ucs_status_string(status));
}

Way::~Way() {
  if (worker_ != nullptr) ucx_.ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucx_.ucp_cleanup(context_);
}

std::string Way::address() const {
  WorkerAddress address = nullptr;
  size_t length = 0;
  const Status status = ucx_.ucp_worker_get_address(worker_, &address, &length);
  if (status != statusOk) throw NoUcx(std::string("UCX has no address: ") + ucx_.ucs_status_string(status));
  std::string bytes(reinterpret_cast<const char*>(address), length);
  ucx_.ucp_worker_release_address(worker_, address);
  return bytes;
}

}  // namespace tandem::ucx

// The cuda backend as the addon sees it: a library beside the addon, opened when somebody asks for it. Without it, or without
// a GPU, everything else works.
#include "cuda-library.h"

#include <dlfcn.h>
#include <stdlib.h>

#include <string>

namespace tandem {

namespace {

struct Loaded {
  const Backend* backend = nullptr;
  std::string missing;
};

/** Empty where nothing is known of the sources. */
std::string& expectedSources() {
  static std::string digest;
  return digest;
}

/** What builds the library, from wherever one stands; an addon may have been brought without it. `folder` is the addon's. */
std::string builtBy(const std::string& folder, const std::string& anew = "") {
  const std::string script = folder + "../../cuda/build.js";
  char* const found = realpath(script.c_str(), nullptr);
  if (found == nullptr) return "native/cuda/build.js of tandem's sources, which are not here, builds it" + anew;
  const std::string whole = found;
  free(found);
  return "\"node " + whole + "\" builds it" + anew + " where nvcc is";
}

/** Why what was opened is not the library of this addon's sources; empty where it is. */
std::string mismatch(void* library, const std::string& folder, const std::string& path) {
  const std::string remedy = "; " + builtBy(folder, " anew");
  const auto sources = reinterpret_cast<const char* (*)()>(dlsym(library, "tandemCudaSources"));
  if (sources == nullptr || dlsym(library, "tandemCudaBackend") == nullptr) {
    return "the library of the cuda backend is of another version (" + path + ")" + remedy;
  }
  if (!expectedSources().empty() && sources() != expectedSources()) {
    return "the library of the cuda backend was built from other sources than those that lie here (" + path + ")" + remedy;
  }
  return "";
}

/** Looks in the folder of the binary that this function is in. */
const Loaded& loaded() {
  static const Loaded instance = [] {
    Loaded found;
    Dl_info own{};
    std::string folder;
    if (dladdr(reinterpret_cast<const void*>(&cudaBackend), &own) != 0 && own.dli_fname != nullptr) {
      const std::string path = own.dli_fname;
      folder = path.substr(0, path.find_last_of('/') + 1);
    }
    const std::string path = folder + "libtandem_cuda.so";
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      const char* const reason = dlerror();
      found.missing = "the library of the cuda backend; " + builtBy(folder) + " (" +
                      std::string(reason == nullptr ? "not found" : reason) + ")";
      return found;
    }
    found.missing = mismatch(library, folder, path);
    // Nothing of another library is called: what it takes and gives may lie otherwise in memory.
    if (found.missing.empty()) {
      found.backend = reinterpret_cast<const Backend* (*)()>(dlsym(library, "tandemCudaBackend"))();
    }
    return found;
  }();
  return instance;
}

Backend::Availability probe() {
  if (loaded().backend != nullptr) return loaded().backend->probe();
  return {false, {}, {}, {loaded().missing}};
}

std::vector<std::string> kernels() {
  return loaded().backend == nullptr ? std::vector<std::string>() : loaded().backend->kernels();
}

std::unique_ptr<Machine> open(const MachineOptions& options) {
  const Backend::Availability found = probe();
  if (found.available) return loaded().backend->open(options);
  throw std::runtime_error("the cuda backend is not available: " +
                           (found.missing.empty() ? std::string("no reason given") : found.missing[0]));
}

}  // namespace

void expectCudaSources(const std::string& digest) { expectedSources() = digest; }

Backend cudaBackend() { return {"cuda", "NVIDIA GPUs: streams, own kernels, cuBLASLt", probe, kernels, open}; }

}  // namespace tandem

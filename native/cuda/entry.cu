// What the addon finds in this library: one function, and through it whether there is a GPU and how to use it.
#include "attention.h"
#include "cublaslt.h"
#include "cudnn.h"
#include "graphs.h"
#include "kernels.h"
#include "machine.h"
#include "message.h"
#include "nccl.h"
#include "remote.h"
#include "stream.h"

namespace tandem::cuda {

namespace {

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

/** Whose attention computes, and whose could. */
std::string attention() {
  const std::string there = cudnnMissing().empty() ? "cuDNN " + cudnnVersion() + " (" + cudnnPath() + ")" : "";
  try {
    if (attentionByCudnn()) {
      return "attention by " + (there.empty() ? "cuDNN, which is missing" : there) + ", as TANDEM_CUDA_ATTENTION says";
    }
  } catch (const BadCall& bad) {
    return bad.what();
  }
  return "attention by own kernels" + (there.empty() ? "" : "; by " + there + " with TANDEM_CUDA_ATTENTION=cudnn");
}

Backend::Availability probe() {
  Backend::Availability found;
  int devices = 0;
  int driver = 0;
  int runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const auto tellLibraries = [&] {
    if (const std::string lt = ltMissing(); !lt.empty()) found.missing.push_back(lt);
    if (const std::string nccl = ncclMissing(); !nccl.empty()) found.missing.push_back(nccl);
    if (const std::string cudnn = cudnnMissing(); !cudnn.empty()) found.missing.push_back(cudnn);
  };
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    cudaGetLastError();
    found.available = false;
    found.missing.push_back(driver == 0
                                ? "no CUDA driver (libcuda.so.1); install that of the GPU's maker"
                                : "no GPU that CUDA can use: " + std::string(cudaGetErrorString(status)) + " (the driver has CUDA " +
                                      version(driver) + ", this build " + version(runtime) + ")");
    tellLibraries();
    return found;
  }
  for (int device = 0; device < devices; device++) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) continue;
    found.devices.push_back(std::string(properties.name) + ", sm_" + std::to_string(properties.major) +
                            std::to_string(properties.minor) + ", " + std::to_string(properties.totalGlobalMem >> 20) +
                            " MiB, driver CUDA " + version(driver));
  }
  tellLibraries();
  if (ncclMissing().empty()) found.uses.push_back("NCCL " + ncclVersion() + " between processes");
  if (!lanesHavePriority()) found.uses.push_back("all lanes at one priority (TANDEM_CUDA_PRIORITY=0)");
  if (!narrowSumsByNccl()) found.uses.push_back("16-bit sums of several processes by own kernels (TANDEM_CUDA_NCCL_SUMS=0)");
  if (!worthPieces(0, 0)) found.uses.push_back("messages of several tensors packed for NCCL (TANDEM_CUDA_PIECES=0)");
  found.uses.push_back(attention());
  found.uses.push_back("float32 products without TF32, where nobody asks for it");
  found.uses.push_back(graphsWished() ? "CUDA graphs for ops that come again, but where times of ops are recorded; none with "
                                        "TANDEM_CUDA_GRAPHS=0"
                                      : "no CUDA graphs (TANDEM_CUDA_GRAPHS=0)");
  return found;
}

std::unique_ptr<Machine> openAsAsked(const MachineOptions& options) {
  if (attentionByCudnn() && !cudnnMissing().empty()) {
    throw std::runtime_error("TANDEM_CUDA_ATTENTION=cudnn, and there is no " + cudnnMissing());
  }
  return open(options);
}

}  // namespace

}  // namespace tandem::cuda

extern "C" __attribute__((visibility("default"))) const tandem::Backend* tandemCudaBackend() {
  static const tandem::Backend backend = {"cuda", "NVIDIA GPUs: streams, own kernels, cuBLASLt", tandem::cuda::probe,
                                          tandem::cuda::kernelNames, tandem::cuda::openAsAsked};
  return &backend;
}

/** The digest of what this library is built from (native/sources.cjs). */
extern "C" __attribute__((visibility("default"))) const char* tandemCudaSources() { return TANDEM_CUDA_SOURCES; }

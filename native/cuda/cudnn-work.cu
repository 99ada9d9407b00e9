// Attention by cuDNN, where TANDEM_CUDA_ATTENTION asks for it: from a call of ours to a plan of cuDNN's.
#include <cstdlib>

#include "attention.h"
#include "cudnn-attention.h"

namespace tandem::cuda {

namespace {

/** "2 sequences of 150 queries and 200 keys, ...": what an error says of a call. */
std::string told(const Attention& a) {
  return std::to_string(a.batch) + " sequences of " + std::to_string(a.time) + " queries and " + std::to_string(a.context) + " keys, " +
         std::to_string(a.heads) + " heads on " + std::to_string(a.kvHeads) + ", " + std::to_string(a.headWidth) + " wide, of " +
         nameOf(a.q.view.dtype) + (a.causal ? ", causal" : "");
}

/** Throws Refusal unless all are of one 16-bit dtype. */
cudnn::Type typeOf(const std::vector<const Heads*>& tensors) {
  const Dtype dtype = tensors.front()->view.dtype;
  for (const Heads* one : tensors) {
    if (one->view.dtype != dtype) {
      throw cudnn::Refusal(std::string("tensors of ") + nameOf(dtype) + " and " + nameOf(one->view.dtype) + "; expected one dtype");
    }
  }
  if (dtype == Dtype::bfloat16) return cudnn::Type::bfloat16;
  if (dtype == Dtype::float16) return cudnn::Type::float16;
  throw cudnn::Refusal(std::string("tensors of ") + nameOf(dtype) + "; expected bfloat16 or float16");
}

}  // namespace

bool attentionByCudnn() {
  const char* wish = std::getenv("TANDEM_CUDA_ATTENTION");
  const std::string said = wish == nullptr ? "" : wish;
  if (said == "cudnn") return true;
  if (said.empty() || said == "own") return false;
  throw BadCall("TANDEM_CUDA_ATTENTION: \"" + said + "\"; expected \"own\" or \"cudnn\"");
}

Work cudnnAttention(const Attention& a, bool backward, const std::string& kernel) {
  try {
    std::vector<const Heads*> tensors = {&a.q, &a.k, &a.v, &a.out};
    if (backward) tensors.insert(tensors.end(), {&a.dout, &a.dq, &a.dk, &a.dv});
    if (!isFloat32(a.lse)) throw cudnn::Refusal(std::string("a log-sum-exp of ") + nameOf(a.lse.dtype) + "; expected float32");
    cudnn::AttentionShape shape{backward,  typeOf(tensors), a.batch,  a.time,  a.context, a.heads,
                                a.kvHeads, a.headWidth,     a.causal, a.scale, {}};
    cudnn::AttentionMemory memory{{}, a.lse.data};
    for (size_t i = 0; i < tensors.size(); i++) {
      shape.strides[i] = tensors[i]->stride;
      memory.tensors[i] = tensors[i]->view.data;
    }
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    const auto plan = cudnn::AttentionPlan::of(device, shape);
    return [plan, memory](const Launch& launch) {
      const Scratch workspace(launch, plan->workspaceBytes());
      plan->run(launch.stream, memory, workspace.as<void>());
    };
  } catch (const cudnn::Refusal& refusal) {
    const std::string version = cudnnVersion();
    throw BadCall(kernel + ": TANDEM_CUDA_ATTENTION=cudnn, and cuDNN" + (version.empty() ? "" : " " + version) + " does not take " +
                  told(a) + ": " + refusal.what());
  }
}

}  // namespace tandem::cuda

// The ways to compute attention, each of which takes calls of some kinds.
#pragma once

#include "kernels.h"

#include "attention-operands.h"

namespace tandem::cuda {

/** On tensor cores: all tensors of one 16-bit dtype, heads 64 or 128 wide. False when the call is not of that kind. */
bool flashForward(const Attention& a, Work& work);
bool flashBackward(const Attention& a, Work& work);

/** dq, dk and dv, given dout . out of each row. */
using Gradients = std::function<void(cudaStream_t stream, const float* delta)>;

/** In tiles on the ordinary cores, in float32: any dtypes, heads up to 128 wide. False, and none, when the call is not of that kind. */
bool tiledForward(const Attention& a, Work& work);
Gradients tiledGradients(const Attention& a);

/** Calls that flash takes, on wgmma; false, and none, where the device or the build has it not. */
bool hopperForward(const Attention& a, Work& work);
Gradients hopperGradients(const Attention& a);

/** Whether TANDEM_CUDA_ATTENTION asks for cuDNN's attention, not for own kernels. Throws BadCall for a value that it does not have. */
bool attentionByCudnn();
/** The call by cuDNN's kernels; throws BadCall, with the version and the call, where there is no cuDNN or it does not take it. */
Work cudnnAttention(const Attention& a, bool backward, const std::string& kernel);

}  // namespace tandem::cuda

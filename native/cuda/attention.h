// What the two ways to compute attention share: how a call looks, and where its tensors lie.
#pragma once

#include "kernels.h"

namespace tandem::cuda {

/** One of q, k, v or their gradients: head h of token t begins at element t * stride + h * headWidth. */
struct Heads {
  View view;
  int64_t stride;

  __host__ __device__ View at(int64_t token, int64_t head, int64_t headWidth) const {
    return view.at(token * stride + head * headWidth);
  }
};

struct Attention {
  int64_t batch, time, context, heads, kvHeads, headWidth;
  bool causal;
  float scale;
  Heads q, k, v;
  /** Forward: written. Backward: read. */
  Heads out;
  View lse;
  /** Backward only. */
  Heads dout, dq, dk, dv;

  __host__ __device__ int64_t kvHead(int64_t head) const { return head / (heads / kvHeads); }
  /** How many keys query t sees. */
  __host__ __device__ int64_t visible(int64_t t) const { return causal ? context - time + t + 1 : context; }
};

/** On tensor cores: all tensors of one 16-bit dtype, heads 64 or 128 wide. False when the call is not of that kind. */
bool flashForward(const Attention& a, Work& work);
bool flashBackward(const Attention& a, Work& work);

/** The same calls on wgmma; false, and none, where the device or the build has it not. */
bool hopperForward(const Attention& a, Work& work);
/** dq, dk and dv, given dout . out of each row. */
using Gradients = std::function<void(cudaStream_t stream, const float* delta)>;
Gradients hopperGradients(const Attention& a);

}  // namespace tandem::cuda

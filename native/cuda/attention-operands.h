// Where the tensors of one attention lie. Includes nothing of CUDA's, for native/test/tiles runs tiles on a processor: whoever includes it
// has tensors (values.cuh) before.
#pragma once

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

}  // namespace tandem::cuda

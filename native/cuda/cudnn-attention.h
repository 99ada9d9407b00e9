// Attention as a graph of cuDNN's: the one that cuDNN knows as flash attention and fuses into a kernel of its own. Prepared once for
// each shape and device. Knows no tensors of ours.
#pragma once

#include "cudnn.h"

namespace tandem::cuda::cudnn {

/** What a plan depends on. Head h of token t of sequence b begins at element (b * tokens + t) * stride + h * headWidth. */
struct AttentionShape {
  bool backward;
  /** Type::bfloat16 or Type::float16, of everything but the log-sum-exp. */
  Type type;
  int64_t batch, time, context, heads, kvHeads, headWidth;
  /** Query t sees the first context - time + t + 1 keys. */
  bool causal;
  /** What scores are multiplied by. */
  float scale;
  /** q, k, v, out; backward also dout, dq, dk, dv. */
  std::array<int64_t, 8> strides;
};

/** In the order of `AttentionShape::strides`. Forward: out and lse are written. Backward: dq, dk and dv are. */
struct AttentionMemory {
  std::array<void*, 8> tensors;
  /** float32 [batch, heads, time]: the natural logarithm of each row's sum of exponentials of scaled scores. */
  void* lse;
};

/** Whether this cuDNN has gradients of so many keys: before 9.15.1 of multiples of 128 alone. */
bool hasGradients(int64_t keys);

class AttentionPlan {
 public:
  /** Made at the first call of that shape on that device, which is the current one. From any thread. Throws Refusal. */
  static std::shared_ptr<const AttentionPlan> of(int device, const AttentionShape& shape);

  AttentionPlan(Context& context, const AttentionShape& shape);

  /** Of memory at a multiple of 256 bytes. */
  size_t workspaceBytes() const { return ownBytes_ + plan_->workspaceBytes(); }
  void run(void* stream, const AttentionMemory& memory, void* workspace) const;

 private:
  void buildForward(Graph& graph, const AttentionShape& shape);
  void buildBackward(Graph& graph, const AttentionShape& shape);

  const bool backward_;
  /** The workspace begins with sums of dq in float32, which take so many bytes, */
  size_t sumsBytes_ = 0;
  /** and dout . out of each row: both together. cuDNN's own part follows. */
  size_t ownBytes_ = 0;
  std::shared_ptr<const Plan> plan_;
};

}  // namespace tandem::cuda::cudnn

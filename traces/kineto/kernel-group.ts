// A kernel's family from its name, for traces that say nothing better of where a kernel comes from.
const families: ReadonlyArray<readonly [RegExp, string]> = [
  [/memcpy/iu, "memcpy"],
  [/memset/iu, "memset"],
  [/multi_tensor_apply|fused_?adam|adamw?_|lamb|sgd_/iu, "optimizer"],
  [/flash|fmha|sdpa|attention|attn/iu, "attention"],
  [/conv|implicit|winograd|wgrad|dgrad|fprop/iu, "convolution"],
  [/gemm|gemv|nvjet|cutlass|xmma|cublas|splitkreduce/iu, "gemm"],
  [/softmax/iu, "softmax"],
  [/layer_?norm|rms_?norm|batch_?norm|bn_|group_?norm|welford/iu, "normalization"],
  [/loss/iu, "loss"],
  [/embedding|gather|scatter|index/iu, "indexing"],
  [/dropout/iu, "dropout"],
  [/pool/iu, "pooling"],
  [/sort|topk|scan/iu, "sorting"],
  [/reduce/iu, "reduction"],
  [/triton/iu, "triton"],
  [/elementwise|copy|fill|cat|arange/iu, "elementwise"]
]

/** "gemm", "attention", "elementwise", ...; "other" for what no family knows. */
export const kernelGroup = (name: string): string => {
  for (const [pattern, family] of families) if (pattern.test(name)) return family
  return "other"
}

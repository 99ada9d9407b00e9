// Which device work communicates: by its name, by the stream it runs on, by the call that launched it. Knows nothing of
// steps or layers.
import type { HostTree } from "./host-tree.ts"
import type { KinetoTrace } from "./trace.ts"

/**
 * Kernels of libraries that only communicate, and all-reduces that frameworks wrote themselves. nccl, rccl, msccl(pp),
 * hccl, oneccl; NVSHMEM; DeepEP, whatever its outer namespace; one- and two-shot, multimem and NVLS all-reduces of
 * PyTorch's symmetric memory, vLLM, SGLang, TensorRT-LLM, flashinfer and aiter; userbuffers of Transformer Engine; pplx.
 */
const communicates =
  /[nrh]ccl|mscclpp|msccl|oneccl|xccl|nvshmem|rocshmem|deep_?ep|(?:^|[^a-z0-9_])ep::|\b(?:intra|inter)node(?:_ll)?::|cross_device_reduce|multimem|nvls|lamport|(?<!(?:warp|block|cta|wave|thread)s?_?)all_?reduce|all_?gather_?(?:into|base|kernel|_|$|<|\()|reduce_?scatter|all_?to_?all|all2all|userbuffers|symm_?mem|memcpy ptop|quick_?reduce|pplx::/iu

/** Generated kernels are named for the ops they fuse, one of which may be a collective; PyTorch's own never communicate. */
const computes =
  /^triton_|at::native|cutlass::(?:device_)?kernel|cutlass_\d|cublas|cudnn|xmma_gemm|multi_tensor_apply|^memset|^memcpy (?:htod|dtoh|dtod|htoh)/iu

/** Names that sound of it, where nothing else says so. */
const suspicious =
  /(?:^|[^a-z])(?:comm|comms|rdma|ibgda|ib_put|p2p|peer|a2a|send|recv|sendrecv|exchange|allto|dispatch|combine|barrier|put_signal|signal_wait|wait_signal|gemm_rs|ag_gemm|allgather_gemm)(?:[^a-z]|$)/iu
const innocent =
  /^triton_|at::native|^mem(?:cpy|set)|flash|fmha|splitkv|attention|attn|(?:group|batch|instance|layer)_?norm|softmax|scan|topk|sort/iu
const copies = /^mem(?:cpy|set)/iu
/** Share of a stream's time that must be known to communicate before the rest of it is taken to. */
const onlyCommunicates = 0.9

/** A kernel's name without what a template or a function is given. */
export const withoutArguments = (name: string): string => {
  let plain = name
    .replaceAll("(anonymous namespace)", "")
    .replaceAll(/\((?:Device|Host|Pinned|Pageable)[^)]*\)/gu, "")
  for (let inner = ""; inner !== plain;) {
    inner = plain
    plain = plain.replaceAll(/<[^<>]*>|\([^()]*\)/gu, "")
  }
  return plain
}

interface Communication {
  /** 1 for what communicates, by position in the list of kernels given. */
  readonly is: Uint8Array
  /** 1 for what computes: neither that, nor a copy or fill, nor on a stream that communicates. */
  readonly computes: Uint8Array
  /** Names that may communicate and were taken for compute, with their time in microseconds, largest first. */
  readonly suspects: ReadonlyArray<{ readonly name: string; readonly microseconds: number }>
}

/** `rows`: the host row that launched each kernel, -1 for none. */
export const findCommunication = (
  trace: KinetoTrace,
  tree: HostTree,
  kernels: Int32Array,
  rows: Int32Array
): Communication => {
  const { texts } = trace.names
  const { name, start, end, stream } = trace.device
  const isComputing = new Map<number, boolean>()
  const isNamed = new Map<number, boolean>()
  const named = (code: number): boolean => {
    let known = isNamed.get(code)
    if (known === undefined) {
      // What a template or a function is given says what it works on, not what it does.
      const text = withoutArguments(texts[code]!)
      isComputing.set(code, computes.test(text))
      isNamed.set(code, (known = communicates.test(text) && !isComputing.get(code)!))
    }
    return known
  }
  const is = new Uint8Array(kernels.length)
  const streams = new Map<number, { communication: number; all: number }>()
  for (const [index, kernel] of kernels.entries()) {
    const code = name.values[kernel]!
    const own = named(code)
    const launched =
      !own && !isComputing.get(code)! && rows[index]! >= 0 && calledToCommunicate(trace, tree, rows[index]!)
    if (own || launched || trace.deviceCollectives.has(kernel)) is[index] = 1
    const length = end.values[kernel]! - start.values[kernel]!
    const line = streams.get(stream.values[kernel]!)
    if (line === undefined)
      streams.set(stream.values[kernel]!, { communication: is[index]! * length, all: length })
    else {
      line.all += length
      line.communication += is[index]! * length
    }
  }
  // The stream of the model is none, even where links are so slow that it does little else. On one that communicates,
  // other work may run too: it runs, by the same name, elsewhere as well.
  const main = [...streams].toSorted(
    (a, b) => b[1].all - b[1].communication - (a[1].all - a[1].communication)
  )[0]?.[0]
  const isCommunicationStream = (id: number): boolean => {
    const { communication, all } = streams.get(id)!
    return id !== main && communication > all * onlyCommunicates
  }
  const elsewhere = new Set<number>()
  for (const kernel of kernels) {
    if (!isCommunicationStream(stream.values[kernel]!)) elsewhere.add(name.values[kernel]!)
  }
  const isCopy = texts.map((text) => copies.test(text))
  /** By name: 1 for what sounds of communication, -1 for what does not, 0 where nobody asked. */
  const sounds = new Int8Array(texts.length)
  const isSuspect = (code: number): boolean =>
    (sounds[code] ||= suspicious.test(texts[code]!) && !innocent.test(texts[code]!) ? 1 : -1) > 0
  const suspects = new Map<string, number>()
  const other = new Uint8Array(kernels.length)
  for (const [index, kernel] of kernels.entries()) {
    if (is[index] === 1) continue
    const code = name.values[kernel]!
    if (!isCommunicationStream(stream.values[kernel]!) && isCopy[code] !== true) other[index] = 1
    if (!isComputing.get(code)! && isCommunicationStream(stream.values[kernel]!) && !elsewhere.has(code))
      is[index] = 1
    else if (isSuspect(code)) {
      const length = end.values[kernel]! - start.values[kernel]!
      suspects.set(texts[code]!, (suspects.get(texts[code]!) ?? 0) + length)
    }
  }
  return {
    is,
    computes: other,
    suspects: [...suspects]
      .map(([suspect, microseconds]) => ({ name: suspect, microseconds }))
      .toSorted((a, b) => b.microseconds - a.microseconds)
  }
}

/** Whether a host row runs inside a record of a collective. */
const calledToCommunicate = (trace: KinetoTrace, tree: HostTree, row: number): boolean => {
  for (let at = row; at >= 0; at = tree.parent[at]!) {
    if (trace.hostCollectives.has(at) || tree.isCollectiveCall(at)) return true
  }
  return false
}

// What the host spends on a rank's behalf: launches, calls of collectives with the hooks that lead to them, reads that wait for the
// device, replays of captured graphs. A lane of its own: ops are launched one after another, and none starts before it was
// launched. Knows no machine.
import type { KernelName } from "../kernels/catalogue.ts"
import type { Op } from "../machine/op.ts"

/** How a program's kernels reach the device: each by a Python call of its own, by generated code, or captured and replayed. */
export type LaunchMode = "eager" | "compiled" | "graph"

/** Seconds of the host's one thread. */
export interface HostCosts {
  /** Undefined where costs are stated without it: each kernel of the catalogue is then launched once. */
  readonly mode?: LaunchMode | undefined
  /** Each kernel or copy; of `graph`, nothing. */
  readonly launchSeconds: number
  /** Each call of a collective. */
  readonly collectiveSeconds: number
  /** Each tensor that a collective carries: the hook that hands it over. */
  readonly hookSeconds: number
  /** Each read whose value the program waits for, from the device's end of it. */
  readonly readSeconds: number
  /** Each replay of a captured graph: what is launched after a step's begin or a read, up to the next. */
  readonly replaySeconds: number
  /** Whether copies that are needed now are waited for before anything more is launched. Default: in eager mode. */
  readonly waitsForCopies?: boolean | undefined
  /** Whether each step ends with a read of something that it computed, as `loss.item()` is: nothing is launched before that. */
  readonly readsEachStep?: boolean | undefined
}

/** What of a host was measured, from a trace or by a benchmark. */
export interface MeasuredHost {
  readonly mode: LaunchMode
  readonly launchSeconds?: number
  readonly collectiveSeconds?: number
  readonly hookSeconds?: number
  readonly readSeconds?: number
  readonly replaySeconds?: number
  /** Of a program that reads several times a step: launches between two reads, copies to the device aside. */
  readonly launchesPerRead?: number
  readonly waitsForCopies?: boolean
}

/**
 * Orders of magnitude of PyTorch on a server of today, to begin with; an estimate, and told as one. `eager`: a Python call, dispatch
 * and a launch for each kernel. `compiled`: a launch alone. `graph`: kernels of a step replayed at once, collectives included.
 */
export const usualHosts = {
  eager: {
    mode: "eager",
    launchSeconds: 25e-6,
    collectiveSeconds: 100e-6,
    hookSeconds: 40e-6,
    readSeconds: 20e-6,
    replaySeconds: 0
  },
  compiled: {
    mode: "compiled",
    launchSeconds: 5e-6,
    collectiveSeconds: 100e-6,
    hookSeconds: 40e-6,
    readSeconds: 20e-6,
    replaySeconds: 0
  },
  graph: {
    mode: "graph",
    launchSeconds: 0,
    collectiveSeconds: 0,
    hookSeconds: 0,
    readSeconds: 20e-6,
    replaySeconds: 15e-6
  }
} as const satisfies Readonly<Record<LaunchMode, HostCosts>>

/**
 * Kernels that eager PyTorch launches for one of the catalogue, where they are more than one, as counted in traces of Hugging Face's
 * Llama and Mixtral in bfloat16 (PyTorch 2.11): an RMS norm is pow, mean, add, rsqrt and two products; rope is neg, cat, two
 * products and a sum. Of backward passes (about twice as many), of the cache (`kv.*`) and of a list of experts no trace was counted kernel by
 * kernel: those are assumed.
 */
const eagerLaunches: Partial<Readonly<Record<KernelName, number>>> = {
  "rms_norm.forward": 6,
  "rms_norm.backward_input": 12,
  "rope.forward": 5,
  "rope.rows": 5,
  "rope.backward": 10,
  "swiglu.forward": 2,
  "swiglu.backward": 4,
  "attention.forward": 2,
  "attention.backward": 3,
  "kv.append": 2,
  "kv.attention": 3,
  // To float32, softmax, two of topk, a sum and a division.
  "topk_gate.forward": 6,
  "topk_gate.backward": 8,
  // Three products, an activation and a product of the two.
  "expert_ffn.forward": 5,
  // By the gate's weight, and added where the token is.
  "moe_combine.forward": 2
}

/** Launches of eager PyTorch for a kernel of the catalogue. */
export const eagerCountOf = (name: string): number => eagerLaunches[name as KernelName] ?? 1

/** Seconds of the host for one launch of `op`; a layer of a profile has the host's time in its span. */
export const hostSecondsOf = (
  { mode, launchSeconds, collectiveSeconds, hookSeconds }: HostCosts,
  { kernel, group, reads, carries }: Pick<Op, "kernel" | "group" | "reads" | "carries">
): number => {
  // Nobody calls for what carries nothing to nobody.
  if (group !== undefined && carries === 0 && group.ranks.length === 1) return 0
  if (group !== undefined) return collectiveSeconds + hookSeconds * (carries ?? reads.length)
  if (kernel.name === "profiled" || kernel.name === "barrier" || carries === 0) return 0
  return mode === "eager" ? launchSeconds * eagerCountOf(kernel.name) : launchSeconds
}

/** Seconds of the host for a layer that was described by its kernels. */
export const layerHostSeconds = (
  { mode, launchSeconds }: HostCosts,
  { eager, once }: { readonly eager: number; readonly once: number }
): number => launchSeconds * (mode === "eager" ? eager : once)

/**
 * Share of the host's time in a profiled layer's span that is left: the profile was recorded of an eager program. The half of
 * `compiled` is assumed, not measured: fewer launches, each without Python, but guards and calls between graphs stay.
 */
export const layerShare = ({ mode = "eager" }: HostCosts): number =>
  ({ eager: 1, compiled: 0.5, graph: 0 })[mode]

/**
 * Whether the host launches nothing more until `op` has ended: loops in eager mode copy what they need on a stream of its own, and
 * synchronise with it (`test/expert-offload/measured-loop.test.ts`: a measured step is the sum of its copies and its launches).
 */
export const waitsFor = (
  { mode, waitsForCopies = mode === "eager" }: HostCosts,
  { onDemand }: Pick<Op, "onDemand">
): boolean => waitsForCopies && onDemand === true

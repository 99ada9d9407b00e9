// One asynchronous unit of work: a kernel launch, a copy or a collective, with the tensors it reads and writes.
// An op says nothing of when it runs: edges come from dependencies.ts, time from the machine.
import type { Attributes, Kernel } from "../kernels/kernel.ts"
import { attributesAt, type Scalars } from "../kernels/scalars.ts"
import type { Group } from "../world.ts"
import { dtypeBits, type Dtype, type Role, type Tensor, type TensorData } from "./tensor.ts"
import type { Lane } from "./lane.ts"

/**
 * Immutable, and meant to be built once and submitted every step: machines may cache what an op costs under its identity.
 */
export interface Op {
  /** What a person sees in a timeline: "forward h.3.mlp", "all-reduce bucket 2". Code looks at the role. */
  readonly label: string
  /** What the op is in its program, as data: {kind: "dispatch", layer: 2, chunk: 0}. Machines pass it on; files do not keep it. */
  readonly role?: Role | undefined
  readonly kernel: Kernel
  readonly attributes: Attributes
  readonly lane: Lane
  readonly reads: ReadonlyArray<Tensor>
  readonly writes: ReadonlyArray<Tensor>
  /** The ranks that take part; for collectives only. */
  readonly group: Group | undefined
  /** Bytes one rank puts in: of what a collective sends, a copy moves, or all inputs of a kernel. */
  readonly sizeBytes: number
  /** A copy that the program found it needs at this moment: where the host is modelled, one of eager mode waits for its end. */
  readonly onDemand?: true
  /**
   * Tensors of the program that a collective carries, where they lie in fewer flat ones; 0 where these lie as they travel, and no hook
   * hands them over. Default: as many as it reads. Of a launch that the hook makes which hands them over: 0, for the hook's time on
   * the host has it.
   */
  readonly carries?: number | undefined
}

/** The op of one launch, its scalars among its attributes: what a reference computes, or a cost that follows them. */
export const launchedWith = (op: Op, scalars: Scalars | undefined): Op =>
  scalars === undefined ? op : { ...op, attributes: attributesAt(op.kernel, op.attributes, scalars) }

/** Position of an op in its rank's program order, from 0. */
export type OpId = number

/** An op of one rank alone whose values are computed: the launch's scalars are among its attributes. */
export interface ComputedOp {
  readonly rank: number
  readonly id: OpId
  readonly op: Op
  /** Of the tensors that it reads, and of those that it writes, in their order. */
  readonly inputData: ReadonlyArray<TensorData>
  readonly outputData: ReadonlyArray<TensorData>
  /** What a tensor of its rank holds now. */
  readonly valuesOf: (tensor: Tensor) => TensorData
}

/**
 * Hears of an op while its inputs are there; what it returns is called when its results are, before anything reads them: it may put
 * others in their place.
 */
export type OnOp = (computed: ComputedOp) => (() => void) | undefined

const bytesOf = (tensors: ReadonlyArray<Tensor>): number => {
  let sizeBytes = 0
  for (const tensor of tensors) sizeBytes += tensor.sizeBytes
  return sizeBytes
}

/** A kernel or copy on one rank. */
export const launch = (
  label: string,
  kernel: Kernel,
  lane: Lane,
  reads: ReadonlyArray<Tensor>,
  writes: ReadonlyArray<Tensor>,
  attributes: Attributes = {},
  role?: Role
): Op => ({
  label,
  kernel,
  attributes,
  lane,
  reads,
  writes,
  group: undefined,
  sizeBytes: bytesOf(reads),
  ...(role === undefined ? {} : { role })
})

/**
 * A collective over `group`. Several tensors travel as one message (a DDP bucket). With `wire`, values are rounded to
 * that dtype for the journey (bf16 gradients, FP4 pseudo-gradients), and `sizeBytes` counts the rounded bytes.
 */
export const collective = (
  label: string,
  kernel: Kernel,
  lane: Lane,
  group: Group,
  reads: ReadonlyArray<Tensor>,
  writes: ReadonlyArray<Tensor>,
  options: {
    readonly attributes?: Attributes
    readonly wire?: Dtype
    readonly carries?: number
    readonly role?: Role
  } = {}
): Op => {
  const { wire, attributes = {}, carries, role } = options
  // The destination of a point-to-point message puts nothing in: there it is what comes out.
  const message = reads.length > 0 ? reads : writes
  let sizeBytes = bytesOf(message)
  if (wire !== undefined) {
    let elements = 0
    for (const tensor of message) elements += tensor.elements
    sizeBytes = Math.ceil((elements * dtypeBits[wire]) / 8)
  }
  return {
    label,
    kernel,
    attributes: wire === undefined ? attributes : { ...attributes, wire },
    lane,
    reads,
    writes,
    group,
    sizeBytes,
    ...(carries === undefined ? {} : { carries }),
    ...(role === undefined ? {} : { role })
  }
}

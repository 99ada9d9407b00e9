// Who called what on the host: nesting of events by time, thread by thread. Knows nothing of layers or devices.
import { sortedRows } from "./by-id.ts"
import { Host, type KinetoTrace } from "./trace.ts"

const optimizerName = /^Optimizer\./u
const stepName = /^ProfilerStep/u
const nodeName = /^autograd::engine::evaluate_function: /u
const bareNodeName = /Backward\d*$/u
const lossName = /loss|cross_entropy/iu
// Annotations PyTorch itself makes around things that are no part of a model.
const machineryName =
  /^(?:\[memory\]|Torch-Compiled Region|TorchDynamo|CompiledFunction|## Call CompiledFxGraph|Inductor|ProfilerStep|Optimizer\.|PyTorch Profiler|DataParallel|DistributedDataParallel\.|FullyShardedDataParallel\.|FSDP::|enumerate\(DataLoader|nccl:|gloo:|c10d::|torch\.distributed|record_param_comms|autograd::)/u

const collectiveCall = /^(?:record_param_comms|nccl:|rccl:|hccl:|c10d::|_?c10d_functional::|deep_ep|DeepEP)/u
const phaseWord =
  /^(?:forward|fwd|backward|bwd|back|prop|propagation|optimizer|optim|opt|step|steps|zero|grad|grads|gradient|gradients|clip|norm|train|training|eval|evaluate|evaluation|val|validate|validation|test|testing|inference|infer|predict|iteration|iter|epoch|batch|minibatch|microbatch|micro|run|main|loop|pass|phase|stage|update|compute|model|network|net|data|load|loading|loader|fetch|get|to|device|gpu|h|d|prefill|decode|generate|generation|pl|profile|strategy|sync|and|the|a|of|all|whole|full|total|warmup|active|region|user|pipeline|schedule|fb|f|b|\d+)$/u

/** "## forward ##", "train_step", "[pl][profile]run_training_batch", "backward pass 3": a phase of a step, no part of a model. */
const isPhaseName = (name: string): boolean => {
  const words = name
    .replace(/([a-z])([A-Z])/gu, "$1 $2")
    .toLowerCase()
    .split(/[^a-z0-9]+/u)
    .filter((word) => word !== "")
  return words.every((word) => phaseWord.test(word))
}

/** Up to so many annotations are phases where more than `fewOps` ops have backward nodes. */
const fewAnnotations = 2
const fewOps = 16

/** What the layers of a trace are made of. */
type FrameKind = "modules" | "annotations" | "ops" | "none"

/** The host events of a trace as a forest. Rows are those of `trace.host`. */
export class HostTree {
  readonly trace: KinetoTrace
  /** Enclosing event on the same thread, -1 at the top. */
  readonly parent: Int32Array
  /** All rows by thread, then by start, parents before children. */
  readonly order: Int32Array
  /**
   * 1 for the calls that layers are made of: module frames and the user's own annotations; where there are none, the
   * outermost ops whose autograd nodes ran.
   */
  readonly isFrame: Uint8Array
  readonly frames: FrameKind
  /** 1 for what runs inside an autograd node. */
  readonly inBackward: Uint8Array
  readonly #nameFlags: Uint8Array

  constructor(trace: KinetoTrace) {
    this.trace = trace
    const { kind, name, start, end, thread } = trace.host
    const rows = start.length
    const flags = new Uint8Array(trace.names.texts.length)
    for (const [code, text] of trace.names.texts.entries()) {
      flags[code] =
        (optimizerName.test(text) ? 1 : 0) |
        (stepName.test(text) ? 2 : 0) |
        (nodeName.test(text) ? 4 : 0) |
        (bareNodeName.test(text) ? 8 : 0) |
        (lossName.test(text) ? 16 : 0) |
        (machineryName.test(text) || isPhaseName(text) ? 32 : 0) |
        (collectiveCall.test(text) ? 64 : 0)
    }
    this.#nameFlags = flags
    // Of two events with the same extent, the one whose kind is further from the device encloses the other.
    const depth = [2, 0, 1, 3, 0]
    this.order = sortedRows(
      rows,
      (a, b) =>
        thread.values[a]! - thread.values[b]! ||
        start.values[a]! - start.values[b]! ||
        end.values[b]! - end.values[a]! ||
        depth[kind.values[a]!]! - depth[kind.values[b]!]! ||
        a - b
    )
    this.parent = new Int32Array(rows).fill(-1)
    this.isFrame = new Uint8Array(rows)
    this.inBackward = new Uint8Array(rows)
    const stack: Array<number> = []
    const annotations = new Set<number>()
    let modules = 0
    let current = -1
    for (const row of this.order) {
      if (thread.values[row] !== current) {
        current = thread.values[row]!
        stack.length = 0
      }
      while (stack.length > 0 && end.values[stack.at(-1)!]! <= start.values[row]!) stack.pop()
      const parent = stack.at(-1) ?? -1
      this.parent[row] = parent
      const isModule = kind.values[row] === Host.module
      const isAnnotation = kind.values[row] === Host.annotation && (flags[name.values[row]!]! & 32) === 0
      this.isFrame[row] = isModule || isAnnotation ? 1 : 0
      if (isModule) modules++
      if (isAnnotation) annotations.add(name.values[row]!)
      if (this.isNode(row) || (parent >= 0 && this.inBackward[parent] === 1)) this.inBackward[row] = 1
      stack.push(row)
    }
    this.frames = modules > 0 ? "modules" : this.#withoutModules(annotations.size)
  }

  /** Annotations are layers unless there are so few that they can only be phases under names of their own. */
  #withoutModules(annotations: number): FrameKind {
    const { kind } = this.trace.host
    const ran = new Set<number>()
    for (const row of this.order) if (this.isNode(row) && this.sequence(row) >= 0) ran.add(this.sequence(row))
    if (annotations > (ran.size > fewOps ? fewAnnotations : 0)) return "annotations"
    if (ran.size === 0) return annotations > 0 ? "annotations" : "none"
    this.isFrame.fill(0)
    for (const row of this.order) {
      if (kind.values[row] !== Host.op || this.inBackward[row] === 1 || !ran.has(this.sequence(row))) continue
      const parent = this.parent[row]!
      if (parent < 0 || this.frameOf(parent) < 0) this.isFrame[row] = 1
    }
    return "ops"
  }

  name(row: number): string {
    return this.trace.names.texts[this.trace.host.name.values[row]!]!
  }

  start(row: number): number {
    return this.trace.host.start.values[row]!
  }

  end(row: number): number {
    return this.trace.host.end.values[row]!
  }

  sequence(row: number): number {
    return this.trace.host.sequence.values[row]!
  }

  isOptimizer(row: number): boolean {
    return (this.#flags(row) & 1) !== 0
  }

  isStep(row: number): boolean {
    const kind = this.trace.host.kind.values[row]
    return (this.#flags(row) & 2) !== 0 && (kind === Host.annotation || kind === Host.op)
  }

  /** An autograd node being evaluated. Traces of old versions have only the node's own op, the oldest without number. */
  isNode(row: number): boolean {
    const flags = this.#flags(row)
    if ((flags & 4) !== 0) return true
    if ((flags & 8) === 0) return false
    return this.sequence(row) >= 0 || (this.trace.isOld && this.trace.host.kind.values[row] === Host.op)
  }

  /** A call that communicates, whatever it launches: of torch.distributed, or a record of it. */
  isCollectiveCall(row: number): boolean {
    return (this.#flags(row) & 64) !== 0
  }

  /** Marks of steps and phases, and what PyTorch records of itself: no part of a model. */
  isMachinery(row: number): boolean {
    return (this.#flags(row) & (2 | 32)) !== 0
  }

  /** An op whose name says that it computes a loss. */
  isLoss(row: number): boolean {
    return (this.#flags(row) & 16) !== 0
  }

  /** The innermost frame around `row`, itself included; -1 outside all. */
  frameOf(row: number): number {
    let at = row
    while (at >= 0 && this.isFrame[at] === 0) at = this.parent[at]!
    return at
  }

  /** The frame around the frame `row`; -1 outside all. */
  outerFrame(row: number): number {
    const parent = this.parent[row]!
    return parent < 0 ? -1 : this.frameOf(parent)
  }

  #flags(row: number): number {
    return this.#nameFlags[this.trace.host.name.values[row]!]!
  }
}

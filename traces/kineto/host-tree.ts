// Who called what on the host: nesting of events by time, thread by thread. Knows nothing of layers or devices.
import { Host, type KinetoTrace } from "./trace.ts"

const optimizerName = /^Optimizer\./u
const stepName = /^ProfilerStep/u
const nodeName = /^autograd::engine::evaluate_function: /u
const bareNodeName = /Backward\d*$/u
const lossName = /loss|cross_entropy/iu
// Annotations PyTorch itself makes around things that are no part of a model.
const machineryName =
  /^(?:ProfilerStep|Optimizer\.|PyTorch Profiler|DataParallel|DistributedDataParallel\.|FullyShardedDataParallel\.|FSDP::|enumerate\(DataLoader|nccl:|gloo:|c10d::|torch\.distributed|record_param_comms|autograd::)/u

/** The host events of a trace as a forest. Rows are those of `trace.host`. */
export class HostTree {
  readonly trace: KinetoTrace
  /** Enclosing event on the same thread, -1 at the top. */
  readonly parent: Int32Array
  /** All rows by thread, then by start, parents before children. */
  readonly order: Int32Array
  /** 1 for the calls that layers are made of: module frames and the user's own annotations. */
  readonly isFrame: Uint8Array
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
        (machineryName.test(text) ? 32 : 0)
    }
    this.#nameFlags = flags
    this.order = Int32Array.from({ length: rows }, (_, row) => row)
    // Of two events with the same extent, the one whose kind is further from the device encloses the other.
    const depth = [2, 0, 1, 3, 0]
    this.order.sort(
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
      if (this.isNode(row) || (parent >= 0 && this.inBackward[parent] === 1)) this.inBackward[row] = 1
      stack.push(row)
    }
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

  /** An autograd node being evaluated. Traces of old versions have only the node's own op. */
  isNode(row: number): boolean {
    const flags = this.#flags(row)
    return (flags & 4) !== 0 || ((flags & 8) !== 0 && this.sequence(row) >= 0)
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

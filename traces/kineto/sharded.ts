// What PyTorch's FSDP did in a trace, told apart from the model's own work: the units it gathers, and what its hooks launch
// (copies into and out of what travels, casts). Knows its annotations, as both versions make them; nothing of layers or devices.
import type { HostTree } from "./host-tree.ts"
import { countUpTo } from "./ascending.ts"
import { sortedRows } from "./by-id.ts"
import { union, type Interval, type Stretches } from "./intervals.ts"

/** What FSDP2 and the first version annotate of themselves; the latter's forward passes enclose the module's own. */
const own = /^(?:FSDP::|FullyShardedDataParallel\.(?!forward$))/u
const wholeForward = "FullyShardedDataParallel.forward"
const named = /^FSDP::(pre_forward|post_forward)(?: \((.+)\))?$/u
const ofUnit = /^FSDP::[a-z_]+(?: \((.+)\)| for (.+))?$/u

/** The unit that holds what is in no other. */
export const rootUnit = "root"

export class Sharded {
  /** 1 for host rows inside of FSDP's own code. */
  readonly #own: Uint8Array
  readonly #tree: HostTree
  /** Per thread: times at which another unit's forward pass goes on, ascending, and which (undefined: none). */
  readonly #units = new Map<
    number,
    { readonly times: Array<number>; readonly names: Array<string | undefined> }
  >()
  /** Outermost stretches of FSDP's own code, on any thread, ascending and without overlaps. */
  readonly hostIntervals: Stretches

  /** Undefined where nothing in the trace is FSDP's. */
  static of(tree: HostTree): Sharded | undefined {
    const { texts } = tree.trace.names
    return texts.some((text) => own.test(text) || text === wholeForward) ? new Sharded(tree) : undefined
  }

  private constructor(tree: HostTree) {
    this.#tree = tree
    const { texts } = tree.trace.names
    const { name } = tree.trace.host
    const isOwn = texts.map((text) => own.test(text))
    this.#own = new Uint8Array(tree.order.length)
    const outermost: Array<Interval> = []
    for (const row of tree.order) {
      const parent = tree.parent[row]!
      const inside = parent >= 0 && this.#own[parent] === 1
      if (!inside && isOwn[name.values[row]!] === true)
        outermost.push({ start: tree.start(row), end: tree.end(row) })
      if (inside || isOwn[name.values[row]!] === true) this.#own[row] = 1
    }
    this.hostIntervals = union(outermost)
    this.#findUnits()
  }

  #findUnits(): void {
    const tree = this.#tree
    const marks: Array<{ thread: number; at: number; opens: boolean; unit: string | undefined }> = []
    let nested = 0
    let until = -Infinity
    for (const row of sortedRows(
      tree.order.length,
      (a, b) => tree.start(a) - tree.start(b) || tree.end(b) - tree.end(a) || a - b
    )) {
      const text = tree.name(row)
      const thread = tree.trace.host.thread.values[row]!
      if (text === wholeForward) {
        // The first version names no units: they are numbered in the order of their forward passes.
        const outer = tree.start(row) >= until
        if (outer) {
          nested = 0
          until = tree.end(row)
        }
        const unit = outer ? rootUnit : `unit.${nested++}`
        marks.push(
          { thread, at: tree.start(row), opens: true, unit },
          { thread, at: tree.end(row), opens: false, unit }
        )
        continue
      }
      const found = named.exec(text)
      if (found === null) continue
      const opens = found[1] === "pre_forward"
      marks.push({ thread, at: opens ? tree.end(row) : tree.start(row), opens, unit: found[2] ?? rootUnit })
    }
    marks.sort((a, b) => a.at - b.at || Number(a.opens) - Number(b.opens))
    const open = new Map<number, Array<string>>()
    for (const { thread, at, opens, unit } of marks) {
      const stack = open.get(thread) ?? []
      open.set(thread, stack)
      if (opens) stack.push(unit!)
      else while (stack.length > 0 && stack.pop() !== unit);
      let line = this.#units.get(thread)
      if (line === undefined) this.#units.set(thread, (line = { times: [], names: [] }))
      line.times.push(at)
      line.names.push(stack.at(-1))
    }
  }

  /** Whether FSDP itself launched what this host row launches, not the model. */
  isOwn(row: number): boolean {
    return row >= 0 && this.#own[row] === 1
  }

  /** The unit whose forward pass a host row is part of; the root outside all of them. */
  unitAt(row: number): string {
    const line = this.#units.get(this.#tree.trace.host.thread.values[row]!)
    if (line === undefined) return rootUnit
    const time = this.#tree.start(row)
    return line.names[countUpTo(line.times, time) - 1] ?? rootUnit
  }

  /** The unit that FSDP says it gathers or scatters around a host row; undefined where it does not say. */
  unitOfCall(row: number): string | undefined {
    for (let at = row; at >= 0; at = this.#tree.parent[at]!) {
      const found = ofUnit.exec(this.#tree.name(at))
      if (found !== null) return found[1] ?? found[2] ?? rootUnit
    }
    return undefined
  }

  /** Names of units other than the root, in the order of their forward passes. */
  get units(): ReadonlyArray<string> {
    const names = new Set<string>()
    for (const { names: line } of this.#units.values())
      for (const name of line) if (name !== undefined && name !== rootUnit) names.add(name)
    return [...names]
  }
}

// Properties that most schedulers of data-parallel training should have, ready to be named in `checkScheduler`.
import type { Op } from "../core/machine/op.ts"
import type { Tensor } from "../core/machine/tensor.ts"
import type { AlgorithmInput } from "./algorithm.ts"
import type { SchedulerProperty } from "./check-scheduler.ts"

/**
 * The scheduler's steps are at most as long as those of `algorithm` in the same scenario (default: the scenario's own),
 * give or take a relative `tolerance`.
 */
export const neverSlowerThan =
  (algorithm?: AlgorithmInput, tolerance = 1e-9): SchedulerProperty =>
  (run) => {
    const baseline = run.withAlgorithm(algorithm)
    const { stepSeconds } = run.result
    if (stepSeconds <= baseline.stepSeconds * (1 + tolerance)) return undefined
    return `a step takes ${stepSeconds} s; with ${baseline.algorithm} it takes ${baseline.stepSeconds} s`
  }

/**
 * In every `period` of steps (default: that of the scenario's own algorithm), every layer that has parameters goes through
 * an all-reduce: parameters, gradients, or what was computed from them element by element.
 */
export const synchronisesEveryLayer =
  (period?: number): SchedulerProperty =>
  ({ context, execution }) => {
    const length = period ?? context.planned.periodSteps
    const { profile, steps } = context
    const layers = new Set(profile.parameters.map(({ layer }) => layer))
    for (const { rank, entries } of execution.journals ?? []) {
      const owners = new Owners()
      const synchronised = Array.from({ length: Math.floor(steps / length) }, () => new Set<number>())
      for (const entry of entries) {
        if (entry.kind !== "op") continue
        owners.follow(entry.op)
        if (entry.op.kernel.name !== "all_reduce") continue
        const set = synchronised[Math.floor(entry.step / length)]
        for (const tensor of entry.op.reads) for (const layer of owners.of(tensor)) set?.add(layer)
      }
      for (const [index, set] of synchronised.entries()) {
        const forgotten = [...layers].find((layer) => !set.has(layer))
        if (forgotten === undefined) continue
        const [from, to] = [index * length, (index + 1) * length - 1]
        const when = from === to ? `step ${from}` : `steps ${from} to ${to}`
        return `rank ${rank} does not synchronise "${profile.layers[forgotten]!.name}" in ${when}`
      }
    }
    return undefined
  }

/**
 * No op reads a tensor that nothing has written yet: what is gathered or received is there before what computes with it. Tensors with
 * initial values, a role or a place in a checkpoint hold something from the start; others hold zeros, which no program should mean.
 * Views of one arena count as one tensor.
 */
export const readsOnlyWhatIsThere =
  (): SchedulerProperty =>
  ({ execution, given }) => {
    for (const { rank, entries } of execution.journals ?? []) {
      const filled = new Set<Tensor>()
      for (const entry of entries) {
        if (entry.kind === "alloc" && given.has(entry.tensor)) filled.add(memoryOf(entry.tensor))
        if (entry.kind !== "op") continue
        const { id, op, step } = entry
        const empty = op.reads.find((tensor) => !filled.has(memoryOf(tensor)))
        if (empty !== undefined)
          return `rank ${rank}, step ${step}: op ${id} "${op.label}" reads "${empty.name}", which no op has written before it`
        for (const tensor of op.writes) filled.add(memoryOf(tensor))
      }
    }
    return undefined
  }

const memoryOf = (tensor: Tensor): Tensor => tensor.within?.arena ?? tensor

/**
 * Whose layers' numbers tensors hold: those that a layer's own passes name, and what is computed of these element by element. An
 * optimizer's step is of all its layers at once, and says of no tensor whose it is.
 */
class Owners {
  readonly #layers = new Map<Tensor, Set<number>>()

  of(tensor: Tensor): Iterable<number> {
    return this.#layers.get(tensor) ?? []
  }

  follow({ kernel, attributes, reads, writes }: Op): void {
    if (kernel.kind === "collective") return
    const profiled = kernel.name === "profiled"
    if (profiled && attributes["phase"] === "optimizer") return
    const layer = profiled ? (attributes["layer"] as number) : undefined
    if (layer !== undefined) for (const tensor of [...reads, ...writes]) this.#add(tensor, layer)
    else
      for (const to of writes)
        for (const from of reads)
          if (from !== to && from.elements === to.elements)
            for (const owner of this.of(from)) this.#add(to, owner)
  }

  #add(tensor: Tensor, layer: number): void {
    const own = this.#layers.get(tensor)
    if (own === undefined) this.#layers.set(tensor, new Set([layer]))
    else own.add(layer)
    if (tensor.within !== undefined) this.#add(tensor.within.arena, layer)
  }
}

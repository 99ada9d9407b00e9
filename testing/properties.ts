// Properties that most schedulers of data-parallel training should have, ready to be named in `checkScheduler`.
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
 * an all-reduce: parameters, gradients or whatever else of theirs the collective is labelled with or reads.
 */
export const synchronisesEveryLayer =
  (period?: number): SchedulerProperty =>
  ({ context, execution }) => {
    const length = period ?? context.planned.periodSteps
    const { profile, steps } = context
    const layers = new Set(profile.parameters.map(({ layer }) => profile.layers[layer]!.name))
    for (const { rank, entries } of execution.journals ?? []) {
      const owners = new Map<Tensor, string>()
      const synchronised = Array.from({ length: Math.floor(steps / length) }, () => new Set<string>())
      for (const entry of entries) {
        if (entry.kind === "alloc") {
          const owner = layerOf(entry.tensor.name, layers)
          if (owner !== undefined) owners.set(entry.tensor, owner)
        }
        if (entry.kind !== "op" || entry.op.kernel.name !== "all_reduce") continue
        const set = synchronised[Math.floor(entry.step / length)]
        for (const tensor of entry.op.reads) {
          const owner = owners.get(tensor)
          if (owner !== undefined) set?.add(owner)
        }
      }
      for (const [index, set] of synchronised.entries()) {
        const forgotten = [...layers].find((layer) => !set.has(layer))
        if (forgotten === undefined) continue
        const [from, to] = [index * length, (index + 1) * length - 1]
        const when = from === to ? `step ${from}` : `steps ${from} to ${to}`
        return `rank ${rank} does not synchronise "${forgotten}" in ${when}`
      }
    }
    return undefined
  }

/** Tensors of a profiled model are named "<layer> parameter 0", "<layer> parameter 0 gradient" and the like. */
const layerOf = (tensor: string, layers: ReadonlySet<string>): string | undefined => {
  const at = tensor.lastIndexOf(" parameter ")
  const layer = at < 0 ? undefined : tensor.slice(0, at)
  return layer !== undefined && layers.has(layer) ? layer : undefined
}

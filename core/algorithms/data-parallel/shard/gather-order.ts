// When a program gathers the units of a model in parts: before which stretch of layers, forward and backward. Knows no machine.
import type { ShardPlan } from "./plan.ts"

/**
 * Which units each run gathers before it computes, forward and backward: its own, where no earlier run has, and in the backward
 * pass the `prefetch` that come next. In the forward pass the program, which runs ahead of the device, asks for a unit when its
 * turn comes, after whatever changes its parameters before their next use; how far that is ahead on the device follows from the
 * memory there is. Units that stay gathered are gathered once.
 */
export const gatherOrder = ({ runs, division, parameters, reshardAfterForward, prefetch }: ShardPlan) => {
  const inOrder = (order: ReadonlyArray<number>, ahead: number, gathered: (unit: number) => boolean) => {
    const units = [...new Set(order.map((index) => runs[index]!.unit))].filter(gathered)
    const before: Array<ReadonlyArray<number>> = runs.map(() => [])
    let done = 0
    let reached = 0
    for (const index of order) {
      const at = units.indexOf(runs[index]!.unit)
      if (at >= 0) reached = Math.max(reached, at + 1)
      const upTo = Math.min(units.length, reached + ahead)
      before[index] = units.slice(done, upTo)
      done = Math.max(done, upTo)
    }
    return before
  }
  const order = [...runs.keys()]
  const again = (unit: number) => parameters && reshardAfterForward && !division[unit]!.root
  return {
    forward: inOrder(order, 0, () => true),
    backward: inOrder(order.toReversed(), prefetch, again)
  }
}

// A program on ranks of a machine that stands for a real one, and on the simulated one that is held to what came to it over narrow wires.
import { agree, type Agreement } from "../../core/agreement/agree.ts"
import { comesNarrow } from "../../core/agreement/narrow.ts"
import { TurnedValues } from "../../core/agreement/turned.ts"
import { defaultTolerance } from "../../core/agreement/values.ts"
import type { Journal } from "../../core/laws/journal.ts"
import type { Program } from "../../core/machine/machine.ts"
import type { OnCollective } from "../../core/machine/collective-order.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import { execute, flatWorld } from "../simulate/simulated.ts"

/** What a machine made of a program: its journals with what came over narrow wires, and its tensors at the end. */
export interface Machined {
  readonly journals: ReadonlyArray<Journal>
  readonly execution: ReturnType<typeof execute>["execution"]
  readonly valuesOf: (rank: number, tensor: Tensor) => TensorData
}

export const machined = (program: Program<unknown>, ranks: number, onCollective?: OnCollective): Machined => {
  const came = new Map<number, Array<ReadonlyArray<TensorData>>>()
  const { simulated, execution } = execute({
    world: flatWorld(ranks),
    program,
    values: () => undefined,
    onCollective: (computed) => {
      const then = onCollective?.(computed)
      return () => {
        then?.()
        for (const [i, rank] of computed.ranks.entries()) {
          const results = computed.members[i]!.outputData.map((data) => data.slice())
          came.set(rank, [...(came.get(rank) ?? []), results])
        }
      }
    }
  })
  const journals = execution.journals!.map(({ rank, entries }) => {
    let next = 0
    return {
      rank,
      entries: entries.map((entry) =>
        entry.kind === "op" && comesNarrow(entry.op) ? { ...entry, results: came.get(rank)![next++]! } : entry
      )
    }
  })
  return { journals, execution, valuesOf: (rank, tensor) => simulated.values!.of(rank, tensor) }
}

/** The program simulated beside what another machine has made of it. */
export const held = (
  program: Program<unknown>,
  real: Machined,
  tolerance = defaultTolerance
): { agreement: Agreement; simulated: Machined } => {
  const turned = new TurnedValues(real.journals, tolerance)
  const simulated = machined(program, real.journals.length, turned.onCollective)
  const agreement = agree(
    {
      execution: {
        ...simulated.execution,
        journals: simulated.execution.journals!.map((journal) => turned.withResults(journal))
      },
      valuesOf: simulated.valuesOf
    },
    { execution: { ...real.execution, journals: real.journals }, valuesOf: real.valuesOf },
    tolerance,
    turned.found
  )
  return { agreement, simulated }
}

// A program on a machine that stands for a real one, and on the simulated one that is held to it, updates of parameters included.
import { agree, type Agreement } from "../../core/agreement/agree.ts"
import { updates } from "../../core/agreement/narrow.ts"
import { UpdatedValues } from "../../core/agreement/updated.ts"
import { defaultTolerance } from "../../core/agreement/values.ts"
import type { Journal } from "../../core/laws/journal.ts"
import type { Program } from "../../core/machine/machine.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import { execute, flatWorld } from "../simulate/simulated.ts"

export interface Machined {
  readonly journals: ReadonlyArray<Journal>
  readonly execution: ReturnType<typeof execute>["execution"]
  readonly valuesOf: (rank: number, tensor: Tensor) => TensorData
}

/** What a machine makes of a program, and what its updates found and left. */
export const machined = (program: Program<unknown>, updated?: UpdatedValues): Machined => {
  const kept = new Map<number, Pick<Journal["entries"][number] & { kind: "op" }, "inputs" | "results">>()
  const copies = (all: ReadonlyArray<TensorData>) => all.map((data) => data.slice())
  const { simulated, execution } = execute({
    world: flatWorld(1),
    program,
    values: () => undefined,
    onOp: (computed) => {
      const then = updated?.onOp(computed)
      const inputs = copies(computed.inputData)
      return () => {
        then?.()
        if (updates(computed.op)) kept.set(computed.id, { inputs, results: copies(computed.outputData) })
      }
    }
  })
  const journals = execution.journals!.map(({ rank, entries }) => ({
    rank,
    entries: entries.map((entry) => (entry.kind === "op" ? { ...entry, ...kept.get(entry.id) } : entry))
  }))
  return { journals, execution, valuesOf: (rank, tensor) => simulated.values!.of(rank, tensor) }
}

export const held = (
  program: Program<unknown>,
  real: Machined
): { agreement: Agreement; simulated: Machined } => {
  const updated = new UpdatedValues(real.journals, defaultTolerance)
  const simulated = machined(program, updated)
  const agreement = agree(
    {
      execution: {
        ...simulated.execution,
        journals: simulated.execution.journals!.map((journal) => updated.withResults(journal))
      },
      valuesOf: simulated.valuesOf
    },
    { execution: { ...real.execution, journals: real.journals }, valuesOf: real.valuesOf },
    defaultTolerance,
    undefined,
    updated.found
  )
  return { agreement, simulated }
}

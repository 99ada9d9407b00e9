// A program on a machine that stands for a real one, and on the simulated one that is held to it, updates of parameters and choices included.
import { agree, type Agreement } from "../../core/agreement/agree.ts"
import { ChosenValues } from "../../core/agreement/chosen.ts"
import { keepsResults, updates } from "../../core/agreement/narrow.ts"
import { UpdatedValues } from "../../core/agreement/updated.ts"
import { defaultTolerance } from "../../core/agreement/values.ts"
import type { Journal } from "../../core/laws/journal.ts"
import type { Program } from "../../core/machine/machine.ts"
import type { OnOp } from "../../core/machine/op.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import { execute, flatWorld } from "../simulate/simulated.ts"

export interface Machined {
  readonly journals: ReadonlyArray<Journal>
  readonly execution: ReturnType<typeof execute>["execution"]
  readonly valuesOf: (rank: number, tensor: Tensor) => TensorData
}

/** What a machine makes of a program, what its updates found and left, and what it chose. */
export const machined = (program: Program<unknown>, onOp?: OnOp): Machined => {
  const kept = new Map<number, Pick<Journal["entries"][number] & { kind: "op" }, "inputs" | "results">>()
  const copies = (all: ReadonlyArray<TensorData>) => all.map((data) => data.slice())
  const { simulated, execution } = execute({
    world: flatWorld(1),
    program,
    values: () => undefined,
    onOp: (computed) => {
      const then = onOp?.(computed)
      const inputs = updates(computed.op) ? copies(computed.inputData) : undefined
      return () => {
        then?.()
        if (keepsResults(computed.op)) kept.set(computed.id, { inputs, results: copies(computed.outputData) })
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
  const chosen = new ChosenValues(real.journals, defaultTolerance)
  const simulated = machined(program, (computed) => updated.onOp(computed) ?? chosen.onOp(computed))
  const agreement = agree(
    {
      execution: {
        ...simulated.execution,
        journals: simulated.execution.journals!.map((journal) =>
          chosen.withResults(updated.withResults(journal))
        )
      },
      valuesOf: simulated.valuesOf
    },
    { execution: { ...real.execution, journals: real.journals }, valuesOf: real.valuesOf },
    defaultTolerance,
    undefined,
    updated.found,
    chosen.found
  )
  return { agreement, simulated }
}

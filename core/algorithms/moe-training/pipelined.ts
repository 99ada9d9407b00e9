// The order in which the pipelined part of an MoE layer is handed to the lanes (FSMoE's code, forward and backward alike):
// all dispatches and gathers, what is to run between, all experts and scatters, all combines. Knows nothing of what the ops
// compute, so that a schedule can be tested with ops of any cost.
import type { Machine } from "../../machine/machine.ts"
import type { Op } from "../../machine/op.ts"
import type { LaneUse } from "./plan/pipeline.ts"

/** Ops of one chunk, stage by stage; a stage may be empty (a node of one rank gathers nothing). */
export interface ChunkOps {
  readonly dispatch: ReadonlyArray<Op>
  readonly gather: ReadonlyArray<Op>
  readonly expert: ReadonlyArray<Op>
  readonly scatter: ReadonlyArray<Op>
  readonly combine: ReadonlyArray<Op>
}

/** What a caller puts between: each is called once, when what comes before it has been submitted. */
interface Between {
  /** After the last dispatch: the gradient all-reduce, among others. */
  readonly afterDispatch: () => void
  readonly beforeCombine: () => void
}

/**
 * Submits the chunks. With one lane for all communication, a chunk's combine follows its scatter at once,
 * for a combine behind later scatters would only wait.
 */
export const submitPipelined = (
  machine: Pick<Machine["Service"], "submit">,
  chunks: ReadonlyArray<ChunkOps>,
  lanes: LaneUse,
  between: Between
): void => {
  const submit = (ops: ReadonlyArray<Op>): void => {
    for (const op of ops) machine.submit(op)
  }
  for (const { dispatch, gather } of chunks) {
    submit(dispatch)
    submit(gather)
  }
  between.afterDispatch()
  if (lanes === "three") {
    for (const { expert, scatter } of chunks) {
      submit(expert)
      submit(scatter)
    }
    between.beforeCombine()
    for (const { combine } of chunks) submit(combine)
    return
  }
  for (const [i, { expert, scatter, combine }] of chunks.entries()) {
    submit(expert)
    submit(scatter)
    if (i === chunks.length - 1) between.beforeCombine()
    submit(combine)
  }
}

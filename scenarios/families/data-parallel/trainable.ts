// A scenario of data-parallel training for `exec train`: a model that learns a text.
import * as Effect from "effect/Effect"
import { observed } from "../../../core/algorithms/data-parallel/observe.ts"
import { withSnapshots } from "../../../core/machine/snapshots.ts"
import { InputError } from "../../../core/input-error.ts"
import { learntCount } from "../../../core/models/layer-graph.ts"
import type { Host } from "../../family.ts"
import type { Trainable, TrainingChoices } from "../../trainable.ts"
import { FinalWeights } from "./final-weights.ts"
import { prepareTraining, type PreparedTraining } from "./kernels.ts"
import type { DataParallelScenario } from "./scenario.ts"

/** Held-out batches in an evaluation. */
const heldOutBatches = 16

export const trainable = (
  scenario: DataParallelScenario,
  file: string,
  { loader }: Host,
  choices: TrainingChoices
): Effect.Effect<Trainable, InputError> =>
  Effect.gen(function* () {
    const prepared = yield* prepareTraining(scenario, file, loader, choices)
    const { world, planned, build, batchTokens, corpus, graph, learns, continuation } = prepared
    const steps = choices.steps ?? scenario.steps ?? prepared.steps
    const evaluation = yield* evaluationOf(prepared, file, choices.evaluateEvery, steps)
    const final = new FinalWeights()
    return {
      world,
      collectives: scenario.collectives.algorithm,
      capacityBytes: scenario.memory,
      steps,
      checkpointEvery: scenario.checkpoint?.every,
      batchTokens,
      parameters: learntCount(graph),
      text: { trainTokens: corpus.train.tokens, heldOutTokens: corpus.heldOut.length },
      continuation,
      program: ({ loss, heldOutLoss, lossScale }, snapshots) =>
        observed(
          final.watched(build),
          (model) => {
            if (snapshots === undefined) return planned.program(model, steps)
            return withSnapshots(planned.program(model, steps, snapshots.from), snapshots)
          },
          {
            from: snapshots?.from,
            everySteps: 1,
            onLoss: loss,
            scaling: lossScale && { lastStep: steps, onScale: lossScale },
            evaluation: evaluation && { ...evaluation, lastStep: steps, onLoss: heldOutLoss }
          }
        ),
      holders: prepared.shard?.ranks,
      weights: (valuesOf) => ({ ...learns, parameters: final.of(valuesOf) })
    }
  })

/** Without text held out there is nothing to evaluate on, which whoever asks for it is told. */
const evaluationOf = (
  { corpus, graph }: PreparedTraining,
  file: string,
  asked: number | undefined,
  steps: number
): Effect.Effect<{ readonly everySteps: number; readonly batches: number } | undefined, InputError> => {
  const context = graph.inputs[0]!.shape[1]!
  if (corpus.heldOut.length > context)
    return Effect.succeed({ everySteps: asked ?? steps, batches: heldOutBatches })
  if (corpus.heldOut.length === 0 && asked === undefined) return Effect.succeed(undefined)
  if (corpus.heldOut.length === 0)
    return Effect.fail(
      new InputError({
        file: "--evaluate-every",
        field: "",
        value: String(asked),
        accepted: "text to evaluate on: none is held out (training.heldOut is 0)"
      })
    )
  return Effect.fail(
    new InputError({
      file,
      field: "training.heldOut",
      value: `${corpus.heldOut.length} tokens held out`,
      accepted: `a share that leaves more than the ${context} tokens of a window, or 0 to evaluate on nothing`
    })
  )
}

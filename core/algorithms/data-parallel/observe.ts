// Watches a training run from outside: reads the loss at ends of steps, and evaluates on held-out batches now and then. The
// program is what it was; what is asked of the machine in addition is the same on every machine.
import * as Effect from "effect/Effect"
import { interpose } from "../../machine/interpose.ts"
import { Machine, type Program } from "../../machine/machine.ts"
import type { KernelModel, KernelModelBuilder } from "./kernel-model.ts"
import { submitAll, type TrainingModelBuilder } from "./training-model.ts"

/** What is read of a training run, after which steps, and who is told. */
export interface Observation {
  /** Steps that were taken before; default none. */
  readonly from?: number | undefined
  /** After how many steps the training loss is read each time; a read waits for that step's forward pass. */
  readonly everySteps: number
  readonly onLoss: (rank: number, step: number, loss: number) => void
  /** Told after that step of what the loss is scaled by, where it is: it is read no earlier, for it waits for the backward pass. */
  readonly scaling?:
    | {
        readonly lastStep: number
        readonly onScale: (rank: number, scale: number, skippedSteps: number) => void
      }
    | undefined
  /**
   * Mean loss over `batches` held-out batches after every so many steps, of each rank's own parameters as its step leaves them; and
   * after `lastStep` when the program has ended, of what it has learnt: an algorithm may leave updates to the next step's beginning.
   */
  readonly evaluation?:
    | {
        readonly everySteps: number
        readonly lastStep?: number | undefined
        readonly batches: number
        readonly onLoss: (rank: number, step: number, loss: number) => void
      }
    | undefined
}

/** `program` of the model, observed. Steps count from 1: what is reported with n comes after n steps. */
export const observed = (
  build: KernelModelBuilder,
  program: (build: TrainingModelBuilder) => Program<void>,
  { from = 0, everySteps, onLoss, scaling, evaluation }: Observation
): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    let model: KernelModel | undefined
    let step = from
    const lossOf = ({ loss }: Pick<KernelModel, "loss">) =>
      Effect.map(machine.read(loss), (values) => values[0]!)
    const evaluated = (
      { evaluate, ...own }: KernelModel,
      { batches, onLoss: tell }: NonNullable<Observation["evaluation"]>
    ) =>
      Effect.gen(function* () {
        let sum = 0
        for (let index = 0; index < batches; index++) {
          submitAll(machine, evaluate(index))
          sum += yield* lossOf(own)
        }
        tell(machine.rank, step, sum / batches)
      })
    const scaled = ({ lossScale }: KernelModel) =>
      Effect.gen(function* () {
        if (step !== scaling?.lastStep || lossScale === undefined) return
        const [scale, , , skipped] = yield* machine.read(lossScale)
        scaling.onScale(machine.rank, scale!, skipped!)
      })
    const after = Effect.gen(function* () {
      step++
      if (model === undefined) return
      yield* model.turnCorpus(step)
      if (step % everySteps === 0) onLoss(machine.rank, step, yield* lossOf(model))
      yield* scaled(model)
      if (evaluation === undefined || step === evaluation.lastStep) return
      if (step % evaluation.everySteps === 0) yield* evaluated(model, evaluation)
    })
    const watched = interpose(machine, { endStep: Effect.andThen(machine.endStep, after) })
    const watching = Effect.tap(build, (built) => {
      model = built
      return built.turnCorpus(from)
    })
    yield* Effect.provideService(program(watching), Machine, watched)
    // A run that goes on after its last step has the scale of that.
    if (model !== undefined && step === from) yield* scaled(model)
    if (model !== undefined && evaluation?.lastStep === step) yield* evaluated(model, evaluation)
  })

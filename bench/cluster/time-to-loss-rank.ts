// One rank of bench/cluster/time-to-loss.ts: trains as it is told and answers with held-out losses and when they were reached.
//   TANDEM_RANK=0 TANDEM_WORLD_SIZE=2 ... node bench/cluster/time-to-loss-rank.ts --backend cuda
// Nothing is evaluated while the clock runs: parameters are copied on the device at the end of some steps, and the copies are
// evaluated when the run is over. A copy waits for averages that are under way, at the algorithm's cost.
import * as Effect from "effect/Effect"
import { wireOf } from "../../core/algorithms/data-parallel/algorithm.ts"
import type { KernelModel } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { averageOf, submitAll } from "../../core/algorithms/data-parallel/training-model.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { interpose } from "../../core/machine/interpose.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { launch, type Op } from "../../core/machine/op.ts"
import type { Dtype } from "../../core/machine/tensor.ts"
import { execute } from "../../exec/execute.ts"
import type { ProcessJob } from "../../exec/job/processes.ts"
import { prepareTraining } from "../../scenarios/families/data-parallel/kernels.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { serveRuns } from "./rank-loop.ts"
import type { LearntBy } from "./time-to-loss-report.ts"

/** What is trained, and when it is looked at; torch-ddp.py has the same. */
export interface HowLong {
  readonly steps: number
  /** A divisor of `steps`. */
  readonly evaluateEvery: number
  /** Held-out batches in an evaluation. */
  readonly batches: number
}

export interface Request extends HowLong {
  readonly file: string
  readonly set: ReadonlyArray<string>
  /** A profile; plans are from estimates without one. */
  readonly planFrom: string | undefined
}

/** Copies of what the model has learnt, and how they are made and brought back. */
interface Snapshot {
  readonly take: ReadonlyArray<Op>
  readonly restore: ReadonlyArray<Op>
}

const copyOf = (label: string, from: Op["reads"][number], to: Op["writes"][number]): Op =>
  launch(label, kernels.copy, Lane.compute, [from], [to])

const snapshotOf = (model: KernelModel) =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const take: Array<Op> = []
    const restore: Array<Op> = []
    for (const parameter of model.layers.flatMap((layer) => layer.parameters)) {
      const { name, shape, dtype } = parameter
      const copy = yield* machine.alloc({ name: `copy of ${name}`, shape, dtype })
      take.push(copyOf("snapshot", parameter, copy))
      restore.push(copyOf("restore", copy, parameter))
    }
    return { take, restore } satisfies Snapshot
  })

/** Waits for all that the compute lane has to do by now; seconds since the process began. */
const timeAfterAll = (model: KernelModel) =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const parameters = model.layers.flatMap((layer) => layer.parameters)
    const [smallest] = parameters.toSorted((a, b) => a.elements - b.elements)
    const { shape, dtype } = smallest!
    const mark = yield* machine.alloc({ name: "mark", shape, dtype })
    const op = copyOf("mark", smallest!, mark)
    return Effect.gen(function* () {
      machine.submit(op)
      yield* machine.read(mark)
      return performance.now() / 1000
    })
  })

/** Averages that no one needs, none larger than the model: ranks connect before the clock runs. */
const connect = (model: KernelModel, wire: Dtype) =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const parameters = model.layers.flatMap((layer) => layer.parameters)
    const all = parameters.reduce((sum, { elements }) => sum + elements, 0)
    for (const most of [2 ** 12, 2 ** 20, 2 ** 24]) {
      const elements = Math.min(most, all)
      const initial = () => new Float32Array(elements).fill(1)
      const tensor = yield* machine.alloc({ name: "warm-up", shape: [elements], dtype: "float32", initial })
      machine.submit(averageOf("warm-up", model, [tensor], wireOf(wire)))
      machine.free(tensor)
    }
    yield* machine.drain
  })

const meanLoss = (model: KernelModel, batches: number) =>
  Effect.gen(function* () {
    const machine = yield* Machine
    let sum = 0
    for (let index = 0; index < batches; index++) {
      submitAll(machine, model.evaluate(index))
      sum += (yield* machine.read(model.loss))[0]!
    }
    // JSON has no word for it, and no run that has one is of use.
    if (!Number.isFinite(sum)) return yield* Effect.die(`held-out loss ${sum}: the training has diverged`)
    return sum / batches
  })

type Prepared = Effect.Success<ReturnType<typeof prepareTraining>>

/** The training program, with a rank's own losses and times. */
const timed = ({ build, planned }: Prepared, { steps, evaluateEvery, batches }: HowLong): Program<LearntBy> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const model = yield* build
    const initialLoss = yield* meanLoss(model, batches)
    const snapshots: Array<Snapshot> = []
    for (let at = evaluateEvery; at <= steps; at += evaluateEvery) snapshots.push(yield* snapshotOf(model))
    const after = yield* timeAfterAll(model)
    yield* connect(model, planned.wire)
    const seconds: Array<number> = []
    let step = 0
    let began = NaN
    const ended = Effect.gen(function* () {
      step++
      if (step === 1) began = yield* after
      if (step % evaluateEvery !== 0) return
      for (const op of snapshots[step / evaluateEvery - 1]!.take) machine.submit(op)
      seconds.push((yield* after) - began)
    })
    const watched = interpose(machine, {
      endStep: Effect.andThen(machine.endStep, Effect.provideService(ended, Machine, machine))
    })
    yield* Effect.provideService(planned.program(Effect.succeed(model), steps), Machine, watched)
    yield* machine.drain
    const points: Array<LearntBy["points"][number]> = []
    for (const [index, { restore }] of snapshots.entries()) {
      for (const op of restore) machine.submit(op)
      const loss = yield* meanLoss(model, batches)
      points.push({ step: (index + 1) * evaluateEvery, seconds: seconds[index]!, loss })
    }
    return { initialLoss, points }
  })

const run = ({ file, set, planFrom, ...long }: Request, job: ProcessJob, begun: () => void) =>
  Effect.gen(function* () {
    const { scenario } = yield* loadLocatedScenario(file, set)
    if (scenario.task !== "data-parallel") throw new Error(`${file}: a scenario of data-parallel training`)
    const plan = planFrom === undefined ? {} : { planFrom }
    const prepared = yield* prepareTraining(scenario, file, new Loader(), plan)
    const { ranks } = yield* execute({
      world: prepared.world,
      job: () => {
        const own = job.run()
        own.gate.whenOpen(begun)
        return own
      },
      program: timed(prepared, long)
    })
    // Of all ranks at rank 0, whose answer counts.
    return { ranks: ranks.map(({ value }) => value) }
  })

await serveRuns("bench/cluster/time-to-loss.ts", run)

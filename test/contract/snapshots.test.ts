// A run that goes on from a snapshot does what the run without one would have done from there on: the same ops, and every number
// to the bit. For every data-parallel algorithm with generated plans, and MoE training, on every machine.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { dataParallelNames } from "../../core/algorithms/data-parallel/algorithms.ts"
import { kernelModel } from "../../core/algorithms/data-parallel/kernel-model.ts"
import type { TrainingModel } from "../../core/algorithms/data-parallel/training-model.ts"
import { moeTraining } from "../../core/algorithms/moe-training/program.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { withSnapshots } from "../../core/machine/snapshots.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import type { OpLog } from "../../core/machine/timeline.ts"
import { makeWorld, type World } from "../../core/world.ts"
import { moeCase } from "../../testing/moe-training.ts"
import { KeptSnapshots } from "../machine/kept-snapshots.ts"
import { instances, plannedFor } from "../training/rule-instances.ts"
import { narrowGraph, tinyModel, tinyProfile } from "../training/tiny.ts"
import { toyModel } from "../training/toy-model.ts"
import { flatWorld, plan, unlimited } from "../simulate/simulated.ts"
import { describeContract, runOn, type ContractMachine } from "./machines.ts"

interface Trained {
  readonly steps: number
  /** The program from a step on, which gives what it has learnt. */
  readonly program: (from: number) => Program<ReadonlyArray<TensorData>>
}

const valuesOf = (tensors: ReadonlyArray<Tensor>): Program<ReadonlyArray<TensorData>> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    return yield* Effect.forEach(tensors, (tensor) => machine.read(tensor))
  })

/** What a rank submitted, but for the copies of snapshots. */
const submitted = ({ entries }: OpLog) =>
  entries
    .filter(({ lane }) => lane !== Lane.d2h)
    .map(({ label, kernel, lane, sizeBytes, group }) => [label, kernel, lane, sizeBytes, group])

/** Of the ranks' programs: whole, with snapshots, and from the snapshot after `at` steps. */
const compare = async (
  machine: ContractMachine,
  world: World,
  { steps, program }: Trained,
  at: number
): Promise<KeptSnapshots> => {
  const learnt = (from: number, snapshots: KeptSnapshots) =>
    runOn(machine, world, withSnapshots(program(from), snapshots))
  const none = new KeptSnapshots(() => "go on")
  const every = new KeptSnapshots((step) => (step % 2 === at % 2 ? "snapshot" : "go on"))
  const [whole, observed] = [await learnt(0, none), await learnt(0, every)]
  const resumed = every.goingOnFrom(at)
  const rest = await learnt(at, resumed)
  for (const [rank, { value }] of whole.ranks.entries()) {
    expect(value!.length).toBeGreaterThan(0)
    // Whoever looks on changes nothing.
    expect(observed.ranks[rank]!.value).toEqual(value)
    expect(rest.ranks[rank]!.value).toEqual(value)
    const all = submitted(whole.opLogs[rank]!)
    const tail = submitted(rest.opLogs[rank]!)
    expect(submitted(observed.opLogs[rank]!)).toEqual(all)
    expect(tail).toEqual(all.slice(all.length - tail.length))
    expect(tail.length / all.length).toBeLessThan(at === 0 ? 1.01 : 1)
  }
  expect(every.count).toBe(world.size * Math.floor((steps + (at % 2)) / 2))
  expect(none.count).toBe(0)
  // A stopped run ends where its snapshot was taken, with nothing learnt beyond it.
  const stopping = new KeptSnapshots((step) => (step === at ? "snapshot and stop" : "go on"))
  const stopped = await learnt(0, stopping)
  for (const [rank, { value }] of stopped.ranks.entries()) {
    expect(value).toBeUndefined()
    expect(stopping.of(rank, at)).toEqual(every.of(rank, at))
  }
  return resumed
}

describeContract("a run goes on from a snapshot", (machine) => {
  const numRuns = machine.hostTime ? 3 : 20

  for (const name of dataParallelNames) {
    it(name, async () => {
      let [inFlight, gradients] = [0, 0]
      const cases = fc
        .tuple(instances(name), fc.nat())
        .filter(([{ steps, ranks }]) => steps > 1 && (machine.hostTime ? ranks > 1 : true))
      const property = fc.asyncProperty(cases, async ([instance, cut]) => {
        const { toy, steps } = instance
        const at = 1 + (cut % (steps - 1))
        const { world, planned } = plannedFor(instance)
        const program = (from: number) =>
          Effect.gen(function* () {
            let model: TrainingModel | undefined
            const build = Effect.tap(
              toyModel(toy, steps, { gradientsLast: planned.gradientsLast }),
              (built) => Effect.sync(() => (model = built))
            )
            yield* planned.program(build, steps, from)
            return yield* valuesOf(model!.layers.flatMap(({ parameters }) => parameters))
          })
        const { restoredNames } = await compare(machine, world, { steps, program }, at)
        const names = [...restoredNames]
        if (names.some((one) => one.endsWith(" gradient"))) gradients++
        const { delaySteps = 0, fragments = [] } = planned.describe()
        const sent = (step: number) =>
          step > 0 &&
          fragments.some(({ sendAfterStep }) => (step - sendAfterStep) % planned.periodSteps === 0)
        for (let step = at - delaySteps; step <= at; step++) if (sent(step)) inFlight++
      })
      // of few of dreamddp's there are gradients to be kept: as many more runs as come to them with any seed
      await fc.assert(property, { numRuns: machine.hostTime || name !== "dreamddp" ? numRuns : 5 * numRuns })
      if (machine.hostTime) return
      if (name === "streaming-diloco") expect(inFlight).toBeGreaterThan(2)
      if (name === "ddp" || name === "dreamddp") expect(gradients).toBeGreaterThan(2)
    })
  }

  it.each([
    { name: "s-sgd" },
    { name: "dreamddp", period: 2 },
    { name: "dreamddp", period: 2, order: "step-then-average", deadline: "next-use" },
    { name: "streaming-diloco", period: 4, fragments: 2, delaySteps: 1 }
  ] as const)("with real kernels and float32 masters of narrower parameters: %o", async (settings) => {
    const steps = 6
    const world = flatWorld(2)
    const { planned } = plan(settings, tinyProfile(narrowGraph), world)
    const program = (from: number) =>
      Effect.gen(function* () {
        let model: TrainingModel | undefined
        const { gradientsLast } = planned
        const build = Effect.tap(kernelModel(tinyModel(narrowGraph, { gradientsLast })), (built) =>
          Effect.sync(() => (model = built))
        )
        yield* planned.program(build, steps, from)
        return yield* valuesOf(model!.layers.flatMap(({ parameters }) => parameters))
      })
    const { restoredNames } = await compare(machine, world, { steps, program }, 4)
    expect([...restoredNames].filter((one) => one.endsWith(" bfloat16"))).toEqual([])
  })

  it("MoE training", async () => {
    const property = fc.asyncProperty(moeCase(), async ({ model, plan, nodes, perNode }) => {
      const world = makeWorld([{ name: "site", nodes: Array.from({ length: nodes }, () => perNode) }], {
        intra: unlimited,
        inter: unlimited,
        wan: undefined
      })
      const learning = { ...model, learningRate: 0.1 }
      const program = (from: number) =>
        Effect.flatMap(moeTraining({ model: learning, plan, steps: 3, from }), ({ parameters }) =>
          valuesOf(parameters.map(({ tensor }) => tensor))
        )
      await compare(machine, world, { steps: 3, program }, 2)
    })
    await fc.assert(property, { numRuns: Math.ceil(numRuns / 4) })
  })
})

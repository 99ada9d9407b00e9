// A scenario of MoE training with real kernels: for both machines, and for `exec train`, which tells half the mean over tokens of
// the output's square as the loss. Weights and activations are float32, whatever the scenario's model says.
import * as Effect from "effect/Effect"
import { moeGroups } from "../../../core/algorithms/moe-training/groups.ts"
import type { MoeModel } from "../../../core/algorithms/moe-training/model.ts"
import { moePartsAlone } from "../../../core/algorithms/moe-training/parts-alone.ts"
import { allDegrees } from "../../../core/algorithms/moe-training/planning.ts"
import { moeTraining } from "../../../core/algorithms/moe-training/program.ts"
import { InputError } from "../../../core/input-error.ts"
import { Machine } from "../../../core/machine/machine.ts"
import { withSnapshots } from "../../../core/machine/snapshots.ts"
import type { Host } from "../../family.ts"
import type { Runnable } from "../../runnable.ts"
import type { Trainable, TrainingChoices } from "../../trainable.ts"
import { planScenario } from "./prepare.ts"
import type { MoeTrainingScenario } from "./scenario.ts"
import { warmupSteps } from "./simulated.ts"

const real = (model: MoeModel): MoeModel => ({ ...model, dtype: "float32" })

/** Ranks that share a head of keys and values would each learn a copy of their own: nothing sums their gradients. */
const planReal = (scenario: MoeTrainingScenario, file: string, host: Host) =>
  Effect.gen(function* () {
    const planned = yield* planScenario(scenario, file, host)
    const { perNode } = moeGroups(planned.world, 0)
    if (planned.model.kvHeads % perNode === 0) return planned
    return yield* new InputError({
      file,
      field: "model.kvHeads",
      value: String(planned.model.kvHeads),
      accepted: `a multiple of the ${perNode} ranks of a node, for real kernels; others can be simulated`
    })
  })

/** Those that its algorithm may choose from, and no pipelining. */
const degreesOf = ({ algorithm }: MoeTrainingScenario): ReadonlyArray<number> =>
  [...new Set([1, ...allDegrees([algorithm])])].toSorted((a, b) => a - b)

export const kernels = (
  scenario: MoeTrainingScenario,
  file: string,
  host: Host
): Effect.Effect<Runnable, InputError> =>
  Effect.map(planReal(scenario, file, host), ({ world, model, planned }) => {
    const upTo = (steps: number) => moeTraining({ model: real(model), plan: planned.plan, steps })
    return {
      world,
      program: () => upTo(warmupSteps + scenario.steps),
      upTo,
      alone: (steps) => moePartsAlone(world, { model: real(model), degrees: degreesOf(scenario), steps }),
      network: scenario.network,
      collectives: "ring" as const,
      capacityBytes: scenario.memory
    }
  })

/** SGD's rate where the scenario says none. */
const usualRate = 0.1

export const trainable = (
  scenario: MoeTrainingScenario,
  file: string,
  host: Host,
  choices: TrainingChoices
): Effect.Effect<Trainable, InputError> =>
  Effect.gen(function* () {
    for (const [option, value] of [
      ["--evaluate-every", choices.evaluateEvery],
      ["--plan-from", choices.planFrom],
      ["--weights", choices.weights]
    ] as const) {
      if (value === undefined) continue
      const accepted = "a scenario of data-parallel training: layers of experts alone learn no text"
      return yield* new InputError({ file: option, field: "", value: String(value), accepted })
    }
    const { world, model, planned } = yield* planReal(scenario, file, host)
    const learning: MoeModel = { ...real(model), learningRate: model.learningRate ?? usualRate }
    const steps = choices.steps ?? scenario.steps
    return {
      world,
      collectives: "ring",
      capacityBytes: scenario.memory,
      steps,
      batchTokens: (moeGroups(world, 0).nodes * model.batch * model.sequence) / world.size,
      continuation: {
        run: { task: scenario.task, model: learning, algorithm: scenario.algorithm },
        plan: planned.plan,
        data: { input: "drawn once, from the seed" },
        fixedRanks: "each rank holds experts and parts of layers of its own"
      },
      program: ({ loss }, snapshots) => {
        const program = Effect.gen(function* () {
          const machine = yield* Machine
          yield* moeTraining({
            model: learning,
            plan: planned.plan,
            steps,
            from: snapshots?.from,
            afterStep: (step, { output }) =>
              Effect.map(machine.read(output), (values) => {
                let sum = 0
                for (const value of values) sum += value * value
                loss(machine.rank, step + 1, sum / (2 * (output.elements / learning.width)))
              })
          })
        })
        return snapshots === undefined ? program : withSnapshots(program, snapshots)
      }
    }
  })

// Local SGD: every layer averaged after every H-th step; nothing overlaps.
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { arbitrary, said } from "../../algorithm.ts"
import { dataParallelAlgorithm, layerBytes, wireOf } from "../algorithm.ts"
import { drawnWire, localSgdFields } from "../fields.ts"
import { partialLocalSgd, type PartialLocalSgdPlan } from "../partial-local-sgd/program.ts"

const settings = Schema.Struct({ name: Schema.Literal("local-sgd"), ...localSgdFields })

export const localSgd = dataParallelAlgorithm({
  title: "Local SGD",
  settings,
  plan: ({ period, wire }, { profile, allReduceSeconds }) => {
    const layers = profile.layers.map((_, index) => profile.layers.length - 1 - index)
    const sets = Array.from({ length: period }, (_, h) => (h === period - 1 ? layers : []))
    const plan: PartialLocalSgdPlan = {
      sets,
      order: "step-then-average",
      deadline: "end-of-backward",
      overlap: false,
      wire: wireOf(wire)
    }
    return Result.succeed({
      periodSteps: period,
      warmupSteps: period,
      wire,
      describe: () => {
        const exposedSeconds = allReduceSeconds(
          layerBytes(profile, wire).reduce((sum, bytes) => sum + bytes, 0)
        )
        return {
          exposedSeconds,
          steps: sets.map((set, step) => ({
            layers: set,
            exposedSeconds: step === period - 1 ? exposedSeconds : 0
          }))
        }
      },
      program: (build, steps, from) => partialLocalSgd(build, plan, steps, from)
    })
  },
  arbitrary: ({ maxPeriod }) =>
    arbitrary({ period: { from: 1, to: maxPeriod }, wire: drawnWire }, ({ period, ...drawn }) => ({
      name: "local-sgd" as const,
      period,
      ...said(drawn)
    }))
})

// How often eager PyTorch launches between two of a decoding step's routers, by what is counted of each kernel. Knows no machine
// that runs anything.
import * as Effect from "effect/Effect"
import { eagerCountOf } from "../../cost/host.ts"
import { collectingMachine } from "../../machine/collecting.ts"
import type { OutOfMemory } from "../../machine/machine.ts"
import type { Op } from "../../machine/op.ts"
import { allocDecoder, makeStepOps } from "./decoder.ts"
import type { MoeModel } from "./model.ts"

/** Of a layer of `batch` sequences, each of whose tokens chose experts of its own as far as there are so many; loads aside. */
export const launchesOfLayer = (model: MoeModel, batch: number): Effect.Effect<number, OutOfMemory> =>
  Effect.gen(function* () {
    const submitted: Array<Op> = []
    const workload = { batch, promptTokens: 1, prefill: false, decodeTokens: 1 }
    const decoder = yield* allocDecoder(collectingMachine(submitted), { ...model, layers: 1 }, workload, 0)
    const ops = yield* makeStepOps(decoder, { phase: "decode", prompts: 0 })
    ops.route(0, 0)
    submitted.push(ops.choices[0]!.copy)
    ops.dispatch(0)
    ops.after(0)
    const experts = Math.min(model.experts, batch * model.topK)
    return submitted.reduce(
      (sum, { kernel }) => sum + eagerCountOf(kernel.name),
      experts * eagerCountOf("expert_ffn.forward")
    )
  })

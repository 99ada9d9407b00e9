// A simulation that needs ever more memory, in a thread that has little: run by sizes.test.ts.
import * as Effect from "effect/Effect"
import { parentPort } from "node:worker_threads"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { failureOf, flatWorld } from "../simulate/simulated.ts"

const kept: Array<Array<number>> = []
const error = failureOf({
  world: flatWorld(1),
  program: Effect.gen(function* () {
    const machine = yield* Machine
    const tensor = yield* machine.alloc({ name: "x", shape: [1], dtype: "float32" })
    const copy = launch("copy", kernels.copy, Lane.compute, [tensor], [tensor])
    for (;;) {
      machine.submit(copy)
      kept.push(Array.from({ length: 8 }, (_, i) => i + 0.5))
      yield* machine.endStep
    }
  })
})
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
parentPort?.postMessage(error instanceof Error ? { name: error.name, message: error.message } : error)

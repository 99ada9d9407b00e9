// A process that goes on with a run from its last checkpoint, and tells every step, until it is killed or done: what a scheduler
// starts again and again. For crashes.test.ts.
import * as Effect from "effect/Effect"
import { train } from "./training.ts"

const [name, folder, steps] = process.argv.slice(2)
await Effect.runPromise(
  train(name!, {
    steps: Number(steps),
    checkpoint: folder!,
    checkpointEvery: 2,
    keep: 2,
    resume: true,
    onStep: (step) => process.stdout.write(`${step}\n`)
  })
)

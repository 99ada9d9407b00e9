// A process that trains every variant at once, each with checkpoints in a folder of its own, until somebody kills it.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { train, variants } from "./training.ts"

const [folder, steps] = process.argv.slice(2)
await Effect.runPromise(
  Effect.forEach(
    Object.keys(variants),
    (name) =>
      train(name, {
        steps: Number(steps),
        checkpoint: path.join(folder!, name),
        checkpointEvery: 3,
        keep: 2
      }),
    { concurrency: "unbounded" }
  )
)

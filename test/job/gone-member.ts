// A process that meets the others of its job and is then killed, or stopped, before it connects to any: its argument is the signal.
// For processes.test.ts.
import { writeSync } from "node:fs"
import * as Effect from "effect/Effect"
import { placeIn } from "../../exec/job/environment.ts"
import { Mesh } from "../../exec/job/mesh.ts"
import { rendezvous } from "../../exec/job/rendezvous.ts"
import { secretIn } from "../../exec/job/secret.ts"

await Effect.runPromise(
  Effect.gen(function* () {
    const { rank, size, master } = (yield* placeIn(process.env))!
    const secret = yield* secretIn(process.env)
    // As others listen, so that they come and wait.
    const listen = (host: string): number => new Mesh({ rank, size, host }).port
    const alike = { version: "1", transport: "tcp" }
    yield* rendezvous({ rank, size, master, secret, alike, listen, timeoutSeconds: 60 })
    writeSync(1, "{}\n")
    process.kill(process.pid, process.argv[2] as NodeJS.Signals)
  })
)

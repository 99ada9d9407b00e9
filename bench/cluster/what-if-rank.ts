// One rank of what-if.ts, in its network namespace: trains what it is told, run after run, each when rank 0 is told that the links
// are as they should be. Rank 0 says how long a step took, as a line of JSON.
import { createInterface } from "node:readline"
import * as Effect from "effect/Effect"
import { Lane } from "../../core/machine/lane.ts"
import type { Timeline } from "../../core/machine/timeline.ts"
import { emulatedDevice, leastSecondsOn, onDevice } from "../../exec/cli/emulated-device.ts"
import { placeIn } from "../../exec/job/environment.ts"
import { ProcessJob } from "../../exec/job/processes.ts"
import { secretIn } from "../../exec/job/secret.ts"
import { training } from "../../exec/train/train.ts"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"

interface Asked {
  readonly file: string
  readonly profile: string
  readonly warmupSteps: number
  readonly steps: number
  /** `--set` of each run. */
  readonly runs: ReadonlyArray<ReadonlyArray<string>>
}

const asked = JSON.parse(process.argv[2]!) as Asked
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const say = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`)

/** Mean over ranks and measured steps of the time between ends of the compute lane's steps. */
const stepSeconds = ({ rank, lane, step, endSeconds }: Timeline): number => {
  const ends = new Map<number, Array<number>>()
  for (let row = 0; row < rank.length; row++) {
    if (lane[row] !== Lane.compute) continue
    let own = ends.get(rank[row]!)
    if (own === undefined) ends.set(rank[row]!, (own = []))
    own[step[row]!] = Math.max(own[step[row]!] ?? 0, endSeconds[row]!)
  }
  const { warmupSteps, steps } = asked
  const each = [...ends.values()].map(
    (own) => (own[steps - 1]! - own[warmupSteps - 1]!) / (steps - warmupSteps)
  )
  return each.reduce((sum, seconds) => sum + seconds, 0) / each.length
}

const one = (job: ProcessJob, set: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const scenario = yield* loadScenario(asked.file, set)
    const trainable = yield* familyOf(scenario).train!(
      scenario,
      asked.file,
      { loader: new Loader() },
      {
        planFrom: asked.profile,
        steps: asked.steps
      }
    )
    const prepare = onDevice(leastSecondsOn(yield* emulatedDevice(scenario, asked.file)))
    yield* job.barrier
    if (job.rank === 0) {
      say({ ready: set })
      yield* Effect.promise(() => lines.next())
    }
    yield* job.barrier
    const { timeline } = yield* training(trainable, { record: true, processes: job, prepare }).run
    if (job.rank === 0) say({ stepSeconds: stepSeconds(timeline!) })
  })

await Effect.runPromise(
  Effect.gen(function* () {
    const place = yield* placeIn(process.env)
    const secret = yield* secretIn(process.env)
    const options = { place: place!, secret, alike: { asked: JSON.stringify(asked) }, timeoutSeconds: 60 }
    yield* ProcessJob.use(options, (job) =>
      Effect.forEach(asked.runs, (set) => one(job, set), { discard: true })
    )
  })
)
process.stdin.destroy()

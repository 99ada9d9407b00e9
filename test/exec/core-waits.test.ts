// What threads waited for cores: from files as Linux has them, of real runs, and from what share on it is told.
import * as fs from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { afterAll, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { localWorld } from "../../exec/bench.ts"
import {
  between,
  coreWarnings,
  threadTimes,
  together,
  watchingCores,
  type Timed
} from "../../exec/core-waits.ts"
import { execute } from "../../exec/execute.ts"
import { describeNative } from "../native/addon.ts"

const folder = fs.mkdtempSync(path.join(tmpdir(), "core-waits-"))
afterAll(() => {
  fs.rmSync(folder, { recursive: true, force: true })
})

/** As /proc/<pid>/task: on a core and waiting, ns. */
const looked = (threads: Readonly<Record<string, readonly [ran: number, waited: number]>>) => {
  const here = fs.mkdtempSync(path.join(folder, "task-"))
  for (const [thread, [ran, waited]] of Object.entries(threads)) {
    fs.mkdirSync(path.join(here, thread))
    fs.writeFileSync(path.join(here, thread, "schedstat"), `${ran} ${waited} 7\n`)
  }
  return threadTimes(here)
}

it("are what each thread waited from one look to the next, those that began meanwhile from their beginning", () => {
  const before = looked({ "10": [5e9, 1e9], "11": [2e9, 2e9] })
  const after = looked({ "10": [6e9, 3e9], "11": [2e9, 2e9], "12": [1e9, 0.5e9] })
  expect(between(before, after)).toEqual({ ranSeconds: 2, waitedSeconds: 2.5 })
})

it("are not known where the system does not say", () => {
  fs.mkdirSync(path.join(folder, "none", "10"), { recursive: true })
  expect(threadTimes(path.join(folder, "none"))).toBeUndefined()
  expect(threadTimes(path.join(folder, "nowhere"))).toBeUndefined()
  const known = { ranSeconds: 1, waitedSeconds: 1 }
  expect(together([known, known])).toEqual({ ranSeconds: 2, waitedSeconds: 2 })
  expect(together([known, undefined])).toBeUndefined()
})

it("are told from a twentieth on, and more ranks than cores where nothing else is known", () => {
  const at = { ranks: 4, cores: 2, apart: false }
  const waited = (waitedSeconds: number) => ({ ranSeconds: 1 - waitedSeconds, waitedSeconds })
  expect(coreWarnings([["layers", waited(0.05)]], at)).toEqual([])
  const [told, ...more] = coreWarnings(
    [
      ["layers", waited(0.06)],
      ["copies", waited(0.01)],
      ["collectives", waited(0.7)]
    ],
    at
  )
  expect(more).toEqual([])
  expect(told).toContain("6.0 % of the time while layers were timed, 70.0 % of the time while collectives")
  expect(told).toContain("4 ranks, 2 cores")
  expect(told).not.toContain("copies")
  expect(coreWarnings([["layers", undefined]], at)).toHaveLength(1)
  expect(coreWarnings([["layers", undefined]], { ...at, ranks: 2 })).toEqual([])
  expect(coreWarnings([["layers", undefined]], { ...at, apart: true })).toEqual([])
})

const busy = (launches: number): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const x = yield* machine.alloc({ name: "x", shape: [1 << 16], dtype: "float32" })
    for (let i = 0; i < launches; i++)
      machine.submit(launch("work", kernels.scale, Lane.compute, [x], [x], { factor: 1 }))
    yield* machine.drain
  })

describeNative("a real run", () => {
  it.runIf(threadTimes() !== undefined)(
    "says what its threads waited, more with more ranks than cores, and only whom watches",
    async () => {
      const cores = async (ranks: number) => {
        const run = execute({ world: localWorld(ranks), program: busy(400) })
        const into: Array<Timed> = []
        const { coreTime } = await Effect.runPromise(watchingCores("work", into, run))
        expect(into).toEqual([["work", coreTime]])
        return coreTime!
      }
      const one = await cores(1)
      const many = await cores(64)
      expect(one.ranSeconds).toBeGreaterThan(0)
      // 64 ranks want at most as much of the cores as 64 times one does, and wait for each other.
      expect(many.ranSeconds).toBeGreaterThan(one.ranSeconds)
      expect(many.waitedSeconds).toBeGreaterThan(one.waitedSeconds)
      const unwatched = await Effect.runPromise(execute({ world: localWorld(1), program: busy(1) }))
      expect(unwatched.coreTime).toBeUndefined()
    }
  )
})

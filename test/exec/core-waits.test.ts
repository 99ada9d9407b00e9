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
import { localWorld, timeCollectives, timeHost } from "../../exec/bench.ts"
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

/** As /proc/<pid>/task: on a core and waiting, ns, and what the thread is called. Programs run on thread 10. */
const looked = (threads: Readonly<Record<string, readonly [ran: number, waited: number, name: string]>>) => {
  const here = fs.mkdtempSync(path.join(folder, "task-"))
  for (const [thread, [ran, waited, name]] of Object.entries(threads)) {
    fs.mkdirSync(path.join(here, thread))
    fs.writeFileSync(path.join(here, thread, "schedstat"), `${ran} ${waited} 7\n`)
    fs.writeFileSync(path.join(here, thread, "comm"), `${name}\n`)
  }
  return threadTimes(here, "10")
}

it("are what each thread waited from one look to the next, those that began meanwhile from their beginning", () => {
  const before = looked({ "10": [5e9, 1e9, "MainThread"], "11": [2e9, 2e9, "rank0 compute"] })
  const after = looked({
    "10": [6e9, 3e9, "MainThread"],
    "11": [2e9, 2e9, "rank0 compute"],
    "12": [1e9, 0.5e9, "rank0 inter"],
    "13": [1e9, 0.25e9, "rank1000 comput"]
  })
  expect(between(before, after)).toEqual({
    device: { ranSeconds: 2, waitedSeconds: 0.75 },
    program: { ranSeconds: 1, waitedSeconds: 2 }
  })
})

it("are not those of threads that Node has for itself, whoever runs the program", () => {
  const none = looked({ "10": [0, 0, "node"] })
  for (const name of ["V8Worker", "DelayedTaskSche", "libuv-worker", "MainThread", "node"]) {
    const times = between(none, looked({ "10": [1e9, 0, name], "11": [1e9, 9e9, name] }))
    expect(times).toEqual({
      device: { ranSeconds: 0, waitedSeconds: 0 },
      program: { ranSeconds: 1, waitedSeconds: 0 }
    })
  }
})

it("are not known where the system does not say", () => {
  fs.mkdirSync(path.join(folder, "none", "10"), { recursive: true })
  expect(threadTimes(path.join(folder, "none"))).toBeUndefined()
  expect(threadTimes(path.join(folder, "nowhere"))).toBeUndefined()
  const [one, two] = [
    { ranSeconds: 1, waitedSeconds: 1 },
    { ranSeconds: 2, waitedSeconds: 2 }
  ]
  expect(
    together([
      { device: one, program: two },
      { device: one, program: one }
    ])
  ).toEqual({
    device: two,
    program: { ranSeconds: 3, waitedSeconds: 3 }
  })
  expect(together([{ device: one, program: two }, undefined])).toBeUndefined()
})

const at = { ranks: 4, cores: 2, apart: false }
/** A share of a second, of the device or of the program; the other waits for nothing. */
const waited = (
  what: string,
  waitedSeconds: number,
  of: Timed["of"] = "device",
  aboveLeast?: number
): Timed => {
  const none = { ranSeconds: 1, waitedSeconds: 0 }
  const cores = { device: none, program: none, [of]: { ranSeconds: 1 - waitedSeconds, waitedSeconds } }
  return { what, of, cores, ...(aboveLeast === undefined ? {} : { aboveLeast }) }
}
const unknown: Timed = { what: "layers", of: "device", cores: undefined }

it("are told from a twentieth on, and more ranks than cores where nothing else is known", () => {
  expect(coreWarnings([waited("layers", 0.05)], at)).toEqual([])
  const [told, ...more] = coreWarnings(
    [waited("layers", 0.06), waited("copies", 0.01), waited("collectives", 0.7)],
    at
  )
  expect(more).toEqual([])
  expect(told).toContain("6.0 % of the time while layers were timed, 70.0 % of the time while collectives")
  expect(told).toContain("4 ranks, 2 cores")
  expect(told).not.toContain("copies")
  expect(coreWarnings([unknown], at)).toHaveLength(1)
  expect(coreWarnings([unknown], { ...at, ranks: 2 })).toEqual([])
  expect(coreWarnings([unknown], { ...at, apart: true })).toEqual([])
})

it("are not told of numbers that are steady all the same, but where ranks share cores all the time", () => {
  const one = { ...at, ranks: 1 }
  expect(coreWarnings([waited("kernels", 0.5, "device", 0.09)], one)).toEqual([])
  expect(coreWarnings([waited("kernels", 0.5, "device", 0.11)], one)).toHaveLength(1)
  expect(coreWarnings([waited("kernels", 0.04, "device", 2)], one)).toEqual([])
  expect(coreWarnings([waited("kernels", 0.5, "device", 0)], { ...at, ranks: 2 })).toEqual([])
  expect(coreWarnings([waited("kernels", 0.5, "device", 0)], { ...at, ranks: 3 })).toHaveLength(1)
})

it("are told of those alone whose time is measured", () => {
  const { cores } = waited("reads", 0.5, "program")
  expect(coreWarnings([{ what: "reads", of: "program", cores }], at)).toHaveLength(1)
  expect(coreWarnings([{ what: "kernels", of: "device", cores }], at)).toEqual([])
})

/**
 * As two cores had them, of an AMD EPYC with a program's threads before all others' (SCHED_RR), and between others (load 9), ms: kernels
 * one after another on one rank. Of all threads together 7.4 % waited on the quiet machine, of which no kernel knew.
 */
const kernelsTimed = {
  quiet: { MainThread: [162.7, 4.3], V8Worker: [28.4, 51.2], "rank0 compute": [910.7, 18.4] },
  loaded: { MainThread: [373.6, 2029.3], V8Worker: [46.5, 788.6], "rank0 compute": [847.3, 3201.4] }
} as const

it.each([
  ["quiet", 0],
  ["loaded", 1]
] as const)("are on a %s machine told %d times", (which, times) => {
  const threads = Object.entries(kernelsTimed[which]).map(
    ([name, [ran, waiting]], i) => [String(10 + i), [ran * 1e6, waiting * 1e6, name]] as const
  )
  const none = looked({ "10": [0, 0, "MainThread"] })
  const cores = between(none, looked(Object.fromEntries(threads)))
  expect(coreWarnings([{ what: "kernels", of: "device", cores }], { ...at, ranks: 1 })).toHaveLength(times)
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
        const { coreTimes } = await Effect.runPromise(watchingCores("work", into, run))
        expect(into).toEqual([{ what: "work", of: "device", cores: coreTimes }])
        return coreTimes!.device
      }
      const one = await cores(1)
      const many = await cores(64)
      expect(one.ranSeconds).toBeGreaterThan(0)
      // 64 ranks want at most as much of the cores as 64 times one does, and wait for each other.
      expect(many.ranSeconds).toBeGreaterThan(one.ranSeconds)
      expect(many.waitedSeconds).toBeGreaterThan(one.waitedSeconds)
      const unwatched = await Effect.runPromise(execute({ world: localWorld(1), program: busy(1) }))
      expect(unwatched.coreTimes).toBeUndefined()
    }
  )

  it("says of a benchmark how far its medians are above the least", async () => {
    const into: Array<Timed> = []
    await Effect.runPromise(watchingCores("collectives", into, timeCollectives(2, [4096])))
    await Effect.runPromise(watchingCores("host", into, timeHost(3), "program"))
    expect(into.map(({ what, of }) => [what, of])).toEqual([
      ["collectives", "device"],
      ["host", "program"]
    ])
    for (const { aboveLeast } of into) expect(aboveLeast).toBeGreaterThanOrEqual(0)
  })
})

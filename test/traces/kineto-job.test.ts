// Traces of two ranks of one job, made by hand: a clock that is ahead, a rank that comes late, a slower optimizer.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { afterAll, describe, expect, it } from "vitest"
import {
  importKinetoFile,
  importKinetoFiles,
  type ImportReport,
  type KinetoOptions
} from "../../traces/index.ts"
import { ChromeTrace, smallStep } from "./chrome-trace.ts"

const folder = mkdtempSync(join(tmpdir(), "tandem-job-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const us = (seconds: number | undefined): number => Math.round((seconds ?? Number.NaN) * 1e9) / 1e3

interface OfRank {
  readonly rank: number
  /** When its first step begins on its clock, us. */
  readonly at: number
  /** When it comes to the all-reduce, us from the step's beginning; the last to come is there at 117. */
  readonly comes: number
  readonly optimizer: number
  readonly worldSize?: number
}

/** Two steps, each with an all-reduce that ends 129.5 us after the step's beginning, on every rank. */
const rankFile = ({ rank, at, comes, optimizer, worldSize = 2 }: OfRank): string => {
  const trace = new ChromeTrace()
  trace.members["distributedInfo"] = { backend: "nccl", rank, world_size: worldSize }
  for (const step of [0, 1]) {
    const from = at + 200 * step
    smallStep(trace, from, 50 + 10 * step)
    const sizes = { "In msg nelems": 1000, "Out msg nelems": 1000, "Group size": 2, dtype: "Float" }
    trace.op("record_param_comms", from + 84, 3, { "Collective name": "allreduce", ...sizes }, 2)
    trace.kernel("ncclDevKernel_AllReduce_Sum_f32_RING_LL", from + 85, from + comes, 129.5 - comes, 2)
  }
  for (const event of trace.events)
    if (event["name"] === "multi_tensor_apply_kernel") event["dur"] = optimizer
  const file = join(folder, `rank${rank}-${at}-${worldSize}.json.gz`)
  writeFileSync(file, gzipSync(trace.bytes))
  return file
}

const first = rankFile({ rank: 0, at: 0, comes: 112, optimizer: 12 })
const second = rankFile({ rank: 1, at: 5000.25, comes: 117, optimizer: 24 })
const imported = (...files: [string, ...Array<string>]): Promise<ImportReport> =>
  Effect.runPromise(importKinetoFiles(files))

describe("two ranks of a job", () => {
  it("keep their own times, and are one profile of what one rank does", async () => {
    const { profile, ranks, warnings } = await imported(first, second)
    expect(
      ranks!.map((rank) => [
        rank.rank,
        rank.steps,
        us(rank.deviceBusySeconds),
        us(rank.clockOffsetSeconds),
        us(rank.lateSeconds)
      ])
    ).toEqual([
      [0, 2, 122, 0, 0],
      [1, 2, 134, 5000.25, 5]
    ])
    expect(warnings.join("\n")).toContain("rank 1 computes 10 % longer than the median rank")
    // What both took alike is as long as on one of them; of what they did not, the mean.
    const alone = (await Effect.runPromise(importKinetoFile(first))).profile
    expect(profile.steps).toBe(2)
    expect(profile.parameters).toEqual(alone.parameters)
    expect(us(profile.deviceBusySeconds)).toBe(128)
    for (const phase of ["forward", "backward"] as const)
      expect(profile.layers.map((layer) => us(layer[phase].busySeconds))).toEqual(
        alone.layers.map((layer) => us(layer[phase].busySeconds))
      )
    const optimizer = profile.layers.reduce((sum, layer) => sum + layer.optimizer.busySeconds, 0)
    expect(us(optimizer)).toBe(18)
    // Of the all-reduce, what it takes once both have come.
    expect(
      profile.collectives.map((cost) => [cost.op, cost.ranks, cost.sizeBytes, us(cost.medianSeconds)])
    ).toEqual([["all_reduce", 2, 4000, 12.5]])
  })

  it("are the same in any order of files, clocks counted from the first", async () => {
    const [one, other] = [await imported(first, second), await imported(second, first)]
    expect(other.profile.layers.map(({ name }) => name)).toEqual(one.profile.layers.map(({ name }) => name))
    expect(us(other.profile.deviceBusySeconds)).toBe(us(one.profile.deviceBusySeconds))
    expect(other.ranks!.map(({ rank, clockOffsetSeconds }) => [rank, us(clockOffsetSeconds)])).toEqual([
      [0, -5000.25],
      [1, 0]
    ])
  })

  it("may be named by their folder; one without traces, or of two jobs, is refused", async () => {
    const job = join(folder, "job")
    mkdirSync(join(job, "none"), { recursive: true })
    for (const [i, file] of [first, second].entries()) copyFileSync(file, join(job, `${i}.json.gz`))
    writeFileSync(join(job, "config.json"), "{}")
    const { ranks, profile } = await imported(job)
    expect(ranks!.map(({ rank }) => rank)).toEqual([0, 1])
    expect(profile.stepSeconds).toBe((await imported(first, second)).profile.stepSeconds)
    const refused = async (...files: [string, ...Array<string>]) => {
      const result = await Effect.runPromise(Effect.result(importKinetoFiles(files)))
      return Result.isFailure(result) ? result.failure : undefined
    }
    expect((await refused(join(job, "none")))!.accepted).toContain("a trace (.json")
    const other = rankFile({ rank: 1, at: 0, comes: 112, optimizer: 12, worldSize: 8 })
    expect(await refused(first, other)).toMatchObject({ file: other, field: "distributedInfo.world_size" })
  })

  it("are told to be some of the ranks, and refused where two are one", async () => {
    const some = { comes: 117, optimizer: 12, worldSize: 4 }
    const files = [0, 1].map((rank) => rankFile({ rank, at: 0, ...some })) as [string, string]
    expect((await imported(...files)).warnings).toContain("traces of 2 of the job's 4 ranks")
    const twice = await Effect.runPromise(
      Effect.result(importKinetoFiles([first, rankFile({ rank: 0, at: 7, comes: 117, optimizer: 12 })]))
    )
    expect(Result.isFailure(twice) && twice.failure.message).toMatch(/distributedInfo.rank is 0, as in/u)
  })

  it("are named where one of them is missing, and so is a trace under DDP", async () => {
    const missing = join(folder, "missing.json")
    const refused = async (files: [string, ...Array<string>], options: KinetoOptions = {}) => {
      const result = await Effect.runPromise(Effect.result(importKinetoFiles(files, options)))
      return Result.isFailure(result) ? result.failure : undefined
    }
    expect(await refused([first, missing])).toMatchObject({ file: missing, value: "missing (ENOENT)" })
    expect(await refused([first], { ddp: missing })).toMatchObject({ file: missing, field: "file" })
    expect(await refused([first], { ddp: folder })).toMatchObject({ file: folder, value: "a folder" })
  })
})

// What is there twice: every event of a trace, a trace among those of a job's ranks. Neither counts as twice as much.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { importKineto, importKinetoFiles } from "../../traces/index.ts"
import { ChromeTrace, smallStep } from "./chrome-trace.ts"

const folder = mkdtempSync(join(tmpdir(), "tandem-twice-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe("a trace in which events are there twice", () => {
  const read = (trace: ChromeTrace) =>
    Effect.runPromise(Effect.result(importKineto(trace.bytes, { file: "t.json" })))
  const kernelsOf = ({ events }: ChromeTrace) => events.filter(({ cat }) => cat === "kernel")

  it("is refused where all of them are", async () => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    const kernels = kernelsOf(trace).length
    trace.events.push(...trace.events)
    const result = await read(trace)
    if (!Result.isFailure(result)) throw new Error("imported without an error")
    expect(result.failure.field).toBe("traceEvents")
    expect(result.failure.message).toContain(`${kernels} of ${2 * kernels} device events there twice`)
  })

  it("is warned of where one is, and of nothing where none is", async () => {
    const trace = new ChromeTrace()
    for (let step = 0; step < 6; step++) smallStep(trace, 200 * step, 50 + step)
    const warnings = async () => Result.getOrThrow(await read(trace)).warnings
    expect(await warnings()).toEqual([])
    trace.events.push(kernelsOf(trace)[0]!)
    expect(await warnings()).toEqual([expect.stringMatching(/^1 of \d+ device events there twice/u)])
  })
})

describe("a trace among those of a job", () => {
  /** Of two steps alike; `rank`: whether it says which it is of, `optimizer`: microseconds. */
  const traceFile = (name: string, optimizer: number, rank?: number): string => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    if (rank !== undefined) trace.members["distributedInfo"] = { backend: "nccl", rank, world_size: 2 }
    for (const event of trace.events)
      if (event["name"] === "multi_tensor_apply_kernel") event["dur"] = optimizer
    const file = join(folder, `${name}.json`)
    writeFileSync(file, trace.bytes)
    return file
  }
  const refused = async (...files: [string, ...Array<string>]) => {
    const result = await Effect.runPromise(Effect.result(importKinetoFiles(files)))
    return Result.isFailure(result) ? result.failure.message : undefined
  }

  it("is refused where one file is there twice, by whatever name and whatever it says of its rank", async () => {
    const [first, second] = [traceFile("rank0", 12, 0), traceFile("rank1", 12, 1)]
    const link = join(folder, "link.json")
    symlinkSync(first, link)
    expect(await refused(first, second)).toBe(undefined)
    expect(await refused(first, first)).toBe(`${first}: file is given twice; expected each rank's trace once`)
    expect(await refused(first, second, link)).toBe(
      `${link}: file is the same as ${first}; expected each rank's trace once`
    )
  })

  it("is refused where it is a copy of another that says no rank", async () => {
    const [one, copy, other] = [traceFile("one", 12), traceFile("copy", 12), traceFile("other", 12.001)]
    expect(await refused(one, other)).toBe(undefined)
    expect(await refused(one, other, copy)).toBe(
      `${copy}: traceEvents is the same, time by time, as in ${one}; expected each rank's trace once`
    )
  })
})

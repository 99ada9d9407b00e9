// What profiles lack or contradict: one without parameters has nothing to communicate, and is refused with what to do or gets them by
// hand; one whose step time is another model's is warned of.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, describe, expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { resolveModel } from "../../scenarios/model.ts"
import { importKinetoFile, readProfile, writeProfile } from "../../traces/index.ts"

const folder = mkdtempSync(join(tmpdir(), "tandem-parameters-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A measured profile needs no estimates of kernels. */
const measured = {
  device: undefined,
  ops: undefined,
  computeDtype: "float32" as const,
  kernelsOf: "fused" as const
}

const resolved = async (name: string, parameters?: number) => {
  const trace = fileURLToPath(new URL(`../fixtures/import/${name}.json`, import.meta.url))
  const profile = join(folder, `${name}.arrow`)
  await Effect.runPromise(
    Effect.flatMap(importKinetoFile(trace), (report) => writeProfile(profile, report.profile))
  )
  const model = { profile, hostTime: "span" as const, ...(parameters === undefined ? {} : { parameters }) }
  return Effect.runPromise(
    Effect.result(resolveModel(model, 4, measured, join(folder, "s.yaml"), new Loader()))
  )
}

const refusal = async (name: string, parameters?: number) => {
  const result = await resolved(name, parameters)
  if (!Result.isFailure(result)) throw new Error("accepted")
  return result.failure
}

describe("a profile without parameters", () => {
  it("is refused, with what to do", async () => {
    const error = await refusal("03-no-shapes")
    expect(error).toMatchObject({ field: "model.profile" })
    expect(error.accepted).toContain("record_shapes=True")
    expect(error.accepted).toContain("model.parameters")
  })

  it("of inference is refused as such, also with parameters by hand", async () => {
    expect((await refusal("04-inference")).value).toContain("no backward pass")
    expect((await refusal("04-inference", 1000)).value).toContain("no backward pass")
  })

  it("takes those stated, where gradients are made, and tells so", async () => {
    const result = await resolved("03-no-shapes", 1_000_003)
    if (Result.isFailure(result)) throw result.failure
    const { profile, warnings } = result.success
    expect(profile.parameters).toEqual([{ layer: 0, shape: [1_000_003], dtype: "float32" }])
    expect(warnings.join()).toContain("an estimate")
  })

  it("takes step times by number of ranks, each number once however it is written", async () => {
    const at = (stepSeconds: Readonly<Record<string, number>>) =>
      Effect.runPromise(
        Effect.result(
          resolveModel(
            { profile: "traces/profiles/gpt2-h200.arrow", hostTime: "span", stepSeconds },
            2,
            measured,
            "s.yaml",
            new Loader()
          )
        )
      )
    const once = Result.getOrThrow(await at({ "2": 0.06, "4": 0.1 }))
    expect(once.profile.stepSeconds).toBeCloseTo(0.06, 12)
    const twice = await at({ "2": 0.06, "4": 0.1, "2.0": 0.07 })
    if (!Result.isFailure(twice)) throw new Error("accepted")
    expect(twice.failure).toMatchObject({ field: "model.stepSeconds", value: expect.stringContaining("2.0") })
    expect(twice.failure.accepted).toContain("each number once")
  })

  it("warns of a stated step that is longer than the profiled one, as of seconds where milliseconds were meant", async () => {
    const warningsFor = async (stepSeconds: number | Readonly<Record<string, number>>) => {
      const model = { profile: "traces/profiles/gpt2-h200.arrow", hostTime: "span" as const, stepSeconds }
      return (await Effect.runPromise(resolveModel(model, 2, measured, "s.yaml", new Loader()))).warnings
    }
    expect(await warningsFor(0.03)).toEqual([])
    expect(await warningsFor(30)).toEqual([
      expect.stringMatching(/^model\.stepSeconds \(30\.0 s\) is longer than the profiled step \(.* ms\)/u)
    ])
    // Ranks that share a device take turns.
    expect(await warningsFor({ "2": 0.06 })).toEqual([])
  })

  it("does not need them where it has its own", async () => {
    expect(Result.isSuccess(await resolved("00-reference"))).toBe(true)
    expect((await refusal("00-reference", 5)).accepted).toContain("its own 1000000 parameters")
  })
})

describe("a profile whose step time is another model's", () => {
  const warningsOf = async (unprofiledStepSeconds: number) => {
    const shipped = await Effect.runPromise(readProfile("traces/profiles/gpt2-h200.arrow"))
    const profile = join(folder, "step.arrow")
    await Effect.runPromise(writeProfile(profile, { ...shipped, unprofiledStepSeconds }))
    const model = { profile, hostTime: "span" as const }
    const { warnings } = await Effect.runPromise(
      resolveModel(model, 4, measured, join(folder, "s.yaml"), new Loader())
    )
    return { warnings, shipped }
  }

  it("is warned of, whether that is too short for its kernels or too long", async () => {
    const { shipped } = await warningsOf(1)
    const { stepSeconds, unprofiledStepSeconds, deviceBusySeconds } = shipped
    expect((await warningsOf(unprofiledStepSeconds!)).warnings).toEqual([])
    expect((await warningsOf(deviceBusySeconds / 2)).warnings).toEqual([
      expect.stringMatching(/cannot hold its .* of device work and is not used/u)
    ])
    expect((await warningsOf(2 * stepSeconds)).warnings).toEqual([
      expect.stringMatching(/longer than with it .*: it may be of another model or batch/u)
    ])
  })
})

// What checkpoints cost in a simulation: closed forms of copies and of storage, and the same ops on a real machine.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { afterAll, describe, expect, it } from "vitest"
import { Lane } from "../../core/machine/lane.ts"
import { runOnBoth, runnableOn } from "../../exec/cli/both-machines.ts"
import type { CheckpointDetails } from "../../scenarios/families/data-parallel/prepare.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { describeNative } from "../native/addon.ts"

const folder = mkdtempSync(path.join(tmpdir(), "simulated-checkpoints-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const file = path.join(folder, "uniform.yaml")
// One layer of a million numbers, 4 MB; with AdamW's two moments 12 MB. Forward pass 10 ms, backward 20 ms.
writeFileSync(
  file,
  `name: uniform
model: { layers: 1, parameters: 1e6, stepSeconds: 30ms }
world: { ranks: 1 }
algorithm: s-sgd
`
)

const run = async (...sets: ReadonlyArray<string>) => {
  const scenario = await Effect.runPromise(loadScenario(file, sets))
  const { result, timeline } = await Effect.runPromise(
    runScenario(scenario, file, { loader: new Loader(), record: true })
  )
  const { stepSeconds, details } = result as unknown as {
    readonly stepSeconds: number
    readonly details?: { readonly checkpoint: CheckpointDetails }
  }
  return { stepSeconds, checkpoint: details?.checkpoint, timeline: timeline!, warnings: result.warnings }
}

const checkpoint = (every: number, link: string, storage?: string): string =>
  `checkpoint={every: ${every}, hostLink: {bandwidth: ${link}, latency: 1ms}${storage === undefined ? "" : `, storage: ${storage}`}}`

describe("a simulated checkpoint", () => {
  it("hides behind the passes that follow, as far as its copies take no longer", async () => {
    const plain = await run()
    expect(plain.checkpoint).toBeUndefined()
    expect(plain.stepSeconds).toBeCloseTo(0.03, 12)
    // Two copies of 4 and 8 MB: 1 ms each, and 12 MB at the link's rate. The next update waits for them, nothing else does.
    for (const [link, copies, longer] of [
      ["1GB/s", 0.002 + 0.012, false],
      ["0.2GB/s", 0.002 + 0.06, true]
    ] as const) {
      const { stepSeconds, checkpoint: told, timeline } = await run(checkpoint(4, link))
      expect(told).toMatchObject({ everySteps: 4, sizeBytes: 12e6 })
      expect(told!.copiedSeconds).toBeCloseTo(copies, 9)
      expect(told!.writtenSeconds).toBe(told!.copiedSeconds)
      expect(stepSeconds).toBeCloseTo((3 * 0.03 + Math.max(0.03, copies)) / 4, 9)
      expect(stepSeconds > 0.03 + 1e-6).toBe(longer)
      const saves = timeline.lane.filter((lane) => lane === Lane.d2h).length
      // Of 12 steps: 8 measured after a warm-up of 1 and of those to the first checkpoint.
      expect(saves).toBe(2 * Math.floor(Math.max(...timeline.step.map((step) => step + 1)) / 4))
    }
  })

  it("holds the run up where storage is still at the one before", async () => {
    // 12 MB at 40 MB/s are 300 ms; a checkpoint is due every 120.
    const bound = await run(checkpoint(4, "1GB/s", "{bandwidth: 40MB/s}"))
    // The first copy, of 4 MB, is there after 5 ms, and all that follow before they are written.
    expect(bound.checkpoint!.writtenSeconds).toBeCloseTo(0.005 + 0.3, 9)
    expect(bound.stepSeconds).toBeCloseTo(bound.checkpoint!.writtenSeconds / 4, 6)
    // Storage that is done in time costs no step anything.
    const free = await run(checkpoint(4, "1GB/s", "{bandwidth: 200MB/s}"))
    expect(free.checkpoint!.writtenSeconds).toBeCloseTo(0.005 + 0.06, 9)
    expect(free.stepSeconds).toBeCloseTo(0.03, 9)
  })

  it("shares storage among those that write to it", async () => {
    const eight = [
      "world.ranks=8",
      "world.ranksPerNode=2",
      "world.sites=2",
      "world.links.inter.bandwidth=10GB/s"
    ]
    for (const [sharedBy, ranks] of [
      ["rank", 1],
      ["node", 2],
      ["site", 4],
      ["job", 8]
    ] as const) {
      const storage = `{bandwidth: 800MB/s, sharedBy: ${sharedBy}}`
      const { checkpoint: told } = await run(checkpoint(100, "1GB/s", storage), "steps=100", ...eight)
      const link = 0.012 + 0.002
      // One rank alone writes nearly as fast as copies come: then the last copy is what it waits for.
      const written = ranks === 1 ? link + 8e6 / 800e6 : 0.005 + (12e6 * ranks) / 800e6
      expect(told!.writtenSeconds, sharedBy).toBeCloseTo(written, 9)
    }
  })

  it("is measured over whole stretches between checkpoints, and whole periods", async () => {
    const local = await run(
      "algorithm={name: local-sgd, period: 3}",
      "world.ranks=2",
      "steps=5",
      checkpoint(4, "1GB/s")
    )
    expect(local.warnings.join()).toContain(
      "steps: 5 rounded up to 12, whole periods of 3 steps and whole stretches between checkpoints"
    )
  })
})

describeNative("a checkpoint on both machines", () => {
  it("is the same ops, and saves the same values", async () => {
    const agreed = path.join(import.meta.dirname, "../../scenarios/agree/data-parallel.yaml")
    const scenario = await Effect.runPromise(
      loadScenario(agreed, ["steps=4", "checkpoint={every: 2, hostLink: {bandwidth: 1GB/s}}"])
    )
    const options = await Effect.runPromise(runnableOn(scenario, agreed, new Loader()))
    const { agreement, executedRun } = await Effect.runPromise(runOnBoth(options))
    expect(agreement.firstDisagreement).toBeUndefined()
    expect([agreement.decisions, agreement.values, agreement.order]).toEqual([true, true, true])
    const { label, labels, lane, rank, step } = executedRun.timeline
    const saves = [...label.keys()].filter((row) => lane[row] === Lane.d2h)
    expect(saves.every((row) => labels[label[row]!]!.startsWith("save "))).toBe(true)
    const perRank = Map.groupBy(saves, (row) => rank[row]!)
    const last = Math.max(...step) + 1
    const kept = new Set(saves.map((row) => label[row]!)).size
    expect(kept).toBeGreaterThan(20)
    for (const rows of perRank.values()) expect(rows).toHaveLength(kept * Math.floor(last / 2))
  })
})

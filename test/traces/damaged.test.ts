// A bit that a disk lost is told from a value: whatever bit of a file of columns is another, reading refuses it, or gives what was
// written.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import * as Result from "effect/Result"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import {
  foldRouting,
  readOpLogs,
  readProfile,
  readTimeline,
  readWeights,
  TraceError,
  writeOpLogs,
  writeProfile,
  writeRouting,
  writeTimeline,
  writeWeights,
  type Routing
} from "../../traces/index.ts"
import { readJournals, writeJournals } from "../../traces/journal-file.ts"
import { opLogs, profiles, routings, timelines } from "./arbitraries.ts"

const folder = mkdtempSync(join(tmpdir(), "tandem-damaged-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

type Written = readonly [
  write: (path: string) => Effect.Effect<void, TraceError>,
  read: (path: string) => Effect.Effect<unknown, TraceError>
]

const one = <A>(of: fc.Arbitrary<A>, wanted: (value: A) => boolean): A =>
  fc.sample(of, { numRuns: 200, seed: 11 }).find(wanted)!

const journals = {
  journals: [{ rank: 0, entries: [{ kind: "now" as const, seconds: 0.25 }, { kind: "endStep" as const }] }],
  finals: new Map([[0, new Map()]])
}
const weights = {
  name: "w",
  model: "llama",
  sizes: { layers: 1 },
  characters: ["a"],
  heldOut: 0.1,
  parameters: [{ name: "w", shape: [2], values: Float32Array.of(1, -6.5) }]
}

const files: Readonly<Record<string, Written>> = {
  profile: [
    (path) =>
      writeProfile(
        path,
        one(profiles, ({ layers }) => layers.length > 1)
      ),
    readProfile
  ],
  timeline: [
    (path) =>
      writeTimeline(
        path,
        one(timelines, ({ rank }) => rank.length > 3)
      ),
    readTimeline
  ],
  "op log": [
    (path) =>
      writeOpLogs(
        path,
        one(opLogs, (logs) => logs.length > 1)
      ),
    readOpLogs
  ],
  routing: [
    (path) =>
      writeRouting(
        path,
        one(routings, ({ step }) => step.length > 0)
      ),
    (path) => foldRouting(path, [] as ReadonlyArray<Routing>, (all, rows) => [...all, rows])
  ],
  journal: [(path) => writeJournals(path, journals), readJournals],
  weights: [(path) => writeWeights(path, weights), readWeights],
  "weights.safetensors": [(path) => writeWeights(path, weights), readWeights]
}

describe("a lost bit", () => {
  it.each(Object.entries(files))("of a %s is found", async (name, [write, read]) => {
    const path = join(folder, name.includes(".") ? name : `${name}.arrow`)
    await Effect.runPromise(write(path))
    const good = await Effect.runPromise(Effect.result(read(path)))
    expect(Result.isSuccess(good)).toBe(true)
    const bytes = readFileSync(path)
    let refused = 0
    const tries = 400
    for (let i = 0; i < tries; i++) {
      const bit = Math.floor(((i + 0.5) * bytes.length * 8) / tries) ^ (i & 7)
      const damaged = Uint8Array.from(bytes)
      damaged[bit >> 3]! ^= 1 << (bit & 7)
      writeFileSync(path, damaged)
      const result = await Effect.runPromise(Effect.result(read(path)))
      if (Result.isSuccess(result)) expect(result, `bit ${bit}`).toEqual(good)
      else {
        expect(result.failure, `bit ${bit}`).toBeInstanceOf(TraceError)
        refused++
      }
    }
    // What is left is the name of the key that says the digest.
    expect(refused).toBeGreaterThan(0.94 * tries)
  })
})

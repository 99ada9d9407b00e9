// DDP and FSDP2 on two H200s under cubic: the table that ships is the recording's, and what is found of its claims.
import { readFileSync } from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import {
  collectivesCsv,
  congestionOf,
  partsOf,
  peakBytesOf,
  secondsOf,
  sourceOf,
  stepsOf,
  type Recording
} from "../../bench/measured/fsdp-recording.ts"
import { Loader } from "../../scenarios/load.ts"
import { shardedH200x2Cubic } from "../../sim/validate/sharded-h200.ts"
import { importCsv, readProfile } from "../../traces/index.ts"

const root = fileURLToPath(new URL("../../", import.meta.url))
const read = (file: string): unknown => JSON.parse(readFileSync(path.join(root, file), "utf8"))
const recording = read("bench/measured/fsdp-h200x2-cubic.json") as Recording

interface Row {
  readonly link: string
  readonly model: string
  readonly mode: string
  readonly shown?: string
  readonly stepSeconds: number
  readonly peakBytes?: number
}
const { source, steps } = read("scenarios/validate/sharded-h200x2-cubic.measured.json") as {
  readonly source: string
  readonly steps: ReadonlyArray<Row>
}

it("has every step that was recorded, as medians of it", () => {
  expect(congestionOf(recording)).toBe("cubic")
  expect(source).toBe(sourceOf(recording))
  const plain = steps.filter(({ shown }) => shown === undefined)
  for (const { link, model, mode, stepSeconds, peakBytes } of plain) {
    const [part, ...others] = stepsOf(recording, {
      model: model as "gpt2",
      mode: mode as "local",
      few: false,
      link: link.split(",")[0]!
    })
    expect(others).toEqual([])
    // Numbers of the recording have six digits.
    expect(Math.abs(secondsOf(part!) / stepSeconds - 1)).toBeLessThan(1e-5)
    if (peakBytes !== undefined) expect(peakBytesOf(part!)).toBe(peakBytes)
  }
  // Local steps of both models; DDP and FSDP2 over NVLink, and four links of sockets but the Llama's over the last.
  expect(plain).toHaveLength(2 + 4 + 4 * 4 - 2)
})

// As docs/sharding.md tells; the bounds are those that were set before.
it("says of each bound how much of it is met", async () => {
  const { claims, lines } = await Effect.runPromise(
    Effect.flatMap(shardedH200x2Cubic.open, (table) => table.check(new Loader(), () => undefined))
  )
  expect(claims.map(({ claim, holds, found }) => [claim, holds, found])).toEqual([
    ["peaks of memory, whole and in parts, within 5 %", true, "6 of 6, worst 2.5 %"],
    ["steps over NVLink within 5 %", false, "2 of 4, worst 30.3 %"],
    ["steps over NVLink whose host waits for each within 5 %", false, "2 of 4, worst 40.0 %"],
    ["steps over shaped links of 5 to 25 Gbit/s within 5 %", false, "9 of 10, worst 9.0 %"],
    ["steps over sockets that are not shaped within 5 %", false, "3 of 4, worst 11.0 %"],
    ["steps over shaped links, from collectives measured on them within 5 %", true, "10 of 10, worst 3.4 %"]
  ])
  // Over 5 and 10 Gbit/s, from unshaped collectives and the rate.
  const slow = lines.filter((line) => /^\s*(?:5|10)gbit/u.test(line) && !line.includes("measured link"))
  expect(slow).toHaveLength(6)
  expect(Math.max(...slow.map((line) => Math.abs(Number(/([+-][\d.]+) %\s*$/u.exec(line)![1]))))).toBe(0.4)
})

it.each(partsOf(recording, "collectives").map(({ link }) => link))(
  "has collectives over %s as recorded",
  async (link) => {
    const { profile } = await Effect.runPromise(
      importCsv(collectivesCsv(recording, link)!, { file: "recording" })
    )
    const { collectives } = await Effect.runPromise(
      readProfile(path.join(root, `traces/profiles/nccl-${link}-h200x2-cubic.arrow`))
    )
    expect(collectives).toHaveLength(profile.collectives.length)
    for (const [index, { op, sizeBytes, medianSeconds }] of profile.collectives.entries()) {
      const shipped = collectives[index]!
      expect([shipped.op, shipped.sizeBytes]).toEqual([op, sizeBytes])
      expect(Math.abs(shipped.medianSeconds / medianSeconds - 1)).toBeLessThan(1e-5)
    }
  }
)

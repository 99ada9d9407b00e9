// What a study keeps is read back as it was written, or refused: a bit that a disk lost is no result.
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { afterAll, expect, it } from "vitest"
import { readJournal, withJournal } from "../../sim/study/journal.ts"
import type { StudyResult, StudyRow } from "../../sim/study/result.ts"
import { readStudyArrow, writeStudyArrow } from "../../sim/study/study-file.ts"
import { computeStudy, writeStudyFile } from "./computed.ts"

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "damaged-"))
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

const scenario = path.join(folder, "study.yaml")
writeStudyFile(scenario, {
  axes: { "world.links.inter.bandwidth": ["1Gbit/s", "2Gbit/s"], algorithm: ["ddp", "s-sgd"] }
})
const study: StudyResult = await computeStudy(scenario)

/** One bit of each of so many parts of equal length. */
const bitsOf = (bytes: Uint8Array, tries: number): ReadonlyArray<number> =>
  Array.from({ length: tries }, (_, i) => Math.floor(((i + 0.5) * bytes.length * 8) / tries) ^ (i & 7))

const flipped = (bytes: Uint8Array, bit: number): Uint8Array => {
  const damaged = Uint8Array.from(bytes)
  damaged[bit >> 3]! ^= 1 << (bit & 7)
  return damaged
}

it("of study.arrow, which compare and merge read", async () => {
  const file = path.join(folder, "study.arrow")
  await Effect.runPromise(writeStudyArrow(file, study))
  const bytes = fs.readFileSync(file)
  expect(await Effect.runPromise(readStudyArrow(file))).toEqual(study)
  let refused = 0
  const tries = 600
  for (const bit of bitsOf(bytes, tries)) {
    fs.writeFileSync(file, flipped(bytes, bit))
    const result = await Effect.runPromise(Effect.result(readStudyArrow(file)))
    if (Result.isFailure(result)) refused++
    else expect(result.success, `bit ${bit}`).toEqual(study)
  }
  expect(refused).toBeGreaterThan(0.98 * tries)
})

it("of study.arrow where a digit of a result is another: told with what it is", async () => {
  const file = path.join(folder, "digit.arrow")
  await Effect.runPromise(writeStudyArrow(file, study))
  const bytes = fs.readFileSync(file)
  const at = bytes.indexOf('"stepSeconds":0.') + '"stepSeconds":0.'.length
  bytes[at] = bytes[at] === 0x35 ? 0x36 : 0x35
  fs.writeFileSync(file, bytes)
  const { message } = await Effect.runPromise(Effect.flip(readStudyArrow(file)))
  expect(message).toContain(
    `${file}: metadata tandem.check is the digest of other bytes; expected the digest`
  )
})

it("of one from before files had digests, as it is", async () => {
  const file = path.join(folder, "before.arrow")
  await Effect.runPromise(writeStudyArrow(file, study))
  const bytes = fs.readFileSync(file)
  // The same file without the key, which another name hides.
  const at = bytes.lastIndexOf("tandem.check")
  bytes.write("tandem.other", at, "latin1")
  fs.writeFileSync(file, bytes)
  expect(await Effect.runPromise(readStudyArrow(file))).toEqual(study)
})

it("of a journal, which --resume reads: a point is as it was, or computed again", async () => {
  const file = path.join(folder, "journal.jsonl")
  const rows = new Map<number, ReadonlyArray<StudyRow>>(study.rows.map((row) => [row.point, [row]]))
  await Effect.runPromise(withJournal(file, study.header, rows, () => Effect.void))
  const bytes = fs.readFileSync(file)
  const seen = { refused: 0, fewer: 0 }
  for (const bit of bitsOf(bytes, 2000)) {
    fs.writeFileSync(file, flipped(bytes, bit))
    const result = await Effect.runPromise(Effect.result(readJournal(file, study.header)))
    if (Result.isFailure(result)) seen.refused++
    else {
      if (result.success.size < rows.size) seen.fewer++
      for (const [point, found] of result.success) expect(found, `bit ${bit}`).toEqual(rows.get(point))
    }
  }
  expect(seen.fewer).toBeGreaterThan(1500)
  expect(seen.refused).toBeGreaterThan(0)
})

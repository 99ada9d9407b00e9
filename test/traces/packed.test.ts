// Files as people send them: gzip, zip archives of one or several traces, other compression. The archives are written by hand as
// the format's note has them (PKWARE's APPNOTE 4.3: local headers, central directory, end), so that writer and reader share nothing.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { deflateRawSync, gzipSync, zstdCompressSync } from "node:zlib"
import { afterAll, describe, expect, it } from "vitest"
import {
  diagnose,
  importCsvFile,
  importKinetoFile,
  importNcclTestsFile,
  importRoutingFile
} from "../../traces/index.ts"
import type { TraceError } from "../../traces/trace-error.ts"

const folder = mkdtempSync(join(tmpdir(), "packed-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const fixture = (name: string): Buffer =>
  readFileSync(fileURLToPath(new URL(`../fixtures/import/${name}`, import.meta.url)))
const write = (name: string, bytes: Uint8Array): string => {
  writeFileSync(join(folder, name), bytes)
  return join(folder, name)
}

interface Entry {
  readonly name: string
  readonly bytes: Uint8Array
  readonly stored?: boolean
}

/** A zip archive: what each entry's local header says, the same again in the directory, and where that is. */
const zip = (entries: ReadonlyArray<Entry>, comment = ""): Buffer => {
  const bodies: Array<Buffer> = []
  const directory: Array<Buffer> = []
  let at = 0
  for (const { name, bytes, stored = false } of entries) {
    const packed = stored ? Buffer.from(bytes) : deflateRawSync(bytes)
    const shared = Buffer.alloc(26)
    shared.writeUInt16LE(20, 0)
    shared.writeUInt16LE(stored ? 0 : 8, 4)
    shared.writeUInt32LE(packed.length, 14)
    shared.writeUInt32LE(bytes.length, 18)
    shared.writeUInt16LE(Buffer.byteLength(name), 22)
    const place = Buffer.alloc(14)
    place.writeUInt32LE(at, 10)
    directory.push(Buffer.from([0x50, 0x4b, 1, 2, 20, 0]), shared, place, Buffer.from(name))
    bodies.push(Buffer.from([0x50, 0x4b, 3, 4]), shared, Buffer.from(name), packed)
    at += 30 + Buffer.byteLength(name) + packed.length
  }
  const list = Buffer.concat(directory)
  const end = Buffer.alloc(22)
  end.set([0x50, 0x4b, 5, 6])
  end.writeUInt16LE(entries.length, 8)
  end.writeUInt16LE(entries.length, 10)
  end.writeUInt32LE(list.length, 12)
  end.writeUInt32LE(at, 16)
  end.writeUInt16LE(comment.length, 20)
  return Buffer.concat([...bodies, list, end, Buffer.from(comment)])
}

const refusal = async <A>(effect: Effect.Effect<A, TraceError>): Promise<TraceError> => {
  const result = await Effect.runPromise(Effect.result(effect))
  if (!Result.isFailure(result)) throw new Error("imported without an error")
  return result.failure
}

const reference = fixture("00-reference.json")
const ofRank = (rank: number): Buffer =>
  Buffer.from(
    JSON.stringify({
      ...(JSON.parse(reference.toString()) as object),
      distributedInfo: { rank, world_size: 2 }
    })
  )

describe("a zip archive", () => {
  it.each([
    ["packed", false, ""],
    ["stored, with a comment", true, "from a colleague, PK"]
  ])("of one trace is that trace: %s", async (_, stored, comment) => {
    const others = { name: "notes/readme.txt", bytes: Buffer.from("hello") }
    const mac = { name: "__MACOSX/._trace.json", bytes: Buffer.from([1, 2]) }
    const path = write(
      "one.zip",
      zip([others, mac, { name: "trace.json", bytes: reference, stored }], comment)
    )
    const { profile } = await Effect.runPromise(importKinetoFile(path))
    expect([profile.steps, Math.round(profile.stepSeconds * 1e6)]).toEqual([2, 950])
    expect((await Effect.runPromise(diagnose(path))).kind).toBe("kineto")
  })

  it("of several ranks' traces is one job, gzip-compressed inside or not", async () => {
    const path = write(
      "ranks.zip",
      zip([
        { name: "traces/rank0.json.gz", bytes: gzipSync(ofRank(0)) },
        { name: "traces/rank1.json", bytes: ofRank(1) }
      ])
    )
    const { ranks, profile } = await Effect.runPromise(importKinetoFile(path))
    expect(ranks?.map(({ rank }) => rank)).toEqual([0, 1])
    expect(Math.round(profile.deviceBusySeconds * 1e6)).toBe(550)
    const twice = zip([1, 2].map((i) => ({ name: `${i}.json`, bytes: ofRank(0) })))
    expect((await refusal(importKinetoFile(write("twice.zip", twice)))).message).toContain("2.json")
  })

  it("or file of several ranks is no trace under DDP: which of them to take is not guessed", async () => {
    const alone = write("alone.json", reference)
    const under = async (name: string, bytes: Uint8Array) =>
      refusal(importKinetoFile(alone, { unprofiledStepSeconds: 1e-3, ddp: write(name, bytes) }))
    const several = await under(
      "several.zip",
      zip([0, 1].map((i) => ({ name: `${i}.json`, bytes: ofRank(i) })))
    )
    expect([several.value, several.accepted]).toEqual(["0.json, 1.json", "the trace of one rank"])
    const merged = await under("merged.json", fixture("19-two-ranks-merged.json"))
    expect([merged.value, merged.accepted]).toEqual(["traces of 2 processes", "the trace of one rank"])
    // One is taken, and here refused for what it is.
    const one = await under("one-rank.zip", zip([{ name: "0.json", bytes: ofRank(0) }]))
    expect(one.accepted).toContain("DistributedDataParallel")
  })

  it("that is damaged, or holds no trace, is refused by name", async () => {
    const whole = zip([{ name: "trace.json", bytes: reference }])
    for (const at of [40, whole.length - 30, whole.length - 4]) {
      const error = await refusal(importKinetoFile(write("cut.zip", whole.subarray(0, at))))
      expect(error.value).toContain("zip")
    }
    const flipped = Buffer.from(whole)
    flipped.fill(0xff, 45, 60)
    expect((await refusal(importKinetoFile(write("odd.zip", flipped)))).value).toBe("trace.json, damaged")
    const saved = zip([{ name: "archive/data.pkl", bytes: Buffer.from([0x80, 2]) }])
    expect((await refusal(importKinetoFile(write("saved.pt", saved)))).value).toContain("archive/data.pkl")
    expect((await Effect.runPromise(diagnose(join(folder, "saved.pt")))).kind).toBe("torch-save")
  })
})

it("tables and routings may be gzip-compressed", async () => {
  const nccl = write("log.txt.gz", gzipSync(fixture("nccl-i-no-hash.txt")))
  expect((await Effect.runPromise(importNcclTestsFile(nccl))).profile.collectives).toHaveLength(2)
  const csv = write(
    "t.csv.gz",
    gzipSync("op,ranks,bytes,median_seconds,link\nall_reduce,2,4096,1e-5,unshaped\n")
  )
  expect((await Effect.runPromise(importCsvFile(csv))).profile.collectives).toHaveLength(1)
  const routing = write("r.json.gz", gzipSync("[[[0, 1]], [[2, 3]]]"))
  expect((await Effect.runPromise(importRoutingFile("json", routing))).layers).toHaveLength(2)
  const cut = write("cut.txt.gz", gzipSync(fixture("nccl-i-no-hash.txt")).subarray(0, 60))
  expect((await refusal(importNcclTestsFile(cut))).value).toContain("damaged gzip")
})

it("other compression is refused by its name", async () => {
  const zstd = write("trace.json.zst", zstdCompressSync(reference))
  expect((await refusal(importKinetoFile(zstd))).value).toBe("compressed by zstd")
  expect((await refusal(importNcclTestsFile(zstd))).value).toBe("compressed by zstd")
  expect((await Effect.runPromise(diagnose(zstd))).missing[0]!.how).toContain("gzip")
})

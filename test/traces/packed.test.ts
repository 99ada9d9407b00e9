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
const write = (name: string, bytes: Uint8Array | string): string => {
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

it("tables, requests and routings may be compressed by gzip or zstd", async () => {
  for (const [end, compress] of [
    ["gz", gzipSync],
    ["zst", zstdCompressSync]
  ] as const) {
    const packed = (name: string, content: string | Uint8Array) => write(`${name}.${end}`, compress(content))
    const nccl = packed("log.txt", fixture("nccl-i-no-hash.txt"))
    expect((await Effect.runPromise(importNcclTestsFile(nccl))).profile.collectives).toHaveLength(2)
    const routing = packed("r.json", "[[[0, 1]], [[2, 3]]]")
    expect((await Effect.runPromise(importRoutingFile("json", routing))).layers).toHaveLength(2)
    const requests = packed("requests.csv", fixture("req-b-burst.csv"))
    expect(await Effect.runPromise(diagnose(requests))).toMatchObject({ kind: "requests", readable: true })
    const trace = packed("trace.json", reference)
    expect((await Effect.runPromise(importKinetoFile(trace))).profile.steps).toBe(2)
    expect((await Effect.runPromise(diagnose(trace))).kind).toBe("kineto")
    const cut = write(`cut.${end}`, compress(fixture("nccl-i-no-hash.txt")).subarray(0, 60))
    expect((await refusal(importNcclTestsFile(cut))).value).toMatch(/cut short$/u)
    expect((await refusal(importKinetoFile(cut))).value).toMatch(/cut short$/u)
  }
})

it("what is compressed twice, as servers leave it, is read; over and over it is refused", async () => {
  const trace = write("twice.json.gz", gzipSync(gzipSync(reference)))
  expect((await Effect.runPromise(importKinetoFile(trace))).profile.steps).toBe(2)
  expect((await Effect.runPromise(diagnose(trace))).kind).toBe("kineto")
  const log = write("twice.txt.gz", zstdCompressSync(gzipSync(fixture("nccl-i-no-hash.txt"))))
  expect((await Effect.runPromise(importNcclTestsFile(log))).profile.collectives).toHaveLength(2)
  let over = Buffer.from(reference)
  for (let i = 0; i < 9; i++) over = gzipSync(over)
  expect((await refusal(importKinetoFile(write("over.json.gz", over)))).value).toBe(
    "compressed over and over"
  )
})

it("other compression is refused by its name", async () => {
  const xz = write("trace.json.xz", Buffer.from("fd377a585a0000", "hex"))
  expect((await refusal(importKinetoFile(xz))).value).toBe("compressed by xz")
  expect((await refusal(importNcclTestsFile(xz))).value).toBe("compressed by xz")
  expect((await Effect.runPromise(diagnose(xz))).missing[0]!.how).toContain("gzip")
})

/** A text as Windows' programs write it. */
const utf16 = (text: string, order: "le" | "be", mark = "\uFEFF"): Buffer => {
  const bytes = Buffer.from(mark + text, "utf16le")
  return order === "le" ? bytes : bytes.swap16()
}

it("texts are read in UTF-8 and UTF-16, whatever ends their lines", async () => {
  const table = "op,ranks,bytes,median_seconds\nall_reduce,2,4096,1e-5\n"
  for (const bytes of [
    Buffer.from(`\uFEFF${table}`),
    Buffer.from(table.replaceAll("\n", "\r\n")),
    Buffer.from(table.replaceAll("\n", "\r")),
    utf16(table.replaceAll("\n", "\r\n"), "le"),
    utf16(table, "be"),
    utf16(table, "le", "")
  ]) {
    const { profile } = await Effect.runPromise(importCsvFile(write("t.csv", bytes)))
    expect(profile.collectives).toMatchObject([{ op: "all_reduce", ranks: 2, medianSeconds: 1e-5 }])
  }
  const trace = write("wide.json", utf16(reference.toString(), "le"))
  expect((await Effect.runPromise(importKinetoFile(trace))).profile.steps).toBe(2)
  const log = write("log.txt", utf16(fixture("nccl-i-no-hash.txt").toString(), "le"))
  expect((await Effect.runPromise(importNcclTestsFile(log))).profile.collectives).toHaveLength(2)
  expect((await Effect.runPromise(diagnose(log))).kind).toBe("nccl-tests")
  expect((await refusal(importCsvFile(write("t.bin", new Uint8Array(64))))).value).toBe("binary (zero bytes)")
})

describe("a table's cells", () => {
  const read = (text: string) => Effect.runPromise(importCsvFile(write("t.csv", text)))
  it.each([
    ["semicolons", "op;ranks;bytes;median_seconds;link\nall_reduce;2;4096;0.00125;a, b\n"],
    ["tabs", "op\tranks\tbytes\tmedian_seconds\nall_reduce\t2\t4096\t0.00125\n"],
    ["semicolons and a decimal comma", "op;ranks;bytes;median_seconds\nall_reduce;2;4096;0,00125\n"],
    ["an exponent behind a comma", "op\tranks\tbytes\tmedian_seconds\nall_reduce\t2\t4096\t1,25e-3\n"],
    [
      "what a spreadsheet says first",
      "sep=;\r\nop;ranks;bytes;median_seconds\r\nall_reduce;2;4096;0,00125\r\n"
    ],
    ["comments", "# mine\n# op,ranks\nop,ranks,bytes,median_seconds\nall_reduce,2,4096,0.00125\n"]
  ])("may be apart by %s", async (_, text) => {
    const { profile } = await read(text)
    expect(profile.collectives).toMatchObject([{ ranks: 2, sizeBytes: 4096, medianSeconds: 1.25e-3 }])
  })

  it("with a comma that may be decimal or of thousands are refused, and told why", async () => {
    for (const rest of ["", "all_reduce;2;8192;0.5\n", "all_reduce;2;1,048,576;0,5\n"]) {
      const told = await refusal(
        importCsvFile(write("t.csv", `op;ranks;bytes;median_seconds\nall_reduce;2;4,096;1e-5\n${rest}`))
      )
      expect([told.field, told.accepted]).toEqual([
        "line 2, column bytes",
        expect.stringContaining("write numbers with a point")
      ])
    }
    // Of thousandths alone, one of fewer digits tells all.
    const { profile } = await read(
      "op;ranks;bytes;median_seconds\nall_reduce;2;1;0,5\nall_reduce;2;2;1,125\n"
    )
    expect(profile.collectives.map(({ medianSeconds }) => medianSeconds)).toEqual([0.5, 1.125])
  })
})

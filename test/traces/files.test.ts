// The files of the trace layer: what is written is read back, what is wrong is refused with its place, nothing half
// written is left behind.
import { spawn, spawnSync } from "node:child_process"
import * as fc from "fast-check"
import { tableFromIPC } from "apache-arrow"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeEach, describe, expect, it } from "vitest"
import type { Timeline } from "../../core/machine/timeline.ts"
import type { Profile } from "../../core/profile.ts"
import { column, decodeColumns, encodeColumns, type Format } from "../../traces/columns.ts"
import {
  decodeProfile,
  encodeProfile,
  foldRouting,
  foldTimeline,
  profileFormat,
  readOpLogs,
  readProfile,
  readTimeline,
  timelineFormat,
  TraceError,
  writeFileAtomically,
  writeOpLogs,
  writeProfile,
  writeRouting,
  writeTimeline,
  writeTimelineParts,
  type Routing
} from "../../traces/index.ts"
import { opLogs, profiles, routings, timelines } from "./arbitraries.ts"

const folder = mkdtempSync(join(tmpdir(), "tandem-files-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const path = join(folder, "file.arrow")

const run = <A, E>(effect: Effect.Effect<A, E>): Promise<A> => Effect.runPromise(effect)

const failure = async <A>(effect: Effect.Effect<A, TraceError>): Promise<TraceError> => {
  const result = await run(Effect.result(effect))
  if (!Result.isFailure(result)) throw new Error("succeeded")
  expect(result.failure).toBeInstanceOf(TraceError)
  return result.failure
}

const phase = (busySeconds: number, spanSeconds: number) => ({ busySeconds, spanSeconds })

const sample: Profile = {
  name: "sample",
  device: "GPU",
  source: "by hand",
  steps: 2,
  stepSeconds: 0.1,
  unprofiledStepSeconds: 0.08,
  deviceBusySeconds: 0.05,
  unattributedShare: 0.25,
  layers: [
    { name: "a", forward: phase(0.01, 0.02), backward: phase(0.02, 0.05), optimizer: phase(0.01, 0.01) },
    { name: "b", forward: phase(0.01, 0.02), backward: phase(0, 0), optimizer: phase(0, 0) }
  ],
  parameters: [{ layer: 1, shape: [3, 4], dtype: "float32" }],
  ops: [{ op: "gemm", attributes: { m: 1, k: 768 }, medianSeconds: 3e-5 }],
  collectives: [{ op: "all_reduce", ranks: 2, sizeBytes: 4096, medianSeconds: 7e-5, link: "1gbit" }]
}

describe("profiles", () => {
  it("are read as they were written", () => {
    let scalars = 0
    let bare = 0
    fc.assert(
      fc.property(profiles, (profile) => {
        if (profile.parameters.some(({ shape }) => shape.length === 0)) scalars++
        if (profile.layers.length === 0) bare++
        expect(decodeProfile("p", encodeProfile("p", profile))).toEqual(profile)
      }),
      { numRuns: 300, examples: [[{ ...sample, layers: [], parameters: [], ops: [], collectives: [] }]] }
    )
    expect(scalars).toBeGreaterThan(10)
    expect(bare).toBeGreaterThan(10)
  })

  it("go through a file, as one long table that other Arrow readers understand", async () => {
    await run(writeProfile(path, sample))
    expect(await run(readProfile(path))).toStrictEqual(sample)
    const table = tableFromIPC(readFileSync(path))
    expect(table.numRows).toBe(2 * 3 + 1 + 1 + 1)
    expect(table.schema.metadata.get("step_seconds")).toBe("0.1")
    const [first] = table.toArray() as Array<Record<string, unknown>>
    expect(first).toMatchObject({
      section: "layer",
      name: "a",
      phase: "forward",
      busy_seconds: 0.01,
      layer: null
    })
  })

  it.each<[string, Partial<Profile>, string]>([
    [
      "a NaN",
      { layers: [{ ...sample.layers[0]!, forward: phase(Number.NaN, 1) }] },
      "column busy_seconds, row 0"
    ],
    [
      "a negative time",
      { layers: [{ ...sample.layers[0]!, backward: phase(1, -1) }] },
      "column span_seconds, row 1"
    ],
    [
      "an infinite size",
      { collectives: [{ ...sample.collectives[0]!, sizeBytes: Infinity }] },
      "column size_bytes, row 8"
    ],
    [
      "a time beside kernels below zero",
      { collectives: [{ ...sample.collectives[0]!, besideSeconds: -1 }] },
      "column attributes, row 8"
    ],
    ["half a rank", { collectives: [{ ...sample.collectives[0]!, ranks: 2.5 }] }, "column ranks, row 8"],
    ["an extent below 0", { parameters: [{ layer: 0, shape: [-1], dtype: "x" }] }, "column shape, row 6"],
    ["an unknown layer", { parameters: [{ layer: 2, shape: [], dtype: "x" }] }, "layer of parameter 0"],
    [
      "an attribute that is no number",
      { ops: [{ op: "o", attributes: { m: Number.NaN }, medianSeconds: 1 }] },
      "column attributes, row 7"
    ],
    ["a share above 1", { unattributedShare: 1.5 }, "metadata unattributed_share"],
    ["a step of NaN", { stepSeconds: Number.NaN }, "metadata step_seconds"]
  ])("with %s are not written", async (_, change, field) => {
    const error = await failure(writeProfile(join(folder, "refused.arrow"), { ...sample, ...change }))
    expect(error.field).toBe(field)
    expect(readdirSync(folder).filter((name) => name.includes("refused"))).toEqual([])
  })
})

describe("files that are no profile", () => {
  const bytes = encodeProfile("p", sample)
  const refused = async (content: Uint8Array): Promise<TraceError> => {
    writeFileSync(path, content)
    return failure(readProfile(path))
  }
  /** The same columns under another description. */
  const as = (change: Partial<Format>, metadata: Record<string, string> = {}): Uint8Array => {
    const { batches, metadata: own } = decodeColumns("p", profileFormat, bytes)
    const kept = Object.fromEntries([...own].filter(([key]) => !key.startsWith("tandem.")))
    return encodeColumns("p", { ...profileFormat, ...change }, { ...kept, ...metadata }, batches)
  }

  it("are named with what is wrong", async () => {
    expect((await failure(readProfile(join(folder, "none.arrow")))).message).toContain("missing (ENOENT)")
    expect((await refused(new Uint8Array(0))).value).toContain("not an Arrow file")
    expect((await refused(new TextEncoder().encode("op,attributes,median_seconds"))).value).toContain(
      "op,att"
    )
    expect((await refused(bytes.subarray(0, bytes.length - 40))).value).toContain("cut short")
    expect((await refused(as({ name: "timeline" }))).field).toBe("metadata tandem.format")
    expect((await refused(as({ version: 9 }))).field).toBe("metadata tandem.version")
    expect(await refused(as({}, { steps: "two" }))).toMatchObject({ field: "metadata steps", value: '"two"' })
    for (const notes of ["a note", '"a note"', "[1]", "{}"])
      expect((await refused(as({}, { notes }))).field).toBe("metadata notes")
    const columns = profileFormat.columns.map((known) =>
      known.name === "ranks" ? { ...known, name: "rank" } : known
    )
    expect(await refused(as({ columns }))).toMatchObject({ field: "column ranks", value: "missing" })
  })

  it("name the row of a value that is out of place", () => {
    const format: Format = {
      ...profileFormat,
      columns: profileFormat.columns.map((known) => ({ ...known, min: -Infinity }))
    }
    const { batches, metadata } = decodeColumns("p", profileFormat, bytes)
    const busy = batches[0]!.columns[4] as Float64Array
    busy[2] = -0.5
    const damaged = encodeColumns("p", format, Object.fromEntries(metadata), batches)
    expect(() => decodeProfile("p", damaged)).toThrow(TraceError)
    expect(() => decodeProfile("p", damaged)).toThrow("column busy_seconds, row 2 is -0.5")
  })
})

const rowsOf = (timeline: Timeline) =>
  Array.from(timeline.rank, (rank, i) => ({
    rank,
    op: timeline.op[i],
    lane: timeline.lane[i],
    step: timeline.step[i],
    label: timeline.labels[timeline.label[i]!],
    kernel: timeline.kernels[timeline.kernel[i]!],
    start: timeline.startSeconds[i],
    end: timeline.endSeconds[i],
    size: timeline.sizeBytes[i],
    cause: timeline.cause[i]
  }))

describe("timelines, op logs and routings", () => {
  it("are read as they were written", async () => {
    await fc.assert(
      fc.asyncProperty(timelines, opLogs, routings, async (timeline, logs, routing) => {
        await run(writeTimeline(path, timeline))
        expect(rowsOf(await run(readTimeline(path)))).toStrictEqual(rowsOf(timeline))
        await run(writeOpLogs(path, logs))
        expect(await run(readOpLogs(path))).toEqual(logs)
        await run(writeRouting(path, routing))
        const parts = await run(foldRouting(path, [] as Array<Routing>, (all, part) => [...all, part]))
        for (const name of ["step", "layer", "token", "choice", "expert", "weight"] as const) {
          expect(parts.flatMap((part) => Array.from(part[name]))).toStrictEqual(Array.from(routing[name]))
        }
      }),
      { numRuns: 60 }
    )
  })

  it("stream in parts, with words that come later", async () => {
    const parts = fc.sample(timelines, { numRuns: 6, seed: 7 }).filter((part) => part.rank.length > 0)
    const labels: Array<string> = []
    const grown = parts.map((part) => {
      const at = labels.length
      labels.push(...part.labels.map((label) => `${label} ${at}`))
      return {
        ...part,
        label: part.label.map((code) => code + at),
        labels: labels.slice(),
        kernels: parts[0]!.kernels,
        kernel: part.kernel.fill(0)
      }
    })
    await run(writeTimelineParts(path, (write) => Effect.forEach(grown, write, { discard: true })))
    const read = await run(
      foldTimeline(path, [] as Array<number>, (sizes, part) => [...sizes, part.rank.length])
    )
    expect(read).toEqual(parts.map((part) => part.rank.length))
    expect(rowsOf(await run(readTimeline(path)))).toStrictEqual(grown.flatMap(rowsOf))
  })

  it("hold one batch at a time, however long the file", async () => {
    const rows = 200_000
    const zeros = new Int32Array(rows)
    const long: Timeline = {
      rank: zeros,
      op: Int32Array.from({ length: rows }, (_, i) => i),
      lane: new Uint8Array(rows),
      step: zeros,
      label: zeros,
      labels: ["x"],
      kernel: zeros,
      kernels: ["k"],
      startSeconds: new Float64Array(rows),
      endSeconds: new Float64Array(rows),
      sizeBytes: new Float64Array(rows),
      cause: zeros
    }
    await run(writeTimeline(path, long))
    const sizes = await run(
      foldTimeline(path, [] as Array<number>, (all, part) => [...all, part.rank.length])
    )
    expect(Math.max(...sizes)).toBe(65_536)
    expect(sizes.reduce((a, b) => a + b)).toBe(rows)
  })

  it("refuse an end before its start, with its row", async () => {
    const [timeline] = fc.sample(
      timelines.filter((t) => t.rank.length > 3),
      { numRuns: 1, seed: 1 }
    )
    const endSeconds = timeline!.endSeconds.slice()
    const startSeconds = timeline!.startSeconds.slice()
    startSeconds[2] = 5
    endSeconds[2] = 4
    const error = await failure(writeTimeline(path, { ...timeline!, startSeconds, endSeconds }))
    expect(error).toMatchObject({ field: "column end_seconds, row 2", value: "4" })
  })

  it("refuse lanes that do not exist", async () => {
    const columns = timelineFormat.columns
    const one = [0, 0, "side", 0, "l", "k", 0, 0, 0, -1].map((value, i) => {
      if (typeof value === "string") return { codes: new Int32Array(1), dictionary: [value] }
      return columns[i]!.kind === "float64" ? Float64Array.of(value) : Int32Array.of(value)
    })
    writeFileSync(path, encodeColumns("t", timelineFormat, {}, [{ rows: 1, columns: one }]))
    expect(await failure(readTimeline(path))).toMatchObject({ field: "column lane, row 0", value: '"side"' })
  })
})

describe("columns", () => {
  it("tell null from a value in nullable columns and refuse it in others", () => {
    const format: Format = {
      name: "n",
      version: 1,
      columns: [
        column("a", "int32", "", true),
        column("b", "float64", "", true),
        column("c", "text", "", true)
      ]
    }
    const batch = {
      rows: 9,
      columns: [
        Int32Array.of(0, -1, 2, 3, -1, 5, 6, 7, 8),
        Float64Array.of(Number.NaN, 1, 2, 3, 4, 5, 6, 7, Number.NaN),
        { codes: Int32Array.of(0, -1, 1, 1, 1, 1, 1, 1, -1), dictionary: ["x", "y"] }
      ]
    }
    const bytes = encodeColumns("n", format, {}, [batch])
    expect(decodeColumns("n", format, bytes).batches[0]!.columns.slice(0, 2)).toEqual(
      batch.columns.slice(0, 2)
    )
    expect(
      tableFromIPC(bytes)
        .toArray()
        .map((row) => (row as Record<string, unknown>).a)
    ).toEqual([0, null, 2, 3, null, 5, 6, 7, 8])
    const strict = { ...format, columns: format.columns.map((known) => ({ ...known, nullable: false })) }
    expect(() => encodeColumns("n", strict, {}, [batch])).toThrow("column a, row 1")
    expect(() => decodeColumns("n", strict, bytes)).toThrow("column a, row 1 is null")
  })
})

describe("writing a file", () => {
  const target = join(folder, "whole.txt")
  const others = () => readdirSync(folder).filter((name) => name.includes("whole") && name !== "whole.txt")
  beforeEach(() => writeFileSync(target, "first"))

  it("replaces it whole, or leaves it as it was", async () => {
    await run(writeFileAtomically(target, (sink) => Effect.sync(() => sink.write("first"))))
    expect(readFileSync(target, "utf8")).toBe("first")
    const failing = writeFileAtomically(target, (sink) => {
      sink.write("half of the second")
      return Effect.fail("no more")
    })
    expect(Result.isFailure(await run(Effect.result(failing)))).toBe(true)
    expect(readFileSync(target, "utf8")).toBe("first")
    expect(others()).toEqual([])
  })

  it("leaves nothing behind when interrupted", async () => {
    const fiber = Effect.runFork(
      writeFileAtomically(target, (sink) => {
        sink.write("half")
        return Effect.never
      })
    )
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(others()).toHaveLength(1)
    await run(Fiber.interrupt(fiber))
    expect(readFileSync(target, "utf8")).toBe("first")
    expect(others()).toEqual([])
  })

  it("keeps a link a link, and what is no regular file as it is", async () => {
    const link = join(folder, "link")
    symlinkSync(target, link)
    await run(writeFileAtomically(link, (sink) => Effect.sync(() => sink.write("through a link"))))
    expect(readFileSync(target, "utf8")).toBe("through a link")
    expect(readlinkSync(link)).toBe(target)
    await run(writeFileAtomically(link, (sink) => Effect.sync(() => sink.write("first"))))

    const pipe = join(folder, "pipe")
    expect(spawnSync("mkfifo", [pipe]).status).toBe(0)
    // Its reader may come a little later.
    const reader = spawn("sh", ["-c", `sleep 0.2; cat '${pipe}'`])
    const heard: Array<string> = []
    reader.stdout.on("data", (chunk) => heard.push(String(chunk)))
    const ended = new Promise((resolve) => reader.stdout.on("end", resolve))
    await run(writeFileAtomically(pipe, (sink) => Effect.sync(() => sink.write("through a pipe"))))
    await ended
    expect(heard.join("")).toBe("through a pipe")
    expect(statSync(pipe).isFIFO()).toBe(true)
    expect(others()).toEqual([])
  })

  it("names a folder that does not exist", async () => {
    const error = await failure(writeProfile(join(folder, "no", "such", "folder.arrow"), sample))
    expect(error).toMatchObject({ field: "file" })
    expect(error.accepted).toContain("writable folder")
  })

  it("names what the disk says when it takes no more", () => {
    // A process limited to files of 4 KiB: the disk is full for it, on any machine.
    const script = `
      import * as Effect from "effect/Effect"
      import { writeFileAtomically } from ${JSON.stringify(new URL("../../traces/index.ts", import.meta.url).href)}
      const write = writeFileAtomically(${JSON.stringify(target)}, (sink) =>
        Effect.sync(() => { for (let i = 0; i < 64; i++) sink.write(new Uint8Array(4096)) }))
      const error = await Effect.runPromise(Effect.flip(write))
      console.log(error._tag, error.field, error.value)`
    const command = `ulimit -f 8 && exec "$0" --input-type=module -e "$1"`
    const child = spawnSync("sh", ["-c", command, process.execPath, script], { encoding: "utf8" })
    expect(child.stdout).toMatch(/^TraceError file longer than a file may become here \(EFBIG\)/u)
    expect(readFileSync(target, "utf8")).toBe("first")
    expect(others()).toEqual([])
  })
})

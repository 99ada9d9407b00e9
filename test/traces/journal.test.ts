// Journals as files: what is read is what was written, and whatever else the bytes are is an error with its place.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { decodeJournals, encodeJournals, type RecordedCalls } from "../../traces/journal-file.ts"
import { TraceError } from "../../traces/trace-error.ts"
import { generatedProgram, programOf } from "../agreement/generated-programs.ts"
import { flatWorld, run } from "../simulate/simulated.ts"

/** What a simulated run of the program leaves. */
const callsOf = (program: Parameters<typeof journaled>[0], ranks: number): RecordedCalls => {
  const journals: Array<Journal> = []
  const { values } = run({
    world: flatWorld(ranks),
    program: journaled(program, journals),
    values: () => undefined
  })
  const finals = new Map(
    journals.map(({ rank, entries }) => {
      const own = new Map<number, TensorData>()
      for (const entry of entries) {
        const data = entry.kind === "alloc" ? values!.of(rank, entry.tensor) : undefined
        if (data !== undefined && entry.kind === "alloc") own.set(entry.tensor.id, data)
      }
      return [rank, own] as const
    })
  )
  return { journals, finals }
}

const special = Effect.gen(function* () {
  const machine = yield* Machine
  const arena = yield* machine.alloc({ name: "arena", shape: [256], dtype: "float32" })
  const within = { arena, offsetBytes: 512 }
  const part = yield* machine.alloc({ name: 'a "part"', shape: [2, 2], dtype: "float32", within })
  const odd = [NaN, -0, Infinity, -Infinity]
  const x = yield* machine.alloc({
    name: "x",
    shape: [2, 2],
    dtype: "float32",
    initial: () => Float32Array.from(odd)
  })
  const tokens = yield* machine.alloc({ name: "tokens", shape: [3], dtype: "int32", place: "host" })
  machine.submit(launch("scale", kernels.scale, Lane.compute, [x], [part], { factor: -0 }))
  machine.submit(
    collective("average", kernels.all_reduce, Lane.inter, machine.world.all, [x], [x], {
      attributes: { reduce: "avg" },
      wire: "bfloat16"
    })
  )
  yield* machine.read(x)
  yield* machine.read(tokens)
  machine.ready(x)
  yield* machine.now
  yield* machine.endStep
  machine.free(tokens)
})

describe("a file of journals", () => {
  it("is read as it was written", () => {
    let entries = 0
    fc.assert(
      fc.property(generatedProgram(), (generated) => {
        const calls = callsOf(programOf(generated), generated.ranks)
        expect(decodeJournals("x", encodeJournals("x", calls))).toEqual(calls)
        entries += calls.journals.reduce((sum, journal) => sum + journal.entries.length, 0)
      }),
      { numRuns: 40 }
    )
    expect(entries).toBeGreaterThan(500)
  })

  it("keeps what JSON and tables have no place for", () => {
    const calls = callsOf(special, 2)
    const read = decodeJournals("x", encodeJournals("x", calls))
    expect(read).toEqual(calls)
    const [first] = read.journals
    const ops = first!.entries.flatMap((entry) => (entry.kind === "op" ? [entry.op] : []))
    expect(Object.is(ops[0]!.attributes["factor"], -0)).toBe(true)
    expect(ops[0]!.kernel).toBe(kernels.scale)
    // One tensor is one object, also where it is an arena.
    const [made] = first!.entries
    expect(ops[0]!.writes[0]!.within!.arena).toBe(made?.kind === "alloc" ? made.tensor : undefined)
  })

  const kept = (): RecordedCalls => {
    const calls = callsOf(special, 2)
    const journals = calls.journals.map(({ rank, entries }) => ({
      rank,
      entries: entries.map((entry) =>
        entry.kind === "op" && entry.op.label === "average"
          ? {
              ...entry,
              inputs: [Float32Array.of(-1, rank, NaN, -Infinity)],
              results: [Float32Array.of(1 + rank, NaN, -0, Infinity)]
            }
          : entry
      )
    }))
    return { ...calls, journals }
  }

  it("has what ops found and left, where that was kept", () => {
    const read = decodeJournals("x", encodeJournals("x", kept()))
    expect(read).toEqual(kept())
    expect(read).not.toEqual(callsOf(special, 2))
  })

  it("is refused where a result is not of its tensor's size", () => {
    const { journals, ...calls } = kept()
    const behind = (results: ReadonlyArray<TensorData>) => ({
      ...calls,
      journals: journals.map(({ rank, entries }) => ({
        rank,
        entries: entries.map((entry) =>
          entry.kind === "op" && entry.results !== undefined ? { ...entry, results } : entry
        )
      }))
    })
    const read = (results: ReadonlyArray<TensorData>) =>
      decodeJournals("x", encodeJournals("x", behind(results)))
    const wrong = /column floats or integers, row \d+ is "3 numbers"; expected 4, as tensor "x" has/u
    expect(() => read([Float32Array.of(1, 2, 3)])).toThrow(wrong)
    const found = (inputs: ReadonlyArray<TensorData>) => ({
      ...calls,
      journals: journals.map(({ rank, entries }) => ({
        rank,
        entries: entries.map((entry) =>
          entry.kind === "op" && entry.inputs !== undefined ? { ...entry, inputs } : entry
        )
      }))
    })
    const bytes = encodeJournals("x", found([Float32Array.of(1, 2, 3)]))
    expect(() => decodeJournals("x", bytes)).toThrow(wrong)
  })

  it("is refused where it is damaged, with its place", () => {
    const bytes = encodeJournals("x", callsOf(special, 1))
    const refused = { damaged: 0, read: 0 }
    fc.assert(
      fc.property(
        fc.nat({ max: bytes.length - 1 }),
        fc.integer({ min: 1, max: 255 }),
        fc.boolean(),
        (at, change, cut) => {
          const other = cut ? bytes.slice(0, at) : bytes.slice()
          if (!cut) other[at]! ^= change
          try {
            decodeJournals("x", other)
            refused.read++
          } catch (error) {
            expect(error).toBeInstanceOf(TraceError)
            refused.damaged++
          }
        }
      ),
      { numRuns: 400 }
    )
    expect(refused.damaged).toBeGreaterThan(100)
  })

  it("names a kernel that the catalogue has not", () => {
    const calls = callsOf(special, 1)
    const renamed = calls.journals.map(({ rank, entries }) => ({
      rank,
      entries: entries.map((entry) =>
        entry.kind === "op"
          ? { ...entry, op: { ...entry.op, kernel: { ...entry.op.kernel, name: "later" } } }
          : entry
      )
    }))
    expect(() => decodeJournals("x", encodeJournals("x", { ...calls, journals: renamed }))).toThrow(
      /column what, row \d+ is "later"; expected a kernel of the catalogue/u
    )
  })
})

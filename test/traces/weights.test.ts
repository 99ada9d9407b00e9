// Files of weights: what is written is read back to the bit, what is damaged or foreign is refused with its place.
import { tableFromIPC } from "apache-arrow"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { elementsOf } from "../../core/machine/tensor.ts"
import { decodeColumns, encodeColumns } from "../../traces/columns.ts"
import {
  decodeWeights,
  encodeWeights,
  readWeights,
  TraceError,
  weightsFormat,
  writeWeights,
  type SavedWeights
} from "../../traces/index.ts"
import { encodeHeader, encodeValues } from "../../traces/safetensors.ts"
import { words } from "./arbitraries.ts"

const folder = mkdtempSync(join(tmpdir(), "tandem-weights-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const shapes = fc.array(fc.nat({ max: 4 }), { maxLength: 3 })
const parameters = fc
  .uniqueArray(fc.tuple(words, shapes), { selector: ([name]) => name, maxLength: 5 })
  .chain((named) =>
    fc.tuple(
      ...named.map(([name, shape]) => {
        const length = elementsOf(shape)
        const number = fc.float({ noNaN: true, noDefaultInfinity: true })
        return fc
          .array(number, { minLength: length, maxLength: length })
          .map((values) => ({ name, shape, values: Float32Array.from(values) }))
      })
    )
  )
const weights: fc.Arbitrary<SavedWeights> = fc.record({
  name: words,
  model: words,
  sizes: fc.dictionary(fc.constantFrom("layers", "tied", "heads"), fc.oneof(fc.nat(), fc.boolean()), {
    noNullPrototype: true
  }),
  characters: fc.uniqueArray(fc.constantFrom("a", " ", "\n", "é", "漢", "🙂", '"')),
  heldOut: fc.double({ min: 0, max: 0.9, noNaN: true }).map((value) => value + 0),
  parameters
})

const sample: SavedWeights = {
  name: "sample",
  model: "llama",
  sizes: { layers: 1, tied: false },
  characters: [..."ab"],
  heldOut: 0.1,
  parameters: [
    { name: "w", shape: [2, 3], values: Float32Array.of(1, 2, 3, 4, 5, -6.5) },
    { name: "n", shape: [1], values: Float32Array.of(0.25) }
  ]
}

describe("weights", () => {
  it("are read as they were written", () => {
    const seen = { scalars: 0, empty: 0, none: 0 }
    fc.assert(
      fc.property(weights, (saved) => {
        if (saved.parameters.length === 0) seen.none++
        if (saved.parameters.some(({ shape }) => shape.length === 0)) seen.scalars++
        if (saved.parameters.some(({ values }) => values.length === 0)) seen.empty++
        expect(decodeWeights("w", encodeWeights("w", saved))).toEqual(saved)
      }),
      { numRuns: 200 }
    )
    for (const count of Object.values(seen)) expect(count).toBeGreaterThan(5)
  })

  it("go through a file, as a table that other Arrow readers understand", async () => {
    const path = join(folder, "sample.arrow")
    await Effect.runPromise(writeWeights(path, sample))
    expect(await Effect.runPromise(readWeights(path))).toStrictEqual(sample)
    const table = tableFromIPC(encodeWeights("w", sample))
    expect(table.schema.metadata.get("tandem.format")).toBe("weights")
    const row = table.get(0)!.toJSON() as { name: string; values: { toArray(): Float32Array } }
    expect(row.name).toBe("w")
    expect(row.values.toArray()).toEqual(sample.parameters[0]!.values)
  })

  it("go through a file of safetensors as well", async () => {
    const path = join(folder, "any.safetensors")
    await fc.assert(
      fc.asyncProperty(weights, async (saved) => {
        await Effect.runPromise(writeWeights(path, saved))
        const read = await Effect.runPromise(readWeights(path))
        const named = ({ parameters, ...rest }: SavedWeights) => ({
          ...rest,
          parameters: new Map(parameters.map((one) => [one.name, one]))
        })
        expect(named(read)).toEqual(named(saved))
      }),
      { numRuns: 60 }
    )
    const nameless = await Effect.runPromise(Effect.flip(readWeights(join(folder, "none.safetensors"))))
    expect(nameless.message).toMatch(/none\.safetensors: file is missing/u)
  })

  it("that are not finite or do not fill their shape are not written", async () => {
    const path = join(folder, "refused.arrow")
    for (const [shape, values, field] of [
      [[2], Float32Array.of(1, Number.NaN), "column values, row 0"],
      [[3], Float32Array.of(1, 2), "column values, row 0"],
      [[-1], Float32Array.of(), "column values, row 0"]
    ] as const) {
      const broken = { ...sample, parameters: [{ name: "w", shape, values }] }
      const error = await Effect.runPromise(Effect.flip(writeWeights(path, broken)))
      expect(error).toBeInstanceOf(TraceError)
      expect(error.field).toBe(field)
    }
    expect(readdirSync(folder).filter((name) => name.includes("refused"))).toEqual([])
  })

  it.each([NaN, Infinity, -Infinity])("are not read from safetensors where one is %s", async (value) => {
    const path = join(folder, "infinite.safetensors")
    await Effect.runPromise(writeWeights(path, sample))
    const bytes = readFileSync(path)
    // The last value of the last tensor.
    bytes.writeFloatLE(value, bytes.length - 4)
    writeFileSync(path, bytes)
    const { message } = await Effect.runPromise(Effect.flip(readWeights(path)))
    expect(message).toContain(`tensor "n", value 0 is ${value}; expected a finite number`)
  })

  it("are told from those of other programs, which do not say what model they are of", async () => {
    const path = join(folder, "foreign.safetensors")
    const tensor = { name: "model.norm.weight", shape: [2], dtype: "float32" as const }
    const head = encodeHeader([tensor], { format: "pt" })
    writeFileSync(path, Buffer.concat([head, encodeValues(Float32Array.of(1, 1), "float32")]))
    const { message } = await Effect.runPromise(Effect.flip(readWeights(path)))
    expect(message).toContain("metadata is missing; expected name, model, sizes, characters, held_out, as")
    expect(message).toContain("weights of other programs do not say what model they are of")
  })

  it("refuse foreign and damaged files, whatever byte is changed", () => {
    const bytes = encodeWeights("w", sample)
    const as = (metadata: Record<string, string>, name = "weights"): Uint8Array => {
      const { batches, metadata: own } = decodeColumns("w", weightsFormat, bytes)
      const kept = Object.fromEntries([...own].filter(([key]) => !key.startsWith("tandem.")))
      return encodeColumns("w", { ...weightsFormat, name }, { ...kept, ...metadata }, batches)
    }
    for (const [damaged, message] of [
      [new Uint8Array(0), /not an Arrow file/u],
      [bytes.subarray(0, bytes.length - 40), /cut short/u],
      [as({}, "profile"), /metadata tandem.format is "profile"/u],
      [as({ sizes: "[1]" }), /metadata sizes/u],
      [as({ sizes: "{" }), /metadata sizes/u],
      [as({ held_out: "2" }), /metadata held_out/u],
      [as({ characters: "aa" }), /metadata characters/u]
    ] as const)
      expect(() => decodeWeights("w", damaged)).toThrow(message)

    let refused = 0
    fc.assert(
      fc.property(fc.nat({ max: bytes.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const damaged = bytes.slice()
        damaged[at]! ^= change
        try {
          decodeWeights("w", damaged)
        } catch (error) {
          refused++
          expect(error).toBeInstanceOf(TraceError)
        }
      }),
      { numRuns: 500 }
    )
    expect(refused).toBeGreaterThan(50)
  })
})

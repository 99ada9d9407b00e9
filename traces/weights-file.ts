// Parameters of a trained model in a file: of Arrow, a row each, or of safetensors, where its name ends so; what the model is and
// its vocabulary in the file's metadata. docs/formats.md describes it. Knows nothing of how they were learnt or what runs them.
import * as Effect from "effect/Effect"
import { readFile } from "node:fs/promises"
import { elementsOf } from "../core/machine/tensor.ts"
import {
  column,
  type Batch,
  type Format,
  type ListColumn,
  type Metadata,
  type TextColumn
} from "./column-format.ts"
import { decodeColumns } from "./column-reader.ts"
import { encodeColumns, writeColumnFile } from "./column-writer.ts"
import { writeFileAtomically } from "./atomic-file.ts"
import { checkKey, digestOfPieces, mismatch, noDigest, withDigest } from "./file-check.ts"
import { encodeHeader, encodeValues, SafetensorsFile } from "./safetensors.ts"
import { attempt, attemptAsync, showValue, TraceError } from "./trace-error.ts"

/** A parameter's values. */
export interface SavedParameter {
  /** As the layer graph has it: "model.layers.0.mlp.up_proj.weight". */
  readonly name: string
  readonly shape: ReadonlyArray<number>
  /** In C order, of dtype float32. */
  readonly values: Float32Array
}

/** A model's parameters, with what it takes to build the model that has them. */
export interface SavedWeights {
  /** Name of the run that learnt them. */
  readonly name: string
  /** Architecture: "llama". */
  readonly model: string
  /** Its sizes and switches, which shapes alone do not tell: {"heads": 4, "tied": false, ...}. */
  readonly sizes: Readonly<Record<string, number | boolean>>
  /** The characters that token ids from 0 stand for. */
  readonly characters: ReadonlyArray<string>
  /** Share at the end of its text that the model has not seen. */
  readonly heldOut: number
  readonly parameters: ReadonlyArray<SavedParameter>
}

/** The columns of a file of weights (docs/formats.md). */
export const weightsFormat: Format = {
  name: "weights",
  version: 1,
  columns: [
    column("name", "text", "parameter, as the layer graph names it"),
    column("shape", "int32-list", "extents; empty for a scalar"),
    column("dtype", "text", "float32"),
    column("values", "float32-list", "in C order: the last extent varies fastest", false, -Infinity)
  ]
}

const dtype = "float32"

const metadataOf = ({ name, model, sizes, characters, heldOut }: SavedWeights): Metadata => ({
  name,
  model,
  sizes: JSON.stringify(sizes),
  characters: characters.join(""),
  held_out: String(heldOut)
})

const offsetsOf = (lists: ReadonlyArray<{ readonly length: number }>): Int32Array => {
  const offsets = new Int32Array(lists.length + 1)
  for (const [row, { length }] of lists.entries()) offsets[row + 1] = offsets[row]! + length
  return offsets
}

const batchOf = (parameters: ReadonlyArray<SavedParameter>): Batch => {
  const values = new Float32Array(parameters.reduce((sum, one) => sum + one.values.length, 0))
  const valueOffsets = offsetsOf(parameters.map((one) => one.values))
  for (const [row, one] of parameters.entries()) values.set(one.values, valueOffsets[row])
  return {
    rows: parameters.length,
    columns: [
      { codes: Int32Array.from(parameters, (_, row) => row), dictionary: parameters.map(({ name }) => name) },
      {
        offsets: offsetsOf(parameters.map(({ shape }) => shape)),
        values: Int32Array.from(parameters.flatMap(({ shape }) => shape))
      },
      { codes: new Int32Array(parameters.length), dictionary: [dtype] },
      { offsets: valueOffsets, values }
    ]
  }
}

/** What the reader would refuse, refused before writing. */
const checked = (file: string, weights: SavedWeights): Batch => {
  const batch = batchOf(weights.parameters)
  parse(file, new Map(Object.entries(metadataOf(weights))), [batch])
  return batch
}

const isSafetensors = (path: string): boolean => path.endsWith(".safetensors")

/** Writes weights to `path`, whole or not at all. Errors: numbers that are not finite, the disk. */
export const writeWeights = (path: string, weights: SavedWeights): Effect.Effect<void, TraceError> =>
  Effect.gen(function* () {
    const batch = yield* attempt(path, "weights", () => checked(path, weights))
    if (isSafetensors(path)) yield* writeSafetensors(path, weights)
    else yield* writeColumnFile(path, weightsFormat, metadataOf(weights), (write) => write(batch))
  })

const writeSafetensors = (path: string, weights: SavedWeights): Effect.Effect<void, TraceError> =>
  writeFileAtomically(path, (sink) =>
    attempt(path, "weights", () => {
      const { parameters } = weights
      const tensors = parameters.map(({ name, shape }) => ({ name, shape, dtype: "float32" as const }))
      const head = encodeHeader(tensors, { ...metadataOf(weights), [checkKey]: noDigest })
      const pieces = parameters.map(({ values }) => encodeValues(values, "float32"))
      sink.write(withDigest(head, digestOfPieces(head, noDigest, pieces)))
      for (const piece of pieces) sink.write(piece)
    })
  )

/** The bytes of the file `writeWeights` writes. Throws `TraceError`. */
export const encodeWeights = (file: string, weights: SavedWeights): Uint8Array =>
  encodeColumns(file, weightsFormat, metadataOf(weights), [checked(file, weights)])

/** Reads weights. Errors: a missing, truncated or foreign file; what does not fit its shape; with its place. */
export const readWeights = (path: string): Effect.Effect<SavedWeights, TraceError> =>
  isSafetensors(path)
    ? attempt(path, "a file of weights (.safetensors)", () => readSafetensors(path))
    : Effect.flatMap(
        attemptAsync(path, "the path of a file of weights (.arrow, .safetensors)", () => readFile(path)),
        (bytes) => attempt(path, "a file of weights (.arrow)", () => decodeWeights(path, bytes))
      )

const readSafetensors = (path: string): SavedWeights => {
  const file = SafetensorsFile.open(path)
  try {
    const head = parseHead(path, new Map(Object.entries(file.metadata)))
    const parameters = [...file.tensors.values()].map((tensor): SavedParameter => {
      const { name, shape } = tensor
      const values = file.values(tensor)
      const bad = refusalsOf(path)
      if (!(values instanceof Float32Array))
        throw bad(`tensor "${name}" dtype`, tensor.dtype, "float32, bfloat16 or float16")
      const wrong = values.findIndex((value) => !Number.isFinite(value))
      if (wrong >= 0) throw bad(`tensor "${name}", value ${wrong}`, values[wrong], "a finite number")
      return { name, shape, values }
    })
    const digest = file.metadata[checkKey]
    if (digest !== undefined) {
      const dtypes = [...file.tensors.values()].map((tensor) => tensor.dtype)
      const pieces = parameters.map(({ values }, i) => encodeValues(values, dtypes[i]!))
      if (digestOfPieces(file.head, digest, pieces) !== digest) throw mismatch(path)
    }
    return { ...head, parameters }
  } finally {
    file.close()
  }
}

/** Weights from the bytes of their file; `file` is for messages. Throws `TraceError`, and only that. */
export const decodeWeights = (file: string, bytes: Uint8Array): SavedWeights => {
  const { metadata, batches } = decodeColumns(file, weightsFormat, bytes)
  return parse(file, metadata, batches)
}

const refusalsOf =
  (file: string) =>
  (field: string, value: unknown, accepted: string): TraceError =>
    new TraceError({ file, field, value: showValue(value), accepted })

const headKeys = ["name", "model", "sizes", "characters", "held_out"] as const

/** What metadata say. */
const parseHead = (file: string, metadata: ReadonlyMap<string, string>): Omit<SavedWeights, "parameters"> => {
  const bad = refusalsOf(file)
  if (!headKeys.some((key) => metadata.has(key)))
    throw bad(
      "metadata",
      undefined,
      `${headKeys.join(", ")}, as "exec train --save" writes them (docs/formats.md): weights of other programs do not say what model they are of`
    )
  const text = (key: (typeof headKeys)[number]): string => {
    const value = metadata.get(key)
    if (value === undefined) throw bad(`metadata ${key}`, value, "a text")
    return value
  }
  const heldOut = Number(text("held_out"))
  if (!(heldOut >= 0 && heldOut < 1)) throw bad("metadata held_out", text("held_out"), "a share below 1")
  const characters = [...text("characters")]
  if (new Set(characters).size !== characters.length)
    throw bad("metadata characters", text("characters"), "each character once")
  const [name, model, sizes] = [text("name"), text("model"), parseSizes(text("sizes"), bad)]
  return { name, model, sizes, characters, heldOut }
}

const parse = (
  file: string,
  metadata: ReadonlyMap<string, string>,
  batches: ReadonlyArray<Batch>
): SavedWeights => {
  const bad = refusalsOf(file)
  const head = parseHead(file, metadata)
  const parameters: Array<SavedParameter> = []
  const known = new Set<string>()
  for (const { rows, columns } of batches) {
    const words = (index: number, row: number): string => {
      const { codes, dictionary } = columns[index] as TextColumn
      return dictionary[codes[row]!]!
    }
    const [shapes, values] = [columns[1] as ListColumn, columns[3] as ListColumn<Float32Array>]
    for (let row = 0; row < rows; row++) {
      const at = `row ${parameters.length}`
      const name = words(0, row)
      if (known.has(name)) throw bad(`column name, ${at}`, name, "each parameter once")
      known.add(name)
      if (words(2, row) !== dtype) throw bad(`column dtype, ${at}`, words(2, row), dtype)
      const shape = Array.from(shapes.values.subarray(shapes.offsets[row]!, shapes.offsets[row + 1]!))
      const own = values.values.slice(values.offsets[row]!, values.offsets[row + 1]!)
      if (own.length !== elementsOf(shape))
        throw bad(
          `column values, ${at}`,
          `${own.length} numbers`,
          `${elementsOf(shape)}, the product of shape`
        )
      parameters.push({ name, shape, values: own })
    }
  }
  return { ...head, parameters }
}

const parseSizes = (
  text: string,
  bad: (field: string, value: unknown, accepted: string) => TraceError
): Readonly<Record<string, number | boolean>> => {
  const refused = () => bad("metadata sizes", text, 'a JSON object such as {"layers":2,"tied":false}')
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    throw refused()
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) throw refused()
  const sizes = parsed as Readonly<Record<string, unknown>>
  if (!Object.values(sizes).every((size) => typeof size === "number" || typeof size === "boolean"))
    throw refused()
  return sizes as Readonly<Record<string, number | boolean>>
}

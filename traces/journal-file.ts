// What programs asked of their machines, call by call, and what their tensors held at the end, as an Arrow file: with op logs and
// a timeline, all that two runs are compared by. docs/formats.md describes the columns. Knows nothing of machines.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { readFile } from "node:fs/promises"
import { Dictionary } from "../core/dictionary.ts"
import { kernelNamed } from "../core/kernels/catalogue.ts"
import type { AttributeValue } from "../core/kernels/kernel.ts"
import type { Journal, JournalEntry } from "../core/laws/journal.ts"
import { laneNames, type Lane } from "../core/machine/lane.ts"
import type { Op } from "../core/machine/op.ts"
import { dtypeBits, elementsOf, sizeBytesOf, type Tensor, type TensorData } from "../core/machine/tensor.ts"
import {
  batchRows,
  column,
  type Batch,
  type Format,
  type ListColumn,
  type TextColumn
} from "./column-format.ts"
import { decodeColumns } from "./column-reader.ts"
import { encodeColumns, writeColumnFile } from "./column-writer.ts"
import { attempt, attemptAsync, showValue, TraceError } from "./trace-error.ts"

/** Values of each rank's tensors when its program had ended, by rank and the tensor's id. */
export type FinalValues = ReadonlyMap<number, ReadonlyMap<number, TensorData>>

/** What the programs of a run asked of their machines, and what tensors held at its end. */
export interface RecordedCalls {
  readonly journals: ReadonlyArray<Journal>
  readonly finals: FinalValues
}

const kinds = [
  "op",
  "alloc",
  "free",
  "read",
  "ready",
  "now",
  "endStep",
  "drain",
  "input",
  "result",
  "final"
] as const
/** Of rows that hold values and ask nothing. */
const held = {
  input: "what the op of the rows before found in a tensor that it reads, where that was kept",
  result: "what the op of the row before left in a tensor, where that was kept",
  final: "what a tensor held at the end"
} as const
type Kind = (typeof kinds)[number]

/** The columns of a journal (docs/formats.md). */
export const journalFormat: Format = {
  name: "journal",
  version: 1,
  columns: [
    column("rank", "int32", "rank, from 0"),
    column(
      "kind",
      "text",
      `what was asked: ${kinds.filter((kind) => !(kind in held)).join(", ")}; ${Object.entries(held)
        .map(([kind, what]) => `${kind}: ${what}`)
        .join("; ")}`
    ),
    column(
      "tensor",
      "int32",
      "the tensor concerned, in order of allocation from 0; null where none is",
      true
    ),
    column(
      "op",
      "int32",
      "op: position in program order; read: the op that wrote the tensor, null for none",
      true
    ),
    column("step", "int32", "op: the step that it was submitted in; null for other rows", true),
    column(
      "what",
      "text",
      "alloc: the tensor; op: kernel, lane, tensors, group and attributes, as JSON",
      true
    ),
    column(
      "scalars",
      "text",
      "op: values given at this launch, as in 0.001,17; null where there are none",
      true
    ),
    column("answer", "float64", "now: the time told, s; ready: 1 or 0", true),
    column(
      "floats",
      "float32-list",
      "read, input, result, final: values of a float tensor, in C order",
      false,
      -Infinity,
      false
    ),
    column(
      "integers",
      "int32-list",
      "read, input, result, final: values of an integer tensor, in C order",
      false,
      -Infinity
    )
  ]
}

// Texts of ops and tensors

const dtypes = Object.keys(dtypeBits) as ReadonlyArray<Tensor["dtype"]>

const Made = Schema.Struct({
  name: Schema.String,
  shape: Schema.Array(Schema.Number),
  dtype: Schema.Literals(dtypes),
  place: Schema.Literals(["device", "host"]),
  within: Schema.optionalKey(Schema.Struct({ arena: Schema.Number, offsetBytes: Schema.Number }))
})

/** JSON has neither of NaN, infinities and -0. */
const Value = Schema.Union([
  Schema.Number,
  Schema.String,
  Schema.Boolean,
  Schema.Struct({ number: Schema.Literals(["NaN", "Infinity", "-Infinity", "-0"]) })
])

const Described = Schema.Struct({
  label: Schema.String,
  kernel: Schema.String,
  lane: Schema.Literals(laneNames),
  attributes: Schema.Record(Schema.String, Value),
  reads: Schema.Array(Schema.Number),
  writes: Schema.Array(Schema.Number),
  group: Schema.optionalKey(Schema.Struct({ name: Schema.String, ranks: Schema.Array(Schema.Number) })),
  sizeBytes: Schema.Number
})

const plain = (value: AttributeValue): typeof Value.Type =>
  typeof value === "number" && (!Number.isFinite(value) || Object.is(value, -0))
    ? { number: (Object.is(value, -0) ? "-0" : String(value)) as "NaN" }
    : value

const ids = (tensors: ReadonlyArray<Tensor>): ReadonlyArray<number> => tensors.map(({ id }) => id)

const describeOp = ({ label, kernel, lane, attributes, reads, writes, group, sizeBytes }: Op): string =>
  JSON.stringify({
    label,
    kernel: kernel.name,
    lane: laneNames[lane]!,
    attributes: Object.fromEntries(Object.entries(attributes).map(([name, value]) => [name, plain(value)])),
    reads: ids(reads),
    writes: ids(writes),
    ...(group === undefined ? {} : { group: { name: group.name, ranks: group.ranks } }),
    sizeBytes
  } satisfies typeof Described.Encoded)

const describeTensor = ({ name, shape, dtype, place, within }: Tensor): string =>
  JSON.stringify({
    name,
    shape,
    dtype,
    place,
    ...(within === undefined ? {} : { within: { arena: within.arena.id, offsetBytes: within.offsetBytes } })
  } satisfies typeof Made.Encoded)

// Writing

/** Values that one record batch holds at least, before the next begins. */
const batchValues = 1 << 22

interface Row {
  readonly rank: number
  readonly kind: Kind
  readonly tensor?: number | undefined
  readonly op?: number | undefined
  readonly step?: number | undefined
  readonly what?: string | undefined
  readonly scalars?: string | undefined
  readonly answer?: number | undefined
  readonly values?: TensorData | undefined
}

const rowOf = (rank: number, entry: JournalEntry, texts: Map<Op, string>): Row => {
  const { kind } = entry
  switch (kind) {
    case "op": {
      const { op, id, step, scalars = [] } = entry
      let what = texts.get(op)
      if (what === undefined) texts.set(op, (what = describeOp(op)))
      return { rank, kind, op: id, step, what, scalars: scalars.length === 0 ? undefined : scalars.join(",") }
    }
    case "alloc":
      return { rank, kind, tensor: entry.tensor.id, what: describeTensor(entry.tensor) }
    case "free":
      return { rank, kind, tensor: entry.tensor.id }
    case "read":
      return { rank, kind, tensor: entry.tensor.id, op: entry.writer, values: entry.values }
    case "ready":
      return { rank, kind, tensor: entry.tensor.id, answer: entry.ready ? 1 : 0 }
    case "now":
      return { rank, kind, answer: entry.seconds }
    default:
      return { rank, kind }
  }
}

function* rowsOf({ journals, finals }: RecordedCalls): Generator<Row> {
  for (const { rank, entries } of journals) {
    const texts = new Map<Op, string>()
    for (const entry of entries) {
      yield rowOf(rank, entry, texts)
      if (entry.kind !== "op") continue
      const { op, inputs = [], results = [] } = entry
      for (const [index, values] of inputs.entries())
        yield { rank, kind: "input", tensor: op.reads[index]!.id, values }
      for (const [index, values] of results.entries())
        yield { rank, kind: "result", tensor: op.writes[index]!.id, values }
    }
    for (const [tensor, values] of finals.get(rank) ?? []) yield { rank, kind: "final", tensor, values }
  }
}

const codeIn = (dictionary: Dictionary, word: string | undefined): number =>
  word === undefined ? -1 : dictionary.code(word)

const listOf = <Values extends Int32Array | Float32Array>(
  rows: ReadonlyArray<Row>,
  make: (length: number) => Values,
  own: (values: TensorData | undefined) => TensorData | undefined
): ListColumn<Values> => {
  const offsets = new Int32Array(rows.length + 1)
  rows.forEach(({ values }, row) => (offsets[row + 1] = offsets[row]! + (own(values)?.length ?? 0)))
  const all = make(offsets[rows.length]!)
  rows.forEach(({ values }, row) => all.set(own(values) ?? [], offsets[row]))
  return { offsets, values: all }
}

function* batchesOf(calls: RecordedCalls): Generator<Batch> {
  const what = new Dictionary()
  const scalars = new Dictionary()
  // All words before the first row: not every reader takes a dictionary that grows.
  for (const row of rowsOf(calls)) {
    codeIn(what, row.what)
    codeIn(scalars, row.scalars)
  }
  const batch = (rows: ReadonlyArray<Row>): Batch => ({
    rows: rows.length,
    columns: [
      Int32Array.from(rows, ({ rank }) => rank),
      { codes: Int32Array.from(rows, ({ kind }) => kinds.indexOf(kind)), dictionary: kinds },
      Int32Array.from(rows, ({ tensor = -1 }) => tensor),
      Int32Array.from(rows, ({ op = -1 }) => op),
      Int32Array.from(rows, ({ step = -1 }) => step),
      { codes: Int32Array.from(rows, (row) => codeIn(what, row.what)), dictionary: what.values },
      { codes: Int32Array.from(rows, (row) => codeIn(scalars, row.scalars)), dictionary: scalars.values },
      Float64Array.from(rows, ({ answer = NaN }) => answer),
      listOf(
        rows,
        (length) => new Float32Array(length),
        (values) => (values instanceof Int32Array ? undefined : values)
      ),
      listOf(
        rows,
        (length) => new Int32Array(length),
        (values) => (values instanceof Int32Array ? values : undefined)
      )
    ]
  })
  let rows: Array<Row> = []
  let values = 0
  for (const row of rowsOf(calls)) {
    rows.push(row)
    values += row.values?.length ?? 0
    if (values < batchValues && rows.length < batchRows) continue
    yield batch(rows)
    rows = []
    values = 0
  }
  yield batch(rows)
}

/** The bytes of a file of journals. Throws `TraceError`. */
export const encodeJournals = (file: string, calls: RecordedCalls): Uint8Array =>
  encodeColumns(file, journalFormat, {}, batchesOf(calls))

/** Writes journals to `path`, whole or not at all. */
export const writeJournals = (path: string, calls: RecordedCalls): Effect.Effect<void, TraceError> =>
  writeColumnFile(path, journalFormat, {}, (write) =>
    Effect.forEach(batchesOf(calls), write, { discard: true })
  )

// Reading

/** Reads journals. Errors: a missing, truncated or foreign file; a kernel that the catalogue has not; with their place. */
export const readJournals = (path: string): Effect.Effect<RecordedCalls, TraceError> =>
  Effect.flatMap(
    attemptAsync(path, "the path of a file of journals (.arrow)", () => readFile(path)),
    (bytes) => attempt(path, "a file of journals (.arrow)", () => decodeJournals(path, bytes))
  )

/** Journals from the bytes of their file; `file` is for messages. Throws `TraceError`, and only that. */
export const decodeJournals = (file: string, bytes: Uint8Array): RecordedCalls => {
  const ranks = new Map<number, RankCalls>()
  let first = 0
  for (const { rows, columns } of decodeColumns(file, journalFormat, bytes).batches) {
    const ints = (index: number) => columns[index] as Int32Array
    const word = (index: number, row: number): string | undefined => {
      const { codes, dictionary } = columns[index] as TextColumn
      return dictionary[codes[row]!]
    }
    const answers = columns[7] as Float64Array
    const list = (index: number, row: number): TensorData => {
      const { offsets, values } = columns[index] as ListColumn | ListColumn<Float32Array>
      return values.slice(offsets[row]!, offsets[row + 1]!)
    }
    for (let row = 0; row < rows; row++) {
      const rank = ints(0)[row]!
      let calls = ranks.get(rank)
      if (calls === undefined) ranks.set(rank, (calls = new RankCalls(file)))
      calls.add({
        at: first + row,
        kind: word(1, row)!,
        tensor: ints(2)[row]!,
        op: ints(3)[row]!,
        step: ints(4)[row]!,
        what: word(5, row),
        scalars: word(6, row),
        answer: answers[row]!,
        values: (dtype) => list(dtype === "int8" || dtype === "int32" ? 9 : 8, row)
      })
    }
    first += rows
  }
  return {
    journals: [...ranks].map(([rank, { entries }]) => ({ rank, entries })),
    finals: new Map([...ranks].map(([rank, { finals }]) => [rank, finals]))
  }
}

interface ReadRow {
  readonly at: number
  readonly kind: string
  readonly tensor: number
  readonly op: number
  readonly step: number
  readonly what: string | undefined
  readonly scalars: string | undefined
  readonly answer: number
  readonly values: (dtype: Tensor["dtype"]) => TensorData
}

/** One rank's calls, row by row. */
class RankCalls {
  readonly entries: Array<JournalEntry> = []
  readonly finals = new Map<number, TensorData>()
  readonly #file: string
  readonly #tensors = new Map<number, Tensor>()
  /** An op that was submitted more than once is one op. */
  readonly #ops = new Map<string, Op>()

  constructor(file: string) {
    this.#file = file
  }

  add(row: ReadRow): void {
    switch (row.kind) {
      case "op": {
        const what = row.what ?? ""
        let op = this.#ops.get(what)
        if (op === undefined) this.#ops.set(what, (op = this.#op(row)))
        const scalars = row.scalars === undefined ? {} : { scalars: row.scalars.split(",").map(Number) }
        this.entries.push({ kind: "op", id: row.op, step: row.step, op, ...scalars })
        return
      }
      case "alloc":
        this.#tensors.set(row.tensor, this.#made(row))
        this.entries.push({ kind: "alloc", tensor: this.#tensor(row, row.tensor) })
        return
      case "free":
        this.entries.push({ kind: "free", tensor: this.#tensor(row, row.tensor) })
        return
      case "read": {
        const tensor = this.#tensor(row, row.tensor)
        this.entries.push({ kind: "read", tensor, writer: row.op, values: this.#values(row, tensor) })
        return
      }
      case "ready":
        this.entries.push({ kind: "ready", tensor: this.#tensor(row, row.tensor), ready: row.answer === 1 })
        return
      case "now":
        this.entries.push({ kind: "now", seconds: row.answer })
        return
      case "endStep":
      case "drain":
        this.entries.push({ kind: row.kind })
        return
      case "input":
      case "result":
        this.#kept(row, row.kind)
        return
      case "final": {
        const tensor = this.#tensor(row, row.tensor)
        this.finals.set(tensor.id, this.#values(row, tensor))
        return
      }
      default:
        throw this.#bad(row, "kind", row.kind, kinds.join(", "))
    }
  }

  /** Of the op before, in the order of the tensors that it reads, or writes. */
  #kept(row: ReadRow, kind: "input" | "result"): void {
    const entry = this.entries.at(-1)
    const op = entry?.kind === "op" ? entry : undefined
    const [tensors, all = []] = kind === "input" ? [op?.op.reads, op?.inputs] : [op?.op.writes, op?.results]
    const next = tensors?.[all.length]
    if (op === undefined || next?.id !== row.tensor) {
      const accepted =
        next === undefined
          ? `one ${kind} behind its op for each tensor`
          : `${next.id}, the ${kind} that is next`
      throw this.#bad(row, "tensor", row.tensor, accepted)
    }
    const values = [...all, this.#values(row, next)]
    this.entries[this.entries.length - 1] =
      kind === "input" ? { ...op, inputs: values } : { ...op, results: values }
  }

  #bad({ at }: ReadRow, name: string, value: unknown, accepted: string): TraceError {
    const field = `column ${name}, row ${at}`
    return new TraceError({ file: this.#file, field, value: showValue(value), accepted })
  }

  #tensor(row: ReadRow, id: number): Tensor {
    const tensor = this.#tensors.get(id)
    if (tensor === undefined) throw this.#bad(row, "tensor", id, "a tensor that an earlier row has allocated")
    return tensor
  }

  #values(row: ReadRow, { name, dtype, elements }: Tensor): TensorData {
    const values = row.values(dtype)
    if (values.length === elements) return values
    throw this.#bad(
      row,
      "floats or integers",
      `${values.length} numbers`,
      `${elements}, as tensor "${name}" has`
    )
  }

  #json<A>(
    row: ReadRow,
    schema: Schema.Schema<A> & { readonly DecodingServices: never },
    accepted: string
  ): A {
    const parsed = Schema.decodeUnknownExit(Schema.fromJsonString(schema))(row.what)
    if (Exit.isSuccess(parsed)) return parsed.value as A
    throw this.#bad(row, "what", row.what, accepted)
  }

  #made(row: ReadRow): Tensor {
    const { within, ...made } = this.#json(row, Made, "a tensor's name, shape, dtype and place as JSON")
    const elements = elementsOf(made.shape)
    const own = { id: row.tensor, ...made, elements, sizeBytes: sizeBytesOf(elements, made.dtype) }
    if (within === undefined) return own
    return { ...own, within: { arena: this.#tensor(row, within.arena), offsetBytes: within.offsetBytes } }
  }

  #op(row: ReadRow): Op {
    const {
      kernel: name,
      lane,
      attributes,
      reads,
      writes,
      group,
      ...rest
    } = this.#json(row, Described, "an op as JSON")
    const kernel = kernelNamed(name)
    if (kernel === undefined) throw this.#bad(row, "what", name, "a kernel of the catalogue")
    const numbers = Object.entries(attributes).map(
      ([key, value]) => [key, typeof value === "object" ? Number(value.number) : value] as const
    )
    return {
      ...rest,
      kernel,
      lane: laneNames.indexOf(lane) as Lane,
      attributes: Object.fromEntries(numbers),
      reads: reads.map((id) => this.#tensor(row, id)),
      writes: writes.map((id) => this.#tensor(row, id)),
      group
    }
  }
}

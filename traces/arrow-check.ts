// Checks the structure of an Arrow IPC file before the Arrow library sees it. The library trusts every length and
// offset it reads: one flipped bit can keep it busy for hours. Walks the same flatbuffers with every bound checked.
// Layouts: format/File.fbs, Schema.fbs and Message.fbs of Apache Arrow. Knows nothing of columns' meaning.
import type { FileHandle } from "node:fs/promises"
import { TraceError } from "./trace-error.ts"

/** Bytes the check wants to see next: whoever drives it reads them from memory or from a file. */
interface Wanted {
  readonly offset: number
  readonly length: number
}

export const arrowFile = "an uncompressed Arrow IPC file (.arrow) as tandem writes it"

const magic = [0x41, 0x52, 0x52, 0x4f, 0x57, 0x31] as const
const magicBytes = magic.length
/** Depth of nested fields; ours have one. */
const deepest = 32

class Damaged extends Error {}

/** Flatbuffer tables with every access checked against the buffer. */
class Flat {
  readonly #view: DataView
  readonly length: number
  /** Tables and vector elements a walk may visit: each takes bytes, so a buffer cannot hold more. */
  #budget: number

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.length = bytes.byteLength
    this.#budget = bytes.byteLength
  }

  #inside(at: number, size: number): void {
    if (!(at >= 0 && size >= 0 && at + size <= this.length)) throw new Damaged("an offset points outside")
  }

  uint8(at: number): number {
    this.#inside(at, 1)
    return this.#view.getUint8(at)
  }

  uint16(at: number): number {
    this.#inside(at, 2)
    return this.#view.getUint16(at, true)
  }

  int32(at: number): number {
    this.#inside(at, 4)
    return this.#view.getInt32(at, true)
  }

  uint32(at: number): number {
    this.#inside(at, 4)
    return this.#view.getUint32(at, true)
  }

  /** Exact up to 2^53; what is beyond is out of every bound anyway. */
  int64(at: number): number {
    this.#inside(at, 8)
    return this.#view.getInt32(at + 4, true) * 2 ** 32 + this.#view.getUint32(at, true)
  }

  /** Where an offset stored at `at` points. */
  follow(at: number): number {
    const to = at + this.uint32(at)
    this.#inside(to, 4)
    return to
  }

  root(): number {
    return this.table(this.follow(0))
  }

  table(at: number): number {
    if (--this.#budget < 0) throw new Damaged("tables refer to each other without end")
    const vtable = at - this.int32(at)
    const size = this.uint16(vtable)
    if (size < 4) throw new Damaged("a table without fields")
    this.#inside(vtable, size)
    this.#inside(at, this.uint16(vtable + 2))
    return at
  }

  /** Position of field number `index` of a table, undefined where it is left out. */
  field(table: number, index: number, size: number): number | undefined {
    const vtable = table - this.int32(table)
    const slot = 4 + 2 * index
    if (slot + 2 > this.uint16(vtable)) return undefined
    const offset = this.uint16(vtable + slot)
    if (offset === 0) return undefined
    this.#inside(table + offset, size)
    return table + offset
  }

  /** The table that field `index` points to, undefined where it is left out. */
  child(table: number, index: number): number | undefined {
    const at = this.field(table, index, 4)
    return at === undefined ? undefined : this.table(this.follow(at))
  }

  /** First element and number of elements of a vector field; none where it is left out. */
  vector(
    table: number,
    index: number,
    elementSize: number
  ): { readonly start: number; readonly count: number } {
    const at = this.field(table, index, 4)
    if (at === undefined) return { start: 0, count: 0 }
    const start = this.follow(at)
    const count = this.uint32(start)
    this.#inside(start + 4, count * elementSize)
    this.#budget -= count
    if (this.#budget < 0) throw new Damaged("vectors overlap without end")
    return { start: start + 4, count }
  }
}

const checkKeyValues = (flat: Flat, table: number, index: number): void => {
  const { start, count } = flat.vector(table, index, 4)
  for (let i = 0; i < count; i++) {
    const pair = flat.table(flat.follow(start + 4 * i))
    flat.vector(pair, 0, 1)
    flat.vector(pair, 1, 1)
  }
}

const unionType = 14

const checkField = (flat: Flat, field: number, depth: number): void => {
  if (depth > deepest) throw new Damaged("fields nested too deep")
  flat.vector(field, 0, 1)
  const type = flat.field(field, 2, 1)
  // The one type with a vector of its own, which nothing here uses.
  if (type !== undefined && flat.uint8(type) === unionType) throw new Damaged("a union column")
  if (flat.child(field, 3) === undefined) throw new Damaged("a field without a type")
  const dictionary = flat.child(field, 4)
  if (dictionary !== undefined) flat.child(dictionary, 1)
  const { start, count } = flat.vector(field, 5, 4)
  for (let i = 0; i < count; i++) checkField(flat, flat.table(flat.follow(start + 4 * i)), depth + 1)
  checkKeyValues(flat, field, 6)
}

const checkSchema = (flat: Flat, schema: number): void => {
  const { start, count } = flat.vector(schema, 1, 4)
  for (let i = 0; i < count; i++) checkField(flat, flat.table(flat.follow(start + 4 * i)), 0)
  checkKeyValues(flat, schema, 2)
}

const checkRecordBatch = (flat: Flat, batch: number, bodyLength: number): void => {
  if (flat.child(batch, 3) !== undefined) throw new Damaged("compressed")
  // A row takes at least one bit of some buffer.
  const mostRows = bodyLength * 8
  const lengthAt = flat.field(batch, 0, 8)
  const rows = lengthAt === undefined ? 0 : flat.int64(lengthAt)
  if (!(rows >= 0 && rows <= mostRows)) throw new Damaged("more rows than bytes for them")
  const nodes = flat.vector(batch, 1, 16)
  for (let i = 0; i < nodes.count; i++) {
    const length = flat.int64(nodes.start + 16 * i)
    const nulls = flat.int64(nodes.start + 16 * i + 8)
    if (!(length >= 0 && length <= mostRows && nulls >= 0 && nulls <= length)) {
      throw new Damaged("more values than bytes for them")
    }
  }
  const buffers = flat.vector(batch, 2, 16)
  for (let i = 0; i < buffers.count; i++) {
    const offset = flat.int64(buffers.start + 16 * i)
    const length = flat.int64(buffers.start + 16 * i + 8)
    if (!(offset >= 0 && length >= 0 && offset + length <= bodyLength))
      throw new Damaged("a column cut short")
  }
}

const headerOf = { dictionary: 2, batch: 3 } as const

const checkMessage = (flat: Flat, expected: number, room: number): void => {
  const message = flat.root()
  const type = flat.field(message, 1, 1)
  if (type === undefined || flat.uint8(type) !== expected) throw new Damaged("a message of another kind")
  const bodyAt = flat.field(message, 3, 8)
  const bodyLength = bodyAt === undefined ? 0 : flat.int64(bodyAt)
  if (!(bodyLength >= 0 && bodyLength <= room)) throw new Damaged("a batch cut short")
  const header = flat.child(message, 2)
  if (header === undefined) throw new Damaged("a message without content")
  checkKeyValues(flat, message, 4)
  if (expected === headerOf.batch) checkRecordBatch(flat, header, bodyLength)
  else {
    const data = flat.child(header, 1)
    if (data === undefined) throw new Damaged("a dictionary without words")
    checkRecordBatch(flat, data, bodyLength)
  }
}

const isMagic = (bytes: Uint8Array): boolean => magic.every((byte, i) => bytes[i] === byte)

/**
 * Checks a file of `size` bytes; yields what it wants to read and is sent the bytes. Throws `TraceError`. A file that
 * passes is one that the Arrow library reads in time and memory proportional to its size.
 */
export const checkArrowFile = function* (file: string, size: number): Generator<Wanted, void, Uint8Array> {
  const bad = (value: string, accepted = arrowFile) =>
    new TraceError({ file, field: "content", value, accepted })
  const head = yield { offset: 0, length: Math.min(size, magicBytes) }
  if (!isMagic(head)) {
    throw bad(`not an Arrow file (it begins ${JSON.stringify(new TextDecoder("latin1").decode(head))})`)
  }
  const tailBytes = 4 + magicBytes
  if (size < 2 * magicBytes + tailBytes) throw bad("an Arrow file cut short")
  const tail = yield { offset: size - tailBytes, length: tailBytes }
  if (!isMagic(tail.subarray(4))) throw bad("an Arrow file cut short")
  try {
    const footerLength = new Flat(tail).int32(0)
    const footerAt = size - tailBytes - footerLength
    if (footerLength < 8 || footerAt < magicBytes) throw new Damaged("a footer of impossible length")
    const flat = new Flat(yield { offset: footerAt, length: footerLength })
    const footer = flat.root()
    const schema = flat.child(footer, 1)
    if (schema === undefined) throw new Damaged("no schema")
    checkSchema(flat, schema)
    for (const [index, expected] of [
      [2, headerOf.dictionary],
      [3, headerOf.batch]
    ] as const) {
      const blocks = flat.vector(footer, index, 24)
      for (let i = 0; i < blocks.count; i++) {
        const offset = flat.int64(blocks.start + 24 * i)
        if (!(offset >= magicBytes && offset + 8 <= footerAt)) throw new Damaged("a batch outside the file")
        const prefix = new Flat(yield { offset, length: 8 })
        // Files from before Arrow 0.15 lack the mark before the length.
        const marked = prefix.int32(0) === -1
        const length = prefix.int32(marked ? 4 : 0)
        const start = offset + (marked ? 8 : 4)
        if (!(length >= 8 && start + length <= footerAt)) throw new Damaged("a batch outside the file")
        checkMessage(new Flat(yield { offset: start, length }), expected, footerAt - start - length)
      }
    }
  } catch (cause) {
    if (!(cause instanceof Damaged)) throw cause
    if (cause.message === "compressed") {
      throw bad(
        "a compressed Arrow file",
        'an uncompressed one (in pandas: to_feather(..., compression="uncompressed"))'
      )
    }
    throw bad(`a damaged Arrow file (${cause.message})`)
  }
}

/** As `checkArrowFile`, of an open file. */
export const checkArrowHandle = async (file: string, handle: FileHandle): Promise<void> => {
  const { size } = await handle.stat()
  const check = checkArrowFile(file, size)
  for (let next = check.next(); next.done !== true;) {
    const bytes = new Uint8Array(next.value.length)
    await handle.read(bytes, 0, bytes.length, next.value.offset)
    next = check.next(bytes)
  }
}

// Tensors in a file as people exchange them: https://huggingface.co/docs/safetensors. Eight bytes with the length of a JSON
// header, the header (dtype, shape and place of each tensor, and texts under "__metadata__"), then the values, little-endian and
// in C order. Knows nothing of what the tensors are.
import { closeSync, fstatSync, openSync } from "node:fs"
import { elementsOf, type Dtype, type TensorData } from "../core/machine/tensor.ts"
import { readAt } from "./read-at.ts"
import { showValue, TraceError, traceErrorFrom } from "./trace-error.ts"

export interface StoredTensor {
  readonly name: string
  readonly shape: ReadonlyArray<number>
  readonly dtype: Dtype
}

/** A tensor of a file, and where in it its values are. */
interface PlacedTensor extends StoredTensor {
  readonly from: number
  readonly sizeBytes: number
}

type Texts = Readonly<Record<string, string>>

interface StoredAs {
  readonly name: string
  readonly bytes: number
}

/** Of our dtypes, those that the format has. */
const storedAs: Partial<Readonly<Record<Dtype, StoredAs>>> = {
  float32: { name: "F32", bytes: 4 },
  bfloat16: { name: "BF16", bytes: 2 },
  float16: { name: "F16", bytes: 2 },
  int32: { name: "I32", bytes: 4 },
  int8: { name: "I8", bytes: 1 }
}

const dtypes = Object.entries(storedAs) as ReadonlyArray<[Dtype, StoredAs]>
const names = dtypes.map(([, { name }]) => name).join(", ")

/** As the format's own implementation has it. */
const headerBytesMax = 100_000_000

const metadataKey = "__metadata__"

const storageOf = (dtype: Dtype): StoredAs => {
  const stored = storedAs[dtype]
  if (stored === undefined) throw new RangeError(`safetensors have no ${dtype}; they have ${names}`)
  return stored
}

/** Bytes of a tensor's values in a file. Throws RangeError for a dtype that the format has not. */
const storedBytes = ({ shape, dtype }: StoredTensor): number => elementsOf(shape) * storageOf(dtype).bytes

/** The beginning of a file with these tensors, whose values are to follow in this order. */
export const encodeHeader = (tensors: ReadonlyArray<StoredTensor>, metadata: Texts): Uint8Array => {
  const entries: Array<[string, unknown]> = [[metadataKey, metadata]]
  let offset = 0
  for (const tensor of tensors) {
    const end = offset + storedBytes(tensor)
    const { name, shape, dtype } = tensor
    entries.push([name, { dtype: storageOf(dtype).name, shape, data_offsets: [offset, end] }])
    offset = end
  }
  const header = Object.fromEntries(entries)
  if (Object.keys(header).length !== entries.length)
    throw new RangeError("safetensors need a name of its own for each tensor")
  const text = new TextEncoder().encode(JSON.stringify(header))
  // Values begin at a multiple of eight, which spaces after the header see to.
  const length = Math.ceil(text.length / 8) * 8
  const bytes = new Uint8Array(8 + length).fill(0x20)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true)
  bytes.set(text, 8)
  return bytes
}

/** Values as they are in a file; of a narrow dtype they must be values that it has. */
export const encodeValues = (values: TensorData, dtype: Dtype): Uint8Array => {
  if (dtype === "float32" || dtype === "int32")
    return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  if (dtype === "int8") return new Uint8Array(Int8Array.from(values).buffer)
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const half = dtype === "bfloat16" ? (word: number) => word >>> 16 : float16Bits
  return new Uint8Array(Uint16Array.from(bits, half).buffer)
}

const decodeValues = (bytes: Uint8Array, dtype: Dtype): TensorData => {
  const { buffer, byteOffset } = bytes
  if (dtype === "float32") return new Float32Array(buffer, byteOffset, bytes.length / 4)
  if (dtype === "int32") return new Int32Array(buffer, byteOffset, bytes.length / 4)
  if (dtype === "int8") return Int32Array.from(new Int8Array(buffer, byteOffset, bytes.length))
  const halves = new Uint16Array(buffer, byteOffset, bytes.length / 2)
  if (dtype === "float16") return Float32Array.from(halves, float16Value)
  const words = Uint32Array.from(halves, (half) => half << 16)
  return new Float32Array(words.buffer)
}

/** Of a float32's bits, whose value float16 has. */
const float16Bits = (word: number): number => {
  const sign = (word >>> 16) & 0x8000
  const exponent = ((word >>> 23) & 0xff) - 127
  const mantissa = word & 0x7fffff
  if (exponent === 128) return sign | 0x7c00 | (mantissa === 0 ? 0 : 0x200)
  if (exponent >= -14) return sign | ((exponent + 15) << 10) | (mantissa >>> 13)
  if (exponent < -24) return sign
  return sign | ((mantissa | 0x800000) >>> (-exponent - 1))
}

const float16Value = (half: number): number => {
  const sign = half & 0x8000 ? -1 : 1
  const exponent = (half >>> 10) & 0x1f
  const mantissa = half & 0x3ff
  if (exponent === 0) return sign * mantissa * 2 ** -24
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : NaN
  return sign * (1024 + mantissa) * 2 ** (exponent - 25)
}

/** An open file of tensors, whose values are read as they are asked for. */
export class SafetensorsFile {
  readonly path: string
  readonly metadata: Texts
  /** In the order of their values. */
  readonly tensors: ReadonlyMap<string, PlacedTensor>
  /** What stands before the values, byte for byte. */
  readonly head: Uint8Array
  readonly #descriptor: number

  private constructor(path: string, descriptor: number, header: Header) {
    this.path = path
    this.#descriptor = descriptor
    this.metadata = header.metadata
    this.tensors = header.tensors
    this.head = header.head
  }

  /** Throws `TraceError` for a file that is missing, cut short or none of the format. */
  static open(path: string): SafetensorsFile {
    let descriptor: number | undefined
    try {
      descriptor = openSync(path, "r")
      return new SafetensorsFile(path, descriptor, headerOf(path, descriptor))
    } catch (cause) {
      if (descriptor !== undefined) closeSync(descriptor)
      throw traceErrorFrom(path, "file", "a file of safetensors", cause)
    }
  }

  /** Throws `TraceError` where the disk refuses. */
  values({ name, dtype, from, sizeBytes }: PlacedTensor): TensorData {
    try {
      return decodeValues(readAt(this.#descriptor, from, sizeBytes), dtype)
    } catch (cause) {
      throw traceErrorFrom(this.path, `tensor "${name}"`, "values that can be read", cause)
    }
  }

  close(): void {
    closeSync(this.#descriptor)
  }
}

interface Header {
  readonly head: Uint8Array
  readonly metadata: Texts
  readonly tensors: ReadonlyMap<string, PlacedTensor>
}

const headerOf = (file: string, descriptor: number): Header => {
  const refuse = (field: string, value: unknown, accepted: string) =>
    new TraceError({ file, field, value: showValue(value), accepted })
  const fileBytes = fstatSync(descriptor).size
  if (fileBytes < 8) throw refuse("file", `${fileBytes} bytes`, "at least the 8 bytes of a header's length")
  const length = Number(new DataView(readAt(descriptor, 0, 8).buffer).getBigUint64(0, true))
  if (length > fileBytes - 8) {
    const accepted = `at most the ${fileBytes - 8} bytes that follow: this is a file of safetensors, whole`
    throw refuse("header length", length, accepted)
  }
  if (length > headerBytesMax)
    throw refuse("header length", length, `at most ${headerBytesMax}, as the format has it`)
  const head = readAt(descriptor, 0, 8 + length)
  const text = new TextDecoder().decode(head.subarray(8))
  let header: unknown
  try {
    header = JSON.parse(text)
  } catch (cause) {
    throw refuse("header", cause, "JSON")
  }
  if (typeof header !== "object" || header === null || Array.isArray(header))
    throw refuse("header", header, "a JSON object")
  const { [metadataKey]: metadata = {}, ...entries } = header as Readonly<Record<string, unknown>>
  if (
    typeof metadata !== "object" ||
    metadata === null ||
    !Object.values(metadata).every((value) => typeof value === "string")
  )
    throw refuse(metadataKey, metadata, "texts by name")
  const tensors = new Map<string, PlacedTensor>()
  const start = 8 + length
  for (const [name, entry] of Object.entries(entries)) {
    const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Readonly<Record<string, unknown>>
    const known = dtypes.find(([, stored]) => stored.name === dtype)
    if (known === undefined) throw refuse(`tensor "${name}" dtype`, dtype, `one of ${names}`)
    if (!areWhole(shape)) throw refuse(`tensor "${name}" shape`, shape, "a list of whole numbers")
    const tensor = { name, shape, dtype: known[0] }
    const sizeBytes = storedBytes(tensor)
    if (!areWhole(offsets) || offsets.length !== 2 || offsets[1]! - offsets[0]! !== sizeBytes) {
      const accepted = `two, ${sizeBytes} bytes apart, as its shape and dtype say`
      throw refuse(`tensor "${name}" data_offsets`, offsets, accepted)
    }
    tensors.set(name, { ...tensor, from: start + offsets[0]!, sizeBytes })
  }
  // Every byte belongs to one tensor. The order of names in an object is not that of values.
  const placed = [...tensors].toSorted(([, a], [, b]) => a.from - b.from || a.sizeBytes - b.sizeBytes)
  let end = start
  for (const [name, { from, sizeBytes }] of placed) {
    if (from !== end)
      throw refuse(`tensor "${name}" data_offsets`, from - start, `${end - start}, where the one before ends`)
    end = from + sizeBytes
  }
  if (end !== fileBytes) throw refuse("file", `${fileBytes} bytes`, `the ${end} bytes that its header tells`)
  return { head, metadata: metadata as Texts, tensors: new Map(placed) }
}

const areWhole = (value: unknown): value is ReadonlyArray<number> =>
  Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && one >= 0)

// NumPy's .npy files of whole numbers: a header in the syntax of Python, then the elements.
import { TraceError } from "../trace-error.ts"

interface NumpyArray {
  readonly shape: ReadonlyArray<number>
  readonly data: Int32Array
}

const types = ["|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<i8", "<u8"] as const

export const isNumpy = (bytes: Uint8Array): boolean =>
  bytes[0] === 0x93 && String.fromCharCode(...bytes.subarray(1, 6)) === "NUMPY"

/** Format versions 1 to 3, C order, little-endian. Throws TraceError for anything else. */
export const parseNumpy = (file: string, bytes: Uint8Array): NumpyArray => {
  const refuse = (field: string, value: string, accepted: string) =>
    new TraceError({ file, field, value, accepted })
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const wide = bytes[6] !== 1
  const start = wide ? 12 : 10
  if (bytes.length < start) throw refuse("content", `${bytes.length} bytes`, "a whole .npy file")
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true)
  const header = new TextDecoder().decode(bytes.subarray(start, start + length))
  const type = /'descr':\s*'([^']*)'/.exec(header)?.[1] ?? "none"
  if (!types.some((known) => known === type))
    throw refuse("descr", type, `whole numbers: ${types.join(", ")}`)
  if (!/'fortran_order':\s*False/.test(header)) throw refuse("fortran_order", "True", "False")
  const shape = (/'shape':\s*\(([^)]*)\)/.exec(header)?.[1] ?? "")
    .split(",")
    .map((extent) => extent.trim())
    .filter((extent) => extent !== "")
    .map(Number)
  const width = Number(type[2])
  const elements = shape.reduce((product, extent) => product * extent, 1)
  const held = bytes.length - start - length
  if (held !== elements * width)
    throw refuse("content", `${held} bytes`, `${elements * width} bytes for the shape (${shape.join(", ")})`)
  const signed = type[1] === "i"
  const read = (at: number): number => {
    if (width === 1) return signed ? view.getInt8(at) : view.getUint8(at)
    if (width === 2) return signed ? view.getInt16(at, true) : view.getUint16(at, true)
    if (width === 4) return signed ? view.getInt32(at, true) : view.getUint32(at, true)
    return Number(signed ? view.getBigInt64(at, true) : view.getBigUint64(at, true))
  }
  return { shape, data: Int32Array.from({ length: elements }, (_, i) => read(start + length + i * width)) }
}

// Files of safetensors: the bytes that the format's page shows, values of every dtype there and back, and refusals of what is damaged.
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as fc from "fast-check"
import { afterAll, expect, it } from "vitest"
import { roundInPlace } from "../../core/kernels/rounding.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { encodeHeader, encodeValues, SafetensorsFile, type StoredTensor } from "../../traces/safetensors.ts"
import { TraceError } from "../../traces/trace-error.ts"

const folder = mkdtempSync(path.join(tmpdir(), "safetensors-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const file = path.join(folder, "a.safetensors")

interface Held extends StoredTensor {
  readonly values: TensorData
}

const write = (tensors: ReadonlyArray<Held>, metadata: Readonly<Record<string, string>> = {}): Buffer => {
  const bytes = Buffer.concat([
    encodeHeader(tensors, metadata),
    ...tensors.map(({ values, dtype }) => encodeValues(values, dtype))
  ])
  writeFileSync(file, bytes)
  return bytes
}

const read = () => {
  const opened = SafetensorsFile.open(file)
  try {
    const tensors = [...opened.tensors.values()].map((tensor) => ({
      ...tensor,
      values: opened.values(tensor)
    }))
    return { metadata: opened.metadata, tensors }
  } finally {
    opened.close()
  }
}

it("lays bytes out as the format's page has it", () => {
  const bytes = write([{ name: "w", shape: [2, 1], dtype: "float32", values: Float32Array.of(1, -2) }])
  const length = Number(bytes.readBigUInt64LE(0))
  expect(length % 8).toBe(0)
  expect(JSON.parse(bytes.toString("utf8", 8, 8 + length))).toEqual({
    __metadata__: {},
    w: { dtype: "F32", shape: [2, 1], data_offsets: [0, 8] }
  })
  expect(bytes.subarray(8 + length).toString("hex")).toBe("0000803f000000c0")
})

it("keeps every number of every dtype", () => {
  // Every number that has sixteen bits, and no number (NaN) as such.
  const halves = (toWord: (half: number) => number) => {
    const words = Uint32Array.from({ length: 65_536 }, (_, half) => toWord(half))
    return new Float32Array(words.buffer)
  }
  const bfloat16 = halves((half) => half << 16)
  const float16 = Float32Array.from({ length: 65_536 }, (_, i) => (i - 32_768) / 512)
  roundInPlace(float16, "float16")
  const small = Float32Array.from({ length: 2048 }, (_, i) => (i - 1024) * 2 ** -24)
  const tensors: ReadonlyArray<Held> = [
    { name: "half", shape: [256, 256], dtype: "bfloat16", values: bfloat16 },
    { name: "float16", shape: [65_536], dtype: "float16", values: float16 },
    { name: "subnormal", shape: [2048], dtype: "float16", values: small },
    { name: "infinite", shape: [3], dtype: "float16", values: Float32Array.of(Infinity, -Infinity, NaN) },
    { name: "int8", shape: [3], dtype: "int8", values: Int32Array.of(-128, 0, 127) },
    { name: "int32", shape: [], dtype: "int32", values: Int32Array.of(-(2 ** 31)) },
    { name: "nothing", shape: [0, 4], dtype: "float32", values: new Float32Array(0) },
    { name: 'a "name" \u{1f600}', shape: [2], dtype: "float32", values: Float32Array.of(0.1, -0) }
  ]
  write(tensors, { name: "ours" })
  const { metadata, tensors: back } = read()
  expect(metadata).toEqual({ name: "ours" })
  for (const [i, { name, shape, dtype, values }] of tensors.entries()) {
    const { name: found, shape: extents, dtype: kind, values: own } = back[i]!
    expect([found, extents, kind]).toEqual([name, shape, dtype])
    expect(own, name).toEqual(values)
  }
})

it("reads what others write: halves by their bits", () => {
  const header = Buffer.from(JSON.stringify({ h: { dtype: "F16", shape: [4], data_offsets: [0, 8] } }))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(header.length))
  // 1, -2, the largest and the smallest: IEEE 754-2019, binary16
  const halves = Buffer.from("003c00c0ff7b0100", "hex")
  writeFileSync(file, Buffer.concat([length, header, halves]))
  expect(read().tensors[0]!.values).toEqual(Float32Array.of(1, -2, 65_504, 2 ** -24))
})

it("refuses what is damaged with what is wrong, and nothing else", () => {
  const bytes = write([
    { name: "a", shape: [2, 3], dtype: "float32", values: new Float32Array(6) },
    { name: "b", shape: [4], dtype: "bfloat16", values: new Float32Array(4) }
  ])
  let refused = 0
  const broken = fc.oneof(
    fc.nat({ max: bytes.length - 1 }).map((end) => bytes.subarray(0, end)),
    fc.tuple(fc.nat({ max: bytes.length - 33 }), fc.nat({ max: 255 })).map(([at, byte]) => {
      const changed = Buffer.from(bytes)
      changed[at] = byte
      return changed
    })
  )
  fc.assert(
    fc.property(broken, (damaged) => {
      writeFileSync(file, damaged)
      try {
        read()
      } catch (error) {
        expect(error).toBeInstanceOf(TraceError)
        expect((error as TraceError).message).toContain(file)
        refused++
      }
    }),
    { numRuns: 300 }
  )
  expect(refused).toBeGreaterThan(150)
  expect(readFileSync(file).length).toBeGreaterThan(0)
})

it.each([
  [
    "a dtype that we have not",
    { a: { dtype: "F64", shape: [1], data_offsets: [0, 8] } },
    /tensor "a" dtype is "F64"/u
  ],
  ["a hole", { a: { dtype: "F32", shape: [1], data_offsets: [4, 8] } }, /"a" data_offsets is 4; expected 0/u],
  ["sizes that do not fit", { a: { dtype: "F32", shape: [3], data_offsets: [0, 8] } }, /12 bytes apart/u],
  [
    "bytes that are nobody's",
    { a: { dtype: "F32", shape: [1], data_offsets: [0, 4] } },
    /that its header tells/u
  ],
  ["metadata that is no text", { __metadata__: { a: 1 } }, /texts by name/u]
])("refuses %s", (_, content, message) => {
  const header = Buffer.from(JSON.stringify(content))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(header.length))
  writeFileSync(file, Buffer.concat([length, header, Buffer.alloc(8)]))
  expect(() => SafetensorsFile.open(file)).toThrow(message)
})

it("says which of the two lengths a header is beyond", () => {
  const said = (length: number, fileBytes: number): unknown => {
    const begin = Buffer.alloc(8)
    begin.writeBigUInt64LE(BigInt(length))
    writeFileSync(file, begin)
    truncateSync(file, fileBytes)
    try {
      return SafetensorsFile.open(file)
    } catch (error) {
      return (error as Error).message
    }
  }
  expect(said(1000, 100)).toMatch(/header length is 1000; expected at most the 92 bytes that follow/u)
  // A file with a hole, which takes no room.
  expect(said(100_000_001, 200_000_000)).toMatch(/expected at most 100000000, as the format has it$/u)
})

it("writes no dtype that the format has not, and no name twice", () => {
  const one = { name: "a", shape: [1], dtype: "float32" } as const
  expect(() => encodeHeader([{ ...one, dtype: "float4" }], {})).toThrow(/safetensors have no float4/u)
  expect(() => encodeHeader([one, one], {})).toThrow(/a name of its own/u)
})

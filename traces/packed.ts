// Files as people keep and send them: compressed by gzip or zstd or not (the content decides), zip archives, other compression
// that is refused by its name. Knows nothing of what is inside.
import { createReadStream } from "node:fs"
import { open, type FileHandle } from "node:fs/promises"
import type { Transform } from "node:stream"
import * as zlib from "node:zlib"
import { messageOf } from "../core/message-of.ts"
import { TraceError } from "./trace-error.ts"

/** What is read here, by its first bytes. */
const packings = {
  gzip: [0x1f, 0x8b],
  zstd: [0x28, 0xb5, 0x2f, 0xfd]
} as const

type Packing = keyof typeof packings

/** How bytes are compressed that begin so; undefined where they are not, or by what is not read here. */
const packingOf = (bytes: Uint8Array): Packing | undefined =>
  (["gzip", "zstd"] as const).find((name) => packings[name].every((byte, i) => bytes[i] === byte))

/** How many first bytes tell a compression. */
export const magicBytes = 6

/** Whether bytes begin as a zip archive does: PK, and the mark of an entry or of an empty archive. */
export const isZip = (bytes: Uint8Array): boolean =>
  bytes[0] === 0x50 && bytes[1] === 0x4b && (bytes[2] === 3 || bytes[2] === 5)

const others: ReadonlyArray<readonly [name: string, magic: ReadonlyArray<number>]> = [
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a]],
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["lz4", [0x04, 0x22, 0x4d, 0x18]],
  ["7z", [0x37, 0x7a, 0xbc, 0xaf]]
]

/** The compression that bytes begin with and that is not read here. */
export const otherCompression = (bytes: Uint8Array): string | undefined =>
  others.find(([, magic]) => magic.every((byte, i) => bytes[i] === byte))?.[0] ??
  // Node reads it from 22.15 on.
  (packingOf(bytes) === "zstd" && typeof zlib.zstdDecompressSync !== "function" ? "zstd" : undefined)

const refuseCompression = (file: string, bytes: Uint8Array): void => {
  const name = otherCompression(bytes)
  if (name === undefined) return
  const node = name === "zstd" ? " (zstd from Node 22.15 on)" : ""
  throw new TraceError({
    file,
    field: "content",
    value: `compressed by ${name}`,
    accepted: `gzip or zstd, or no compression${node}`
  })
}

/** A file of old zstd writers needs as much memory as it says, up to 2 GiB. */
const zstdOptions = () => ({ params: { [zlib.constants.ZSTD_d_windowLogMax]: 31 } })

/** What is wrong with compressed bytes that cannot be unpacked. */
const damaged = (file: string, packing: Packing, cause: unknown): TraceError => {
  const isShort = cause instanceof Error && "code" in cause && cause.code === "Z_BUF_ERROR"
  const why = messageOf(cause)
  return new TraceError({
    file,
    field: "content",
    value: isShort ? `${packing} cut short` : `damaged ${packing} (${why})`,
    accepted: `a complete ${packing} file, or no compression`
  })
}

/** Bytes as they were before compression. Throws `TraceError` on damage, and on compression that is not read. */
export const unpacked = (file: string, bytes: Uint8Array): Uint8Array => {
  let inner = bytes
  // A server that compresses what is compressed already leaves it twice so.
  for (let depth = 0; depth < deepestPacking; depth++) {
    refuseCompression(file, inner)
    const packing = packingOf(inner)
    if (packing === undefined) break
    try {
      inner = packing === "gzip" ? zlib.gunzipSync(inner) : zlib.zstdDecompressSync(inner, zstdOptions())
    } catch (cause) {
      throw damaged(file, packing, cause)
    }
  }
  return inner
}

/** Files are packed in one another no more often than this. */
export const deepestPacking = 3

/** As much as the beginning of a compressed file holds; the bytes themselves where they are not compressed. */
export const unpackedHead = (bytes: Uint8Array): Uint8Array => {
  let inner = bytes
  for (let depth = 0; depth < deepestPacking; depth++) {
    const packing = packingOf(inner)
    if (packing === undefined) break
    try {
      // Flushed, not finished: the rest of the file is not there, and need not be.
      inner =
        packing === "gzip"
          ? zlib.gunzipSync(inner, { finishFlush: zlib.constants.Z_SYNC_FLUSH })
          : zlib.zstdDecompressSync(inner, { ...zstdOptions(), finishFlush: zlib.constants.ZSTD_e_flush })
    } catch {
      // What is damaged is told by whoever reads it whole.
      break
    }
  }
  return inner
}

const chunksAhead = 8

/** What undoes the compression that `head` begins with, as a stream, and what its errors mean; undefined for none. Throws `TraceError`. */
export const unpacker = (
  file: string,
  head: Uint8Array,
  chunkSize: number
): { readonly stream: Transform; readonly told: (cause: unknown) => unknown } | undefined => {
  refuseCompression(file, head)
  const packing = packingOf(head)
  if (packing === undefined) return undefined
  // Unpacked ahead, on another thread, while what came before is looked at.
  const ahead = { chunkSize, readableHighWaterMark: chunksAhead * chunkSize }
  const stream =
    packing === "gzip" ? zlib.createGunzip(ahead) : zlib.createZstdDecompress({ ...zstdOptions(), ...ahead })
  const isOfStream = (cause: unknown): boolean =>
    cause instanceof Error && "code" in cause && /^(?:Z_|ZSTD_)/u.test(String(cause.code))
  return { stream, told: (cause) => (isOfStream(cause) ? damaged(file, packing, cause) : cause) }
}

/** A file in a zip archive, as a stream of its bytes. */
interface ZipEntry {
  readonly name: string
  readonly bytes: () => AsyncIterable<Uint8Array>
}

const entryMark = 0x02014b50
/** The record at an archive's end; with the longest comment behind it, whose length has 16 bits. */
const endBytes = 22
const endBytesMax = endBytes + 0xffff

/** What an archive holds, in its order; undefined where a file is none. Throws `TraceError` on one cut short or of 4 GiB. */
export const zipEntries = async (file: string): Promise<ReadonlyArray<ZipEntry> | undefined> => {
  const handle = await open(file, "r")
  try {
    if (!isZip(await part(handle, 0, 4))) return undefined
    const { size } = await handle.stat()
    const bad = (value: string) =>
      new TraceError({ file, field: "content", value, accepted: "a complete zip archive of less than 4 GiB" })
    const from = Math.max(0, size - endBytesMax)
    const tail = await part(handle, from, size - from)
    const end = tail.lastIndexOf(Buffer.from([0x50, 0x4b, 0x05, 0x06]))
    if (end < 0 || end + endBytes > tail.length) throw bad("zip cut short")
    const count = tail.readUInt16LE(end + 10)
    const listBytes = tail.readUInt32LE(end + 12)
    const listAt = tail.readUInt32LE(end + 16)
    if (listAt === 0xffffffff || listAt + listBytes > size) throw bad("zip of 4 GiB or more, or cut short")
    const list = await part(handle, listAt, listBytes)
    const entries: Array<ZipEntry> = []
    for (let at = 0, i = 0; i < count; i++) {
      if (at + 46 > list.length || list.readUInt32LE(at) !== entryMark) throw bad("damaged zip")
      const nameBytes = list.readUInt16LE(at + 28)
      const name = list.toString("utf8", at + 46, at + 46 + nameBytes)
      const method = list.readUInt16LE(at + 10)
      const packedBytes = list.readUInt32LE(at + 20)
      const headerAt = list.readUInt32LE(at + 42)
      const isEncrypted = (list.readUInt16LE(at + 8) & 1) !== 0
      if (!name.endsWith("/"))
        entries.push({
          name,
          bytes: () => {
            if (isEncrypted || (method !== 0 && method !== 8))
              throw bad(`${name}, encrypted or packed by method ${method}`)
            return entryBytes(file, headerAt, packedBytes, method === 8, () => bad(`${name}, damaged`))
          }
        })
      at += 46 + nameBytes + list.readUInt16LE(at + 30) + list.readUInt16LE(at + 32)
    }
    return entries
  } finally {
    await handle.close()
  }
}

const part = async (handle: FileHandle, from: number, count: number): Promise<Buffer> => {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(count), 0, count, from)
  return buffer.subarray(0, bytesRead)
}

const entryBytes = async function* (
  file: string,
  headerAt: number,
  count: number,
  isPacked: boolean,
  damaged: () => TraceError
): AsyncIterable<Uint8Array> {
  if (count === 0) return
  const handle = await open(file, "r")
  let from: number
  try {
    const header = await part(handle, headerAt, 30)
    if (header.length < 30) throw damaged()
    from = headerAt + 30 + header.readUInt16LE(26) + header.readUInt16LE(28)
  } finally {
    await handle.close()
  }
  const raw = createReadStream(file, { start: from, end: from + count - 1 })
  if (!isPacked) {
    yield* raw
    return
  }
  const inflate = zlib.createInflateRaw()
  raw.on("error", (cause) => inflate.destroy(cause))
  try {
    for await (const chunk of raw.pipe(inflate)) yield chunk as Uint8Array
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && String(cause.code).startsWith("Z_")) throw damaged()
    throw cause
  } finally {
    inflate.destroy()
    raw.destroy()
  }
}

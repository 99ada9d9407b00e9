// Files as people keep and send them: gzip-compressed or not (the content decides), zip archives, other compression that is
// refused by its name. Knows nothing of what is inside.
import { createReadStream } from "node:fs"
import { open, readFile, type FileHandle } from "node:fs/promises"
import { createInflateRaw, gunzipSync } from "node:zlib"
import { TraceError } from "./trace-error.ts"

export const isGzip = (bytes: Uint8Array): boolean => bytes[0] === 0x1f && bytes[1] === 0x8b

/** Whether bytes begin as a zip archive does: PK, and the mark of an entry or of an empty archive. */
const isZip = (bytes: Uint8Array): boolean =>
  bytes[0] === 0x50 && bytes[1] === 0x4b && (bytes[2] === 3 || bytes[2] === 5)

const others: ReadonlyArray<readonly [name: string, magic: ReadonlyArray<number>]> = [
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a]],
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["lz4", [0x04, 0x22, 0x4d, 0x18]],
  ["7z", [0x37, 0x7a, 0xbc, 0xaf]]
]

/** The compression that bytes begin with and that is not read here. */
export const otherCompression = (bytes: Uint8Array): string | undefined =>
  others.find(([, magic]) => magic.every((byte, i) => bytes[i] === byte))?.[0]

export const refuseCompression = (file: string, bytes: Uint8Array): void => {
  const name = otherCompression(bytes)
  if (name === undefined) return
  throw new TraceError({
    file,
    field: "content",
    value: `compressed by ${name}`,
    accepted: "gzip, or no compression"
  })
}

/** Bytes as they were before gzip, where they are gzip. Throws `TraceError` on damage, and on other compression. */
export const unpacked = (file: string, bytes: Uint8Array): Uint8Array => {
  refuseCompression(file, bytes)
  if (!isGzip(bytes)) return bytes
  try {
    return gunzipSync(bytes)
  } catch (cause) {
    const value = `damaged gzip (${cause instanceof Error ? cause.message : String(cause)})`
    throw new TraceError({
      file,
      field: "content",
      value,
      accepted: "a complete gzip file, or no compression"
    })
  }
}

/** The text of a file, gzip-compressed or not. Rejects with what the system says of a file that cannot be read. */
export const textOfFile = async (file: string): Promise<string> =>
  new TextDecoder().decode(unpacked(file, await readFile(file)))

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
  const inflate = createInflateRaw()
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

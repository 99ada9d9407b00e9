// The bytes of a trace, decompressed as they are read: gzip is recognised by its first bytes, not by the file's name.
// Knows nothing of JSON.
import { createReadStream } from "node:fs"
import { Readable } from "node:stream"
import { createGunzip } from "node:zlib"
import { isGzip, refuseCompression, zipEntries } from "../packed.ts"
import { showValue, TraceError } from "../trace-error.ts"

export type ByteSource = Uint8Array | AsyncIterable<Uint8Array>

const chunkBytes = 1 << 18

/** Reads a file in chunks. */
const fileBytes = (path: string): AsyncIterable<Uint8Array> =>
  createReadStream(path, { highWaterMark: chunkBytes })

/** A trace and what it is called: the file, or what of an archive. */
interface TraceSource {
  readonly file: string
  readonly source: ByteSource
}

/** The traces in a file: itself, or of a zip archive every `.json` and `.json.gz` in it. Throws `TraceError`. */
export const traceSources = async (path: string): Promise<ReadonlyArray<TraceSource>> => {
  const entries = await zipEntries(path)
  if (entries === undefined) return [{ file: path, source: fileBytes(path) }]
  const traces = entries.filter(
    ({ name }) => /\.json(?:\.gz)?$/iu.test(name) && !name.startsWith("__MACOSX/")
  )
  if (traces.length > 0)
    return traces.map(({ name, bytes }) => ({ file: `${path}/${name}`, source: bytes() }))
  throw new TraceError({
    file: path,
    field: "content",
    value: `a zip archive of ${showValue(entries.slice(0, 3).map(({ name }) => name))}`,
    accepted: "a trace (.json or .json.gz) in it"
  })
}

const chunksOf = async function* (source: ByteSource): AsyncIterable<Uint8Array> {
  if (source instanceof Uint8Array) {
    for (let at = 0; at < source.length; at += chunkBytes) yield source.subarray(at, at + chunkBytes)
  } else yield* source
}

/** First chunk made at least two bytes long, so that the magic number can be seen. */
const withWholeHead = async function* (source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  let head: Uint8Array | undefined = new Uint8Array(0)
  for await (const chunk of source) {
    if (head === undefined) yield chunk
    else {
      const joined: Uint8Array = Buffer.concat([head, chunk])
      if (joined.length < 3) head = joined
      else {
        head = undefined
        yield joined
      }
    }
  }
  if (head !== undefined && head.length > 0) yield head
}

/** The decompressed bytes of `source`. Throws `TraceError` on damaged or truncated gzip. */
export const decompressed = async function* (file: string, source: ByteSource): AsyncIterable<Uint8Array> {
  const chunks = withWholeHead(chunksOf(source))[Symbol.asyncIterator]()
  const first = await chunks.next()
  if (first.done === true) return
  const rest = async function* (): AsyncIterable<Uint8Array> {
    yield first.value
    for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) yield next.value
  }
  try {
    refuseCompression(file, first.value)
    if (!isGzip(first.value)) {
      yield* rest()
      return
    }
    const input = Readable.from(rest(), { objectMode: false })
    const gunzip = createGunzip({ chunkSize: chunkBytes })
    // `pipe` does not forward errors of its source.
    input.on("error", (cause) => gunzip.destroy(cause))
    try {
      for await (const chunk of input.pipe(gunzip)) yield chunk as Uint8Array
    } catch (cause) {
      if (cause instanceof Error && "code" in cause && String(cause.code).startsWith("Z_")) {
        const value = cause.code === "Z_BUF_ERROR" ? "gzip cut short" : `damaged gzip (${showValue(cause)})`
        throw new TraceError({
          file,
          field: "content",
          value,
          accepted: "a complete gzip or plain JSON file"
        })
      }
      throw cause
    } finally {
      gunzip.destroy()
      input.destroy()
    }
  } finally {
    await chunks.return?.()
  }
}

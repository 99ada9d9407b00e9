// The bytes of a trace, decompressed as they are read: compression is recognised by its first bytes, not by the file's name.
// Knows nothing of JSON.
import { open, readdir, stat } from "node:fs/promises"
import { join } from "node:path"
import { Readable } from "node:stream"
import { readHead } from "../head.ts"
import { deepestPacking, magicBytes, unpacker, zipEntries } from "../packed.ts"
import { encodingOf } from "../text.ts"
import { showValue, TraceError, traceErrorFrom } from "../trace-error.ts"

/** Bytes as they are or piece by piece; a piece need not stay as it is once the next one is asked for. */
export type ByteSource = Uint8Array | AsyncIterable<Uint8Array>

const chunkBytes = 1 << 18
/** A file is read in pieces so large: what a read costs beside its bytes is then little. */
const fileChunkBytes = 1 << 20

/** Whatever the system says of one file of several, with that file's name. */
const reading = async <A>(path: string, read: Promise<A>): Promise<A> => {
  try {
    return await read
  } catch (cause) {
    throw traceErrorFrom(path, "content", "a PyTorch profiler trace", cause)
  }
}

/** A file in pieces, each read while the one before it is looked at, into the same two buffers in turn. */
const fileBytes = async function* (path: string): AsyncIterable<Uint8Array> {
  const handle = await reading(path, open(path, "r"))
  let ahead: Promise<{ bytesRead: number; buffer: Uint8Array }> | undefined
  try {
    let [free, other] = [new Uint8Array(fileChunkBytes), new Uint8Array(fileChunkBytes)]
    ahead = reading(path, handle.read(free, 0, fileChunkBytes))
    for (;;) {
      const { bytesRead, buffer } = await ahead
      ahead = undefined
      if (bytesRead === 0) return
      ;[free, other] = [other, free]
      ahead = reading(path, handle.read(free, 0, fileChunkBytes))
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    // Whoever stops early must not close the file under a read.
    await ahead?.catch(() => undefined)
    await handle.close()
  }
}

/** A trace and what it is called: the file, or what of an archive. */
interface TraceSource {
  readonly file: string
  readonly source: ByteSource
}

/** Whether what is called so in an archive is a trace. */
export const isTraceName = (name: string): boolean => /\.json(?:\.gz|\.zst)?$/iu.test(name)

/** Whether a text begins as a trace does. */
export const looksLikeTrace = (text: string): boolean =>
  /"(?:traceEvents|deviceProperties|distributedInfo|displayTimeUnit)"\s*:/u.test(text) ||
  (/^\s*\[\s*\{/u.test(text) && /"ph"\s*:/u.test(text))

/** Files as they are named, and of a folder every trace in it, by name. Throws `TraceError` of a folder without any. */
export const traceFiles = async (paths: ReadonlyArray<string>): Promise<ReadonlyArray<string>> => {
  const files: Array<string> = []
  for (const path of paths) {
    if (!(await reading(path, stat(path))).isDirectory()) {
      files.push(path)
      continue
    }
    const inside = (await reading(path, readdir(path)))
      .filter(isTraceName)
      .toSorted()
      .map((name) => join(path, name))
    const heads = await Promise.all(inside.map(readHead))
    const traces = inside.filter((_, i) => looksLikeTrace(heads[i]?.text ?? ""))
    if (traces.length === 0) {
      const accepted = "a trace (.json, .json.gz or .json.zst) in it, of each rank of one job"
      throw new TraceError({ file: path, field: "files", value: "none of a trace", accepted })
    }
    files.push(...traces)
  }
  return files
}

/** The traces in a file: itself, or of a zip archive every `.json`, `.json.gz` and `.json.zst` in it. Throws `TraceError`. */
export const traceSources = async (path: string): Promise<ReadonlyArray<TraceSource>> => {
  const entries = await reading(path, zipEntries(path))
  if (entries === undefined) return [{ file: path, source: fileBytes(path) }]
  const traces = entries.filter(({ name }) => isTraceName(name) && !name.startsWith("__MACOSX/"))
  if (traces.length > 0)
    return traces.map(({ name, bytes }) => ({ file: `${path}/${name}`, source: bytes() }))
  throw new TraceError({
    file: path,
    field: "content",
    value: `a zip archive of ${showValue(entries.slice(0, 3).map(({ name }) => name))}`,
    accepted: "a trace (.json, .json.gz or .json.zst) in it"
  })
}

const chunksOf = async function* (source: ByteSource): AsyncIterable<Uint8Array> {
  if (source instanceof Uint8Array) {
    for (let at = 0; at < source.length; at += chunkBytes) yield source.subarray(at, at + chunkBytes)
  } else yield* source
}

/** First chunk made long enough that the magic number can be seen. */
const withWholeHead = async function* (source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  let head: Uint8Array | undefined = new Uint8Array(0)
  for await (const chunk of source) {
    if (head === undefined) yield chunk
    else {
      const joined: Uint8Array = Buffer.concat([head, chunk])
      if (joined.length < magicBytes) head = joined
      else {
        head = undefined
        yield joined
      }
    }
  }
  if (head !== undefined && head.length > 0) yield head
}

/** The bytes of `source` as UTF-8, decompressed. Throws `TraceError` on damaged or truncated compression. */
export const decompressed = async function* (file: string, source: ByteSource): AsyncIterable<Uint8Array> {
  let first = true
  let decoder: InstanceType<typeof TextDecoder> | undefined
  for await (const chunk of withWholeHead(unpackedChunks(file, source))) {
    if (first && encodingOf(chunk) !== "utf-8") decoder = new TextDecoder(encodingOf(chunk))
    first = false
    yield decoder === undefined ? chunk : Buffer.from(decoder.decode(chunk, { stream: true }))
  }
}

/** Pieces that stay as they are. */
const copied = async function* (chunks: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  for await (const chunk of chunks) yield Buffer.from(chunk)
}

const packedTooOften = (file: string) => ({
  file,
  field: "content",
  value: "compressed over and over",
  accepted: "a trace, compressed once or not"
})

const unpackedChunks = async function* (
  file: string,
  source: ByteSource,
  depth = 0
): AsyncIterable<Uint8Array> {
  const chunks = withWholeHead(chunksOf(source))[Symbol.asyncIterator]()
  const first = await chunks.next()
  if (first.done === true) return
  const rest = async function* (): AsyncIterable<Uint8Array> {
    yield first.value
    for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) yield next.value
  }
  try {
    const packed = unpacker(file, first.value, chunkBytes)
    if (packed === undefined) {
      yield* rest()
      return
    }
    if (depth === deepestPacking) throw new TraceError(packedTooOften(file))
    const input = Readable.from(copied(rest()), { objectMode: false })
    // `pipe` does not forward errors of its source.
    input.on("error", (cause) => packed.stream.destroy(cause))
    try {
      // A server that compresses what is compressed already leaves it twice so.
      yield* unpackedChunks(file, input.pipe(packed.stream), depth + 1)
    } catch (cause) {
      throw packed.told(cause)
    } finally {
      packed.stream.destroy()
      input.destroy()
    }
  } finally {
    await chunks.return?.()
  }
}

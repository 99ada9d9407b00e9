// What tells a file that lost a bit from the one that was written: the SHA-256 of all of its bytes, kept in its metadata; of columns
// in the schema at the file's end. Files without one (of other programs, or of versions before) are taken as they are.
import { createHash } from "node:crypto"
import type { FileHandle } from "node:fs/promises"
import { TraceError } from "./trace-error.ts"

export const checkKey = "tandem.check"

/** Stands in the file's place of its own digest while that is made. */
export const noDigest = "0".repeat(64)

const magicBytes = 6
const chunkBytes = 2 ** 20

/** Everything but the last piece goes on as it comes; what `last` gives back is that piece with the digest of all in it. */
export class Checking {
  readonly #hash = createHash("sha256")

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes)
  }

  /** `end` has `noDigest` in it, once. */
  last(end: Uint8Array): Uint8Array {
    return withDigest(end, this.#hash.update(end).digest("hex"))
  }
}

/** Of a file that begins with `head`, in which its digest or `noDigest` stands, and goes on with these pieces. */
export const digestOfPieces = (head: Uint8Array, digest: string, pieces: Iterable<Uint8Array>): string => {
  const hash = createHash("sha256").update(withoutDigest(head, digest))
  for (const piece of pieces) hash.update(piece)
  return hash.digest("hex")
}

/** The part of a file that has room for its digest (`noDigest`), with it. */
export const withDigest = (part: Uint8Array, digest: string): Uint8Array => {
  const whole = Buffer.from(part)
  const at = whole.lastIndexOf(noDigest)
  if (at < 0) throw new RangeError("a file has no room for its digest")
  whole.write(digest, at, "latin1")
  return whole
}

export const mismatch = (file: string): TraceError =>
  new TraceError({
    file,
    field: `metadata ${checkKey}`,
    value: "the digest of other bytes",
    accepted:
      "the digest of the file's own: it was damaged; or another program changed it, which is then to leave this key out"
  })

/** The end of a file, from where its schema and the digest in it are. */
const endOf = (size: number, tail: DataView): number =>
  size - magicBytes - 4 - tail.getInt32(tail.byteLength - magicBytes - 4, true)

/** `digest` is null where its key has no value. Throws `TraceError` where a file in memory is not the one whose digest it has. Its structure is that of an Arrow file. */
export const checkBytes = (file: string, bytes: Uint8Array, digest: string | null | undefined): void => {
  if (digest === undefined) return
  const from = endOf(bytes.length, new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  const hash = createHash("sha256").update(bytes.subarray(0, from))
  if (hash.update(withoutDigest(bytes.subarray(from), digest)).digest("hex") !== digest) throw mismatch(file)
}

/** As `checkBytes`, of an open file, a piece at a time. */
export const checkHandle = async (
  file: string,
  handle: FileHandle,
  digest: string | null | undefined,
  signal: AbortSignal
): Promise<void> => {
  if (digest === undefined) return
  const { size } = await handle.stat()
  const read = async (from: number, length: number): Promise<Uint8Array> => {
    const bytes = new Uint8Array(length)
    let done = 0
    while (done < length) {
      const { bytesRead } = await handle.read(bytes, done, length - done, from + done)
      if (bytesRead === 0) throw mismatch(file)
      done += bytesRead
    }
    return bytes
  }
  const tail = await read(size - magicBytes - 4, magicBytes + 4)
  const end = endOf(size, new DataView(tail.buffer))
  const hash = createHash("sha256")
  for (let from = 0; from < end; from += chunkBytes) {
    signal.throwIfAborted()
    hash.update(await read(from, Math.min(chunkBytes, end - from)))
  }
  hash.update(withoutDigest(await read(end, size - end), digest))
  if (hash.digest("hex") !== digest) throw mismatch(file)
}

/** As the end was when the digest was made. */
const withoutDigest = (end: Uint8Array, digest: string | null): Uint8Array => {
  const plain = Buffer.from(end)
  const at = digest?.length === noDigest.length ? plain.lastIndexOf(digest) : -1
  if (at >= 0) plain.write(noDigest, at, "latin1")
  return plain
}

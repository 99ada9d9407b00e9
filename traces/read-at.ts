// A part of an open file, whole: a read may end early.
import { readSync } from "node:fs"

/** The most that one read takes. */
const readBytesMax = 1 << 30

/** `count` bytes from byte `from` on. Throws what the system does, and Error where the file ends before. */
export const readAt = (descriptor: number, from: number, count: number): Uint8Array => {
  const bytes = new Uint8Array(count)
  let done = 0
  while (done < count) {
    const more = readSync(descriptor, bytes, done, Math.min(count - done, readBytesMax), from + done)
    if (more === 0)
      throw new Error(`ends after ${from + done} bytes, of ${from + count} that it had or needs`)
    done += more
  }
  return bytes
}

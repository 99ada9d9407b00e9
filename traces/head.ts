// The beginning of a file, unpacked: enough to tell what it is.
import { open, stat } from "node:fs/promises"
import { unpackedHead } from "./packed.ts"
import { encodingOf } from "./text.ts"
import { TraceError } from "./trace-error.ts"

/** Bytes that tell what a file is. */
const headBytes = 1 << 18

/** Undefined of a folder. Fails as the file system does, and with a `TraceError` of what is no file: it may never end, or be read once only. */
export const readHead = async (
  file: string
): Promise<{ readonly bytes: Uint8Array; readonly text: string } | undefined> => {
  const found = await stat(file)
  if (found.isDirectory()) return undefined
  if (!found.isFile())
    throw new TraceError({ file, field: "file", value: "a pipe or a device", accepted: "a file" })
  const handle = await open(file, "r")
  try {
    const buffer = Buffer.alloc(headBytes)
    const { bytesRead } = await handle.read(buffer, 0, headBytes, 0)
    const bytes = unpackedHead(buffer.subarray(0, bytesRead))
    return { bytes, text: new TextDecoder(encodingOf(bytes)).decode(bytes) }
  } finally {
    await handle.close()
  }
}

// The pipe between a process and the one that started it: by it the job's secret comes, why the process has failed goes back, and its
// end tells that the parent is gone.
import { readSync, writeSync } from "node:fs"
import { Socket } from "node:net"
import { createInterface } from "node:readline"
import { loadAddon } from "../native-addon.ts"
import { parsed } from "./lines.ts"

/** The descriptor of the pipe in a child. */
export const lifeline = 3

/**
 * A process that is stopped when its parent goes would not see the pipe end, and stay for ever: the system then continues it. Whose
 * parent has gone before is told of that by the pipe, for it runs.
 */
export const heedLifeline = (): void => {
  const addon = loadAddon()
  // Without it no job begins: whoever needs it says so.
  if (!("missing" in addon)) addon.continueWithoutParent()
}

/** Longer texts do not surely fit what the system keeps of a pipe, and a parent need not read. */
const longestText = 16_384

/** Tells the parent why this process has failed; false where it cannot be told. */
export const tellParent = (descriptor: number, failure: string): boolean => {
  if (failure.length > longestText) return false
  try {
    writeSync(descriptor, `${JSON.stringify({ failure })}\n`)
    return true
  } catch {
    return false
  }
}

/** The parent's end: it sends the secret, and is told why the child has failed. */
export const holdLifeline = (line: Socket, secret: string, hear: (failure: string) => void): void => {
  // Who ends without having read all breaks it, which is no failure of this process.
  const ignore = (): void => {}
  line.on("error", ignore)
  line.write(`${secret}\n`)
  const told = createInterface({ input: line }).on("error", ignore)
  told.on("line", (text) => {
    const failure = parsed(text)?.["failure"]
    if (typeof failure === "string") hear(failure)
  })
}

/** Reads the secret that a parent wrote, and ends this process when the parent is gone. */
export const readLifeline = (descriptor: number): string => {
  const bytes = Buffer.alloc(256)
  let text = ""
  while (!text.includes("\n")) {
    const count = readSync(descriptor, bytes)
    if (count === 0) break
    text += bytes.toString("utf8", 0, count)
  }
  const line = new Socket({ fd: descriptor, readable: true, writable: false })
  line.on("end", () => process.kill(process.pid, "SIGTERM"))
  line.on("error", () => {})
  line.resume()
  line.unref()
  return text.trim()
}

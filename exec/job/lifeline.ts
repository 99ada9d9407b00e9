// The pipe between a process and the one that started it: by it the job's secret comes, and its end tells that the parent is gone.
import { readSync } from "node:fs"
import { Socket } from "node:net"
import { loadAddon } from "../native-addon.ts"

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

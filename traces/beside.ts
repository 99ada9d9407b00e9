// Names of files that are being written, beside the place where they will be: who writes is in the name, so that what a killed
// process has left there can be told from what another one is writing.
import { readdirSync, rmSync } from "node:fs"
import { hostname } from "node:os"
import { basename, dirname, join } from "node:path"
import { hasCode } from "./trace-error.ts"

let unique = 0

const host = hostname().replaceAll(/[^\w-]/gu, "-")

/** A fresh name for what shall be at `path`. */
export const nameBeside = (path: string): string =>
  join(dirname(path), `.${basename(path)}.${host}.${process.pid}.${unique++}.tmp`)

/** Whether a process of this host still runs. */
export const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (cause) {
    // Another user's process may not be signalled, and is there.
    return hasCode(cause, "EPERM")
  }
}

/** Removes a file, where the system lets it be: what stays is in nobody's way. */
export const removeIfCan = (path: string): void => {
  try {
    rmSync(path, { force: true })
  } catch {
    return
  }
}

/** Removes what processes of this host that are gone have left unfinished of `path`. */
export const clearLeftovers = (path: string): void => {
  const begin = `.${basename(path)}.${host}.`
  let names: ReadonlyArray<string>
  try {
    names = readdirSync(dirname(path))
  } catch {
    return // Whoever writes there will say why not.
  }
  for (const name of names) {
    if (!name.startsWith(begin)) continue
    const pid = /^(\d+)\.\d+\.tmp$/u.exec(name.slice(begin.length))?.[1]
    if (pid !== undefined && !isAlive(Number(pid))) removeIfCan(join(dirname(path), name))
  }
}

// Processes of this system, as a test that stops or kills some of them knows them.
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"

/** Those that this one has started, and that are there. */
export const childrenOf = (pid: number): ReadonlyArray<number> =>
  spawnSync("pgrep", ["-P", String(pid)], { encoding: "utf8" })
    .stdout.split("\n")
    .filter((line) => line !== "")
    .map(Number)

/** Whether it still runs, or is stopped: what has ended may be there until somebody asks how. */
export const isAlive = (pid: number): boolean => {
  try {
    return !/\) [ZX] /u.test(readFileSync(`/proc/${pid}/stat`, "utf8"))
  } catch {
    return false
  }
}

// Which checkpoints a folder has: a folder for each, named for its step, which is there whole or not at all.
import { existsSync, readdirSync } from "node:fs"
import * as path from "node:path"

interface KeptStep {
  readonly step: number
  readonly folder: string
}

export const nameOf = (step: number): string => `step-${String(step).padStart(10, "0")}`
const named = /^step-(\d{10})$/u

/** The step that a checkpoint's folder is named for; undefined of other names. */
export const stepOf = (name: string): number | undefined => {
  const match = named.exec(name)
  return match === null ? undefined : Number(match[1])
}

/** Checkpoints that are whole, oldest first; none where there is no such folder. Throws what the system does. */
export const checkpointsIn = (folder: string): ReadonlyArray<KeptStep> =>
  existsSync(folder)
    ? readdirSync(folder)
        .flatMap((name) => {
          const step = stepOf(name)
          return step === undefined ? [] : [{ step, folder: path.join(folder, name) }]
        })
        .toSorted((a, b) => a.step - b.step)
    : []

// The folder in which a run keeps its checkpoints: one folder for each, named for its step, which is there whole or not at all.
// What is being written is in a hidden folder beside it. Knows nothing of what is in a checkpoint.
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync
} from "node:fs"
import * as path from "node:path"
import { plainly } from "../../traces/system-words.ts"
import { checkpointsIn, nameOf } from "../../scenarios/cli/checkpoint/kept.ts"
import { manifestName } from "../../scenarios/cli/checkpoint/manifest.ts"
import { appendSync, syncFolder } from "../../traces/atomic-file.ts"

const partial = /^\.step-\d{10}\.partial$/u

/** Where the checkpoint of a step is while it is written. */
export const partialFolder = (folder: string, step: number): string =>
  path.join(folder, `.${nameOf(step)}.partial`)

/** Says who writes there, while somebody does. */
export const lockIn = (folder: string): string => path.join(folder, ".lock")

/** Removes what a run that was killed left half written. Throws what the system does, and of what cannot be removed its path too. */
export const clearPartial = (folder: string): void => {
  for (const name of readdirSync(folder)) {
    if (!partial.test(name)) continue
    const left = path.join(folder, name)
    try {
      rmSync(left, { recursive: true, force: true })
    } catch (cause) {
      throw new Error(
        `${left}, which a run that has ended left half written, cannot be removed: ${plainly(cause)}`,
        { cause }
      )
    }
  }
}

/** A file of a checkpoint, and the rank that says it has written it. */
interface WrittenPart {
  readonly rank: number
  readonly file: string
  readonly bytes: number
}

/**
 * Completes the checkpoint of a step, whose other files are in its partial folder and synced: writes the manifest, and gives the
 * folder its name, after which it survives a loss of power. Its path. Throws where a part is not there, as when hosts do not see
 * the same folder, and what the system does.
 */
export const complete = (
  folder: string,
  step: number,
  manifest: string,
  parts: ReadonlyArray<WrittenPart>
): string => {
  const from = partialFolder(folder, step)
  const to = path.join(folder, nameOf(step))
  if (!existsSync(from)) throw new Error(`${from} has been removed while it was written`)
  for (const { rank, file, bytes } of parts) {
    const found = statSync(path.join(from, file), { throwIfNoEntry: false })?.size
    if (found !== bytes)
      throw new Error(
        `${path.join(from, file)}: ${found ?? "none"} of the ${bytes} bytes that rank ${rank} has written are there; expected a folder that the hosts of all ranks share`
      )
  }
  const descriptor = openSync(path.join(from, manifestName), "wx")
  try {
    appendSync(descriptor, manifest)
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
  syncFolder(from)
  renameSync(from, to)
  syncFolder(folder)
  return to
}

/** Removes what was written of a checkpoint that does not come about. */
export const abandon = (folder: string, step: number): void =>
  rmSync(partialFolder(folder, step), { recursive: true, force: true })

/** Removes all but the newest. A folder loses its name first, so that none is ever there in part. Throws what the system does. */
export const keepNewest = (folder: string, count: number): void => {
  for (const { step, folder: old } of checkpointsIn(folder).slice(0, -count)) {
    const hidden = partialFolder(folder, step)
    renameSync(old, hidden)
    rmSync(hidden, { recursive: true, force: true })
  }
}

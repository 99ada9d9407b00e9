// Files that a command is to write, before it works for them: none may be what the command reads, nor another one of them.
import * as Effect from "effect/Effect"
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  realpathSync,
  rmSync,
  statSync
} from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import { InputError } from "../../core/input-error.ts"
import { reasonNot } from "../../traces/atomic-file.ts"
import { nameBeside } from "../../traces/beside.ts"
import { whyNotWritable } from "../../traces/made-folder.ts"
import { statOf } from "../../traces/stat-of.ts"

/** An option and the file that it names. */
type Output = readonly [option: string, file: string | undefined]

/** Fails where an output would replace an input, or another output. */
export const requireApart = (
  outputs: ReadonlyArray<Output>,
  inputs: ReadonlyArray<string>
): Effect.Effect<void, InputError> =>
  Effect.suspend(() => {
    const taken = new Map(inputs.map((input) => [placeOf(input), `what is read: ${input}`]))
    for (const [option, file] of outputs) {
      const place = file === undefined ? undefined : placeOf(file)
      if (file === undefined || place === undefined) continue
      const by = taken.get(place)
      if (by !== undefined) {
        const accepted = `a file of its own; it would replace ${by}`
        return Effect.fail(new InputError({ file: option, field: "", value: file, accepted }))
      }
      taken.set(place, `that of ${option}`)
    }
    return Effect.void
  })

/** One text for one file, whatever it is called; undefined for pipes and devices, which replace nothing. */
const placeOf = (file: string): string | undefined => {
  const whole = resolve(file)
  const there = statOf(whole)
  if (there !== undefined) return there.isFile() ? `${there.dev} ${there.ino}` : undefined
  try {
    return join(realpathSync(dirname(whole)), basename(whole))
  } catch {
    return whole
  }
}

/** Fails before anything is worked out where its result could not be written. */
export const requireWritable = (file: string, option: string): Effect.Effect<void, InputError> =>
  Effect.try({
    try: () => {
      const existing = statSync(file, { throwIfNoEntry: false })
      if (existing?.isDirectory() === true) throw new Error("a folder")
      // A pipe or a device is written to in its place.
      const isReplaced = existing === undefined || existing.isFile()
      if (!isReplaced) return accessSync(file, constants.W_OK)
      // Permissions tell root nothing of what cannot be made: a name that is too long, a "folder" that is a file, /proc.
      const beside = nameBeside(resolve(file))
      closeSync(openSync(beside, "wx"))
      rmSync(beside)
    },
    catch: (cause) =>
      new InputError({
        file,
        field: option,
        value: reasonNot(cause),
        accepted: "a file in an existing, writable folder"
      })
  })

/** The same of a folder, which may have to be made, and those above it. Nothing is left of the look. */
export const requireWritableFolder = (folder: string, option: string): Effect.Effect<void, InputError> => {
  const refused = (what: string, cause: unknown) =>
    new InputError({
      file: folder,
      field: option,
      value: `a folder that cannot be ${what}: ${whyNotWritable(folder, cause)}`,
      accepted: "a folder that can be written to"
    })
  return Effect.suspend(() => {
    let there = resolve(folder)
    let missing: string | undefined
    try {
      while (statSync(there, { throwIfNoEntry: false }) === undefined) {
        missing = there
        there = dirname(there)
      }
      // Not the folder itself: of several processes that look at once, one would see what another takes away.
      const beside = nameBeside(missing ?? join(there, "new"))
      if (missing === undefined) closeSync(openSync(beside, "wx"))
      else mkdirSync(beside)
      rmSync(beside, { recursive: true })
      return Effect.void
    } catch (cause) {
      return Effect.fail(refused(missing === undefined ? "written to" : "made", cause))
    }
  })
}

/** A place to write to, and the option that names it. */
interface Named {
  readonly option: string
  readonly place: string
  readonly writes: "file" | "folder"
  /** What files in a folder will be called. */
  readonly files: ReadonlyArray<string>
}

/** Fails where one of them could not be written. Nothing is in a folder that is not there. */
export const requireOutputs = (outputs: ReadonlyArray<Named>): Effect.Effect<void, InputError> =>
  Effect.forEach(
    outputs,
    ({ option, place, writes, files }) =>
      writes === "file"
        ? requireWritable(place, option)
        : Effect.andThen(
            requireWritableFolder(place, option),
            Effect.suspend(() =>
              Effect.forEach(
                existsSync(place) ? files : [],
                (name) => requireWritable(join(place, name), option),
                { discard: true }
              )
            )
          ),
    { discard: true }
  )

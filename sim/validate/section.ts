// A part of `sim validate`: one published or measured table, and what is claimed of the simulator against it.
// What a section simulates is its own business.
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { InputError } from "../../core/input-error.ts"
import type { MachineError } from "../../core/machine/machine.ts"
import type { Loader } from "../../scenarios/load.ts"
import type { InputErrors } from "../../scenarios/file/input-errors.ts"
import { reasonOf } from "../../scenarios/file/source.ts"

export type ValidationError = InputError | InputErrors | MachineError

/** A sentence about the whole of a table that either holds or does not. */
export interface Claim {
  readonly claim: string
  readonly holds: boolean
  /** What was found: "50 of 50 cells". */
  readonly found: string
}

/** What a section has found. */
export interface Checked {
  /** Where the numbers on the other side come from. */
  readonly source: string
  readonly claims: ReadonlyArray<Claim>
  /** Text as it is printed: tables, number by number. */
  readonly lines: ReadonlyArray<string>
  /** Why what deviates does, one paragraph each. */
  readonly notes: ReadonlyArray<string>
  /** The same numbers as data. */
  readonly values: ReadonlyArray<Readonly<Record<string, unknown>>>
}

/** A section whose table has been read: how much there is to simulate, and how. */
interface OpenedSection {
  readonly points: number
  /** Calls `done` after each point. */
  readonly check: (loader: Loader, done: () => void) => Effect.Effect<Checked, ValidationError>
}

export interface Section {
  readonly name: string
  readonly title: string
  /** How long it takes, where that is long: it is checked only when named. */
  readonly slow?: string
  /** Bounds that were set before and are not met, in words: it is checked only when named, and fails then. */
  readonly missed?: string
  /**
   * Its bounds were set after seeing what the simulator gives, or numbers of it fitted to the table: that it holds says that
   * nothing has moved, not that it was predicted.
   */
  readonly calibrated?: boolean
  readonly open: Effect.Effect<OpenedSection, ValidationError>
}

/** A file of scenarios/validate, wherever this package is. */
export const shipped = (name: string): string => {
  const here = path.dirname(fileURLToPath(import.meta.url))
  // From sources this folder is sim/validate, in the published package dist/sim/validate.
  const candidates = ["../..", "../../.."].map((up) => path.resolve(here, up, "scenarios/validate", name))
  return candidates.find((file) => fs.existsSync(file)) ?? candidates[0]!
}

/** Reads and decodes a table of scenarios/validate. */
export const readTable = <A>(name: string, schema: Schema.Codec<A, unknown>): Effect.Effect<A, InputError> =>
  Effect.suspend(() => {
    const file = shipped(name)
    const refuse = (cause: unknown) =>
      Effect.fail(
        new InputError({
          file,
          field: "",
          value: reasonOf(cause),
          accepted: "the table as this package ships it"
        })
      )
    let json: unknown
    try {
      json = JSON.parse(fs.readFileSync(file, "utf8"))
    } catch (cause) {
      return refuse(cause)
    }
    const decoded = Schema.decodeUnknownExit(schema)(json)
    return Exit.isSuccess(decoded) ? Effect.succeed(decoded.value) : refuse(decoded.cause)
  })

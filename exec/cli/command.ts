// What the commands of `exec` share: their end, and a machine to run on.
import { availableParallelism } from "node:os"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { InputError } from "../../core/input-error.ts"
import { messageOf } from "../../core/message-of.ts"
import { writeError } from "../../scenarios/cli/output.ts"
import { familyOf, type Scenario } from "../../scenarios/families.ts"
import { execute, type Outcome } from "../../scenarios/cli/execute.ts"
import { chooseBackend, CurrentBackend } from "../backend.ts"
import { coreWarnings, type Timed } from "../core-waits.ts"
import { placeIn } from "../job/environment.ts"
import { tellParent } from "../job/lifeline.ts"
import { nativeInfo, useBlas } from "../native.ts"
import { checkVariables } from "../variables.ts"

/** The native addon is missing: reason and remedy. */
export class NoDevice extends Schema.TaggedError<NoDevice>()("NoDevice", { missing: Schema.String }) {
  override get message(): string {
    return this.missing
  }
}

/** What a run warns of: on standard error at once, for it may take long, and in its result. */
class Warnings {
  readonly #told = new Set<string>()

  /** Once each. */
  tell(warnings: ReadonlyArray<string>): void {
    for (const warning of warnings) {
      if (this.#told.has(warning)) continue
      this.#told.add(warning)
      writeError(`exec: warning: ${warning}\n`)
    }
  }

  /** All of them so far, in their order. */
  get told(): ReadonlyArray<string> {
    return [...this.#told]
  }
}

/** Those of the command that runs: every command has its own. */
export const CurrentWarnings = Context.Reference<Warnings>("tandem/exec/CurrentWarnings", {
  defaultValue: () => new Warnings()
})

/** Runs a command to its exit code, everything that it runs on that backend: see `chooseBackend`. */
export const runCommand = (command: Effect.Effect<Outcome, Error>, backend = "auto"): Promise<number> =>
  execute(
    Effect.gen(function* () {
      const warnings = yield* checkVariables(process.env)
      // Of a job's processes, which mostly have the same, one tells. Where a place is said wrongly, whoever needs it says so.
      const place = yield* Effect.orElseSucceed(placeIn(process.env), () => undefined)
      if (place === undefined || place.rank === 0) yield* warnOf(warnings)
      return yield* Effect.provideService(command, CurrentBackend, yield* chooseBackend(backend))
    }).pipe(Effect.provideService(CurrentWarnings, new Warnings())),
    "exec",
    tellFailure
  )

/** Processes that were started together mostly fail alike: whoever started them tells it once. */
const tellFailure = (text: string): void => {
  const descriptor = process.env["TANDEM_SECRET_FD"]
  if (descriptor === undefined || !tellParent(Number(descriptor), text)) writeError(text)
}

/** Fails where nothing can be run, or not by the library that was asked for: another one would be slower or faster. */
export const requireDevice: Effect.Effect<void, NoDevice | InputError> = Effect.suspend(
  (): Effect.Effect<void, NoDevice | InputError> => {
    const info = nativeInfo()
    if ("missing" in info) return Effect.fail(new NoDevice({ missing: info.missing }))
    const library = process.env["TANDEM_BLAS"] ?? ""
    if (library === "") return Effect.void
    return Effect.try({
      try: () => void useBlas(library),
      catch: (cause) =>
        new InputError({
          file: "TANDEM_BLAS",
          field: "",
          value: `${library} (${messageOf(cause)})`,
          accepted:
            "own, openblas where the system has it, the path of a library with the CBLAS interface, or nothing"
        })
    })
  }
)

/** Warns of what the scenario says in vain. */
export const warn = (scenario: Scenario, alsoSimulated = false): Effect.Effect<void> =>
  Effect.suspend(() => warnOf(familyOf(scenario).ignoredByExec(scenario, alsoSimulated)))

/** Warns the person in front, and whoever reads the result. */
export const warnOf = (warnings: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.map(CurrentWarnings, (all) => all.tell(warnings))

/** What `coreWarnings` says of what was measured here; nothing where the device is not this host's cores. */
export const sharedCores = (
  all: ReadonlyArray<Timed>,
  { ranks, apart = false }: { readonly ranks: number; readonly apart?: boolean }
): Effect.Effect<ReadonlyArray<string>> =>
  Effect.map(CurrentBackend, (backend) =>
    backend === "cuda" ? [] : coreWarnings(all, { ranks, cores: availableParallelism(), apart })
  )

// What a scenario says of the host, resolved: as stated, as a profile has it measured, or as is usual. What is assumed is told.
import * as Effect from "effect/Effect"
import type { HostOptions } from "../core/cost/cost-model.ts"
import { usualHosts, type HostCosts, type LaunchMode, type MeasuredHost } from "../core/cost/host.ts"
import { InputError } from "../core/input-error.ts"
import { formatSeconds } from "../core/units.ts"
import type { Loader } from "./load.ts"
import type { HostSettings } from "./sections.ts"

/** What each cost is called where one is told. */
const words = {
  launchSeconds: "a launch",
  collectiveSeconds: "a collective",
  hookSeconds: "a tensor of it",
  readSeconds: "a read",
  replaySeconds: "a replay"
} as const satisfies Readonly<Partial<Record<keyof HostCosts, string>>>

type Part = keyof typeof words
const parts = Object.keys(words) as ReadonlyArray<Part>

/** What programs of some tasks never have the host do. */
export type HostWork = "collective" | "hook" | "read" | "copy"

/** What is left of it where a program's steps end by reading what they computed. */
export const neverDone = (
  host: HostSettings | undefined,
  never: ReadonlyArray<HostWork>
): ReadonlyArray<HostWork> =>
  typeof host === "object" && host.readEachStep ? never.filter((work) => work !== "read") : never

const isNever = (part: Part, never: ReadonlyArray<HostWork>): boolean =>
  never.some((work) => part === `${work}Seconds`)

const told = (mode: LaunchMode, assumed: ReadonlyArray<Part>): string =>
  `${mode}: ${assumed.map((part) => `${formatSeconds(usualHosts[mode][part])} ${words[part]}`).join(", ")}; assumed, as is usual of PyTorch on a server`

/** Measured costs, and usual ones for what was not measured. A graph's kernels are not launched, whatever a launch took. */
const filled = (
  measured: MeasuredHost,
  never: ReadonlyArray<HostWork>,
  mode: LaunchMode = measured.mode
): HostOptions => {
  const usual = usualHosts[mode]
  const costs: HostCosts =
    mode === "graph"
      ? { ...usual, ...pick(measured, ["readSeconds", "replaySeconds"]) }
      : {
          ...usual,
          ...pick(measured, parts),
          replaySeconds: 0,
          ...(measured.waitsForCopies === undefined ? {} : { waitsForCopies: measured.waitsForCopies })
        }
  const missing = parts.filter(
    (part) => usual[part] > 0 && measured[part] === undefined && !isNever(part, never)
  )
  const { launchesPerRead } = measured
  return {
    costs,
    ...(missing.length === 0 ? {} : { assumed: told(mode, missing) }),
    ...(mode === "eager" && launchesPerRead !== undefined ? { launchesPerRead } : {})
  }
}

const pick = (measured: MeasuredHost, wanted: ReadonlyArray<Part>): Partial<Record<Part, number>> =>
  Object.fromEntries(
    wanted.flatMap((part) => (measured[part] === undefined ? [] : [[part, measured[part]] as const]))
  )

/**
 * The host's costs. `never`: what the programs of the scenario do not do, and need not be told of. `measured`: those of the profile that the scenario's other costs come from, which count where it says nothing;
 * undefined where neither knows any, or the scenario says `none`.
 */
export const resolveHost = (
  host: HostSettings | undefined,
  measured: MeasuredHost | undefined,
  file: string,
  loader: Loader,
  never: ReadonlyArray<HostWork>
): Effect.Effect<HostOptions | "none" | undefined, InputError> =>
  Effect.gen(function* () {
    if (host === undefined) return measured === undefined ? undefined : filled(measured, never)
    if (host === "none") return "none"
    if (typeof host === "string") {
      const usual = usualHosts[host]
      return {
        costs: usual,
        assumed: told(
          host,
          parts.filter((part) => usual[part] > 0 && !isNever(part, never))
        )
      }
    }
    if (!("measured" in host)) {
      const { mode, launch, collective, hook, read, replay, waitsForCopies, readEachStep } = host
      return {
        costs: {
          ...(mode === undefined ? {} : { mode }),
          ...(waitsForCopies === undefined ? {} : { waitsForCopies }),
          launchSeconds: launch,
          collectiveSeconds: collective,
          hookSeconds: hook,
          readSeconds: read,
          replaySeconds: replay,
          readsEachStep: readEachStep
        }
      }
    }
    const { host: found } = yield* loader.profile(file, "host.measured", host.measured)
    if (found !== undefined) {
      const { costs, ...told } = filled(found, neverDone(host, never), host.mode)
      const { waitsForCopies = costs.waitsForCopies, readEachStep } = host
      return {
        ...told,
        costs: {
          ...costs,
          readsEachStep: readEachStep,
          ...(waitsForCopies === undefined ? {} : { waitsForCopies })
        }
      }
    }
    return yield* new InputError({
      file,
      field: "host.measured",
      value: `${host.measured} (its host was not measured)`,
      accepted: "a profile that `sim import kineto` made of a trace with launches, or `exec bench --out`"
    })
  })

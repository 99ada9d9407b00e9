// What a scenario says of the host, resolved: as stated, as a profile has it measured, or as is usual. What is assumed is told.
import * as Effect from "effect/Effect"
import type { CostModel, HostOptions } from "../core/cost/cost-model.ts"
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

/** What is not done of a captured graph's kernels, which are replayed at once; and what of no other. */
export const neverIn = (
  mode: LaunchMode | undefined
): ReadonlyArray<"launch" | "collective" | "hook" | "replay"> =>
  mode === undefined ? [] : mode === "graph" ? ["launch", "collective", "hook"] : ["replay"]

/** Whether they cost otherwise, the mode itself aside. */
const isOther = (one: HostOptions, other: HostOptions): boolean => {
  const spent = ({ costs, launchesPerRead }: HostOptions) =>
    JSON.stringify([{ ...costs, mode: undefined }, launchesPerRead])
  return spent(one) !== spent(other)
}

/** A mode that a run has shown to change nothing. */
export const modeWarnings = (
  host: HostSettings | undefined,
  { host: spent }: Pick<CostModel, "host">
): ReadonlyArray<string> =>
  typeof host !== "object" || host.mode === undefined || spent?.modeCounts !== false
    ? []
    : [
        "host.mode has no effect: what this run launches takes the host as long in any (launches that are many in eager mode, copies on demand and a profile's layers that wait for their host are what differs)"
      ]

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
      const { mode, read, waitsForCopies, readEachStep } = host
      const spent = (part: "launch" | "collective" | "hook" | "replay"): number =>
        neverIn(mode).includes(part) ? 0 : host[part]
      return {
        costs: {
          ...(mode === undefined ? {} : { mode }),
          ...(waitsForCopies === undefined ? {} : { waitsForCopies }),
          launchSeconds: spent("launch"),
          collectiveSeconds: spent("collective"),
          hookSeconds: spent("hook"),
          readSeconds: read,
          replaySeconds: spent("replay"),
          readsEachStep: readEachStep
        },
        modeChanges: neverIn(mode).some((part) => host[part] > 0)
      }
    }
    const { host: found } = yield* loader.profile(file, "host.measured", host.measured)
    if (found !== undefined) {
      const undone = neverDone(host, never)
      const { costs, ...told } = filled(found, undone, host.mode)
      const { waitsForCopies = costs.waitsForCopies, readEachStep } = host
      return {
        ...told,
        modeChanges: host.mode !== undefined && isOther(filled(found, undone), { ...told, costs }),
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

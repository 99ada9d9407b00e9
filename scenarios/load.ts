// Files that scenarios name, read once each: profiles, tables of site-to-site links, traces of requests. Paths are relative
// to the scenario's folder; those under "traces/" that are not there are looked for in the package.
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { InputError } from "../core/input-error.ts"
import type { Profile } from "../core/profile.ts"
import type { WanPairs } from "../core/world.ts"
import { readProfile } from "../traces/profile-file.ts"
import { requestFiles } from "../traces/requests/request-files.ts"
import { parseRequestTraces } from "../traces/requests/request-trace.ts"
import type { RequestTrace } from "../traces/requests/traced.ts"
import { readText } from "../traces/text.ts"
import { attempt, type TraceError } from "../traces/trace-error.ts"
import { reasonOf } from "./file/source.ts"

/** Bits per second in one Gbit/s, as bytes. */
const gigabitBytes = 1e9 / 8

/** One for each command: a file that several scenarios name is read once. */
export class Loader {
  readonly #profiles = new Map<string, Profile>()
  readonly #pairs = new Map<string, WanPairs>()
  readonly #requests = new Map<string, RequestTrace>()

  /** Where the file lies that `file` names. */
  path(file: string, named: string): string {
    return locate(file, named)
  }

  protected read(path: string): Effect.Effect<Profile, TraceError> {
    return readProfile(path)
  }

  /** `field` of `file` names the profile at `named`. */
  profile(file: string, field: string, named: string): Effect.Effect<Profile, InputError> {
    const found = locate(file, named)
    const known = this.#profiles.get(found)
    if (known !== undefined) return Effect.succeed(known)
    return this.read(found).pipe(
      Effect.mapError(
        (error) =>
          new InputError({
            file,
            field,
            value: `${named} (${error.field}: ${error.value})`,
            accepted: `a profile file; here ${error.accepted}`
          })
      ),
      Effect.tap((profile) => Effect.sync(() => this.#profiles.set(found, profile)))
    )
  }

  /** What the profile at `named`, if it is one that was read, says that its numbers cannot mean. */
  notes(file: string, named: string): ReadonlyArray<string> {
    const { notes = [] } = this.#profiles.get(locate(file, named)) ?? {}
    return notes.map((note) => `${named}: ${note}`)
  }

  /**
   * Delays and bandwidths between sites: {"pairs": {"Oregon-Virginia": [round-trip ms, Gbit/s], ...}}. A link's latency is
   * half the round trip.
   */
  wanPairs(file: string, field: string, named: string): Effect.Effect<WanPairs, InputError> {
    const found = locate(file, named)
    const known = this.#pairs.get(found)
    if (known !== undefined) return Effect.succeed(known)
    const refuse = (value: string) =>
      new InputError({
        file,
        field,
        value: `${named} (${value})`,
        accepted: 'a JSON file {"pairs": {"Oregon-Virginia": [round-trip ms, Gbit/s], ...}}'
      })
    return Effect.try({
      try: () => parsePairs(JSON.parse(readText(found))),
      catch: (cause) => refuse(reasonOf(cause))
    }).pipe(Effect.tap((pairs) => Effect.sync(() => this.#pairs.set(found, pairs))))
  }

  /** Traces of requests, as one: each a file (gzip-compressed or not) or a folder of files. */
  requests(
    file: string,
    field: string,
    named: string | ReadonlyArray<string>
  ): Effect.Effect<RequestTrace, InputError> {
    const found = [named].flat().map((each) => locate(file, each))
    const key = found.join("\n")
    const known = this.#requests.get(key)
    if (known !== undefined) return Effect.succeed(known)
    const accepted = "a trace of requests"
    return attempt(found[0]!, accepted, () => parseRequestTraces(found.flatMap(requestFiles))).pipe(
      Effect.mapError(
        (error) =>
          new InputError({
            file,
            field,
            value: `${found.length === 1 ? [named].flat()[0]! : error.file} (${error.field}: ${error.value})`,
            accepted: `${accepted}; here ${error.accepted}`
          })
      ),
      Effect.tap((trace) => Effect.sync(() => this.#requests.set(key, trace)))
    )
  }
}

// Beyond these no message between sites ends in any time worth simulating.
const mostMs = 1e15
const leastGigabits = 1e-15

const parsePairs = (json: unknown): WanPairs => {
  const pairs = typeof json === "object" && json !== null && "pairs" in json ? json.pairs : undefined
  if (typeof pairs !== "object" || pairs === null) throw new TypeError('no "pairs"')
  return {
    pairs: Object.entries(pairs).map(([name, value]: [string, unknown]) => {
      const [from, to, ...rest] = name.split("-")
      if (from === undefined || to === undefined || rest.length > 0)
        throw new TypeError(`"${name}" names no pair`)
      const [roundTripMs, gigabits] = Array.isArray(value) ? value : []
      if (!(
        typeof roundTripMs === "number" &&
        roundTripMs >= 0 &&
        roundTripMs <= mostMs &&
        typeof gigabits === "number" &&
        gigabits >= leastGigabits
      )) {
        throw new TypeError(`${name}: ${JSON.stringify(value)}`)
      }
      return {
        from,
        to,
        link: { latencySeconds: roundTripMs / 2000, bytesPerSecond: gigabits * gigabitBytes }
      }
    })
  }
}

/** The file a scenario means: beside it or, for files that ship, in this package. */
export const locate = (file: string, named: string): string => {
  const beside = path.resolve(path.dirname(file), named)
  if (fs.existsSync(beside)) return beside
  const shipped = named.indexOf("traces/")
  if (shipped >= 0) {
    // From sources this file is scenarios/load.ts, from the published package dist/scenarios/load.js.
    for (const up of ["..", "../.."]) {
      const packaged = path.resolve(path.dirname(fileURLToPath(import.meta.url)), up, named.slice(shipped))
      if (fs.existsSync(packaged)) return packaged
    }
  }
  return beside
}

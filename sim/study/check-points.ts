// What can be known of a study's points before any of them runs: that their worlds can be, and that what they read can be read.
// Input that no point can read is refused here; a point that comes to no end for a reason of its own is a row (failure.ts).
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { InputError } from "../../core/input-error.ts"
import { familyOf, type Scenario } from "../../scenarios/families.ts"
import { relocated } from "../../scenarios/file/input-errors.ts"
import { getField } from "../../scenarios/file/override.ts"
import type { Loader } from "../../scenarios/load.ts"
import { resolveWorld } from "../../scenarios/world.ts"
import { hostOf } from "../run.ts"
import type { StudyPoint } from "./definition.ts"
import { eventLoopTurn, pointsBetweenTurns } from "./event-loop.ts"

/**
 * Fails with the first of the `open` points whose world cannot be, or whose files none of the points that name the same ones can
 * use: of all points, so that shards and resumed runs refuse what the whole study does.
 */
export const checkPoints = (
  all: ReadonlyArray<StudyPoint>,
  open: ReadonlyArray<StudyPoint>,
  file: string,
  loader: Loader
): Effect.Effect<void, InputError> =>
  Effect.gen(function* () {
    for (const [index, point] of open.entries()) {
      yield* located(point, checkWorlds(point, file, loader))
      if (index % pointsBetweenTurns === pointsBetweenTurns - 1) yield* eventLoopTurn
    }
    const toRun = new Set(open)
    const groups = byFiles(all)
    for (const alike of groups.values())
      if (alike.some(({ point }) => toRun.has(point)))
        yield* checkReadable(alike, groups.size > 1, file, loader)
  })

const checkWorlds = ({ grid }: StudyPoint, file: string, loader: Loader) =>
  Effect.forEach(
    grid,
    ({ scenario }) => ("world" in scenario ? resolveWorld(scenario.world, file, loader) : Effect.void),
    { discard: true }
  )

/** A scenario of a point. */
interface Candidate {
  readonly point: StudyPoint
  readonly scenario: Scenario
}

/** Scenarios by the files that they name. */
const byFiles = (points: ReadonlyArray<StudyPoint>): ReadonlyMap<string, ReadonlyArray<Candidate>> => {
  const groups = new Map<string, Array<Candidate>>()
  for (const point of points)
    for (const { scenario } of point.grid) {
      const named = familyOf(scenario).fileFields.map((field) => getField(scenario, field) ?? null)
      const key = JSON.stringify(named)
      const group = groups.get(key)
      if (group === undefined) groups.set(key, [{ point, scenario }])
      else group.push({ point, scenario })
    }
  return groups
}

/**
 * One of them can be prepared, or its trouble is not the input's: mostly the first, so that this costs one preparation.
 * `some`: others of the study name other files.
 */
const checkReadable = (candidates: ReadonlyArray<Candidate>, some: boolean, file: string, loader: Loader) =>
  Effect.gen(function* () {
    let first: InputError | undefined
    for (const { point, scenario } of candidates) {
      const preparing = familyOf(scenario).prepare(scenario, file, hostOf(loader))
      const prepared = yield* Effect.result(some ? located(point, preparing) : preparing)
      if (Result.isSuccess(prepared) || !(prepared.failure instanceof InputError)) return
      first ??= prepared.failure
    }
    if (first !== undefined) return yield* first
  })

/** Errors of the input name the point. */
const located = <A, E>(point: StudyPoint, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.mapError(effect, (error) =>
    error instanceof InputError ? (relocated(error, `${error.file}${at(point)}`) as E & InputError) : error
  )

/** " (at algorithm=ddp, ...)", to tell points apart in messages. */
const at = (point: StudyPoint): string => {
  const values = Object.entries(point.axes)
    .filter(([, value]) => value !== null)
    .map(
      ([path, value]) =>
        `${path.split(".").at(-1)}=${typeof value === "string" ? value : JSON.stringify(value)}`
    )
  return values.length === 0 ? "" : ` (at ${values.join(", ")})`
}

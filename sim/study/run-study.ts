// Runs a study's points, here or on threads, and keeps each finished one. Results do not depend on how many threads there
// are, which shard computed a point, or how often the run was interrupted and resumed.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { availableParallelism } from "node:os"
import type { InputError } from "../../core/input-error.ts"
import { Loader } from "../../scenarios/load.ts"
import { checkPoints } from "./check-points.ts"
import type { StudyDefinition, StudyPoint } from "./definition.ts"
import { eventLoopTurn } from "./event-loop.ts"
import { evaluatePoint } from "./evaluate.ts"
import type { Finished, Journal } from "./journal.ts"
import { computeOnThreads } from "./pool.ts"
import type { StudyRow } from "./result.ts"

/** One of `count` parts of a study. Parts 0 to count-1; `count` itself is another name for 0. */
export interface Shard {
  readonly index: number
  readonly count: number
}

export const pointsOfShard = (
  points: ReadonlyArray<StudyPoint>,
  shard: Shard | undefined
): ReadonlyArray<StudyPoint> =>
  shard === undefined
    ? points
    : points.filter(({ index }) => index % shard.count === shard.index % shard.count)

interface StudyRunOptions {
  /** Threads; when not given, this process begins alone and starts threads only if that pays. */
  readonly jobs?: number | undefined
  readonly shard?: Shard | undefined
  readonly journal?: Journal | undefined
  /** Called as points finish, also for those that were finished before. */
  readonly onProgress?: (done: number, total: number) => void
}

/** A study begun in this process moves to threads when this much time has not finished it. */
const aloneMillis = 1000
const syncMillis = 250

/**
 * Computes every point that is not in `finished` and adds it there. A point whose run comes to no end is a row that says why.
 * When it fails or is interrupted, `finished` has all
 * points that were done.
 */
export const runPoints = (
  definition: StudyDefinition,
  finished: Finished,
  options: StudyRunOptions = {}
): Effect.Effect<void, InputError> =>
  Effect.gen(function* () {
    const { file, search } = definition
    const { journal, onProgress, jobs } = options
    const mine = pointsOfShard(definition.points, options.shard)
    const open = mine.filter(({ index }) => !finished.has(index))
    // Before any is computed: what cannot be is refused now, not after half of the points.
    const loader = new Loader()
    yield* checkPoints(definition.points, open, file, loader)
    let done = mine.length - open.length
    onProgress?.(done, mine.length)
    let syncedAt = yield* Clock.currentTimeMillis

    const finish = (rows: ReadonlyArray<StudyRow>): Effect.Effect<void, InputError> =>
      Effect.gen(function* () {
        if (journal !== undefined) yield* journal.append(rows)
        finished.set(rows[0]!.point, rows)
        const now = yield* Clock.currentTimeMillis
        if (journal !== undefined && now - syncedAt >= syncMillis) {
          syncedAt = now
          yield* journal.sync
        }
        onProgress?.(++done, mine.length)
      })

    const threads = jobs ?? Math.max(1, availableParallelism() - 1)
    let rest: ReadonlyArray<StudyPoint> = open
    if (jobs === undefined || jobs === 1) {
      const beganAt = yield* Clock.currentTimeMillis
      let alone = 0
      for (const point of open) {
        yield* finish(yield* evaluatePoint(point, { file, search, loader }))
        alone++
        yield* eventLoopTurn
        if (threads > 1 && (yield* Clock.currentTimeMillis) - beganAt > aloneMillis) break
      }
      rest = open.slice(alone)
    }
    if (rest.length > 0) yield* computeOnThreads(rest, threads, { file, search }, finish)
    if (journal !== undefined) yield* journal.sync
  })

// DreamDDP's published scheduler (arXiv:2502.11058): the depth-first search over consecutive layers, and the filling of
// the channel's idle time. The product's default planner is assignment.ts.

import type { SyncProblem } from "./cost.ts"
import { makeSyncPlan, type SyncPlan } from "./sync-plan.ts"

interface PublishedSearch {
  readonly sets: ReadonlyArray<ReadonlyArray<number>>
  /** Calls of the recursion: what the published bound counts. */
  readonly calls: number
}

interface PublishedSearchOptions {
  /**
   * Remember the result per (first layer, iterations left), which is all a call depends on: the same schedule from at most
   * L*H calls. Default true; false is the search as published, exponential in H.
   */
  readonly remember?: boolean
}

/**
 * The depth-first search as published. Layers are walked in backward order; iteration h goes on from where h-1 stopped.
 * - optimal hiding: a layer that keeps the iteration free of stall is synchronised now, without branching;
 * - at-least-one assignment: if the first layer of an iteration does not fit, it is synchronised (exposed) all the same
 *   and the iteration ends;
 * - delayed assignment: otherwise the layer that does not fit is either synchronised now (exposed) or left to h+1; the
 *   iteration ends in both cases, both are searched, and a tie is exposed now;
 * - the last iteration takes all that is left.
 *
 * At most one branching per iteration and none in the last, so without `remember` at most 2^H - 1 calls. (The paper
 * states 2^min(L-H, H).)
 *
 * Judged by the exact objective (which the published evaluator only approximates: its bookkeeping of the time left in
 * the layer under way loses track in some cases) the search is optimal among consecutive layers, for both deadlines:
 * take an optimal cut and repair it from iteration 0 on.
 * - A layer that fits but was left to h+1: moving it back costs nothing in h and cannot raise W in h+1.
 * - A second exposed layer y below an exposed x in h, with h+1 at hand: moving y down to h+1 lowers W in h by
 *   c_y + D_x - D_y, and raises W in h+1 by at most c_y, as it delays that iteration's channel by at most that much (or makes
 *   W({y}) <= c_y, if the iteration was empty).
 * Repeating this gives a schedule that the search visits. So it always equals contiguous.ts, which finds the optimum in
 * another way (the tests compare them), and it never loses to the equal-number partition; only schedules that are not
 * consecutive can beat it, and do (assignment.ts). "Fits" means W = 0 under the instance's own deadline; the paper has
 * end-of-backward only.
 */
export const publishedSearch = (
  problem: SyncProblem,
  options: PublishedSearchOptions = {}
): PublishedSearch => {
  const remember = options.remember ?? true
  const { communicationSeconds, backwardLeftSeconds, forwardLeftSeconds } = problem
  const layers = communicationSeconds.length
  interface Found {
    readonly waitSeconds: number
    /** Sets of this and the following iterations, linked so that branches share their tails. */
    readonly set: ReadonlyArray<number>
    readonly rest: Found | undefined
  }
  let calls = 0
  const known = new Map<number, Found>()
  /** `top` is the next layer in backward order, -1 when all are assigned. */
  const search = (top: number, left: number): Found | undefined => {
    if (top < 0) return undefined
    const key = left * layers + top
    const before = remember ? known.get(key) : undefined
    if (before !== undefined) return before
    calls++
    const found = visit(top, left)
    if (remember) known.set(key, found)
    return found
  }
  const visit = (top: number, left: number): Found => {
    const set: Array<number> = []
    // End of the iteration's last synchronisation, relative to the end of its backward phase.
    let ends = Number.NEGATIVE_INFINITY
    let exposed = 0
    for (let layer = top; layer >= 0; layer--) {
      set.push(layer)
      const seconds = communicationSeconds[layer]!
      if (seconds === 0) continue
      ends = Math.max(ends, -backwardLeftSeconds[layer]!) + seconds
      exposed = Math.max(0, ends - forwardLeftSeconds[layer]!)
      if (exposed === 0 || left === 1) continue
      const now = search(layer - 1, left - 1)
      const nowSeconds = exposed + (now?.waitSeconds ?? 0)
      if (set.length > 1) {
        const later = search(layer, left - 1)
        if (later !== undefined && later.waitSeconds < nowSeconds)
          return { waitSeconds: later.waitSeconds, set: set.slice(0, -1), rest: later }
      }
      return { waitSeconds: nowSeconds, set, rest: now }
    }
    return { waitSeconds: exposed, set, rest: undefined }
  }
  const sets: Array<ReadonlyArray<number>> = []
  for (let found = search(layers - 1, problem.period); found !== undefined; found = found.rest)
    sets.push(found.set)
  return { sets, calls }
}

/** The published search's schedule as a plan: the best one over consecutive layers. */
export const planPublished = (problem: SyncProblem): SyncPlan =>
  makeSyncPlan(problem, publishedSearch(problem).sets, "published")

/**
 * Bubble filling as published (`fillin_more_layers`): each iteration synchronises further layers, a second time in the
 * period, while the channel would be idle. Let d be the iteration's first own layer in backward order; layers are
 * appended from the last layer of the model towards d while their synchronisation ends before d's is released, and the
 * first misfit ends it. The iteration that owns the last layer gets none; one without own layers fills its whole
 * backward phase. Layers with nothing to synchronise are passed over.
 *
 * No own synchronisation starts later and no deadline moves (what is added lies before d, so the last one to end is the
 * same), hence the exposed time does not change. The filled layers are synchronised more often than once per period: bytes
 * rise, divergence falls.
 */
export const fillBubbles = (problem: SyncProblem, plan: SyncPlan): SyncPlan => {
  const { communicationSeconds, backwardLeftSeconds } = problem
  const layers = communicationSeconds.length
  const sets = plan.sets.map((set) => {
    const first = set.find((layer) => communicationSeconds[layer]! > 0) ?? -1
    // Times relative to the end of the backward phase: a layer's release is at -R.
    const closes = first < 0 ? 0 : -backwardLeftSeconds[first]!
    const own = new Set(set)
    const added: Array<number> = []
    let channelFree = Number.NEGATIVE_INFINITY
    for (let layer = layers - 1; layer > first; layer--) {
      const seconds = communicationSeconds[layer]!
      if (seconds === 0 || own.has(layer)) continue
      const ends = Math.max(channelFree, -backwardLeftSeconds[layer]!) + seconds
      if (ends > closes) break
      added.push(layer)
      channelFree = ends
    }
    return [...added, ...set].toSorted((a, b) => b - a)
  })
  return { ...plan, sets }
}

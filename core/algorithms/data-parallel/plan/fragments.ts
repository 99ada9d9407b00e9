// When DiLoCo and Streaming DiLoCo (arXiv:2501.18512) send and apply which layers. Knows layers as indices and time as
// inner steps; nothing of tensors, optimizers or links.

import * as Result from "effect/Result"
import { SettingsError } from "../../algorithm.ts"

/** What a division into fragments is planned from. */
export interface FragmentSettings {
  /** L, layers that are synchronised (embeddings included if they are layers). */
  readonly layers: number
  /** Layers that are dealt together, as `wholeBlocks` has them: what is said of layers here is then said of these. Default: each by itself. */
  readonly together?: ReadonlyArray<ReadonlyArray<number>> | undefined
  /** H, inner steps between two synchronisations of the same fragment. */
  readonly period: number
  /** Layers per fragment: L for DiLoCo, 3 in the paper's streaming runs. */
  readonly layersPerFragment: number
  /** Exactly so many fragments, whose layers differ by at most one in number; `layersPerFragment` then says nothing. */
  readonly count?: number | undefined
  /** `strided` (the paper's default): fragment p has layers p, p+P, p+2P, ...; `sequential`: consecutive layers. */
  readonly pattern: "strided" | "sequential"
  /** `rounded`: after step round((p+1) H/P); `even`: the same, but P must divide H (torchft's rule). */
  readonly offsets: "rounded" | "even"
  /**
   * tau, inner steps between sending a fragment and applying what comes back. 0: apply at once (it blocks). Default: 1, or what the
   * steps between two sends leave of it.
   */
  readonly delaySteps?: number | undefined
  /** alpha in theta <- alpha theta + (1 - alpha) theta_outer: the share of the local weights that survives. 0 for DiLoCo. */
  readonly localShare: number
}

/** Layers that Streaming DiLoCo (arXiv:2501.18512) sends together. */
export interface Fragment {
  /** Indices in forward order, ascending. */
  readonly layers: ReadonlyArray<number>
  /** In 1..H: sent when this many inner steps of a period are complete (H: at its very end). */
  readonly sendAfterStep: number
}

/**
 * Which fragments leave after which inner step of a period of H, and when they are applied: tau steps
 * later, alpha of the rank's own weights kept.
 */
export interface FragmentPlan {
  readonly period: number
  readonly delaySteps: number
  readonly localShare: number
  readonly fragments: ReadonlyArray<Fragment>
  /** Most layers sent at one time over L: the peak bandwidth relative to DiLoCo's, for layers of equal size. */
  readonly peakShare: number
}

/** The paper's tau. */
const usualDelaySteps = 1

/**
 * The fragments and their send times. P = ceil(L / layersPerFragment) fragments, or `count`; fragment p (0-based) is sent after step
 * t_p = round((p+1) H/P) of every period, so the last one at its end.
 *
 * Fails unless L, H >= 1 and 1 <= layersPerFragment <= L are integers; P <= H; P divides H for `even`; tau is an integer >= 0
 * that is less than the shortest gap between two sends (H/P, rounded as the offsets are), so that at most one fragment
 * is in flight; 0 <= alpha <= 1.
 */
export const planFragments = (settings: FragmentSettings): Result.Result<FragmentPlan, SettingsError> => {
  const { together, period, layersPerFragment, localShare } = settings
  const layers = together?.length ?? settings.layers
  const dealt = together === undefined ? "layers" : "blocks"
  const refuse = (field: keyof FragmentSettings, value: number, accepted: string) =>
    Result.fail(new SettingsError({ field, value, accepted }))
  if (!Number.isSafeInteger(layers) || layers < 1) return refuse("layers", layers, "a whole number >= 1")
  if (!Number.isSafeInteger(period) || period < 1)
    return refuse("period", period, "a whole number of steps >= 1")
  if (!Number.isSafeInteger(layersPerFragment) || layersPerFragment < 1 || layersPerFragment > layers)
    return refuse("layersPerFragment", layersPerFragment, `a whole number from 1 to the ${layers} ${dealt}`)
  const count = settings.count ?? Math.ceil(layers / layersPerFragment)
  // Consecutive layers of fragment p: from the first on, in full fragments, or all as equal as they can be.
  const firstOf = (p: number): number =>
    settings.count === undefined
      ? Math.min(layers, p * layersPerFragment)
      : Math.floor((p * layers) / settings.count)
  if (count > period)
    return refuse("period", period, `at least ${count}, as there are ${count} fragments to send in a period`)
  if (settings.offsets === "even" && period % count !== 0)
    return refuse("period", period, `a multiple of the ${count} fragments, or offsets: rounded`)
  if (!(localShare >= 0 && localShare <= 1)) return refuse("localShare", localShare, "a share from 0 to 1")

  const dealtTo = (p: number): ReadonlyArray<number> =>
    settings.pattern === "strided"
      ? Array.from({ length: Math.ceil((layers - p) / count) }, (_, k) => p + k * count)
      : Array.from({ length: firstOf(p + 1) - firstOf(p) }, (_, k) => firstOf(p) + k)
  const shares = Array.from({ length: count }, (_, p) => dealtTo(p))
  const fragments = shares.map((share, p) => ({
    layers:
      together === undefined ? share : share.flatMap((piece) => together[piece]!).toSorted((a, b) => a - b),
    sendAfterStep: Math.round(((p + 1) * period) / count)
  }))
  // The gap before fragment 0 wraps around from the last fragment, sent at step H of the period before.
  const gap = fragments.reduce(
    (least, { sendAfterStep }, p) =>
      Math.min(least, sendAfterStep - (p === 0 ? 0 : fragments[p - 1]!.sendAfterStep)),
    period
  )
  const delaySteps = settings.delaySteps ?? Math.min(usualDelaySteps, gap - 1)
  if (!Number.isSafeInteger(delaySteps) || delaySteps < 0 || delaySteps >= gap)
    return refuse(
      "delaySteps",
      delaySteps,
      gap === 1
        ? "0: fragments leave a step apart; a longer period, or fewer fragments, leave time for more"
        : `a whole number from 0 to ${gap - 1}, less than the ${gap} steps between two sends`
    )
  const most = Math.max(...shares.map((share) => share.length))
  return Result.succeed({ period, delaySteps, localShare, fragments, peakShare: most / layers })
}

/** Whether `fragment` is sent when `step` inner steps (at least one) are complete; no two of a plan are at once. */
export const leavesAfter = (
  { period }: Pick<FragmentPlan, "period">,
  { sendAfterStep }: Fragment,
  step: number
): boolean => (step - sendAfterStep) % period === 0

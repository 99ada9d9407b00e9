// Fits a profile recorded under a profiler to the step time measured without it. Device work is what it is; only the
// gaps in which the device waited for the host are scaled. Knows nothing of files.
import type { LayerCost, PhaseCost, Profile } from "../core/profile.ts"

/** Sum of the busy and of the span time of all phases of all layers, seconds. */
export const totalSeconds = (layers: ReadonlyArray<LayerCost>): PhaseCost => {
  let busySeconds = 0
  let spanSeconds = 0
  for (const { forward, backward, optimizer } of layers) {
    busySeconds += forward.busySeconds + backward.busySeconds + optimizer.busySeconds
    spanSeconds += forward.spanSeconds + backward.spanSeconds + optimizer.spanSeconds
  }
  return { busySeconds, spanSeconds }
}

/** Time in which the device waited; none where kernels of other layers reach into the span. */
const gapOf = ({ busySeconds, spanSeconds }: PhaseCost): number => Math.max(0, spanSeconds - busySeconds)

/** Layers whose backward phases' gaps are shorter by so many seconds in all, in proportion: none below nothing. */
export const withoutGaps = (layers: ReadonlyArray<LayerCost>, seconds: number): ReadonlyArray<LayerCost> => {
  const gaps = layers.reduce((sum, { backward }) => sum + gapOf(backward), 0)
  if (seconds === 0 || gaps === 0) return layers
  const left = Math.max(0, 1 - seconds / gaps)
  return layers.map((layer) => {
    const { busySeconds } = layer.backward
    const spanSeconds = busySeconds + gapOf(layer.backward) * left
    return { ...layer, backward: { ...layer.backward, spanSeconds } }
  })
}

/**
 * The same profile with every gap (span - busy) scaled by one factor so that all spans add up to `stepSeconds`. A
 * profile without gaps has the missing time spread in proportion to busy time. `stepSeconds` becomes the given one;
 * `unprofiledStepSeconds` is kept. Throws RangeError when `stepSeconds` is less than the busy time: no host is that fast.
 */
export const rescaleHostGaps = (profile: Profile, stepSeconds: number): Profile => {
  const { busySeconds } = totalSeconds(profile.layers)
  // Sums of many small numbers: a step that is exactly the busy time must pass.
  const slack = busySeconds * 1e-12
  if (!(stepSeconds >= busySeconds - slack) || stepSeconds === Infinity) {
    throw new RangeError(`a step of ${stepSeconds} s cannot hold ${busySeconds} s of device work`)
  }
  const missing = Math.max(0, stepSeconds - busySeconds)
  // Gap by gap: the difference of two large sums would lose what small gaps hold.
  let gaps = 0
  for (const { forward, backward, optimizer } of profile.layers) {
    for (const phase of [forward, backward, optimizer]) gaps += gapOf(phase)
  }
  const scale = gaps > slack ? missing / gaps : undefined
  const share = busySeconds > 0 ? missing / busySeconds : 0
  const rescaled = (cost: PhaseCost): PhaseCost => ({
    ...cost,
    spanSeconds: cost.busySeconds + (scale === undefined ? cost.busySeconds * share : gapOf(cost) * scale)
  })
  return {
    ...profile,
    stepSeconds,
    layers: profile.layers.map((layer) => ({
      ...layer,
      forward: rescaled(layer.forward),
      backward: rescaled(layer.backward),
      optimizer: rescaled(layer.optimizer)
    }))
  }
}

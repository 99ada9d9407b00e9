// An independent oracle for the bandwidth tables: compute utilisation by a recurrence over steps and layers, with no
// machine, engine or program. Written from the published description (arXiv:2501.18512, section on bandwidth): a step is
// 3L-1 equal nodes; a layer's reduction leaves when its own backward pass ends; one link serves reductions in order; a
// layer's forward pass waits for its own reduction, at once or tau steps later.

export interface Method {
  /** Steps between two synchronisations of a layer; 1 is data-parallel. */
  readonly period: number
  /** Absent: all layers at once. */
  readonly layersPerFragment?: number
  readonly delaySteps: number
  readonly bits: number
}

export interface Job {
  readonly layers: number
  readonly parameters: number
  readonly stepSeconds: number
  readonly gbits: number
}

/** Steady-state utilisation: the second of two stretches of a whole period, or of 8 steps where a period is 1. */
export const utilisation = (job: Job, method: Method): number => {
  const { layers, stepSeconds } = job
  const { period, delaySteps } = method
  const node = stepSeconds / (3 * layers - 1)
  const linkSeconds = (job.parameters * method.bits) / layers / (job.gbits * 1e9)
  const fragments = method.layersPerFragment === undefined ? 1 : Math.ceil(layers / method.layersPerFragment)
  const sentAfter = (layer: number): number => {
    if (fragments === 1) return period
    return Math.round((((layer % fragments) + 1) * period) / fragments)
  }
  const stretch = period === 1 ? 8 : period
  const arrives = new Float64Array(layers)
  const dueAfter = new Int32Array(layers).fill(-1)
  let now = 0
  let linkFree = 0
  let began = 0
  for (let step = 1; step <= 2 * stretch; step++) {
    for (let layer = 0; layer < layers; layer++) {
      if (dueAfter[layer]! >= 0 && step > dueAfter[layer]!) {
        now = Math.max(now, arrives[layer]!)
        dueAfter[layer] = -1
      }
      now += node
    }
    for (let layer = layers - 1; layer >= 0; layer--) {
      now += layer === 0 ? node : 2 * node
      if (((step - 1) % period) + 1 !== sentAfter(layer)) continue
      linkFree = Math.max(linkFree, now) + linkSeconds
      arrives[layer] = linkFree
      dueAfter[layer] = step + delaySteps
    }
    if (step === stretch) began = now
  }
  return (stretch * stepSeconds) / (now - began)
}

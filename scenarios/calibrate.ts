// Estimates of a described model made to fit one measured step of it: by which factor, what is told of it, and which steps
// cannot be this model's. Knows nothing of how kernels are estimated.
import { InputError } from "../core/input-error.ts"
import type { Device } from "../core/cost/devices.ts"
import type { Estimate } from "../core/cost/provenance.ts"
import { kernels } from "../core/kernels/catalogue.ts"
import { stepCalls, type LayerGraph } from "../core/models/layer-graph.ts"
import { formatSeconds } from "../core/units.ts"

interface Calibration {
  /** What the measured step is of its estimate. */
  readonly factor: number
  readonly estimate: Estimate
  readonly warnings: ReadonlyArray<string>
}

/** Seconds below which no step of this graph ends: its matrix products at the device's peak rate for 16 bits. */
const leastStepSeconds = (graph: LayerGraph, device: Device): number =>
  stepCalls(graph)
    .filter(({ kernel }) => kernels[kernel].measure === "product")
    .reduce((flops, { kernel, inputs, outputs, attributes }) => {
      return flops + kernels[kernel].work(inputs, outputs, attributes).flops
    }, 0) / device.flopsPerSecond

/** Assumed, not measured: further from its estimate than this, a step is of another model or batch, or waits for its host; told, not refused. */
const usual = { least: 0.5, most: 4 }

/** `graph`: the model on the batch that was measured. A failure where no device of these rates can have taken so little. */
export const calibrate = (
  measuredSeconds: number,
  estimatedSeconds: number,
  graph: LayerGraph,
  device: Device | undefined,
  file: string
): Calibration | InputError => {
  const least = device === undefined ? 0 : leastStepSeconds(graph, device)
  if (measuredSeconds < least) {
    return new InputError({
      file,
      field: "model.measured.stepSeconds",
      value: formatSeconds(measuredSeconds),
      accepted: `at least ${formatSeconds(least)}, which the matrix products of such a step take at the peak rate of ${device!.name}; measured.batch and measured.context say what the step was of`
    })
  }
  const factor = measuredSeconds / estimatedSeconds
  const times = `${factor.toPrecision(4)} times its estimate`
  return {
    factor,
    estimate: {
      kernel: "every kernel",
      source: "scaled",
      detail: `calibrated: ${times}, for the measured step of ${formatSeconds(measuredSeconds)} is estimated at ${formatSeconds(estimatedSeconds)}`
    },
    warnings:
      factor < usual.least || factor > usual.most
        ? [
            `the measured step is ${times}: it may be of another model, batch or context (model.measured), or have waited for its host, whose time is then scaled like the kernels'`
          ]
        : []
  }
}

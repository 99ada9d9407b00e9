// Generated profiles: models whose layers are unlike each other in time and in size.
import * as fc from "fast-check"
import { elementsOf } from "../core/machine/tensor.ts"
import type { LayerCost, PhaseCost, Profile } from "../core/profile.ts"

/** How many layers a profile has. */
export interface ProfileConstraints {
  /** Default 1. */
  readonly minLayers?: number
  /** Default 8. */
  readonly maxLayers?: number
}

/** Times are multiples of 2^-10 s, so that sums of them are exact and equal times compare equal. */
const tick = 2 ** -10

/**
 * A profile of a training step. Some phases take no time, some are equally long; the host is late for some (spans longer
 * than busy times); some layers have no parameters, and now and then one is as large as all others together.
 */
export const profile = (constraints: ProfileConstraints = {}): fc.Arbitrary<Profile> => {
  const { minLayers = 1, maxLayers = 8 } = constraints
  const phase = (max: number) =>
    fc
      .tuple(fc.nat({ max }), fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat({ max: 5 })))
      .map(([busy, gap]): PhaseCost => ({ busySeconds: busy * tick, spanSeconds: (busy + gap) * tick }))
  const shape = fc.oneof(
    fc.integer({ min: 1, max: 64 }).map((n) => [n]),
    fc.tuple(fc.integer({ min: 1, max: 2048 }), fc.integer({ min: 1, max: 1024 })).map((pair) => [...pair])
  )
  const layer = fc.record({
    forward: phase(20),
    backward: phase(40),
    optimizer: phase(4),
    shapes: fc.array(shape, { maxLength: 3 })
  })
  return (
    fc
      .record({
        layers: fc.array(layer, { minLength: minLayers, maxLength: maxLayers }),
        huge: fc.option(fc.nat(), { freq: 5, nil: undefined })
      })
      // A model without any parameter is none: nothing would be learnt, or communicated.
      .filter(({ layers, huge }) => huge !== undefined || layers.some(({ shapes }) => shapes.length > 0))
      .map(({ layers, huge }) =>
        profileOf(
          layers.map(({ shapes, ...times }, index) => ({
            ...times,
            name: `layer ${index}`,
            shapes: huge !== undefined && index === huge % layers.length ? [...shapes, [50257, 768]] : shapes
          }))
        )
      )
  )
}

/** A profile of the given layers and nothing else. */
export const profileOf = (
  layers: ReadonlyArray<LayerCost & { readonly shapes: ReadonlyArray<ReadonlyArray<number>> }>
): Profile => {
  const sum = (time: (cost: PhaseCost) => number): number =>
    layers.reduce(
      (seconds, { forward, backward, optimizer }) =>
        seconds + time(forward) + time(backward) + time(optimizer),
      0
    )
  return {
    name: "generated",
    device: "",
    source: "generated for a test",
    steps: 1,
    stepSeconds: sum(({ spanSeconds }) => spanSeconds),
    unprofiledStepSeconds: undefined,
    deviceBusySeconds: sum(({ busySeconds }) => busySeconds),
    unattributedShare: 0,
    layers: layers.map(({ name, forward, backward, optimizer }) => ({ name, forward, backward, optimizer })),
    parameters: layers
      .flatMap(({ shapes }, layer) => shapes.map((shape) => ({ layer, shape, dtype: "float32" })))
      .filter(({ shape }) => elementsOf(shape) > 0)
      .toReversed(),
    ops: [],
    collectives: []
  }
}

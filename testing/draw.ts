// Draws what an algorithm says may be drawn of its settings.
import * as fc from "fast-check"
import type { Arbitrary, Draw, DrawnValue } from "../core/algorithms/algorithm.ts"

const drawOf = (draw: Draw): fc.Arbitrary<DrawnValue> =>
  "from" in draw ? fc.integer({ min: draw.from, max: draw.to }) : fc.constantFrom(...draw)

/** Settings for a model of so many layers; what is drawn are plain values, so that it shrinks by itself. */
export const drawn = <Input>({
  draws,
  settings
}: Arbitrary<Input>): fc.Arbitrary<(layers: number) => Input> =>
  fc
    .record(Object.fromEntries(Object.entries(draws).map(([field, draw]) => [field, drawOf(draw)])))
    .map((values) => (layers) => settings(values, layers))

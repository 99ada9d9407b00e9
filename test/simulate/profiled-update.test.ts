// A profile's optimizer is timed layer by layer, and taken as one launch of all layers, as a model of real kernels takes it.
import { expect, it } from "vitest"
import { partialLocalSgd } from "../../core/algorithms/data-parallel/partial-local-sgd/program.ts"
import { profiledModel } from "../../core/algorithms/data-parallel/training-model.ts"
import { makeCostModel } from "../../core/cost/cost-model.ts"
import type { Profile } from "../../core/profile.ts"
import { flatWorld, run } from "./simulated.ts"

const seconds = (span: number) => ({ busySeconds: span, spanSeconds: span })

/** Three layers that read bfloat16 copies of what is learnt: 1 s forward, 2 s backward, 5 s for the optimizer's step. */
const profile: Profile = {
  name: "three layers",
  device: "a device",
  source: "a test",
  layers: ["first", "second", "third"].map((name) => ({
    name,
    forward: seconds(1),
    backward: seconds(2),
    optimizer: seconds(5)
  })),
  parameters: [0, 1, 2].map((layer) => ({ layer, shape: [1000], dtype: "bfloat16" })),
  ops: [],
  collectives: []
} as unknown as Profile

it("no parameter is there to be averaged before the last layer's step has been taken", () => {
  const { timeline } = run({
    // 2 s for the average of a layer
    world: flatWorld(2, { bytesPerSecond: 2000, latencySeconds: 0 }),
    program: partialLocalSgd(
      profiledModel(profile),
      { sets: [[0], [1], [2]], order: "average-then-step", deadline: "end-of-backward", overlap: true },
      6
    ),
    costs: makeCostModel({ profile }),
    record: true
  })
  const { rank, step, label, labels, startSeconds, endSeconds } = timeline!
  const rows = Array.from(rank, (_, row) => row).filter((row) => rank[row] === 0)
  const named = (prefix: string, at: number) =>
    rows.filter((row) => step[row] === at && labels[label[row]!]!.startsWith(prefix))
  for (let at = 1; at < 6; at++) {
    const [average] = named("average", at)
    const updated = Math.max(...named("optimizer", at - 1).map((row) => endSeconds[row]!))
    expect(named("optimizer", at - 1)).toHaveLength(3)
    expect(startSeconds[average!]).toBeCloseTo(updated, 9)
  }
})

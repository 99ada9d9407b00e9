// Whether a launch costs the host anything on layers of a profile: a cost model says so, and as it says, so it reckons.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { makeCostModel } from "../../core/cost/cost-model.ts"
import type { HostCosts } from "../../core/cost/host.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { launch } from "../../core/machine/op.ts"
import type { PhaseCost, Profile } from "../../core/profile.ts"
import { launchWarnings } from "../../scenarios/families/data-parallel/ignored.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { readProfile } from "../../traces/profile-file.ts"
import { scenarioFile, small } from "../scenario/files.ts"

const recorded = await Effect.runPromise(
  readProfile(new URL("../../traces/profiles/gpt2-h200.arrow", import.meta.url).pathname)
)

const each = (change: (phase: PhaseCost) => PhaseCost): Profile => ({
  ...recorded,
  layers: recorded.layers.map(({ name, forward, backward, optimizer }) => ({
    name,
    forward: change(forward),
    backward: change(backward),
    optimizer: change(optimizer)
  }))
})

const launches = { eager: 3, once: 2 }

const costs = (launchSeconds: number): HostCosts => ({
  mode: "eager",
  launchSeconds,
  collectiveSeconds: 0,
  hookSeconds: 0,
  readSeconds: 0,
  replaySeconds: 0
})

it.each([
  [
    "recorded with its launches",
    each(({ busySeconds }) => ({ busySeconds, spanSeconds: busySeconds, launches })),
    true
  ],
  ["recorded without", each(({ busySeconds, spanSeconds }) => ({ busySeconds, spanSeconds })), false],
  // Its spans are the host's own, as they were measured.
  [
    "of a device that waited for its host",
    each((one) => ({ ...one, spanSeconds: 9 * one.busySeconds })),
    false
  ]
] as const)("launches are of layers or not: a profile %s", (_, profile, isSpent) => {
  const [free, dear] = [0, 1e-3].map((seconds) => makeCostModel({ profile, host: { costs: costs(seconds) } }))
  const layer = launch("layer", kernels.profiled, Lane.compute, [], [], { layer: 1, phase: "forward" })
  expect(dear!.host!.launchesLayers).toBe(isSpent)
  expect(dear!.host!.seconds(layer) > free!.host!.seconds(layer)).toBe(isSpent)

  const told = (host: string) =>
    launchWarnings(Effect.runSync(loadScenario(scenarioFile(small), [host])) as never, dear!)
  expect(told("host={launch: 10us}")).toHaveLength(isSpent ? 0 : 1)
  expect(told("host={launch: 0}")).toEqual([])
})

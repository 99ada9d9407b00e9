// Generated faults, as a scenario writes them: slow ranks, ranks that go and return, links that change or drop for a while.
import * as fc from "fast-check"
import type { DataParallelScenario } from "../scenarios/families/data-parallel/scenario.ts"

/** One of `faults` of a scenario file. */
export type FaultInput = NonNullable<(typeof DataParallelScenario.Encoded)["faults"]>[number]

/** What there is in the world for things to happen to. */
export interface FaultTargets {
  readonly ranks: number
  readonly nodes: number
  readonly sites: number
}

const moments = ["0s", "3ms", "20ms", "100ms", "1s"] as const
const durations = ["5ms", "50ms", "500ms"] as const

/** What happens, to targets still to be told. */
type FaultChoice = (targets: FaultTargets) => FaultInput

export const faultChoice = (): fc.Arbitrary<FaultChoice> =>
  fc
    .record({
      kind: fc.constantFrom("straggler", "link", "outage", "down"),
      target: fc.nat({ max: 63 }),
      from: fc.constantFrom(...moments),
      for: fc.option(fc.constantFrom(...durations), { nil: undefined }),
      speed: fc.constantFrom(0.5, 0.9, 0.1),
      tier: fc.constantFrom("inter", "wan", "intra"),
      everyLink: fc.boolean(),
      bandwidth: fc.option(fc.constantFrom("100Mbit/s", "10Mbit/s", "10Gbit/s"), { nil: undefined }),
      latency: fc.option(fc.constantFrom("10ms", "0s"), { nil: undefined })
    })
    .map((chosen) => ({ ranks, nodes, sites }: FaultTargets): FaultInput => {
      const { kind, target, tier } = chosen
      const from = chosen.from === "0s" ? {} : { from: chosen.from }
      const until = chosen.for === undefined ? {} : { for: chosen.for }
      // What is away or down must return, or nothing can finish.
      const returns = { for: chosen.for ?? "5ms" }
      const of = chosen.everyLink ? {} : { of: target % { intra: ranks, inter: nodes, wan: sites }[tier] }
      switch (kind) {
        case "straggler":
          return { straggler: target % ranks, speed: chosen.speed, ...from, ...until }
        case "outage":
          return { outage: target % ranks, ...from, ...returns }
        case "down":
          return { link: tier, ...of, bandwidth: "0bit/s", ...from, ...returns }
        case "link":
          return {
            link: tier,
            ...of,
            ...(chosen.bandwidth === undefined ? {} : { bandwidth: chosen.bandwidth }),
            ...(chosen.latency === undefined ? {} : { latency: chosen.latency }),
            ...from,
            ...until
          }
      }
    })

/** A fault that ends, of a world with so many ranks, nodes and sites. */
export const fault = (targets: FaultTargets): fc.Arbitrary<FaultInput> =>
  faultChoice().map((choose) => choose(targets))

// What handing one request's cache over takes, from its prefill simulated alone: when each layer's cache is there, and what
// the other side does with it. The bandwidth at which choosing pays no more follows from two of them.
import * as Effect from "effect/Effect"
import { disaggregated } from "../../../core/algorithms/kv-serving/disaggregated.ts"
import { breakEvenBandwidth, type Handoff } from "../../../core/algorithms/kv-serving/handoff.ts"
import type { ServingPlan } from "../../../core/algorithms/kv-serving/server.ts"
import type { MachineError } from "../../../core/machine/machine.ts"
import type { Timeline } from "../../../core/machine/timeline.ts"
import { makeWorld, unlimitedLinks } from "../../../core/world.ts"
import type { CostModel } from "../../../core/cost/cost-model.ts"
import type { Simulator } from "../../runnable.ts"
import { keptSource } from "./kept-source.ts"

/** The hand-over of the plan's first request, alone. */
export const handoffOf = (
  plan: ServingPlan,
  costs: CostModel,
  seed: number,
  simulator: Simulator
): Effect.Effect<Handoff, MachineError> =>
  Effect.gen(function* () {
    const [first] = plan.requests
    const requests = [{ ...first!, id: 0, arrivalSeconds: 0, outputTokens: 2 }]
    const alone = { ...plan, requests, maxBatch: 1 }
    // Two nodes and a link that takes no time: each message leaves as soon as it is there.
    const { timeline, opLogs } = yield* simulator({
      world: makeWorld([{ name: "site 0", nodes: [1, 1] }], unlimitedLinks),
      program: disaggregated(alone),
      costs,
      network: "fluid",
      collectives: { algorithm: "ring" },
      symmetric: false,
      record: true,
      source: keptSource(alone, seed)
    })
    const { rank, op, kernel, kernels, startSeconds, endSeconds, sizeBytes } = timeline!
    const rows = [...rank.keys()]
    const sent = rows.filter((row) => rank[row] === 0 && kernels[kernel[row]!] === "send_recv")
    const placed = rows.filter((row) => rank[row] === 1 && kernels[kernel[row]!] === "kv.place")
    const ended = endsOf(timeline!)
    const log = opLogs.find((one) => one.rank === 0)!
    return {
      messages: sent.map((row, index) => {
        const place = placed[index]
        // What a message waits for on other lanes is what makes it; lists were there before the caches they belong to.
        const { after } = log.entries[op[row]!]!
        return {
          readySeconds: Math.max(0, ...after.map((one) => ended.get(one)!)),
          sizeBytes: sizeBytes[row]!,
          placeSeconds: place === undefined ? 0 : endSeconds[place]! - startSeconds[place]!
        }
      })
    }
  })

/** When the prefilling rank's ops ended, by op. */
const endsOf = ({ rank, op, endSeconds }: Timeline): ReadonlyMap<number, number> =>
  new Map([...rank.keys()].flatMap((row) => (rank[row] === 0 ? [[op[row]!, endSeconds[row]!] as const] : [])))

/** The bandwidth below which the plan's choice is handed over sooner than the full cache; see `breakEvenBandwidth`. */
export const breakEvenOf = (
  plan: ServingPlan,
  costs: () => CostModel,
  latencySeconds: number,
  seed: number,
  simulator: Simulator
): Effect.Effect<number, MachineError> =>
  Effect.gen(function* () {
    const full = yield* handoffOf({ ...plan, settings: { name: "full" } }, costs(), seed, simulator)
    const compressed = yield* handoffOf(plan, costs(), seed, simulator)
    return breakEvenBandwidth(full, compressed, latencySeconds)
  })

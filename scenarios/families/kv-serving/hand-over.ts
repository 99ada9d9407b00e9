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
    // Two nodes and a link that takes no time: each message leaves, and is put in its place, as soon as it can be. A slower link makes
    // everything later and nothing sooner, so these times are what no link comes before: what makes the message, and both hosts.
    const { timeline } = yield* simulator({
      world: makeWorld([{ name: "site 0", nodes: [1, 1] }], unlimitedLinks),
      program: disaggregated(alone),
      costs,
      network: "fluid",
      collectives: { algorithm: "ring" },
      symmetric: false,
      record: true,
      source: keptSource(alone, seed)
    })
    const { startSeconds, endSeconds, sizeBytes } = timeline!
    const [sent, received] = [rowsOf(timeline!, 0, "send_recv"), rowsOf(timeline!, 1, "send_recv")]
    const placed = rowsOf(timeline!, 1, "kv.place")
    return {
      messages: sent.map((row, index) => {
        const place = placed[index]
        const message = {
          readySeconds: Math.max(startSeconds[row]!, startSeconds[received[index]!]!),
          sizeBytes: sizeBytes[row]!
        }
        return place === undefined
          ? { ...message, placeSeconds: 0 }
          : {
              ...message,
              placeReadySeconds: startSeconds[place]!,
              placeSeconds: endSeconds[place]! - startSeconds[place]!
            }
      })
    }
  })

/** Rows of a rank's launches of a kernel, in order. */
const rowsOf = ({ rank, kernel, kernels }: Timeline, of: number, name: string): ReadonlyArray<number> =>
  [...rank.keys()].filter((row) => rank[row] === of && kernels[kernel[row]!] === name)

/** The bandwidth below which the plan's choice is handed over sooner than the full cache; see `breakEvenBandwidth`. */
export const breakEvenOf = (
  plan: ServingPlan,
  costs: () => CostModel,
  link: Parameters<typeof breakEvenBandwidth>[2],
  seed: number,
  simulator: Simulator
): Effect.Effect<number, MachineError> =>
  Effect.gen(function* () {
    const full = yield* handoffOf({ ...plan, settings: { name: "full" } }, costs(), seed, simulator)
    const compressed = yield* handoffOf(plan, costs(), seed, simulator)
    return breakEvenBandwidth(full, compressed, link)
  })

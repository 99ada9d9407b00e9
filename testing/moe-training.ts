// Generated MoE training: models, plans and the order that FSMoE's schedule must obey. For tests of schedulers of MoE layers.
import * as fc from "fast-check"
import type { ChunkRole } from "../core/algorithms/moe-training/exchange.ts"
import { gateNames, moeRole, type MoeModel } from "../core/algorithms/moe-training/model.ts"
import { laneCounts } from "../core/algorithms/moe-training/plan/pipeline.ts"
import type { MoePlan } from "../core/algorithms/moe-training/program.ts"
import type { Violation } from "../core/laws/execution.ts"
import { Lane } from "../core/machine/lane.ts"
import type { OpLog } from "../core/machine/timeline.ts"

/** A model, the ranks that train it and a plan for them. */
export interface MoeCase {
  readonly model: MoeModel
  readonly nodes: number
  readonly perNode: number
  readonly plan: MoePlan
}

/**
 * Small models of every gate and feed-forward part, with and without dropped tokens, on one to six ranks, with any plan that
 * sends no gradient before it is ready: a scheduler's choices at their widest.
 */
export const moeCase = (): fc.Arbitrary<MoeCase> =>
  fc
    .record({
      nodes: fc.integer({ min: 1, max: 3 }),
      perNode: fc.integer({ min: 1, max: 2 }),
      local: fc.integer({ min: 1, max: 2 }),
      layers: fc.integer({ min: 1, max: 2 }),
      gate: fc.constantFrom(...gateNames),
      ffn: fc.constantFrom("gpt" as const, "mixtral" as const),
      factor: fc.constantFrom(0.5, 1, 2, "dropless" as const),
      lanes: fc.constantFrom(...laneCounts),
      degrees: fc.array(fc.constantFrom(1, 2, 3), { minLength: 4, maxLength: 4 }),
      kvHeads: fc.constantFrom(2, 4),
      headWidth: fc.constantFrom(undefined, 3),
      shares: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 4, maxLength: 4 }),
      seed: fc.integer({ min: 0, max: 1000 })
    })
    .map(
      ({
        nodes,
        perNode,
        local,
        layers,
        gate,
        ffn,
        factor,
        lanes,
        degrees,
        kvHeads,
        headWidth,
        shares,
        seed
      }): MoeCase => {
        const tokenChoice = gate !== "expert-choice" && gate !== "soft-moe"
        const width = 8
        const model: MoeModel = {
          layers,
          width,
          hidden: 4,
          heads: 4,
          kvHeads,
          headWidth,
          sequence: 4,
          batch: 2,
          experts: nodes * local,
          topK: Math.min(2, nodes * local),
          // Padding to both degrees must leave no more rows than tokens where experts choose.
          capacityFactor: tokenChoice ? factor : 0.25,
          ffn,
          gate,
          gateWidth: 3,
          dtype: "float32",
          learningRate: undefined,
          seed
        }
        const of = (pass: number): ReadonlyArray<number> =>
          Array.from({ length: layers }, (_, layer) => (tokenChoice ? degrees[2 * layer + pass]! : 1))
        // Any cut that sends nothing before it is ready.
        const elements = (2 * width * (headWidth ?? width / 4) * (4 + kvHeads)) / perNode
        const first = Math.floor(shares[0]! * elements)
        const second = Math.floor(shares[1]! * (elements - first))
        const sent = layers === 1 ? [0, 0] : [first, second]
        return {
          model,
          nodes,
          perNode,
          plan: {
            lanes,
            forwardDegrees: of(0),
            backwardDegrees: of(1),
            gradients: {
              moe: layers === 1 ? [0] : [0, sent[0]!],
              dense: layers === 1 ? [0] : [0, sent[1]!],
              rest: layers * elements - sent[0]! - sent[1]!,
              messageElements: shares[2]! > 0.5 ? 1 + Math.floor(shares[3]! * elements) : undefined
            }
          }
        }
      }
    )

/**
 * The order of FSMoE's lanes (arXiv:2501.10714, section 4.1), in every layer and pass of every rank: on the inter-node lane all
 * dispatches, then gradients, then all combines; inside nodes all gathers, then all scatters; each chunk by chunk.
 */
export const pipelineOrder = (opLogs: ReadonlyArray<OpLog>): Violation | undefined => {
  const stages = { dispatch: 0, combine: 2, gather: 0, scatter: 2 } as const
  const betweenStages = 1
  let passes = 0
  for (const { rank, entries } of opLogs) {
    for (const lane of [Lane.inter, Lane.intra]) {
      // The pass under way, how far it has come, and the chunk it is at.
      let pass = ""
      let stage = 0
      let chunk = -1
      for (const entry of entries) {
        const { op, label, lane: on } = entry
        const role = moeRole(entry)
        if (on !== lane || role === undefined) continue
        const sent = role.kind === "gradient"
        if (!sent && !(role.kind in stages)) continue
        const violation = (message: string): Violation => ({
          law: "pipelineOrder",
          rank,
          ops: [op],
          message: `rank ${rank}: "${label}" ${message}`
        })
        if (sent) {
          // After a pass has ended gradients may go where they like; inside one, only between dispatches and combines.
          if (pass !== "" && stage < betweenStages) stage = betweenStages
          continue
        }
        const { kind, layer, chunk: expected, pass: direction } = role as ChunkRole
        const name = `${direction} ${layer}`
        const own = stages[kind as keyof typeof stages]
        if (name !== pass) {
          if (own !== 0 || expected !== 0) return violation("begins a pass")
          pass = name
          passes++
          stage = 0
          chunk = 0
          continue
        }
        if (own < stage) return violation("comes after a later stage of its pass")
        // Several messages of one chunk, one for each expert, have its number.
        if (own === stage && expected !== chunk && expected !== chunk + 1)
          return violation(`follows chunk ${chunk}`)
        if (own > stage && expected !== 0) return violation("begins its stage")
        stage = own
        chunk = expected
      }
    }
  }
  return passes > 0 || opLogs.length === 0
    ? undefined
    : {
        law: "pipelineOrder",
        message: "no op says which stage of a pass it is: logs from files do not keep it"
      }
}

// FSMoE's two testbeds as the paper describes them: fitted lines of collectives, compute times of two models, and how both
// become the costs of a simulated layer. Shared by the sections that hold the simulator to the paper's tables.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { costScopes, costUnits, type FittedCost } from "../../core/algorithms/moe-training/plan/cost-line.ts"
import { moeRole, productsOf, type MoeModel } from "../../core/algorithms/moe-training/model.ts"
import { makeWorld, unlimitedLinks, type World } from "../../core/world.ts"
import type { CostModel } from "../../core/cost/cost-model.ts"
import { rowsOfLine, type CollectiveOp } from "../../scenarios/families/moe-training/costs.ts"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import { readTable } from "./section.ts"

const PublishedLine = Schema.Struct({
  fixedMs: Schema.Number,
  msPerUnit: Schema.Number,
  unit: Schema.Literals(costUnits),
  scope: Schema.Literals(costScopes)
})
const Pass = Schema.Record(Schema.String, Schema.Number)
const Passes = Schema.Struct({ forward: Pass, backward: Pass })

const TestbedTable = Schema.Struct({
  name: Schema.String,
  device: Schema.String,
  nodes: Schema.Int,
  perNode: Schema.Int,
  sequences: Schema.Array(Schema.Int),
  lines: Schema.Struct({
    all_to_all: PublishedLine,
    all_gather: PublishedLine,
    reduce_scatter: PublishedLine,
    all_reduce: PublishedLine
  }),
  /** Table 2's gathers and scatters count those around attention too. */
  gatherIncludesAttention: Schema.Boolean,
  /** Dense gradient of a layer over M squared, under which Table 2's all-reduce agrees with the line. */
  gradientWidths: Schema.Struct({ gpt: Schema.Number, mixtral: Schema.Number }),
  table2: Schema.Struct({ gpt: Passes, mixtral: Passes }),
  speedups: Schema.Record(Schema.String, Schema.Number)
})
export type TestbedTable = typeof TestbedTable.Type

const FsmoeTable = Schema.Struct({
  source: Schema.String,
  experts: Schema.String,
  testbeds: Schema.Array(TestbedTable)
})

export const readFsmoe = Effect.suspend(() => readTable("fsmoe.published.json", FsmoeTable))

/** The two models of Table 2: GPT2-XL and Mixtral-7B layers. */
export const table2Models = {
  gpt: { width: 1600, hidden: 6400, heads: 32, kvHeads: 32, ffn: "gpt" },
  mixtral: { width: 4096, hidden: 14336, heads: 32, kvHeads: 8, ffn: "mixtral" }
} as const

export const collectiveOps: ReadonlyArray<CollectiveOp> = [
  "all_to_all",
  "all_gather",
  "reduce_scatter",
  "all_reduce"
]

export const lineOf = ({ lines }: TestbedTable, op: CollectiveOp): FittedCost => ({
  op,
  unit: lines[op].unit,
  dtype: "float32",
  scope: lines[op].scope,
  fixedSeconds: lines[op].fixedMs / 1000,
  secondsPerUnit: lines[op].msPerUnit / 1000,
  meanError: 0,
  maxError: 0,
  points: 0
})

/** Links are no limit: the lines are measured with them in place. */
export const worldOf = ({ nodes, perNode }: TestbedTable): World =>
  makeWorld([{ name: "testbed", nodes: Array.from({ length: nodes }, () => perNode) }], unlimitedLinks)

export const collectiveTableOf = (testbed: TestbedTable): CollectiveTable =>
  new CollectiveTable(
    collectiveOps.flatMap((op) => {
      const inside = op === "all_gather" || op === "reduce_scatter"
      const ranks = inside ? testbed.perNode : testbed.nodes
      return rowsOfLine(op, lineOf(testbed, op), ranks, testbed.perNode)
    })
  )

export const layerModel = (
  { nodes }: TestbedTable,
  sizes: Pick<
    MoeModel,
    "width" | "hidden" | "heads" | "kvHeads" | "ffn" | "batch" | "sequence" | "capacityFactor"
  >,
  layers: number
): MoeModel => ({
  ...sizes,
  layers,
  experts: nodes,
  topK: 2,
  gate: "softmax",
  gateWidth: 16,
  dtype: "float32",
  learningRate: undefined,
  seed: 0
})

/** Multiply-accumulates of the projections and of attention itself, on one rank. */
const attentionMacs = (
  {
    width,
    heads,
    kvHeads,
    batch,
    sequence
  }: Pick<MoeModel, "width" | "heads" | "kvHeads" | "batch" | "sequence">,
  perNode: number
): number => {
  const projections = 2 * width * (width + (width / heads) * kvHeads)
  return (batch * sequence * (projections + 2 * sequence * width)) / perNode
}

/** Multiply-accumulates of one rank's part of the experts, F = k f. */
const expertMacs = (
  model: Pick<MoeModel, "width" | "hidden" | "ffn" | "batch" | "sequence">,
  routed: number,
  perNode: number
): number =>
  (routed * model.batch * model.sequence * model.width * model.hidden * productsOf(model)) / perNode

const through = (x0: number, y0: number, x1: number, y1: number) => {
  const slope = (y1 - y0) / (x1 - x0)
  return { fixed: y0 - slope * x0, slope }
}

/**
 * Compute times by lines through the two models of Table 2: attention forward and backward over its multiply-accumulates,
 * experts over theirs (a product's fixed part is the line's over the products of the model: two or three), routing and
 * ordering as the table has them for the smaller model.
 */
export const testbedCosts = (testbed: TestbedTable): CostModel => {
  const { perNode, table2 } = testbed
  const [small, large] = [table2Models.gpt, table2Models.mixtral]
  const sizes = { batch: 4, sequence: 1024 }
  const fit = (
    pass: "forward" | "backward",
    what: string,
    work: (model: typeof small | typeof large) => number
  ) => through(work(small), table2.gpt[pass][what]! / 1000, work(large), table2.mixtral[pass][what]! / 1000)
  const attention = {
    forward: fit("forward", "attention", (model) => attentionMacs({ ...model, ...sizes }, perNode)),
    backward: fit("backward", "attention", (model) => attentionMacs({ ...model, ...sizes }, perNode))
  }
  const experts = fit("forward", "expert", (model) => expertMacs({ ...model, ...sizes }, 2.4, perNode))
  // What a product costs before it multiplies cannot be less than nothing.
  const product = {
    fixed: Math.max(0, experts.fixed) / 2.5,
    slope:
      experts.fixed > 0
        ? experts.slope
        : table2.mixtral.forward["expert"]! / 1000 / expertMacs({ ...large, ...sizes }, 2.4, perNode)
  }
  return {
    estimates: [],
    seconds: (op) => {
      if (op.kernel.measure === "product") {
        const { m, k, n } = op.kernel.sizes(op.reads, op.writes, op.attributes)
        const macs = m! * k! * n!
        // Projections count with attention.
        return moeRole(op)?.kind === "expert" && macs > 0 ? product.fixed + product.slope * macs : 0
      }
      const { name } = op.kernel
      switch (name) {
        case "attention.forward":
        case "attention.backward": {
          const [batch, sequence, width] =
            name === "attention.forward" ? op.writes[0]!.shape : op.reads[0]!.shape
          const { headWidth, kvHeads } = op.attributes as { headWidth: number; kvHeads: number }
          // The whole model's sizes from this rank's part.
          const whole = {
            batch: batch!,
            sequence: sequence!,
            width: width! * perNode,
            heads: (width! * perNode) / headWidth,
            kvHeads: kvHeads * perNode
          }
          const { fixed, slope } = attention[name === "attention.forward" ? "forward" : "backward"]
          return Math.max(0, fixed + slope * attentionMacs(whole, perNode))
        }
        case "topk_gate.forward":
          return table2.gpt.forward["routing"]! / 1000
        case "topk_gate.backward":
          return table2.gpt.backward["routing"]! / 1000
        case "moe_order.forward":
          return table2.gpt.forward["order"]! / 1000
        case "moe_order.backward":
          return table2.gpt.backward["order"]! / 1000
        default:
          return 0
      }
    }
  }
}

// Training steps of a stack of MoE layers with data, tensor, expert and expert-tensor parallelism, as one rank runs them: a
// forward pass, a backward pass with gradients sent where the plan says, an update. The schedule changes when things run,
// never what is computed. The loss is half the mean square of the output: it stands for whatever would follow the layers.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type MachineError, type OutOfMemory, type Program } from "../../machine/machine.ts"
import { collective, launch, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import { makeDensePart, type DensePart } from "./attention.ts"
import type { RowCounts } from "./exchange.ts"
import { moeGroups, type MoeGroups } from "./groups.ts"
import { alikeMessage, gradientMessages, type SentElements } from "./messages.ts"
import { capacityOf, sharesOf, type MoeModel, type MoeRole, type Shares } from "./model.ts"
import { makeMoePart, type MoePart, type Pass } from "./moe-part.ts"
import { submitPipelined } from "./pipelined.ts"
import type { LaneUse } from "./plan/pipeline.ts"
import { matrixValues, Tensors, type Parameter, type Part } from "./tensors.ts"

/** What a scheduler has decided. */
export interface MoePlan {
  readonly lanes: LaneUse
  /** Pipeline degree of each layer's passes, layers in forward order. */
  readonly forwardDegrees: ReadonlyArray<number>
  readonly backwardDegrees: ReadonlyArray<number>
  /** Dense gradients, layers in the order of the backward pass. */
  readonly gradients: SentElements
}

/** Places of an MoE layer where a caller may submit ops of its own (compression, say): the paper's six hooks. */
export const hookPoints = [
  "beforeMoeStart",
  "beforeDispatch",
  "afterDispatch",
  "beforeCombine",
  "afterCombine",
  "beforeMoeEnd"
] as const
type HookPoint = (typeof hookPoints)[number]

export interface HookContext {
  readonly machine: Machine["Service"]
  readonly layer: number
  readonly pass: "forward" | "backward"
}

export type MoeHooks = Partial<Readonly<Record<HookPoint, (context: HookContext) => void>>>

interface MoeTraining {
  readonly model: MoeModel
  readonly plan: MoePlan
  readonly steps: number
  /** Steps that were taken before; default none. */
  readonly from?: number | undefined
  readonly hooks?: MoeHooks
  /** Runs before a step ends: to read what it left, say. */
  readonly afterStep?: (step: number, trained: MoeTrained) => Effect.Effect<void, MachineError>
}

/** What a rank is left with: for tests and for whoever goes on from here. */
interface MoeTrained {
  readonly input: Tensor
  readonly inputGradient: Tensor
  readonly output: Tensor
  readonly parameters: ReadonlyArray<Parameter>
}

interface Layer {
  readonly dense: DensePart
  readonly denseBackward: ReturnType<DensePart["backward"]>
  readonly moe: MoePart
  /** Gradient of the layer's output. */
  readonly doutput: Tensor
  /** Where every expert has a capacity, both passes are made once; otherwise step by step, from what tokens choose. */
  readonly fixed: { readonly forward: Pass; readonly backward: Pass } | undefined
  readonly choices: Choices | undefined
}

/** Counts of all ranks' choices, gathered before anything can be sent. */
interface Choices {
  readonly gather: Op
  readonly all: Tensor
}

/** A plan of somebody's own may not fit the model: a degree for each layer and pass, and how much of each layer's gradients goes where. */
const checkPlan = ({ layers }: MoeModel, { forwardDegrees, backwardDegrees, gradients }: MoePlan): void => {
  const lists = {
    forwardDegrees,
    backwardDegrees,
    "gradients.moe": gradients.moe,
    "gradients.dense": gradients.dense
  }
  for (const [name, list] of Object.entries(lists)) {
    const counted = name.endsWith("Degrees")
    const wrong = list.find(
      (each) => !(each >= (counted ? 1 : 0)) || (counted && !Number.isSafeInteger(each))
    )
    if (list.length !== layers)
      throw new RangeError(`plan.${name} has ${list.length} numbers for ${layers} layers: one for each`)
    if (wrong !== undefined)
      throw new RangeError(
        `plan.${name} has ${wrong}: ${counted ? "a whole number of at least 1" : "elements, 0 or more"}, is expected`
      )
  }
}

/**
 * A rank's program. Throws RangeError for a plan that does not fit the model, and for a model that does not divide over the world's
 * ranks.
 */
export const moeTraining = ({
  model,
  plan,
  steps,
  from = 0,
  hooks = {},
  afterStep
}: MoeTraining): Program<MoeTrained> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    checkPlan(model, plan)
    const groups = moeGroups(machine.world, machine.rank)
    const shares = sharesOf(model, groups.nodes, groups.perNode)
    const tensors = new Tensors(machine, model.dtype, model.seed)
    const lasting = yield* build(tensors, model, plan, groups, shares)
    const { layers, input, lossOps, messages, together, update } = lasting
    const submit = (ops: ReadonlyArray<Op>): void => {
      for (const op of ops) machine.submit(op)
    }
    const call = (point: HookPoint, layer: number, pass: "forward" | "backward"): void =>
      hooks[point]?.({ machine, layer, pass })
    /** One pass through the experts; `sent` goes between the last dispatch and the first combine. */
    const through = (
      { before, chunks, after }: Pass,
      layer: number,
      pass: "forward" | "backward",
      sent: ReadonlyArray<Op> = []
    ): void => {
      submit(before)
      call("beforeDispatch", layer, pass)
      submitPipelined(machine, chunks, plan.lanes, {
        afterDispatch: () => {
          submit(sent)
          call("afterDispatch", layer, pass)
        },
        beforeCombine: () => call("beforeCombine", layer, pass)
      })
      call("afterCombine", layer, pass)
      submit(after)
      call("beforeMoeEnd", layer, pass)
    }

    const trained: MoeTrained = {
      input,
      inputGradient: layers[0]!.dense.dinput,
      output: layers.at(-1)!.moe.output,
      parameters: lasting.parameters
    }
    for (let step = from; step < steps; step++) {
      const stepTensors = new Tensors(machine, model.dtype, model.seed)
      const backwards: Array<Pass> = []
      for (const [index, { dense, moe, fixed, choices, doutput }] of layers.entries()) {
        submit(dense.forward)
        call("beforeMoeStart", index, "forward")
        submit(moe.gateForward)
        let passes = fixed
        if (passes === undefined) {
          const counts = yield* readCounts(machine, choices!, model, groups)
          passes = yield* moe.passes(stepTensors, counts, doutput)
        }
        backwards.push(passes.backward)
        through(passes.forward, index, "forward")
      }
      submit(lossOps)
      for (let back = 0; back < layers.length; back++) {
        const index = layers.length - 1 - back
        const { denseBackward } = layers[index]!
        call("beforeMoeStart", index, "backward")
        through(backwards[index]!, index, "backward", messages.moe[back])
        submit(denseBackward.gather)
        submit(messages.dense[back]!)
        submit(denseBackward.rest)
        submit(messages.pack[back]!)
      }
      submit(messages.rest)
      submit(messages.unpack)
      submit(together)
      submit(update)
      if (afterStep !== undefined) yield* afterStep(step, trained)
      yield* machine.endStep
      stepTensors.freeAll()
    }
    yield* machine.drain
    return trained
  })

const build = (tensors: Tensors, model: MoeModel, plan: MoePlan, groups: MoeGroups, shares: Shares) =>
  Effect.gen(function* () {
    const inter = Lane.inter
    const intra = plan.lanes === "three" ? Lane.intra : Lane.inter
    const { width } = model
    const { tokens, nodeTokens, nodes } = shares
    const first = groups.node * nodeTokens + groups.position * tokens
    const own: Part = { rows: [[first, first + tokens]], columns: [0, width] }
    const initial = matrixValues(model.seed, "input", width, own)
    const input = yield* tensors.make("input", [tokens, width], model.dtype, { initial })
    const parts: Array<Pick<Layer, "dense" | "moe">> = []
    let from = input
    for (let index = 0; index < model.layers; index++) {
      const degrees = { forward: plan.forwardDegrees[index]!, backward: plan.backwardDegrees[index]! }
      const common = { tensors, model, shares, groups, intra }
      const dense = yield* makeDensePart({ ...common, label: `layer ${index}`, input: from })
      const moe = yield* makeMoePart({ ...common, layer: index, inter, degrees, input: dense.output })
      parts.push({ dense, moe })
      from = moe.output
    }
    // A layer's output gradient is what the next layer's backward pass leaves; the last one's comes from the loss.
    const dlast = yield* tensors.make("output gradient", [tokens, width])
    const layers = yield* Effect.forEach(parts, (part, index) =>
      Effect.gen(function* () {
        const doutput = parts[index + 1]?.dense.dinput ?? dlast
        const capacity = capacityOf(model, shares, plan.forwardDegrees[index]!, plan.backwardDegrees[index]!)
        const denseBackward = part.dense.backward(part.moe.dinput)
        const layer: Layer = { ...part, denseBackward, doutput, fixed: undefined, choices: undefined }
        return capacity > 0
          ? { ...layer, fixed: yield* part.moe.passes(tensors, () => capacity, doutput) }
          : { ...layer, choices: yield* gatherChoices(tensors, index, model, groups, part.moe.gate.counts!) }
      })
    )
    const last = layers.at(-1)!
    const factor = 1 / (nodes * nodeTokens)
    const lossOps = [
      launch("loss gradient", kernels.scale, Lane.compute, [last.moe.output], [dlast], { factor })
    ]
    const inOrder = layers.toReversed()
    const messages = yield* gradientMessages(
      tensors,
      groups.across,
      inOrder.map(({ dense }) => dense.split.map(({ gradient }) => gradient)),
      plan.gradients
    )
    const alike = layers.flatMap(({ dense, moe }) => [...dense.alike, ...moe.alike])
    const alikeGradients = alike.map(({ gradient }) => gradient)
    const together = [alikeMessage(groups.all, alikeGradients)]
    const parameters = layers.flatMap(({ dense, moe }) => [
      ...dense.split,
      ...dense.alike,
      ...moe.alike,
      ...moe.experts.flatMap(({ inward, down }) => [...inward, down])
    ])
    const { learningRate } = model
    const update =
      learningRate === undefined
        ? [
            launch(
              "wait for gradients",
              kernels.barrier,
              Lane.compute,
              parameters.map(({ gradient }) => gradient),
              []
            )
          ]
        : parameters.map(({ name, tensor, gradient }) =>
            launch(`update ${name}`, kernels.sgd, Lane.compute, [tensor, gradient], [tensor], {
              learningRate
            })
          )
    return { layers, input, lossOps, messages, together, update, parameters }
  })

/** All-gather of how many tokens of each rank chose each expert. */
const gatherChoices = (
  tensors: Tensors,
  layer: number,
  model: MoeModel,
  groups: MoeGroups,
  counts: Tensor
): Effect.Effect<Choices, OutOfMemory> =>
  Effect.map(
    tensors.make(`layer ${layer} choices of all ranks`, [groups.all.ranks.length * model.experts], "int32", {
      role: { kind: "choices", layer } satisfies MoeRole
    }),
    (all): Choices => ({
      all,
      gather: collective(
        `gather choices ${layer}`,
        kernels.all_gather,
        Lane.inter,
        groups.all,
        [counts],
        [all],
        {
          attributes: { ranks: groups.all.ranks.length }
        }
      )
    })
  )

const readCounts = (
  machine: Machine["Service"],
  { gather, all }: Choices,
  model: MoeModel,
  groups: MoeGroups
): Effect.Effect<RowCounts, MachineError> =>
  Effect.gen(function* () {
    machine.submit(gather)
    const counts = yield* machine.read(all)
    const ranks = groups.all.ranks
    // Ranks of a node are adjacent, in the order of their positions.
    const rankAt = new Map<string, number>()
    const seen = new Map<number, number>()
    for (const rank of ranks) {
      const node = machine.world.nodeOf[rank]!
      const position = seen.get(node) ?? 0
      seen.set(node, position + 1)
      rankAt.set(`${node} ${position}`, rank)
    }
    return (node, position, expert) => counts[rankAt.get(`${node} ${position}`)! * model.experts + expert]!
  })

// What a layer's ops are, without a machine to run them on: so that a planner can ask what each costs. The ops are those the
// program builds, so a plan and a run cannot disagree on them.
import * as Effect from "effect/Effect"
import { Lane } from "../../machine/lane.ts"
import type { Machine } from "../../machine/machine.ts"
import { collective, type Op } from "../../machine/op.ts"
import { kernels } from "../../kernels/catalogue.ts"
import { tensorOf } from "../../machine/tensor.ts"
import type { World } from "../../world.ts"
import { makeDensePart } from "./attention.ts"
import { moeGroups } from "./groups.ts"
import { capacityOf, denseElementsOf, sharesOf, type MoeModel, type Shares } from "./model.ts"
import { alikeMessage } from "./messages.ts"
import { makeMoePart, type Pass } from "./moe-part.ts"
import type { ChunkTimes } from "./plan/pipeline.ts"
import { Tensors } from "./tensors.ts"

/** Seconds of an op with nothing in its way. */
type OpSeconds = (op: Op) => number

/**
 * What one layer takes: the pipelined part by degree, and everything else. The other pass's degree matters too: rows are padded to a
 * multiple of both, and cut anew where they differ.
 */
export interface LayerCosts {
  readonly shares: Shares
  /** Of a chunk; default for the other pass: the same degree. */
  readonly forward: (degree: number, backward?: number) => ChunkTimes
  readonly backward: (degree: number, forward?: number) => ChunkTimes
  /** All ops outside the pipelined part, at the degrees of both passes. */
  readonly denseForwardSeconds: (forward: number, backward: number) => number
  readonly denseBackwardSeconds: (forward: number, backward: number) => number
  /** Of a dense part's backward pass, what it gathers and scatters inside the node. */
  readonly denseMessageSeconds: (forward: number, backward: number) => number
  /** Dense gradients of a layer, on one rank. */
  readonly gradientElements: number
  readonly allReduceSeconds: (elements: number) => number
  /** The all-reduce of norms' and gates' gradients of layers of these degrees, after all others. */
  readonly alikeSeconds: (degrees: ReadonlyArray<readonly [forward: number, backward: number]>) => number
}

/** Only `alloc` is asked of it. */
const paper = (world: World): Machine["Service"] => {
  let id = 0
  const never = (): never => {
    throw new Error("a rehearsal runs nothing")
  }
  return {
    rank: 0,
    world,
    alloc: (spec) => Effect.sync(() => tensorOf(id++, spec)),
    free: never,
    freeBytes: () => Infinity,
    submit: never,
    read: never,
    endStep: Effect.die("a rehearsal runs nothing"),
    drain: Effect.die("a rehearsal runs nothing"),
    ready: never,
    now: Effect.die("a rehearsal runs nothing"),
    sleepUntil: never
  }
}

/**
 * Costs of rank 0's layer at any degrees. Where nothing is dropped, experts are reckoned to be chosen equally often. Messages that begin
 * beside experts take up to `waitSeconds` longer: of r chunks those of r - 1, as often as experts are at work while a chunk's messages
 * are, and no longer than a chunk's experts.
 */
export const layerCosts = (
  model: MoeModel,
  world: World,
  opSeconds: OpSeconds,
  waitSeconds: OpSeconds = () => 0
): LayerCosts => {
  const machine = paper(world)
  const groups = moeGroups(world, 0)
  const shares = sharesOf(model, groups.nodes, groups.perNode)
  const sum = (ops: ReadonlyArray<Op>): number => ops.reduce((seconds, op) => seconds + opSeconds(op), 0)
  const tensors = new Tensors(machine, model.dtype, model.seed)
  const built = (forward: number, backward: number) =>
    Effect.runSync(
      Effect.gen(function* () {
        const input = yield* tensors.make("input", [shares.tokens, model.width])
        const doutput = yield* tensors.make("output gradient", [shares.tokens, model.width])
        const common = { tensors, model, shares, groups, intra: Lane.intra }
        const dense = yield* makeDensePart({ ...common, label: "layer 0", input })
        const moe = yield* makeMoePart({
          ...common,
          layer: 0,
          inter: Lane.inter,
          degrees: { forward, backward },
          input: dense.output
        })
        const capacity = capacityOf(model, shares, forward, backward)
        const rows = capacity > 0 ? capacity : Math.ceil((shares.tokens * model.topK) / model.experts)
        return { dense, moe, passes: yield* moe.passes(tensors, () => rows, doutput), doutput }
      })
    )
  const timesOf = ({ chunks }: Pass): ChunkTimes => {
    // Chunks differ by a row at most; the first is the smallest, the last the largest.
    const { dispatch, gather, expert, scatter } = chunks.at(-1)!
    const experts = sum(expert)
    const between = 2 * sum(dispatch)
    const inside = sum(gather) + sum(scatter)
    const beside = ((1 - 1 / chunks.length) * experts) / Math.max(between, inside, experts)
    const message = (ops: ReadonlyArray<Op>): number =>
      ops.reduce((all, op) => all + opSeconds(op) + beside * Math.min(waitSeconds(op), experts), 0)
    return {
      allToAll: message(dispatch),
      allGather: message(gather),
      reduceScatter: message(scatter),
      expert: experts
    }
  }
  const around = ({ before, after }: Pass): number => sum(before) + sum(after)
  const timed = (forward: number, backward: number) => {
    const { dense, moe, passes, doutput } = built(forward, backward)
    const { gather, rest } = dense.backward(doutput)
    return {
      forward: timesOf(passes.forward),
      backward: timesOf(passes.backward),
      denseForwardSeconds: sum(dense.forward) + sum(moe.gateForward) + around(passes.forward),
      denseBackwardSeconds: sum(gather) + sum(rest) + around(passes.backward),
      denseMessageSeconds: sum([...gather, ...rest].filter(({ kernel }) => kernel.kind === "collective")),
      alike: [...dense.alike, ...moe.alike].map(({ gradient }) => gradient)
    }
  }
  const known = new Map<string, ReturnType<typeof timed>>()
  const at = (forward: number, backward: number) => {
    const key = `${forward} ${backward}`
    let times = known.get(key)
    if (times === undefined) known.set(key, (times = timed(forward, backward)))
    return times
  }
  const messages = new Map<number, number>()
  return {
    shares,
    forward: (degree, backward = degree) => at(degree, backward).forward,
    backward: (degree, forward = degree) => at(forward, degree).backward,
    denseForwardSeconds: (forward, backward) => at(forward, backward).denseForwardSeconds,
    denseBackwardSeconds: (forward, backward) => at(forward, backward).denseBackwardSeconds,
    denseMessageSeconds: (forward, backward) => at(forward, backward).denseMessageSeconds,
    gradientElements: denseElementsOf(model, shares),
    allReduceSeconds: (elements) => {
      const whole = Math.round(elements)
      if (whole <= 0 || groups.nodes === 1) return 0
      let seconds = messages.get(whole)
      if (seconds === undefined) {
        const tensor = Effect.runSync(machine.alloc({ name: "gradient", shape: [whole], dtype: model.dtype }))
        const op = collective("gradient", kernels.all_reduce, Lane.inter, groups.across, [tensor], [tensor])
        messages.set(whole, (seconds = opSeconds(op)))
      }
      return seconds
    },
    alikeSeconds: (degrees) => {
      const gradients = degrees.flatMap(([forward, backward]) => at(forward, backward).alike)
      return opSeconds(alikeMessage(groups.all, gradients))
    }
  }
}

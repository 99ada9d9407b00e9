// Generation with a mixture-of-experts model whose experts live in host memory: what a strategy decides, layer by layer, as
// copies and kernels. Written against Machine alone, with every tensor there is: a device that holds but a few experts
// computes the same as one that holds them all.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type Program } from "../../machine/machine.ts"
import { launch, type Op, type OpId } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import { allocDecoder, makeStepOps, type StepOps } from "./decoder.ts"
import { layerCall, type ExpertId, type LayerCall } from "./demand.ts"
import { expertName, expertSpec, initialWeight, type MoeModel } from "./model.ts"
import type { Strategy } from "./strategy.ts"
import { stepsOf, type Workload, type WorkloadStep } from "./workload.ts"

/** What the program runs: a model, how much it generates, and who decides which experts lie in the slots. */
export interface OffloadPlan {
  readonly model: MoeModel
  readonly workload: Workload
  /** A fresh one for each run: strategies have memory. */
  readonly strategy: () => Strategy
  /** Copy an expert back to the host when it leaves its slot: in the queue of the loads, or in one of its own. */
  readonly writeBack: "none" | "same-stream" | "own-stream"
  /** Of the weights' values, where a machine carries values. */
  readonly seed: number
}

/**
 * How an expert that a layer needs was found at the moment the layer's choices were known. `ready`: in its slot. `late`: its
 * copy had been submitted ahead of its use, but had not ended. `missing`: its copy was submitted then.
 */
export type Readiness = "ready" | "late" | "missing"

/** An expert that a layer call needed. */
export interface Need {
  readonly step: number
  readonly layer: number
  readonly id: ExpertId
  readonly found: Readiness
  /** The kernel that computed it, and the copy that brought it. */
  readonly use: OpId
  readonly load: OpId
  /** The copy of the router's choices to the host: when it ends, the need is known. */
  readonly choice: OpId
}

/** What a run of the program did, need by need and copy by copy. */
export interface OffloadLog {
  readonly needs: ReadonlyArray<Need>
  readonly calls: ReadonlyArray<LayerCall>
  /** Copies of experts to the device, by the step in which they were submitted. */
  readonly loads: ReadonlyArray<number>
  /** Those of them that were submitted before the expert's layer asked for it. */
  readonly prefetches: ReadonlyArray<number>
  /** Prefetched experts that left their slot unused, up to the end of each step; whoever lies there unused counts too. */
  readonly uselessPrefetches: number
  /** What generation leaves behind: the newest token of each sequence, and all caches. */
  readonly results: ReadonlyArray<Tensor>
}

/**
 * Generation with experts in host memory, as one rank's program: an expert that a layer needs is in its
 * slot, on its way, or copied now.
 */
export const expertOffload = ({
  model,
  workload,
  strategy,
  writeBack,
  seed
}: OffloadPlan): Program<OffloadLog> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const decoder = yield* allocDecoder(machine, model, workload, seed)
    const serving = strategy()
    const experts: Array<Tensor> = []
    for (let layer = 0; layer < model.layers; layer++) {
      for (let expert = 0; expert < model.experts; expert++) {
        const spec = expertSpec(model, expertName(layer, expert), "host")
        experts.push(yield* machine.alloc({ ...spec, initial: initialWeight(spec, seed) }))
      }
    }
    const slots: Array<Tensor> = []
    for (let slot = 0; slot < serving.cache.slots; slot++) {
      slots.push(yield* machine.alloc(expertSpec(model, `slot ${slot}`, "device")))
    }

    const needs: Array<Need> = []
    const calls: Array<LayerCall> = []
    const loads: Array<number> = []
    const prefetches: Array<number> = []
    const loadedBy = new Int32Array(slots.length)
    // Copies and experts' products are built once for each expert and slot that meet, and submitted whenever they do again.
    const built = new Map<string, Op>()
    // Those of a phase, for they read and write its rows.
    const products = new Map<string, Op>()
    const once = (key: string, build: () => Op, among = built): Op => {
      let op = among.get(key)
      if (op === undefined) among.set(key, (op = build()))
      return op
    }

    /** Submits what the strategy decides. */
    const sinkOf = (
      step: number,
      call?: { readonly rows: Rows; readonly ops: StepOps; readonly choice: OpId }
    ) => ({
      load: (id: ExpertId, slot: number, evicted: ExpertId | undefined, ahead: boolean) => {
        const held = slots[slot]!
        if (writeBack !== "none" && evicted !== undefined) {
          const lane = writeBack === "same-stream" ? Lane.h2d : Lane.d2h
          const store = `store ${nameOf(evicted)}`
          machine.submit(
            once(`${store} ${slot}`, () => launch(store, kernels.d2h, lane, [held], [experts[evicted]!]))
          )
        }
        const load = `${ahead ? "prefetch" : "load"} ${nameOf(id)}`
        loadedBy[slot] = machine.submit(
          once(`${load} ${slot}`, () => {
            const copy = launch(load, kernels.h2d, Lane.h2d, [experts[id]!], [held])
            return ahead ? copy : { ...copy, onDemand: true }
          })
        )
        loads[step]!++
        if (ahead) prefetches[step]!++
      },
      use: (id: ExpertId, slot: number, found: "resident" | "missing") => {
        if (call === undefined) throw new Error("an expert is computed outside a layer's call")
        const held = slots[slot]!
        const readiness = found === "missing" ? "missing" : machine.ready(held) ? "ready" : "late"
        const { rows: inputs, hidden, outputs } = call.ops.space
        const [layer, expert] = [Math.floor(id / model.experts), id % model.experts]
        const { first, count } = call.rows[expert]!
        const label = `expert ${nameOf(id)}`
        const product = () =>
          launch(
            label,
            kernels["expert_ffn.forward"],
            Lane.compute,
            [inputs, held, hidden, outputs],
            [hidden, outputs],
            { gated: model.gated }
          )
        const op = once(`${label} ${slot}`, product, products)
        const use = machine.submit(op, [first, count])
        needs.push({ step, layer, id, found: readiness, use, load: loadedBy[slot]!, choice: call.choice })
      }
    })
    const nameOf = (id: ExpertId): string => `${Math.floor(id / model.experts)}.${id % model.experts}`

    const runStep = ({ step, turn }: WorkloadStep, ops: StepOps) =>
      Effect.gen(function* () {
        loads[step] = prefetches[step] = 0
        serving.begin(step, sinkOf(step))
        ops.begin(turn)
        for (let layer = 0; layer < model.layers; layer++) {
          ops.route(turn, layer)
          const { host, copy } = ops.choices[layer]!
          const choice = machine.submit(copy)
          ops.dispatch(layer)
          const chosen = yield* machine.read(host)
          const call = layerCall(model, step, layer, chosen)
          calls.push(call)
          serving.serve(call, sinkOf(step, { rows: rowsOf(chosen, model.experts), ops, choice }))
          ops.after(layer)
        }
        ops.finish(turn)
        yield* machine.endStep
      })

    let ops: StepOps | undefined
    let before: WorkloadStep | undefined
    for (const step of stepsOf(workload)) {
      if (step.phase !== before?.phase || step.prompts !== before.prompts) {
        ops?.free()
        products.clear()
        ops = yield* makeStepOps(decoder, step)
      }
      before = step
      yield* runStep(step, ops!)
    }
    return {
      needs,
      calls,
      loads,
      prefetches,
      uselessPrefetches: serving.cache.uselessPrefetches(),
      results: [...decoder.tokens, ...decoder.caches.flat()]
    }
  })

/** The rows of each expert once tokens are sorted by expert. */
type Rows = ReadonlyArray<{ readonly first: number; readonly count: number }>

const rowsOf = (chosen: ArrayLike<number>, experts: number): Rows => {
  const counts = new Int32Array(experts)
  for (let i = 0; i < chosen.length; i++) counts[chosen[i]!]!++
  let first = 0
  return Array.from(counts, (count) => {
    const rows = { first, count }
    first += count
    return rows
  })
}

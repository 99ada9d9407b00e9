// The MoE part of a layer: normalisation, Gate, Order, Dispatch, Expert, Combine, I-Order, each a sub-module of its own, put
// together for both passes. What is submitted when is pipelined.ts's and program.ts's business.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import type { Attributes, Kernel } from "../../kernels/kernel.ts"
import { Lane } from "../../machine/lane.ts"
import type { OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import {
  acrossNodes,
  gatheredBlocks,
  gatheredRows,
  insideNode,
  receivedRows,
  sentRows,
  type ChunkRole,
  type Exchange,
  type RowCounts
} from "./exchange.ts"
import {
  expertBackward,
  expertForward,
  expertWeights,
  type ExpertSaved,
  type ExpertWeights
} from "./expert.ts"
import { makeGate, type Gate } from "./gate.ts"
import type { MoeGroups } from "./groups.ts"
import { capacityOf, type MoeModel, type Shares } from "./model.ts"
import type { ChunkOps } from "./pipelined.ts"
import type { Parameter, Tensors } from "./tensors.ts"

/** A pass through the experts: ops before the pipelined part, the chunks, ops after. */
export interface Pass {
  readonly before: ReadonlyArray<Op>
  readonly chunks: ReadonlyArray<ChunkOps>
  readonly after: ReadonlyArray<Op>
}

export interface MoePart {
  readonly alike: ReadonlyArray<Parameter>
  readonly experts: ReadonlyArray<ExpertWeights>
  readonly gate: Gate
  /** Normalisation and gate. */
  readonly gateForward: ReadonlyArray<Op>
  readonly output: Tensor
  readonly dinput: Tensor
  /**
   * Both passes, for so many rows from every rank to every expert; `tensors` makes what lives as long as these counts hold.
   *
   * @param doutput gradient of `output`
   */
  readonly passes: (
    tensors: Tensors,
    counts: RowCounts,
    doutput: Tensor
  ) => Effect.Effect<{ readonly forward: Pass; readonly backward: Pass }, OutOfMemory>
}

interface MoeBuilding {
  readonly tensors: Tensors
  readonly layer: number
  readonly model: MoeModel
  readonly shares: Shares
  readonly groups: MoeGroups
  readonly inter: Lane
  readonly intra: Lane
  readonly degrees: { readonly forward: number; readonly backward: number }
  readonly input: Tensor
}

export const makeMoePart = (building: MoeBuilding): Effect.Effect<MoePart, OutOfMemory> =>
  Effect.gen(function* () {
    const { tensors, layer, model, shares, groups, degrees, input } = building
    const { width } = model
    const { tokens } = shares
    const label = `layer ${layer}`
    const capacity = capacityOf(model, shares, degrees.forward, degrees.backward)
    const norm = yield* tensors.scale(`${label} MoE norm`, width)
    const normed = yield* tensors.make(`${label} MoE normed`, [tokens, width])
    const rstd = yield* tensors.make(`${label} MoE rstd`, [tokens], "float32")
    const gate = yield* makeGate({
      tensors,
      label: `${label} gate`,
      model,
      shares,
      groups,
      capacity,
      degrees,
      input: normed
    })
    const experts = yield* Effect.forEach(
      Array.from({ length: shares.localExperts }, (_, j) => groups.node * shares.localExperts + j),
      (expert) => expertWeights(tensors, model, shares, layer, expert, groups.position)
    )
    const combined = yield* tensors.make(`${label} combined`, [tokens, width])
    const output = yield* tensors.make(`${label} MoE output`, [tokens, width])
    const dinput = yield* tensors.make(`${label} MoE input gradient`, [tokens, width])
    return {
      alike: [norm, ...gate.parameters],
      experts,
      gate,
      gateForward: [
        launch(
          `forward ${label} MoE norm`,
          kernels["rms_norm.forward"],
          Lane.compute,
          [input, norm.tensor],
          [normed, rstd]
        ),
        ...gate.forward
      ],
      output,
      dinput,
      passes: (stepTensors, counts, doutput) =>
        buildPasses(building, stepTensors, counts, {
          gate,
          experts,
          combined,
          output,
          doutput,
          dinput,
          even: capacity > 0,
          backwardEnd: [
            launch(
              `backward ${label} MoE norm`,
              kernels["rms_norm.backward_input"],
              Lane.compute,
              [gate.dinput, input, norm.tensor, rstd],
              [dinput]
            ),
            launch(
              `backward ${label} MoE norm`,
              kernels["rms_norm.backward_weight"],
              Lane.compute,
              [gate.dinput, input, rstd],
              [norm.gradient]
            ),
            launch(`backward ${label} MoE residual`, kernels.add, Lane.compute, [dinput, doutput], [dinput])
          ]
        })
    }
  })

interface Ends {
  readonly gate: Gate
  readonly experts: ReadonlyArray<ExpertWeights>
  readonly combined: Tensor
  readonly output: Tensor
  readonly doutput: Tensor
  readonly dinput: Tensor
  readonly even: boolean
  readonly backwardEnd: ReadonlyArray<Op>
}

const buildPasses = (
  building: MoeBuilding,
  tensors: Tensors,
  counts: RowCounts,
  { gate, experts, combined, output, doutput, even, backwardEnd }: Ends
): Effect.Effect<{ readonly forward: Pass; readonly backward: Pass }, OutOfMemory> =>
  Effect.gen(function* () {
    const { layer, model, shares, groups, degrees, inter, intra, input } = building
    const { width } = model
    const local = shares.localExperts
    const compute = (
      what: string,
      kernel: Kernel,
      reads: ReadonlyArray<Tensor>,
      writes: ReadonlyArray<Tensor>,
      attributes: Attributes = {}
    ): Op => launch(what, kernel, Lane.compute, reads, writes, attributes)
    const exchangeOf = (chunks: number): Exchange => ({
      groups,
      localExperts: local,
      counts,
      even,
      chunks,
      inter,
      intra
    })
    /** A tensor for each chunk and local expert. */
    const perChunk = (name: string, exchange: Exchange, rows: (chunk: number, j: number) => number) =>
      Effect.forEach(
        Array.from({ length: exchange.chunks }, (_, chunk) => chunk),
        (chunk) =>
          tensors.several(
            `${name} chunk ${chunk}`,
            Array.from({ length: local }, (_, j) => [rows(chunk, j), width])
          )
      )
    /** Messages out to the experts' ranks and back, on both sides of the exchange. */
    const messages = (name: string, exchange: Exchange) =>
      Effect.gen(function* () {
        const sent = (chunk: number, j: number) => sentRows(exchange, chunk, j)
        const received = (chunk: number, j: number) => receivedRows(exchange, chunk, j)
        const gathered = (chunk: number, j: number) => gatheredRows(exchange, chunk, j)
        const alone = groups.perNode === 1
        const arriving = yield* perChunk(`${name} arriving`, exchange, received)
        const leaving = yield* perChunk(`${name} leaving`, exchange, received)
        return {
          sent: yield* perChunk(`${name} sent`, exchange, sent),
          arriving,
          whole: alone ? arriving : yield* perChunk(`${name} gathered`, exchange, gathered),
          leaving,
          returned: yield* perChunk(`${name} returned`, exchange, sent)
        }
      })
    /** A chunk's stages around its expert ops; `results` are the experts' outputs, still to be summed over the node. */
    const chunkOps = (
      pass: "forward" | "backward",
      exchange: Exchange,
      all: Effect.Success<ReturnType<typeof messages>>,
      chunk: number,
      expert: ReadonlyArray<Op>,
      results: ReadonlyArray<Tensor>
    ): ChunkOps => {
      const label = (what: string): string => `${pass} layer ${layer} ${what} ${chunk}`
      const role = <Kind extends ChunkRole["kind"]>(kind: Kind) => ({ kind, pass, layer, chunk })
      const [sent, arriving, whole] = [all.sent[chunk]!, all.arriving[chunk]!, all.whole[chunk]!]
      const alone = groups.perNode === 1
      const leaving = alone ? results : all.leaving[chunk]!
      return {
        dispatch: acrossNodes(exchange, label("dispatch"), role("dispatch"), sent, arriving),
        gather: insideNode(exchange, label("ESP gather"), role("gather"), arriving, whole),
        expert,
        scatter: insideNode(exchange, label("ESP scatter"), role("scatter"), results, leaving),
        combine: acrossNodes(exchange, label("combine"), role("combine"), leaving, all.returned[chunk]!)
      }
    }

    const there = exchangeOf(degrees.forward)
    const forwardName = `forward layer ${layer}`
    const out = yield* messages(forwardName, there)
    const saved: Array<ReadonlyArray<ExpertSaved>> = []
    const forwardChunks: Array<ChunkOps> = []
    for (let chunk = 0; chunk < there.chunks; chunk++) {
      const runs = yield* Effect.forEach(experts, (weights, j) =>
        expertForward(tensors, weights, { pass: "forward", layer, chunk }, out.whole[chunk]![j]!)
      )
      saved.push(runs.map((run) => run.saved))
      const ops = runs.flatMap((run) => run.ops)
      const results = runs.map((run) => run.output)
      forwardChunks.push(chunkOps("forward", there, out, chunk, ops, results))
    }

    const back = exchangeOf(degrees.backward)
    const backwardName = `backward layer ${layer}`
    const into = yield* messages(backwardName, back)
    // What the forward pass left, in the backward pass's chunks.
    const recut: Array<Op> = []
    let kept: ReadonlyArray<ReadonlyArray<ExpertSaved>> = saved
    if (back.chunks !== there.chunks) {
      const byExpert = yield* Effect.forEach(experts, (weights, j) => {
        const own = saved.map((chunk) => chunk[j]!)
        const attributes = { blocks: gatheredBlocks(there, j).join(), chunks: back.chunks }
        const again = (what: string, parts: ReadonlyArray<Tensor>) =>
          Effect.map(
            tensors.several(
              `backward ${weights.name} ${what}`,
              into.whole.map((chunk) => [chunk[j]!.shape[0]!, parts[0]!.shape[1]!])
            ),
            (cut) => {
              recut.push(
                compute(`backward ${weights.name} rechunk`, kernels.moe_rechunk, parts, cut, attributes)
              )
              return cut
            }
          )
        return Effect.gen(function* () {
          const inputs = yield* again(
            "input",
            own.map((one) => one.input)
          )
          const activated = yield* again(
            "activated",
            own.map((one) => one.activated)
          )
          const projected = yield* Effect.forEach(own[0]!.projected, (_, i) =>
            again(
              `projected ${i}`,
              own.map((one) => one.projected[i]!)
            )
          )
          return into.whole.map((_, chunk): ExpertSaved => ({
            input: inputs[chunk]!,
            activated: activated[chunk]!,
            projected: projected.map((parts) => parts[chunk]!)
          }))
        })
      })
      kept = into.whole.map((_, chunk) => byExpert.map((own) => own[chunk]!))
    }
    const backwardChunks: Array<ChunkOps> = []
    for (let chunk = 0; chunk < back.chunks; chunk++) {
      const runs = yield* Effect.forEach(experts, (weights, j) =>
        expertBackward(
          tensors,
          weights,
          { pass: "backward", layer, chunk },
          kept[chunk]![j]!,
          into.whole[chunk]![j]!
        )
      )
      const ops = runs.flatMap((run) => run.ops)
      const results = runs.map((run) => run.dinput)
      backwardChunks.push(chunkOps("backward", back, into, chunk, ops, results))
    }

    return {
      forward: {
        before: [gate.order(out.sent.flat())],
        chunks: forwardChunks,
        after: [
          gate.inverseOrder(out.returned.flat(), combined),
          compute(`${forwardName} MoE residual`, kernels["residual.forward"], [input, combined], [output])
        ]
      },
      backward: {
        before: [...gate.inverseOrderBackward(doutput, into.sent.flat(), out.returned.flat()), ...recut],
        chunks: backwardChunks,
        after: [...gate.backward(into.returned.flat()), ...backwardEnd]
      }
    }
  })

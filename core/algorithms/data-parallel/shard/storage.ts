// A model in parts: each rank of a division learns its part of every unit, gathers whole parameters when a unit's turn comes, and
// gets its part of the summed gradients back (ZeRO, arXiv:1910.02054; PyTorch FSDP, arXiv:2304.11277, as its second version
// does it). Memory for gathered parameters and whole gradients is used again by one unit after another, and the edges that
// follow from that hold back whoever would run ahead of it. Knows no kernel of any model, and no algorithm.
import * as Effect from "effect/Effect"
import { kernels } from "../../../kernels/catalogue.ts"
import { Lane } from "../../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../../machine/machine.ts"
import { collective, launch, type Op } from "../../../machine/op.ts"
import {
  dtypeBits,
  ownBytes,
  sizeBytesOf,
  type Dtype,
  type Initial,
  type Tensor,
  type TensorSpec
} from "../../../machine/tensor.ts"
import {
  wholeStorage,
  type LayerOps,
  type LayerSpec,
  type Learnt,
  type ParameterSpec,
  type Storage,
  type StorageBytes,
  type StorageOptions,
  type StoredLayer,
  type WholeTensors
} from "../storage.ts"
import type { TrainingLayer } from "../training-model.ts"
import { runningMean, type EarlierSubmissions } from "../accumulation.ts"
import { gatherOrder } from "./gather-order.ts"
import { flatInitial } from "./initial.ts"
import { layOut, type Flat } from "./layout.ts"
import type { ShardPlan } from "./plan.ts"
import { Pool } from "./pool.ts"
import { placesIn, requireOwn } from "./places.ts"
import { cast, castToSum, wireFor } from "./travel.ts"
import type { Run, Unit } from "./units.ts"

const backwardOf = ({ layers }: Run, ops: ReadonlyArray<LayerOps>): ReadonlyArray<Op> =>
  layers.toReversed().flatMap((layer) => ops[layer]!.backward)

/** What becomes of a unit's gradients when its backward pass ends. */
interface Reduction {
  /** Sums them over the division; of a step's last micro-batch. */
  readonly reduce: ReadonlyArray<Op>
  /** Of an earlier one. */
  readonly earlier: EarlierSubmissions | undefined
}

/** One unit on one rank. */
interface StoredUnit extends Reduction {
  readonly learnt: ReadonlyArray<Learnt>
  /** Brings its whole parameters. */
  readonly gather: ReadonlyArray<Op>
  /** Copies them to where layers read, when their turn comes. */
  readonly unpack: ReadonlyArray<Op>
}

/** Of each flat of a unit. */
interface UnitGradients extends Reduction {
  readonly whole: ReadonlyArray<Tensor>
  /** What the rank learns by. */
  readonly parts: ReadonlyArray<Tensor>
}

/** The model whole on every rank, or divided as `shard` says. */
export const storageOf = (
  specs: ReadonlyArray<LayerSpec>,
  { shard, ...options }: StorageOptions & { readonly shard?: ShardPlan | undefined }
): Effect.Effect<Storage, OutOfMemory, Machine> =>
  shard === undefined ? wholeStorage(specs, options) : shardedStorage(specs, shard, options)

/** The model divided as planned. Throws RangeError for parameters gathered in a wider dtype than layers read. */
const shardedStorage = (
  specs: ReadonlyArray<LayerSpec>,
  plan: ShardPlan,
  { gradientsLast, accumulation }: StorageOptions
): Effect.Effect<Storage, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const { ranks, division, runs, prefetch } = plan
    const copies = plan.copies && plan.parameters
    const { shard, position, peers } = plan.placeOf(machine.rank)
    const pool = new Pool()
    const bytes = { parameters: 0, copies: 0, gradients: 0 }
    const alloc = (kind: keyof StorageBytes, spec: TensorSpec) =>
      Effect.map(machine.alloc(spec), (tensor) => {
        bytes[kind] += ownBytes(tensor)
        return tensor
      })
    const lasting = gradientsLast === true || undefined
    const whole: Array<WholeTensors> = []

    /** Tensors of one kind for all flats of a unit: its own, or those of the pool's turn. */
    const tensorsOf = (
      kind: keyof StorageBytes,
      what: string,
      unit: Unit,
      flats: ReadonlyArray<Flat>,
      slots: number | undefined,
      spec: (flat: Flat) => {
        readonly shape: ReadonlyArray<number>
        readonly dtype: Dtype
        readonly initial?: Initial
        readonly persistent?: true | undefined
      }
    ): Effect.Effect<ReadonlyArray<Tensor>, OutOfMemory> => {
      const make = (owner: string) =>
        Effect.forEach(flats, (flat, i) => alloc(kind, { name: `${owner} ${what} ${i}`, ...spec(flat) }))
      if (slots === undefined) return make(unit.name)
      // Of members' sizes too: what is zeros behind one's must not be another's numbers.
      const key = JSON.stringify([what, flats.map((flat) => [spec(flat).dtype, flat.members, flat.shape])])
      return pool.take(key, slots, (slot) => make(`slot ${slot}`))
    }

    const partOf = (name: string, flat: Flat, tensor: Tensor): Effect.Effect<Tensor, OutOfMemory> => {
      const { dtype } = tensor
      const offsetBytes = sizeBytesOf(position * flat.partElements, dtype)
      return machine.alloc({ name, shape: flat.partShape, dtype, within: { arena: tensor, offsetBytes } })
    }

    const runsOfUnit = Map.groupBy(runs.keys(), (index) => division[runs[index]!.unit]!)
    /** No other passes through the memory of its kind before this one is done with it. */
    const inTurn = (unit: Unit): boolean => {
      const own = runsOfUnit.get(unit)!
      const others = runs.slice(own[0], own.at(-1)! + 1).map((run) => division[run.unit]!)
      return !unit.root && others.every((one) => one === unit || one.root)
    }

    const parametersOf = (unit: Unit) => unit.layers.flatMap((layer) => specs[layer]!.parameters)

    /** A unit's whole gradients, what of them is summed, and the rank's part of the sum. */
    const storeGradients = (
      unit: Unit,
      flats: ReadonlyArray<Flat>
    ): Effect.Effect<UnitGradients, OutOfMemory> =>
      Effect.gen(function* () {
        const { synchronize } = accumulation ?? {}
        const recast = flats.some(({ dtype }) => castToSum(dtype, plan.reduceDtype))
        const copied = recast || copies
        // What is summed lies apart from what a backward pass writes.
        const apart = copied || synchronize === "last"
        const gradients = yield* tensorsOf(
          "gradients",
          "gradients",
          unit,
          flats,
          plan.gradients && inTurn(unit) ? (apart ? 1 : 2) : undefined,
          (flat) => ({
            shape: flat.shape,
            dtype: flat.dtype,
            persistent: plan.gradients || apart || synchronize === "each" ? undefined : lasting
          })
        )
        const summed = apart
          ? yield* tensorsOf(
              "gradients",
              "summed gradients",
              unit,
              flats,
              plan.gradients && synchronize !== "last" ? 1 : undefined,
              (flat) => ({
                shape: flat.shape,
                dtype: synchronize === "last" ? "float32" : recast ? plan.reduceDtype : flat.dtype,
                persistent: plan.gradients || synchronize === "each" ? undefined : lasting
              })
            )
          : gradients
        const wholes =
          accumulation &&
          synchronize === "last" &&
          runningMean(
            `accumulate ${unit.name}`,
            Lane.compute,
            accumulation,
            flats.map((_, i) => [gradients[i]!, summed[i]!])
          )
        const reduce: Array<Op> = wholes
          ? [...wholes.last]
          : copied
            ? flats.map((_, i) =>
                cast(
                  `${recast ? "cast" : "copy"} gradients ${unit.name}`,
                  Lane.compute,
                  gradients[i]!,
                  summed[i]!
                )
              )
            : []
        // With each micro-batch: its part of the sum, used again by other units, beside the mean that is learnt by.
        const passed =
          plan.gradients && synchronize === "each"
            ? yield* tensorsOf("gradients", "part of a micro-batch", unit, flats, 1, (flat) => ({
                shape: flat.partShape,
                dtype: summed[0]!.dtype
              }))
            : undefined
        const parts: Array<Tensor> = []
        for (const [i, flat] of flats.entries()) {
          const name = `${unit.name} part ${i} gradient`
          parts.push(
            passed?.[i] ??
              (plan.gradients
                ? yield* alloc("gradients", {
                    name,
                    shape: flat.partShape,
                    dtype: summed[i]!.dtype,
                    persistent: lasting
                  })
                : yield* partOf(name, flat, summed[i]!))
          )
        }
        if (flats.length > 0) {
          const wire = wireFor(plan.reduceDtype, summed[0]!.dtype)
          const attributes = { reduce: "avg" }
          const carries = parametersOf(unit).length
          reduce.push(
            plan.gradients
              ? collective(
                  `reduce-scatter ${unit.name}`,
                  kernels.reduce_scatter,
                  Lane.intra,
                  shard,
                  summed,
                  parts,
                  {
                    ...wire,
                    carries,
                    attributes: { ...attributes, ranks }
                  }
                )
              : collective(`all-reduce ${unit.name}`, kernels.all_reduce, Lane.intra, shard, summed, summed, {
                  ...wire,
                  carries,
                  attributes
                })
          )
        }
        const means: Array<Tensor> = []
        if (synchronize === "each")
          for (const [i, { partShape: shape }] of flats.entries()) {
            const name = `${unit.name} part ${i} mean gradient`
            means.push(yield* alloc("gradients", { name, shape, dtype: "float32", persistent: lasting }))
          }
        const mean =
          accumulation &&
          synchronize === "each" &&
          runningMean(
            `accumulate ${unit.name}`,
            Lane.intra,
            accumulation,
            means.map((one, i) => [parts[i]!, one])
          )
        return {
          whole: gradients,
          parts: synchronize === "each" ? means : parts,
          reduce: mean ? [...reduce, ...mean.last] : reduce,
          earlier: mean
            ? (index) => [...reduce.map((op) => ({ op })), ...mean.earlier(index)]
            : wholes
              ? wholes.earlier
              : undefined
        }
      })

    const storeUnit = (unit: Unit): Effect.Effect<StoredUnit, OutOfMemory> =>
      Effect.gen(function* () {
        const parameters = parametersOf(unit)
        const flats = layOut(parameters, ranks)
        const gathered = plan.parameterDtype
        if (gathered !== undefined && flats.some(({ dtype }) => dtypeBits[dtype] < dtypeBits[gathered]))
          throw new RangeError(
            `${unit.name}: parameters that layers read as ${flats[0]!.dtype} are not gathered as ${gathered}`
          )

        // Whole parameters, and the rank's part of them as it is sent.
        const passing = plan.parameters && plan.reshardAfterForward && !unit.root
        const slots = passing && inTurn(unit) ? prefetch + 1 : undefined
        const own = !plan.parameters
        // Learnt where layers read it; not where gathers round all that they bring, the rank's own part too.
        const learntInPlace = ({ dtype }: Flat): boolean =>
          own &&
          dtype === "float32" &&
          (gathered === undefined || wireFor(gathered, dtype).wire === undefined)
        const full = yield* tensorsOf(
          flats.every(learntInPlace) ? "parameters" : "copies",
          "parameters",
          unit,
          flats,
          // Where it arrives elsewhere, nothing is laid out before its turn.
          slots === undefined || !copies ? slots : 1,
          (flat) => ({
            shape: flat.shape,
            dtype: flat.dtype,
            // Where the rank's part lies in it, it is what must be found again.
            persistent: learntInPlace(flat) || undefined,
            ...(own ? { initial: flatInitial(flat, parameters, 0, ranks * flat.partElements) } : {})
          })
        )
        const sent: Array<Tensor> = []
        const masters: Array<Tensor> = []
        const casts: Array<Op> = []
        const narrow = yield* tensorsOf(
          "copies",
          "sent part",
          unit,
          own ? [] : flats.filter(({ dtype }) => dtype !== "float32"),
          slots,
          (flat) => ({
            shape: flat.partShape,
            dtype: flat.dtype
          })
        )
        let narrowed = 0
        for (const [i, flat] of flats.entries()) {
          const name = `${unit.name} part ${i}`
          const inPlace = own ? yield* partOf(`${name} in place`, flat, full[i]!) : undefined
          if (inPlace !== undefined && learntInPlace(flat)) {
            masters.push(inPlace)
            sent.push(inPlace)
            continue
          }
          const master = yield* alloc("parameters", {
            name,
            shape: flat.partShape,
            dtype: "float32",
            persistent: true,
            initial: flatInitial(flat, parameters, position * flat.partElements, flat.partElements)
          })
          masters.push(master)
          if (flat.dtype === "float32") {
            sent.push(master)
            continue
          }
          const part = inPlace ?? narrow[narrowed++]!
          sent.push(part)
          casts.push(cast(`cast ${unit.name}`, Lane.intra, master, part))
        }

        const { whole: gradients, parts, reduce, earlier } = yield* storeGradients(unit, flats)
        // What stays gathered is gathered before the backward pass writes gradients of as many numbers: it arrives in their place.
        const arrived = !copies
          ? full
          : passing
            ? yield* tensorsOf(
                "copies",
                "gathered",
                unit,
                flats,
                Math.max(1, prefetch),
                ({ shape, dtype }) => ({ shape, dtype })
              )
            : gradients
        const gather =
          flats.length === 0
            ? []
            : [
                ...casts,
                collective(`all-gather ${unit.name}`, kernels.all_gather, Lane.intra, shard, sent, arrived, {
                  carries: parameters.length,
                  ...(gathered === undefined ? {} : wireFor(gathered, full[0]!.dtype)),
                  attributes: { ranks }
                })
              ]
        const unpack = copies
          ? flats.map((_, i) => cast(`lay out ${unit.name}`, Lane.compute, arrived[i]!, full[i]!))
          : []

        // The places of single parameters in them.
        const views = (tensors: ReadonlyArray<Tensor>, nameOf: (parameter: ParameterSpec) => string) =>
          Effect.gen(function* () {
            const placed: Array<Tensor> = []
            for (const [i, flat] of flats.entries()) {
              for (const { parameter, offset } of flat.members) {
                const spec = parameters[parameter]!
                const within = { arena: tensors[i]!, offsetBytes: sizeBytesOf(offset, flat.dtype) }
                placed[parameter] = yield* machine.alloc({
                  name: nameOf(spec),
                  shape: spec.shape,
                  dtype: spec.dtype,
                  within
                })
              }
            }
            return placed
          })
        const placed = yield* views(full, ({ name }) => name)
        const placedGradients = yield* views(gradients, ({ gradientName }) => gradientName)
        let next = 0
        for (const layer of unit.layers) {
          const count = specs[layer]!.parameters.length
          whole[layer] = {
            parameters: placed.slice(next, next + count),
            gradients: placedGradients.slice(next, next + count)
          }
          next += count
        }
        return {
          learnt: masters.map((parameter, i): Learnt => ({
            parameter,
            gradient: parts[i]!,
            shadow: undefined
          })),
          gather,
          unpack,
          reduce,
          earlier
        }
      })

    const units = yield* Effect.forEach(division, storeUnit)
    const stored = runs.map(({ unit, first }): StoredLayer =>
      first ? { learnt: units[unit]!.learnt, learns: division[unit]!.layers } : { learnt: [], learns: [] }
    )
    const gathers = gatherOrder(plan)
    const again = new Set(gathers.backward.flat())
    /**
     * What is gathered ahead in the backward pass waits until a unit's turn has come, and its parameters could be laid out: for the last
     * gradient before it, which nothing overwrites soon.
     */
    const reached = (index: number, ops: ReadonlyArray<LayerOps>): ReadonlyArray<Op> => {
      const earlier = runs.slice(index + 1)
      const made = new Set(
        earlier.flatMap(({ layers }) => layers.flatMap((layer) => whole[layer]!.gradients))
      )
      const written = earlier
        .flatMap((run) => backwardOf(run, ops).toReversed())
        .map(({ writes }) => writes.filter((tensor) => made.has(tensor)))
      const last = written.find((tensors) => tensors.length > 0)
      const { name } = division[runs[index]!.unit]!
      return last === undefined ? [] : [launch(`reach ${name}`, kernels.barrier, Lane.intra, last, [])]
    }
    return {
      bytes,
      whole,
      stored,
      peers,
      holders: shard,
      reduceDtype: plan.reduceDtype,
      places: placesIn(specs, plan),
      layers: (ops) => {
        requireOwn(plan, whole, ops)
        return runs.map((run, index): TrainingLayer => {
          const { learnt } = stored[index]!
          const gathered = gathers.forward[index]!.flatMap((unit) => [
            ...units[unit]!.gather,
            ...units[unit]!.unpack
          ])
          const { name } = division[run.unit]!
          const forward = run.layers.flatMap((layer) => ops[layer]!.forward)
          const own = gathers.backward[index]!.filter((unit) => unit === run.unit)
          const ahead = gathers.backward[index]!.filter((unit) => unit !== run.unit)
          // Given back when its forward pass has ended; where it arrives in a buffer, nothing else would keep its gather until then.
          const computed = copies && own.length > 0 ? (forward.at(-1)?.writes ?? []) : []
          const backward = [
            ...(computed.length === 0
              ? []
              : [launch(`give back ${name}`, kernels.barrier, Lane.intra, computed, [])]),
            ...own.flatMap((unit) => units[unit]!.gather),
            // The next gather arrives where this unit's has.
            ...(again.has(run.unit) && runsOfUnit.get(division[run.unit]!)!.at(-1) === index
              ? units[run.unit]!.unpack
              : []),
            ...(division[run.unit]!.root || ahead.length === 0 ? [] : reached(index, ops)),
            ...ahead.flatMap((unit) => units[unit]!.gather),
            ...backwardOf(runs[index]!, ops)
          ]
          const { reduce, earlier } = units[run.unit]!
          return {
            name: run.first ? name : `${name}, ${specs[run.layers[0]!]!.name}`,
            parameters: learnt.map(({ parameter }) => parameter),
            gradients: learnt.map(({ gradient }) => gradient),
            forward: [...gathered, ...forward],
            backward: [...backward, ...(run.first ? reduce : [])],
            refresh: [],
            // Every backward pass gives back what it gathered; whole parameters need gathering once they have changed.
            ...(earlier === undefined
              ? {}
              : {
                  earlier: {
                    forward: plan.parameters ? [...gathered, ...forward] : forward,
                    backward: (index) => [
                      ...backward.map((op) => ({ op })),
                      ...(run.first ? earlier(index) : [])
                    ]
                  }
                })
          }
        })
      }
    }
  })

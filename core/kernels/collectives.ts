// Collectives: what every member ends up with, as a function of what all members put in. Members stand in group order, and
// reductions add in that order in float64, so values do not depend on how bytes travel. How long it takes and which links
// carry what is the simulator's network model; this file knows neither.
import type { Dtype, TensorData } from "../machine/tensor.ts"
import {
  attributeResolver,
  flag,
  number,
  text,
  totalBytes,
  type Attribute,
  type Attributes,
  type Kernel,
  type Shape,
  type Values
} from "./kernel.ts"
import { packBlocks, unpackBlocks } from "./packing.ts"
import { round } from "./rounding.ts"
import { printShape } from "./signature.ts"

type PerRank<T> = ReadonlyArray<ReadonlyArray<T>>

/**
 * A kernel that ranks run together. Any number of tensors travel as one message (a DDP bucket): input i of every member
 * belongs to output i of every member.
 */
export interface Collective<Name extends string = string> extends Kernel<Name> {
  readonly kind: "collective"
  /** Attributes that all members must give alike; the others are each member's own. */
  readonly shared: ReadonlyArray<string>
  /**
   * Values: overwrites `outputsPerRank[rank][i]` from all members' inputs. In place is allowed. Results are not yet rounded
   * to their dtype; that is `evaluateCollective`. Throws RangeError when members' calls contradict each other.
   *
   * With the attribute `wire`, every value is rounded to that dtype before it leaves its rank (float8, float4 and int8 with
   * one scale per tensor, as pack.* with block 0), and what arrives is added in float64; the result is not rounded to it.
   */
  combine(
    inputsPerRank: PerRank<TensorData>,
    outputsPerRank: PerRank<TensorData>,
    attributesPerRank: ReadonlyArray<Attributes>
  ): void
}

export const isCollective = (kernel: Kernel): kernel is Collective => kernel.kind === "collective"

const wireDtypes: ReadonlyArray<string> = [
  "",
  "float32",
  "bfloat16",
  "float16",
  "float8",
  "float4",
  "int8"
] satisfies ReadonlyArray<Dtype | "">

/** The values as they look after the journey; the array itself when nothing changes them. */
export const throughWire = (data: TensorData, wire: string): TensorData => {
  if (!wireDtypes.includes(wire)) {
    throw new RangeError(`wire is "${wire}"; expected one of ${wireDtypes.slice(1).join(", ")}`)
  }
  if (wire === "" || wire === "float32" || data instanceof Int32Array) return data
  const received = data.slice()
  if (wire === "bfloat16" || wire === "float16") {
    const toGrid = round(wire)
    for (let i = 0; i < received.length; i++) received[i] = toGrid(received[i]!)
  } else {
    const scales = new Float32Array(1)
    packBlocks(data, received, scales, wire as "float8" | "float4" | "int8", 0)
    unpackBlocks(received, scales, received, 0)
  }
  return received
}

interface CollectiveDeclaration<Name extends string, S extends Readonly<Record<string, Attribute>>> {
  readonly name: Name
  readonly signature: string
  readonly attributes: S
  /** Attributes that say something of one member alone; members must share the others. */
  readonly own?: ReadonlyArray<keyof S & string>
  readonly shapes: (inputs: ReadonlyArray<Shape>, a: Values<S>) => ReadonlyArray<Shape> | undefined
  /** `sent[rank][i]`: values as others receive them, safe to read while outputs are written. */
  readonly combine: (
    sent: PerRank<TensorData>,
    outputs: PerRank<TensorData>,
    perRank: ReadonlyArray<Values<S>>
  ) => void
}

const wire = { wire: text("") }

const defineCollective = <
  const Name extends string,
  S extends Readonly<Record<string, Attribute>> & typeof wire
>(
  declaration: CollectiveDeclaration<Name, S>
): Collective<Name> => {
  const { name, combine, attributes: schema, own = [] } = declaration
  const resolve = attributeResolver(name, schema)
  return {
    name,
    kind: "collective",
    shared: Object.keys(schema).filter((attribute) => !own.includes(attribute)),
    signature: declaration.signature,
    attributes: schema,
    scalars: [],
    costFollowsScalars: false,
    inputDtypes: [],
    outputDtypes: [],
    shapes: (inputs, attributes) =>
      declaration.shapes(
        inputs.map(({ shape }) => shape),
        resolve(attributes)
      ),
    // the arithmetic of a reduction is part of the transport
    work: (inputs, outputs) => ({
      flops: 0,
      readBytes: totalBytes(inputs),
      writtenBytes: totalBytes(outputs)
    }),
    measure: "traffic",
    sizes: (inputs) => ({ bytes: totalBytes(inputs) }),
    combine(inputsPerRank, outputsPerRank, attributesPerRank) {
      const perRank = attributesPerRank.map((attributes) => resolve(attributes))
      const written = new Set(outputsPerRank.flat())
      const sent = inputsPerRank.map((inputs, rank) => {
        const wire = String(attributesPerRank[rank]!["wire"] ?? "")
        return inputs.map((data) => {
          const received = throughWire(data, wire)
          return received === data && written.has(data) ? data.slice() : received
        })
      })
      combine(sent, outputsPerRank, perRank)
    }
  }
}

/** Throws unless every member has the same attributes (those that all members must agree on). */
const agreed = <T>(name: string, values: ReadonlyArray<T>): T => {
  const first = values[0]
  if (first === undefined) throw new RangeError(`${name}: no members`)
  for (const [rank, value] of values.entries()) {
    if (value !== first) {
      throw new RangeError(`${name}: rank ${rank} says ${String(value)}, rank 0 says ${String(first)}`)
    }
  }
  return first
}

const checkRanks = (name: string, ranks: number, members: number): void => {
  if (ranks !== members)
    throw new RangeError(`${name}: attribute "ranks" is ${ranks} in a group of ${members}`)
}

/** First extent times `by`, or divided by it. */
const resizeFirst = (name: string, shape: Shape, by: number, how: "times" | "by"): Shape => {
  const [first, ...rest] = shape
  if (!Number.isInteger(by) || by < 1) throw new RangeError(`${name}: attribute "ranks" is ${by}`)
  if (first === undefined || (how === "by" && first % by !== 0)) {
    throw new RangeError(
      `${name}: shape ${printShape(shape)} does not divide over ${by} ranks by its first extent`
    )
  }
  return [how === "times" ? first * by : first / by, ...rest]
}

/** The message at `index` of every member; throws unless all have the same length. */
const messages = (name: string, sent: PerRank<TensorData>, index: number): ReadonlyArray<TensorData> => {
  const all = sent.map((inputs) => inputs[index])
  const length = all[0]?.length
  return all.map((data, rank) => {
    if (data === undefined || data.length !== length) {
      throw new RangeError(
        `${name}: rank ${rank} has ${String(data?.length)} values at operand ${index}, rank 0 has ${String(length)}`
      )
    }
    return data
  })
}

const reduction = {
  ...wire,
  /** "sum" or "avg" over the members. */
  reduce: text("sum")
}

/** What the sum over members is divided by. */
const divisor = (name: string, reduce: string, members: number): number => {
  if (reduce === "sum") return 1
  if (reduce === "avg") return members
  throw new RangeError(`${name}: attribute "reduce" is "${reduce}"; expected "sum" or "avg"`)
}

const reduceAt = (all: ReadonlyArray<TensorData>, i: number, over: number): number => {
  let sum = 0
  for (const data of all) sum += data[i]!
  return sum / over
}

/** Every member gets the sum (or mean) of all members' tensors. */
export const allReduce = defineCollective({
  name: "all_reduce",
  signature: "inp[...] (one or more) -> out[...] (as many)",
  attributes: reduction,
  shapes: (inputs) => inputs,
  combine: (sent, outputs, perRank) => {
    const over = divisor(
      "all_reduce",
      agreed(
        "all_reduce",
        perRank.map(({ reduce }) => reduce)
      ),
      sent.length
    )
    for (let index = 0; index < sent[0]!.length; index++) {
      const all = messages("all_reduce", sent, index)
      for (let i = 0; i < all[0]!.length; i++) {
        const value = reduceAt(all, i, over)
        for (const out of outputs) out[index]![i] = value
      }
    }
  }
})

/** Counts as an attribute holds them: "3,0,5" is 3 rows for rank 0, none for rank 1, 5 for rank 2. */
export const printCounts = (counts: ReadonlyArray<number>): string => counts.join(",")

const parseCounts = (name: string, counts: string): ReadonlyArray<number> =>
  counts.split(",").map((part) => {
    if (!/^\d+$/.test(part))
      throw new RangeError(`${name}: counts "${counts}"; expected whole numbers like "3,0,5"`)
    return Number(part)
  })

const total = (counts: ReadonlyArray<number>): number => counts.reduce((sum, count) => sum + count, 0)

/** Where each member's rows begin, given how many each has. */
const offsets = (counts: ReadonlyArray<number>): ReadonlyArray<number> => {
  let at = 0
  return counts.map((count) => {
    const start = at
    at += count
    return start
  })
}

/** Rows of each member of an uneven collective; checks that there are as many counts as ranks and `member` is one. */
const countsOf = (name: string, counts: string, ranks: number, member: number): ReadonlyArray<number> => {
  const parsed = parseCounts(name, counts)
  if (parsed.length !== ranks) throw new RangeError(`${name}: ${parsed.length} counts for ${ranks} ranks`)
  if (!(member >= 0 && member < ranks)) throw new RangeError(`${name}: member ${member} of ${ranks}`)
  return parsed
}

const unevenAttributes = {
  /** Rows of each member, the same text on all: "3,0,5". Even, as the shapes say, where it is empty. */
  counts: text(""),
  /** Which of the members this is; for uneven ones only. */
  member: number(0)
}

/**
 * Every member gets all members' tensors, in rank order along the first axis. Members may have different numbers of rows,
 * which `counts` then says.
 */
export const allGather = defineCollective({
  name: "all_gather",
  signature: "inp[rows, ...] (one or more) -> out[ranks*rows, ...] (as many)",
  attributes: { ...wire, ranks: number(), ...unevenAttributes },
  own: ["member"],
  shapes: (inputs, { ranks, counts, member }) => {
    if (counts === "") return inputs.map((shape) => resizeFirst("all_gather", shape, ranks, "times"))
    const rows = countsOf("all_gather", counts, ranks, member)
    return inputs.map(([first, ...rest]) => {
      if (first !== rows[member]) {
        throw new RangeError(`all_gather: ${String(first)} rows of member ${member}; counts "${counts}"`)
      }
      return [total(rows), ...rest]
    })
  },
  combine: (sent, outputs, perRank) => {
    for (const { ranks } of perRank) checkRanks("all_gather", ranks, sent.length)
    const counts = agreed(
      "all_gather: counts",
      perRank.map((values) => values.counts)
    )
    for (let index = 0; index < sent[0]!.length; index++) {
      if (counts !== "") {
        for (const out of outputs) {
          let at = 0
          for (const inputs of sent) {
            out[index]!.set(inputs[index]!, at)
            at += inputs[index]!.length
          }
        }
        continue
      }
      const all = messages("all_gather", sent, index)
      for (const out of outputs)
        for (const [rank, data] of all.entries()) out[index]!.set(data, rank * data.length)
    }
  }
})

/**
 * Member r gets part r (along the first axis) of the sum or mean of all members' tensors. Parts may have different numbers
 * of rows, which `counts` then says.
 */
export const reduceScatter = defineCollective({
  name: "reduce_scatter",
  signature: "inp[ranks*rows, ...] (one or more) -> out[rows, ...] (as many)",
  attributes: { ...reduction, ranks: number(), ...unevenAttributes },
  own: ["member"],
  shapes: (inputs, { ranks, counts, member }) => {
    if (counts === "") return inputs.map((shape) => resizeFirst("reduce_scatter", shape, ranks, "by"))
    const rows = countsOf("reduce_scatter", counts, ranks, member)
    return inputs.map(([first, ...rest]) => {
      if (first !== total(rows)) {
        throw new RangeError(`reduce_scatter: ${String(first)} rows to scatter; counts "${counts}"`)
      }
      return [rows[member]!, ...rest]
    })
  },
  combine: (sent, outputs, perRank) => {
    for (const { ranks } of perRank) checkRanks("reduce_scatter", ranks, sent.length)
    const over = divisor(
      "reduce_scatter",
      agreed(
        "reduce_scatter",
        perRank.map(({ reduce }) => reduce)
      ),
      sent.length
    )
    agreed(
      "reduce_scatter: counts",
      perRank.map(({ counts }) => counts)
    )
    for (let index = 0; index < sent[0]!.length; index++) {
      const all = messages("reduce_scatter", sent, index)
      let at = 0
      for (const out of outputs) {
        const part = out[index]!
        for (let i = 0; i < part.length; i++) part[i] = reduceAt(all, at + i, over)
        at += part.length
      }
    }
  }
})

/**
 * Member r sends part p of its tensor (along the first axis) to member p, and gets the parts meant for it in rank order.
 * Even by default. Uneven with `sendCounts` and `receiveCounts`, each member's own: rows for each peer ("3,0,5"); what r
 * sends to p must be what p receives from r.
 */
export const allToAll = defineCollective({
  name: "all_to_all",
  signature: "inp[sent, ...] (one or more) -> out[received, ...] (as many)",
  attributes: {
    ...wire,
    ranks: number(),
    sendCounts: text(""),
    receiveCounts: text(""),
    /** With counts: what every member sends to every other, the same text on all ("3,0;1,2"), for whoever models the wire. */
    matrix: text("")
  },
  own: ["sendCounts", "receiveCounts"],
  shapes: (inputs, { ranks, sendCounts, receiveCounts }) => {
    if (sendCounts === "" && receiveCounts === "") {
      for (const shape of inputs) resizeFirst("all_to_all", shape, ranks, "by")
      return inputs
    }
    const [sends, receives] = [
      parseCounts("all_to_all", sendCounts),
      parseCounts("all_to_all", receiveCounts)
    ]
    if (sends.length !== ranks || receives.length !== ranks) {
      throw new RangeError(`all_to_all: ${sends.length} and ${receives.length} counts for ${ranks} ranks`)
    }
    return inputs.map(([first, ...rest]) => {
      if (first !== total(sends)) {
        throw new RangeError(`all_to_all: ${String(first)} rows to send; counts "${sendCounts}"`)
      }
      return [total(receives), ...rest]
    })
  },
  combine: (sent, outputs, perRank) => {
    for (const { ranks } of perRank) checkRanks("all_to_all", ranks, sent.length)
    const uneven = agreed(
      "all_to_all: uneven",
      perRank.map(({ sendCounts, receiveCounts }) => sendCounts !== "" || receiveCounts !== "")
    )
    const even = sent.map(() => 1)
    const sends = perRank.map(({ sendCounts }) => (uneven ? parseCounts("all_to_all", sendCounts) : even))
    const receives = perRank.map(({ receiveCounts }) =>
      uneven ? parseCounts("all_to_all", receiveCounts) : even
    )
    const starts = sends.map(offsets)
    for (let from = 0; from < sent.length; from++) {
      for (let to = 0; to < sent.length; to++) {
        if (sends[from]![to] !== receives[to]![from]) {
          throw new RangeError(
            `all_to_all: rank ${from} sends ${String(sends[from]![to])} rows to rank ${to}, which expects ${String(receives[to]![from])}`
          )
        }
      }
    }
    for (let index = 0; index < sent[0]!.length; index++) {
      for (const [to, out] of outputs.entries()) {
        let at = 0
        for (const [from, inputs] of sent.entries()) {
          const data = inputs[index]!
          const unit = total(sends[from]!) === 0 ? 0 : data.length / total(sends[from]!)
          const start = starts[from]![to]! * unit
          const end = start + sends[from]![to]! * unit
          out[index]!.set(data.subarray(start, end), at)
          at += end - start
        }
        if (at !== out[index]!.length) {
          throw new RangeError(`all_to_all: rank ${to} gets ${at} values into ${out[index]!.length}`)
        }
      }
    }
  }
})

/**
 * Rows that each member of a collective puts in, or sends to each other, as its attributes say: the same text on all
 * members. Empty where all put in as much.
 */
export const memberRows = (attributes: Attributes): string =>
  String(attributes["matrix"] ?? attributes["counts"] ?? "")

/** Every member gets the root's tensors; `root` counts in the group. Other members' inputs only give the shape. */
export const broadcast = defineCollective({
  name: "broadcast",
  signature: "inp[...] (one or more) -> out[...] (as many)",
  attributes: { ...wire, root: number(0) },
  shapes: (inputs) => inputs,
  combine: (sent, outputs, perRank) => {
    const root = agreed(
      "broadcast",
      perRank.map((values) => values.root)
    )
    if (sent[root] === undefined) throw new RangeError(`broadcast: root ${root} in a group of ${sent.length}`)
    for (let index = 0; index < sent[0]!.length; index++) {
      const value = messages("broadcast", sent, index)[root]!
      for (const out of outputs) out[index]!.set(value)
    }
  }
})

/**
 * Point to point in a group of two: the member whose attribute `source` is true has inputs and no outputs, the other has
 * outputs (of whatever shape it expects, of the same size) and no inputs.
 */
export const sendRecv = defineCollective({
  name: "send_recv",
  signature: "inp[...] (at the source) -> out[...] (at the destination)",
  attributes: { ...wire, source: flag() },
  own: ["source"],
  shapes: (inputs, { source }) => {
    if (source) return []
    if (inputs.length > 0) throw new RangeError(`send_recv: the destination has ${inputs.length} inputs`)
    return undefined
  },
  combine: (sent, outputs, perRank) => {
    const source = perRank.findIndex((values) => values.source)
    const destination = perRank.findIndex((values) => !values.source)
    if (sent.length !== 2 || source < 0 || destination < 0) {
      throw new RangeError("send_recv: expected a group of one source and one destination")
    }
    const [from, to] = [sent[source]!, outputs[destination]!]
    if (from.length !== to.length || from.some((data, index) => data.length !== to[index]!.length)) {
      throw new RangeError("send_recv: the destination's tensors do not have the sizes of the source's")
    }
    for (const [index, data] of from.entries()) to[index]!.set(data)
  }
})

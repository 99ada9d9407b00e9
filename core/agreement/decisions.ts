// Did two runs of a program take the same decisions? Their op logs are compared entry by entry, and their journals call by
// call: which op on which tensors with which attributes, what was allocated, freed and read. Knows nothing of time or values.
import type { Journal, JournalEntry } from "../laws/journal.ts"
import { laneNames } from "../machine/lane.ts"
import type { Scalars } from "../kernels/scalars.ts"
import { launchedWith, type Op } from "../machine/op.ts"
import type { Tensor } from "../machine/tensor.ts"
import type { OpLog, OpLogEntry } from "../machine/timeline.ts"
import type { Disagreement } from "./disagreement.ts"

const describeEntry = (entry: OpLogEntry | undefined): string => {
  if (entry === undefined) return "nothing"
  const { kernel, label, lane, step, group, sizeBytes, scalars = [], after } = entry
  const given = scalars.length === 0 ? "" : ` with ${scalars.join(", ")}`
  const where = group === undefined ? "" : ` in group "${group}"`
  return `${kernel} "${label}" of ${sizeBytes} B${given} on the ${laneNames[lane]} lane${where}, step ${step}, after [${after.join(", ")}]`
}

const sameNumbers = (one: ReadonlyArray<number>, other: ReadonlyArray<number>): boolean =>
  one.length === other.length && one.every((value, i) => value === other[i])

const sameEntry = (one: OpLogEntry | undefined, other: OpLogEntry | undefined): boolean =>
  one !== undefined &&
  other !== undefined &&
  one.op === other.op &&
  one.label === other.label &&
  one.kernel === other.kernel &&
  one.lane === other.lane &&
  one.step === other.step &&
  one.group === other.group &&
  one.sizeBytes === other.sizeBytes &&
  one.rows === other.rows &&
  sameNumbers(one.scalars ?? [], other.scalars ?? []) &&
  sameNumbers(one.after, other.after)

const byRank = <T extends { readonly rank: number }>(all: ReadonlyArray<T>): ReadonlyMap<number, T> =>
  new Map(all.map((one) => [one.rank, one]))

const ranksOf = (
  one: ReadonlyMap<number, unknown>,
  other: ReadonlyMap<number, unknown>
): ReadonlyArray<number> => [...new Set([...one.keys(), ...other.keys()])].toSorted((a, b) => a - b)

/** Every rank submitted the same ops in the same order, with the same edges. */
export const compareOpLogs = (
  expected: ReadonlyArray<OpLog>,
  actual: ReadonlyArray<OpLog>
): Disagreement | undefined => {
  const [ours, theirs] = [byRank(expected), byRank(actual)]
  for (const rank of ranksOf(ours, theirs)) {
    const [one, other] = [ours.get(rank)?.entries ?? [], theirs.get(rank)?.entries ?? []]
    for (let op = 0; op < Math.max(one.length, other.length); op++) {
      if (sameEntry(one[op], other[op])) continue
      return {
        kind: "decisions",
        rank,
        op,
        message: `rank ${rank}, op ${op}: simulated ${describeEntry(one[op])}; executed ${describeEntry(other[op])}`
      }
    }
  }
  return undefined
}

const describeTensor = ({ id, name, dtype, shape, place }: Tensor): string =>
  `tensor ${id} "${name}" (${dtype} [${shape.join(", ")}] in ${place} memory)`

const describeOp = (op: Op, scalars: Scalars | undefined): string => {
  const { kernel, label, attributes, reads, writes } = launchedWith(op, scalars)
  const names = (tensors: ReadonlyArray<Tensor>) =>
    tensors.map(({ id, name }) => `${id} "${name}"`).join(", ")
  return `${kernel.name} "${label}" ${JSON.stringify(attributes)} of [${names(reads)}] into [${names(writes)}]`
}

const describeCall = (entry: JournalEntry | undefined): string => {
  if (entry === undefined) return "nothing"
  switch (entry.kind) {
    case "op":
      return describeOp(entry.op, entry.scalars)
    case "alloc":
    case "free":
    case "read":
      return `${entry.kind} of ${describeTensor(entry.tensor)}`
    default:
      return entry.kind
  }
}

const sameTensor = (one: Tensor, other: Tensor): boolean =>
  one.id === other.id &&
  one.name === other.name &&
  one.dtype === other.dtype &&
  one.place === other.place &&
  one.within?.arena.id === other.within?.arena.id &&
  one.within?.offsetBytes === other.within?.offsetBytes &&
  sameNumbers(one.shape, other.shape)

const sameTensors = (one: ReadonlyArray<Tensor>, other: ReadonlyArray<Tensor>): boolean =>
  one.length === other.length && one.every((tensor, i) => sameTensor(tensor, other[i]!))

const sameAttributes = (one: Op["attributes"], other: Op["attributes"]): boolean => {
  const names = Object.keys(one)
  return (
    names.length === Object.keys(other).length && names.every((name) => Object.is(one[name], other[name]))
  )
}

const sameCall = (one: JournalEntry | undefined, other: JournalEntry | undefined): boolean => {
  if (one === undefined || other === undefined || one.kind !== other.kind) return one === other
  if (one.kind === "op") {
    const { op: that, scalars = [] } = other as typeof one
    return (
      sameNumbers(one.scalars ?? [], scalars) &&
      one.op.kernel.name === that.kernel.name &&
      one.op.label === that.label &&
      sameAttributes(one.op.attributes, that.attributes) &&
      sameTensors(one.op.reads, that.reads) &&
      sameTensors(one.op.writes, that.writes) &&
      sameNumbers(one.op.group?.ranks ?? [], that.group?.ranks ?? [])
    )
  }
  return !("tensor" in one) || sameTensor(one.tensor, (other as typeof one).tensor)
}

/** What a program asks about time is no decision; what it does with the answer is. */
const calls = ({ entries }: Journal): ReadonlyArray<JournalEntry> =>
  entries.filter(({ kind }) => kind !== "ready" && kind !== "now")

/** Every rank's program made the same calls, down to attributes and tensors. */
export const compareJournals = (
  expected: ReadonlyArray<Journal>,
  actual: ReadonlyArray<Journal>
): Disagreement | undefined => {
  const [ours, theirs] = [byRank(expected), byRank(actual)]
  for (const rank of ranksOf(ours, theirs)) {
    const [one, other] = [ours, theirs].map((runs) => {
      const journal = runs.get(rank)
      return journal === undefined ? [] : calls(journal)
    }) as [ReadonlyArray<JournalEntry>, ReadonlyArray<JournalEntry>]
    for (let i = 0; i < Math.max(one.length, other.length); i++) {
      const [mine, yours] = [one[i], other[i]]
      if (sameCall(mine, yours)) continue
      const op = mine?.kind === "op" ? mine.id : yours?.kind === "op" ? yours.id : undefined
      return {
        kind: "decisions",
        rank,
        ...(op === undefined ? {} : { op }),
        message: `rank ${rank}, call ${i}: simulated ${describeCall(mine)}; executed ${describeCall(yours)}`
      }
    }
  }
  return undefined
}

// Sums over a 16-bit wire that a machine rounds after every member, as NCCL does: held to as many roundings as it makes, and no more.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { defaultTolerance, type Tolerance } from "../../core/agreement/values.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { round } from "../../core/kernels/rounding.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective } from "../../core/machine/op.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { Random } from "../../core/random.ts"
import { held, machined, type Machined } from "./collected.ts"

const members = 41
const elements = 64
const toGrid = round("bfloat16")
const random = new Random(3)
/** Of these each member but the first puts in an eighth of a step of what the first does: added one by one, none of it is left. */
const lost = 3
const given = Array.from({ length: members }, (_, rank) =>
  Float32Array.from({ length: elements }, (_, i) =>
    i < lost ? (rank === 0 ? 1 : 2 ** -10) : rank === 0 ? toGrid(0.4 * random.uniform() - 0.2) : 0
  )
)

const summing: Program<void> = Effect.gen(function* () {
  const { alloc, submit, drain, rank, world } = yield* Machine
  const like = { shape: [elements], dtype: "bfloat16" as const }
  const own = yield* alloc({ ...like, name: "own", initial: () => given[rank]! })
  const sum = yield* alloc({ ...like, name: "sum" })
  submit(
    collective("sum", kernels.all_reduce, Lane.inter, world.all, [own], [sum], {
      attributes: { reduce: "sum", wire: "bfloat16" }
    })
  )
  yield* drain
})

/** Each member added to what was added before, and rounded. */
const inTurn = Float32Array.from({ length: elements }, (_, i) =>
  given.reduce((sum, own) => toGrid(sum + own[i]!), 0)
)

/** The run of which that came. */
const havingCome = (run: Machined, sums: TensorData): Machined => ({
  ...run,
  valuesOf: (rank, tensor) => (tensor.name === "sum" ? sums : run.valuesOf(rank, tensor)),
  journals: run.journals.map(({ rank, entries }) => ({
    rank,
    entries: entries.map((entry) => (entry.kind === "op" ? { ...entry, results: [sums] } : entry))
  }))
})

describe("a sum over a wire of 16 bits", () => {
  const run = machined(summing, members)
  const told = (sums: TensorData, how: Tolerance["sums"]) =>
    held(summing, havingCome(run, sums), { ...defaultTolerance, sums: how }).agreement

  it("of a machine that rounds after every member is as far off as that many roundings leave it", () => {
    expect(told(inTurn, "each").firstDisagreement).toBeUndefined()
    expect(inTurn.slice(0, lost)).toEqual(new Float32Array(lost).fill(1))
  })

  it("of a machine that rounds once is not", () => {
    expect(told(inTurn, "once").firstDisagreement?.message).toMatch(
      /"sum" \(bfloat16\), over a wire of bfloat16 \(op 0 "sum"\): simulated element 0 is 1.0390625, /u
    )
  })

  it("is told where a member is left out, comes twice or sends something else", () => {
    const sumOf = (all: ReadonlyArray<TensorData>) =>
      Float32Array.from({ length: elements }, (_, i) => all.reduce((sum, own) => toGrid(sum + own[i]!), 0))
    for (const [at, wrong] of [
      sumOf(given.slice(1)),
      sumOf([...given, given[0]!]),
      sumOf(
        given.with(
          0,
          given[0]!.map((x) => -x)
        )
      ),
      inTurn.map((x) => toGrid(1.05 * x)),
      inTurn.map((x, i) => (i === 0 ? x - 0.05 : x)),
      inTurn.map((_, i) => inTurn[i ^ 1]!)
    ].entries())
      expect(told(wrong, "each").values, String(at)).toBe(false)
  })
})

// Sums over members in 16 bits: a machine that rounds them once is held to one rounding, however many members there are.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import type { Agreement } from "../../core/agreement/agree.ts"
import { narrowed } from "../../core/agreement/narrow.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { round } from "../../core/kernels/rounding.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { Dtype, Tensor } from "../../core/machine/tensor.ts"
import { sumsOf } from "../../exec/backend.ts"
import { runOnBoth } from "../../exec/cli/both-machines.ts"
import { describeNative } from "../native/addon.ts"
import { flatWorld, run as simulated } from "../simulate/simulated.ts"
import { intact, openBroken, type Breakage } from "./broken-machine.ts"

const members = 8
const elements = 64
const toGrid = round("bfloat16")
/** From a quarter to three: of bfloat16 from a half on, a step is so large. */
const step = 2 ** -8
const held = Float32Array.from({ length: elements }, (_, i) => toGrid(0.25 + 2 * i * step))

/** What members hold is gone when their sum is there, so that only what comes of it is compared. */
const summing: Program<void> = Effect.gen(function* () {
  const { alloc, submit, free, drain, rank, world } = yield* Machine
  const like = { shape: [elements], dtype: "bfloat16" as const }
  const own = yield* alloc({
    ...like,
    name: "own",
    initial: () => (rank === 0 ? held : new Float32Array(elements))
  })
  const sum = yield* alloc({ ...like, name: "sum" })
  const wide = yield* alloc({ ...like, name: "wide", dtype: "float32" })
  submit(
    collective("sum", kernels.all_reduce, Lane.inter, world.all, [own], [sum], {
      attributes: { reduce: "sum" }
    })
  )
  free(own)
  submit(launch("widen", kernels.copy, Lane.compute, [sum], [wide]))
  yield* drain
})

/** What rank 0 puts into the sum on the real machine. */
const puttingIn =
  (change: (value: number, at: number) => number): Breakage =>
  (rank, index) => {
    const write = rank.write.bind(rank)
    rank.write = (tensor, values) =>
      write(tensor, tensor.name === "own" && index === 0 ? values.map(change) : values)
  }

const onBoth = (breakage: Breakage): Promise<Agreement> =>
  Effect.runPromise(
    Effect.map(
      runOnBoth({
        world: flatWorld(members),
        program: () => summing,
        execution: { open: openBroken(breakage) }
      }),
      ({ agreement }) => agreement
    )
  )

describeNative("on a processor a 16-bit sum", () => {
  it("is rounded once, as the reference's is", async () => {
    expect((await onBoth(intact)).firstDisagreement).toBeUndefined()
  })

  it("of which one element has turned agrees", async () => {
    const { firstDisagreement } = await onBoth(puttingIn((x, at) => (at === 60 ? x + step : x)))
    expect(firstDisagreement).toBeUndefined()
  })

  it("is refused with an element that is off by three steps, as several roundings may leave it", async () => {
    const { decisions, order, firstDisagreement } = await onBoth(
      puttingIn((x, at) => (at === 60 ? x + 3 * step : x))
    )
    expect({ decisions, order }).toEqual({ decisions: true, order: true })
    expect(firstDisagreement?.message).toMatch(/"sum" \(bfloat16\) at the end: simulated element 60/u)
  })

  it("is refused where many are off by one, as they are when every member's sum is rounded", async () => {
    const { firstDisagreement } = await onBoth(puttingIn((x, at) => (at % 3 === 0 ? x + step : x)))
    expect(firstDisagreement?.message).toMatch(
      /"wide" \(float32\) at the end: simulated all 64 elements but/u
    )
  })
})

describe("how a backend rounds sums", () => {
  it("is said of it: only NCCL's, between processes, are rounded after each member", () => {
    expect(sumsOf("cpu", true, {})).toBe("once")
    expect(sumsOf("deferred", true, {})).toBe("once")
    expect(sumsOf("cuda", false, {})).toBe("once")
    expect(sumsOf("cuda", true, {})).toBe("each")
    expect(sumsOf("cuda", true, { TANDEM_CUDA_NCCL_SUMS: "1" })).toBe("each")
    expect(sumsOf("cuda", true, { TANDEM_CUDA_NCCL_SUMS: "0" })).toBe("once")
  })

  interface Case {
    readonly from?: Dtype
    readonly to?: Dtype
    readonly attributes?: Readonly<Record<string, string>>
    readonly ranks?: number
  }

  /** Roundings of a sum over ranks, on a machine that rounds each time. */
  const roundings = ({ from = "bfloat16", to = "bfloat16", attributes = {}, ranks = 5 }: Case): number => {
    const journals: Array<Journal> = []
    const world = flatWorld(ranks)
    let sum: Tensor | undefined
    simulated({
      world,
      record: true,
      program: journaled(
        Effect.gen(function* () {
          const { alloc, submit, drain, rank } = yield* Machine
          const own = yield* alloc({ name: "own", shape: [ranks], dtype: from })
          const counts = attributes["counts"]?.split(",")
          sum = yield* alloc({ name: "sum", shape: [Number(counts?.[rank] ?? ranks)], dtype: to })
          const kernel = counts === undefined ? kernels.all_reduce : kernels.reduce_scatter
          submit(
            collective("sum", kernel, Lane.inter, world.all, [own], [sum], {
              attributes: {
                reduce: "sum",
                ...attributes,
                ...(counts === undefined ? {} : { ranks, member: rank })
              }
            })
          )
          yield* drain
        }),
        journals
      )
    })
    return narrowed(journals, "each").atEnd(0, sum!).roundings
  }

  it("counts where NCCL adds: tensors and wire of one 16-bit dtype, in even parts; all else is added wider", () => {
    expect(roundings({})).toBe(4)
    expect(roundings({ attributes: { reduce: "avg" } })).toBe(5)
    expect(roundings({ ranks: 2, attributes: { reduce: "avg" } })).toBe(1)
    expect(roundings({ from: "float16", to: "float16" })).toBe(4)
    expect(roundings({ attributes: { wire: "bfloat16" } })).toBe(4)
    expect(roundings({ attributes: { wire: "float32" } })).toBe(4)
    expect(roundings({ attributes: { wire: "int8" } })).toBe(1)
    expect(roundings({ from: "float32" })).toBe(1)
    expect(roundings({ to: "float32" })).toBe(0)
    expect(roundings({ from: "float8", to: "float8" })).toBe(1)
    expect(roundings({ attributes: { counts: "1,1,1,1,1" } })).toBe(4)
    expect(roundings({ attributes: { counts: "1,0,2,1,1" } })).toBe(1)
  })
})

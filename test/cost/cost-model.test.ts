// How costs come together, by hand, with kernels and tables made up for it: parts and wholes, what is cast, what the host has of a
// layer, and what is told of all that was not measured.
import { describe, expect, it } from "vitest"
import { arithmeticDtype, hostLinkSource, makeCostModel } from "../../core/cost/cost-model.ts"
import { hostSecondsOf, layerHostSeconds, layerShare, usualHosts, waitsFor } from "../../core/cost/host.ts"
import type { CostSource, Launch } from "../../core/cost/op-table.ts"
import { Estimates, printEstimates, type Provenance } from "../../core/cost/provenance.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { operand, type Kernel } from "../../core/kernels/kernel.ts"
import type { Part } from "../../core/kernels/measure.ts"
import type { Op } from "../../core/machine/op.ts"
import type { Dtype } from "../../core/machine/tensor.ts"
import type { PhaseCost, Profile } from "../../core/profile.ts"

const work = { flops: 2e12, readBytes: 300, writtenBytes: 100 }
/** One of a made-up kind. */
const kernelOf = (more: Partial<Record<keyof Kernel, unknown>> = {}): Kernel =>
  ({
    name: "made up",
    measure: "product",
    work: () => work,
    sizes: () => ({ m: 1, k: 2, n: 3 }),
    ...more
  }) as unknown as Kernel
const opOf = (kernel: Kernel, dtype: Dtype = "bfloat16") => ({
  kernel,
  attributes: {},
  reads: [operand([2], dtype)],
  writes: []
})

/** A table that says how often it was asked, and for what. */
const asked = (
  answer: (launch: Launch, turn: number) => { seconds: number; provenance: Provenance } | undefined,
  knows = false
) => {
  const launches: Array<Launch> = []
  const source: CostSource = {
    shortestSeconds: 0,
    knows: () => knows,
    cost: (launch) => {
      const found = answer(launch, launches.length)
      launches.push(launch)
      return found === undefined
        ? undefined
        : { ...found, detail: found.provenance === "exact" ? "" : "made up" }
    }
  }
  return { source, launches }
}

describe("what no table knows", () => {
  const device = { name: "made up", flopsPerSecond: 1e12, memoryBytesPerSecond: 1e3 }

  it("takes as long as its arithmetic or its bytes do at peak rates, and no less than a launch", () => {
    const seconds = (launchSeconds: number, own = work) =>
      makeCostModel({ device, launchSeconds }).cost(opOf(kernelOf({ work: () => own }))).seconds
    expect(seconds(0)).toBe(2)
    expect(seconds(0, { ...work, flops: 1 })).toBe(0.4)
    expect([seconds(1), seconds(3)]).toEqual([2, 3])
  })

  it("takes nothing where there is nothing to compute", () => {
    const empty = opOf(kernelOf({ sizes: () => ({ m: 0, k: 2, n: 3 }) }))
    expect(makeCostModel({ device, launchSeconds: 1 }).cost(empty)).toMatchObject({
      seconds: 0,
      provenance: "exact"
    })
  })
})

describe("a kernel of parts", () => {
  const parts: ReadonlyArray<Part> = [
    { measure: "product", sizes: { m: 10, k: 10, n: 10 }, times: 2 },
    { measure: "copy", sizes: { bytes: 50 }, times: 3 }
  ]
  // Of one part 2 bytes for each of 3 x 100 numbers, of the other 2 x 50: in all 2 x 600 + 3 x 100.
  const plainBytes = 1500
  const composite = (movedBytes: number) =>
    opOf(kernelOf({ parts: () => parts, work: () => ({ flops: 1, readBytes: movedBytes, writtenBytes: 0 }) }))

  it("takes what they take, as often as each comes, and is known as well as the first that is not exact", () => {
    const { source } = asked((_, turn) => ({
      seconds: 1 + turn,
      provenance: turn === 0 ? "exact" : "scaled"
    }))
    expect(makeCostModel({ sources: [source] }).cost(composite(plainBytes))).toEqual({
      seconds: 2 * 1 + 3 * 2,
      provenance: "scaled",
      detail: "made up"
    })
  })

  it("moves less where it is kept narrower than it is computed", () => {
    for (const [moved, share] of [
      [plainBytes, 1],
      [0.95 * plainBytes, 1],
      [0.6 * plainBytes, 0.6]
    ] as const) {
      const { source, launches } = asked(() => ({ seconds: 1, provenance: "exact" }))
      makeCostModel({ sources: [source] }).cost(composite(moved))
      expect(launches.map(({ work: { readBytes } }) => readBytes)).toEqual([600 * share, 100 * share])
    }
  })

  it("is asked for as a whole where a table has rows of its own name", () => {
    const { source, launches } = asked(() => ({ seconds: 5, provenance: "exact" }), true)
    expect(makeCostModel({ sources: [source] }).cost(composite(plainBytes)).seconds).toBe(5)
    expect(launches.map(({ kernel }) => kernel.name)).toEqual(["made up"])
  })
})

describe("what arithmetic is done in", () => {
  const launched = (dtype: Dtype): Launch => {
    const { source, launches } = asked(() => ({ seconds: 1, provenance: "exact" }))
    makeCostModel({ sources: [source], computeDtype: "bfloat16" }).cost(opOf(kernelOf(), dtype))
    return launches[0]!
  }

  it("is another than what is stored of float32 alone, with as many bytes less", () => {
    expect(launched("float32")).toMatchObject({
      dtype: "bfloat16",
      work: { readBytes: 150, writtenBytes: 50 }
    })
    expect(launched("float16")).toMatchObject({
      dtype: "float16",
      work: { readBytes: 300, writtenBytes: 100 }
    })
  })

  it("is that of the first operand that is no list of integers", () => {
    const of = (...dtypes: ReadonlyArray<Dtype>) =>
      arithmeticDtype(dtypes.map((dtype) => operand([1], dtype)))
    expect([of("int32", "bfloat16"), of("float32", "bfloat16"), of("int8", "float32"), of("int32")]).toEqual([
      "bfloat16",
      "float32",
      "int8",
      "int32"
    ])
  })
})

describe("a layer of a profile", () => {
  const none: PhaseCost = { busySeconds: 0, spanSeconds: 0 }
  const profileOf = (busySeconds: number, spanSeconds: number): Profile =>
    ({
      layers: [{ name: "a", forward: { busySeconds, spanSeconds }, backward: none, optimizer: none }]
    }) as unknown as Profile
  const op = (share?: number): Op =>
    ({
      kernel: kernels.profiled,
      attributes: { layer: 0, phase: "forward", ...(share === undefined ? {} : { share }) },
      reads: [],
      writes: []
    }) as unknown as Op

  it("takes its span, of which a share of the device's part is a share, and the gaps stay", () => {
    const spans = makeCostModel({ profile: profileOf(4, 10) })
    expect([spans.seconds(op()), spans.seconds(op(0.5))]).toEqual([10, 8])
    const busy = makeCostModel({ profile: profileOf(4, 10), hostTime: "busy" })
    expect([busy.seconds(op()), busy.seconds(op(0.5))]).toEqual([4, 2])
  })

  it("is the host's for its span where the device waits for it, by how much is left of an eager program's", () => {
    for (const [mode, share] of [
      ["eager", 1],
      ["compiled", 0.5],
      ["graph", 0]
    ] as const) {
      const model = makeCostModel({ profile: profileOf(4, 10), host: { costs: usualHosts[mode] } })
      expect(layerShare(usualHosts[mode])).toBe(share)
      expect([model.seconds(op(0.5)), model.host!.seconds(op(0.5))]).toEqual([2, 8 * share])
    }
  })

  it("is bound by the host where more than a twentieth of the step is gaps", () => {
    const seconds = (span: number) =>
      makeCostModel({ profile: profileOf(100, span), host: { costs: usualHosts.eager } }).seconds(op())
    expect([seconds(104), seconds(106)]).toEqual([104, 100])
  })
})

describe("the host", () => {
  const costs = { ...usualHosts.eager, collectiveSeconds: 100, hookSeconds: 10, launchSeconds: 1 }
  const collective = (ranks: number, carries?: number) =>
    hostSecondsOf(costs, {
      kernel: kernels.all_reduce,
      group: { name: "g", ranks: Array.from({ length: ranks }, (_, rank) => rank) },
      reads: [{}, {}],
      ...(carries === undefined ? {} : { carries })
    } as unknown as Op)

  it("calls for a collective, with a hook for each tensor that it carries", () => {
    expect([collective(2), collective(2, 5), collective(2, 0)]).toEqual([120, 150, 100])
    // Nobody calls for what carries nothing to nobody; one rank that is handed tensors calls.
    expect([collective(1, 0), collective(1, 5), collective(1)]).toEqual([0, 150, 120])
  })

  it("launches what a layer's kernels are, as its mode has it", () => {
    const launches = { eager: 7, once: 3 }
    expect(layerHostSeconds({ ...costs, mode: "eager" }, launches)).toBe(7)
    expect(layerHostSeconds({ ...costs, mode: "compiled" }, launches)).toBe(3)
  })

  it("waits for copies on demand in eager mode, where nothing else is said", () => {
    const waits = (mode: "eager" | "compiled", waitsForCopies?: boolean, onDemand = true) =>
      waitsFor(
        { ...costs, mode, ...(waitsForCopies === undefined ? {} : { waitsForCopies }) },
        onDemand ? { onDemand } : {}
      )
    expect([waits("eager"), waits("compiled"), waits("compiled", true), waits("eager", false)]).toEqual([
      true,
      false,
      true,
      false
    ])
    expect(waits("eager", true, false)).toBe(false)
  })

  it("copies over a link at its latency and rate", () => {
    const link = hostLinkSource({ bytesPerSecond: 100, latencySeconds: 2 })
    const copy = {
      kernel: { name: "h2d" },
      measure: "h2d",
      sizes: { bytes: 300 },
      dtype: "int8",
      work
    } as const
    expect(link.cost(copy)).toMatchObject({ seconds: 5, provenance: "exact" })
  })
})

it("what was not measured is printed in a line for each way in which costs were come by", () => {
  const of = (names: string, detail = "d") =>
    names.split(" ").map((kernel) => ({ kernel, source: "scaled" as const, detail }))
  expect(printEstimates([])).toEqual([])
  expect(printEstimates([...of("a"), ...of("b", "e"), ...of("c a")])).toEqual([
    "a, c: scaled (d)",
    "b: scaled (e)"
  ])
  expect(printEstimates(of("a b c d e"))).toEqual(["a, b, c, d, e: scaled (d)"])
  expect(printEstimates(of("a b c d e f"))).toEqual(["a, b, c, d and 2 more: scaled (d)"])
})

it("what was not measured is told once of each kind, with how many more are like it", () => {
  const estimates = new Estimates()
  const note = (detail: string, provenance: Provenance = "scaled", carriedOver?: true) =>
    estimates.note("k", { provenance, detail, ...(carriedOver === undefined ? {} : { carriedOver }) })
  note("exactly so", "exact")
  for (const detail of ["a", "b", "a", "c"]) note(detail)
  note("d", "free")
  expect(estimates.list).toEqual([
    { kernel: "k", source: "scaled", detail: "a; and 2 more like it" },
    { kernel: "k", source: "free", detail: "d" }
  ])
  note("b", "scaled", true)
  expect(estimates.list[0]).toEqual({
    kernel: "k",
    source: "scaled",
    detail: "a; and 2 more like it",
    carriedOver: true
  })
})

// Traces of runs under FSDP: what is the model's, what FSDP's own, and what travelled, told apart. Made-up traces with the
// annotations of both versions have known answers; the two profiles that ship were made of real ones (two H100s, FSDP2 over NVLink)
// and are held to those of the same models alone on one of them.
import * as Effect from "effect/Effect"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { blocksOf } from "../../core/algorithms/data-parallel/blocks.ts"
import type { Profile } from "../../core/profile.ts"
import { importKineto, readProfile, totalSeconds } from "../../traces/index.ts"
import { besideCollectives, type Pieces } from "../../traces/kineto/beside-collectives.ts"
import { union } from "../../traces/kineto/intervals.ts"
import { ChromeTrace } from "./chrome-trace.ts"

type Version = "FSDP2" | "FSDP1"

/**
 * A step of two blocks and a root (loss) over two ranks, from host time `at`. Device, us: a block's forward pass 20, its backward
 * 30, the loss 4 forward and 6 backward; the optimizer of one part 5. A gather 10, a scatter 12, a copy around either 3. On the host
 * FSDP's hook takes 20 of each forward pass, of which 4 call the gather.
 */
const shardedStep = (trace: ChromeTrace, at: number, sequence: number, version: Version): ChromeTrace => {
  trace.host("user_annotation", "ProfilerStep#1", at, 1000)
  const own = (name: string, unit: string | undefined, ts: number, dur: number, tid = 1) =>
    version === "FSDP2"
      ? trace.host(
          "user_annotation",
          `FSDP::${name}${unit === undefined ? "" : ` (${unit})`}`,
          ts,
          dur,
          {},
          tid
        )
      : trace.host("user_annotation", `FullyShardedDataParallel._${name}`, ts, dur, {}, tid)
  const travels = (
    op: string,
    inputs: number,
    outputs: number,
    ts: number,
    dur: number,
    dtype: string,
    tid = 1
  ) => {
    trace.host("user_annotation", `nccl:${op}`, ts, 4, {}, tid)
    const name = op.includes("gather")
      ? "ncclDevKernel_AllGather_RING"
      : "ncclDevKernel_ReduceScatter_Sum_f32"
    trace.kernel(name, ts + 1, ts + 2, dur, tid, {
      stream: 22,
      "Collective name": op,
      "In msg nelems": inputs,
      "Out msg nelems": outputs,
      dtype,
      "Group size": 2
    })
  }
  if (version === "FSDP1") trace.host("user_annotation", "FullyShardedDataParallel.forward", at + 1, 300)
  own("pre_forward", undefined, at + 2, 6)
  for (const block of [0, 1]) {
    const from = at + 20 + 100 * block
    if (version === "FSDP1") trace.host("user_annotation", "FullyShardedDataParallel.forward", from, 90)
    own("pre_forward", `layers.${block}`, from + 1, 20)
    if (version === "FSDP2") own("all_gather", `layers.${block}`, from + 2, 10)
    travels("_allgather_base", 32, 64, from + 3, 10, "BFloat16")
    trace.op("aten::split_with_sizes_copy", from + 16, 3).kernel("copy_out", from + 17, from + 18, 3)
    trace.op("aten::linear", from + 40, 6, { "Sequence number": sequence + block })
    trace.kernel("gemm", from + 41, from + 42, 20)
    own("post_forward", `layers.${block}`, from + 70, 2)
  }
  trace.op("aten::cross_entropy_loss", at + 230, 6, { "Sequence number": sequence + 2 })
  trace.kernel("nll_loss", at + 231, at + 233, 4)
  own("post_forward", undefined, at + 290, 2)
  trace.node("NllLossBackward0", sequence + 2, at + 310, 6).kernel("nll_backward", at + 311, at + 312, 6, 2)
  for (const block of [1, 0]) {
    const from = at + 330 + 100 * (1 - block)
    trace.op("autograd::engine::evaluate_function: PreBackward", from, 16, {}, 2)
    own("pre_backward", `layers.${block}`, from + 1, 14, 2)
    if (version === "FSDP2") own("all_gather", `layers.${block}`, from + 2, 8, 2)
    travels("_allgather_base", 32, 64, from + 3, 10, "BFloat16", 2)
    trace
      .node("AddmmBackward0", sequence + block, from + 30, 5)
      .kernel("gemm_dgrad", from + 31, from + 32, 30, 2)
    trace.accumulate([8, 8], from + 36, "c10::BFloat16")
    own("post_backward_reduce", `layers.${block}`, from + 70, 16, 2)
    trace.op("aten::_chunk_cat", from + 71, 3, {}, 2).kernel("chunk_cat", from + 72, from + 73, 3, 2)
    travels("_reduce_scatter_base", 64, 32, from + 78, 12, "Float", 2)
  }
  trace.host("user_annotation", "Optimizer.step#AdamW.step", at + 600, 20)
  return trace.kernel("multi_tensor_apply_kernel", at + 605, at + 606, 5)
}

const shardedTrace = (version: Version): ChromeTrace => {
  const trace = new ChromeTrace()
  for (const step of [0, 1]) shardedStep(trace, 1000 * step, 100 * step, version)
  return trace
}

const imported = (version: Version, seconds?: number) =>
  Effect.runPromise(
    importKineto(
      (async function* () {
        yield await Promise.resolve(shardedTrace(version).bytes)
      })(),
      seconds === undefined ? {} : { unprofiledStepSeconds: seconds }
    )
  )

const us = (seconds: number): number => Number((seconds * 1e6).toFixed(3))

describe.each(["FSDP2", "FSDP1"] as const)("a made-up trace under %s", (version) => {
  it("gives the model's own work, without gathers, scatters and copies", async () => {
    const { profile } = await imported(version)
    const busy = profile.layers.map(({ name, forward, backward, optimizer }) => [
      name.replace(/^(layers|unit)/u, "block"),
      us(forward.busySeconds),
      us(backward.busySeconds),
      us(optimizer.busySeconds)
    ])
    // The optimizer ran on one of two parts, 5 us; the whole model's is 10, by parameters.
    expect(busy).toEqual([
      ["block.0.aten::linear", 20, 30, 5],
      ["block.1.aten::linear", 20, 30, 5],
      ["aten::cross_entropy_loss", 4, 6, 0]
    ])
    expect(us(profile.deviceBusySeconds)).toBe(120)
    expect(new Set(blocksOf(profile.layers.map(({ name }) => name))).size).toBe(3)
    // Learnt in what gradients are summed in, not in what layers compute in.
    expect(profile.parameters).toEqual([
      { layer: 1, shape: [8, 8], dtype: "float32" },
      { layer: 0, shape: [8, 8], dtype: "float32" }
    ])
    expect(profile.layers[0]!.forward.launches).toEqual({ eager: 1, once: 1 })
  })

  it("has no gap for FSDP's hooks, nor for waiting for what travels", async () => {
    const { profile, sharded } = await imported(version)
    const { busySeconds, spanSeconds } = totalSeconds(profile.layers)
    expect(spanSeconds).toBeCloseTo(profile.stepSeconds, 9)
    expect(us(busySeconds)).toBe(120)
    // A step of 1,000 us: hooks of 20 and 2 before and after each forward pass, 14 and 16 around each backward pass, and the
    // root's 6 and 2, but where kernels ran beside them; what is left is the model's.
    const first = profile.layers[0]!.forward
    // From the end of its kernel to the launch of the next block's, less the hooks between: 2 of the one, 20 of the other.
    expect(us(first.spanSeconds)).toBe(20 + (161 - 82) - 2 - 20 + 1)
    expect(sharded!.ranks).toBe(2)
  })

  it("tells units with what travelled of each", async () => {
    const { sharded } = await imported(version)
    // The first version's annotations name no unit: all that travels is told of the root.
    if (version === "FSDP1") {
      expect(sharded!.units.map(({ name, elements }) => [name, elements])).toEqual([
        ["root", 0],
        ["unit.0", 64],
        ["unit.1", 64]
      ])
      return
    }
    expect(sharded!.units.map(({ name }) => name)).toEqual(["root", "layers.0", "layers.1"])
    for (const { tensors, elements, gathers, scatters } of sharded!.units.slice(1)) {
      expect([tensors, elements]).toEqual([1, 64])
      expect([gathers.calls, gathers.bytes, us(gathers.seconds)]).toEqual([2, 2 * 32 * 2, 20])
      expect([scatters.calls, scatters.bytes, us(scatters.seconds)]).toEqual([1, 32 * 4, 12])
    }
    // Two copies out and two in.
    expect(us(sharded!.copySeconds)).toBe(12)
  })

  it("says in the profile, for whoever simulates with it, what was sharded and how wide", async () => {
    const { profile } = await imported(version)
    const [note, ...others] = profile.notes!
    expect(others).toEqual([])
    expect(note).toMatch(
      /^its parameters were sharded over 2 ranks \(FSDP\): the profile is of the whole model/u
    )
    // Calls of the first version name no unit, so what they carried of which is not known.
    const told = [
      "parameters were gathered in 16 bits (shard.parameterDtype says so of a scenario)",
      "gradients were summed in 32 bits (shard.reduceDtype says so of a scenario)"
    ]
    for (const one of told) expect(note!.includes(one)).toBe(version === "FSDP2")
  })

  it("measures what hooks and calls cost the host", async () => {
    const { profile } = await imported(version, 800e-6)
    const { host } = profile
    // Steps begin on the device with their first kernel, at 62, and the last ends with its mark: 1,000 and 938 us.
    const scale = 800 / 969
    expect(us(host!.collectiveSeconds!)).toBeCloseTo(4 * scale, 1)
    // Hooks: 6 + 2 + 2 (20 + 2) + 2 (14 + 16) = 112, less 6 calls of 4; of 6 tensors carried.
    // The first version's calls name no unit; six of them carry one tensor each, as a unit has.
    expect(us(host!.hookSeconds!)).toBeCloseTo(((112 - 24) / 6) * scale, 1)
  })
})

describe("kernels beside collectives", () => {
  const piece = (kind: string, start: number, microseconds: number) => ({
    kind,
    start,
    end: start + microseconds
  })

  const columns = (pieces: ReadonlyArray<ReturnType<typeof piece>>): Pieces => {
    const kinds = [...new Set(pieces.map(({ kind }) => kind))]
    return {
      length: pieces.length,
      start: Float64Array.from(pieces, ({ start }) => start),
      end: Float64Array.from(pieces, ({ end }) => end),
      kind: Int32Array.from(pieces, ({ kind }) => kinds.indexOf(kind))
    }
  }

  it("are compared with the same kernels alone", () => {
    // Forty kernels of a kind, 100 us alone and 125 beside, every other one beside a collective.
    const pieces = Array.from({ length: 60 }, (_, i) => piece("gemm", 1000 * i, i % 2 === 0 ? 100 : 125))
    const collectives = pieces
      .filter((_, i) => i % 2 === 1)
      .map(({ start, end }) => ({ start: start - 1, end: end + 1 }))
    const found = besideCollectives(columns(pieces), union(collectives))
    expect(found.slowdown).toBeCloseTo(1.25, 9)
    expect(found.overlaps.filter((overlap) => overlap === 125)).toHaveLength(30)
  })

  it("say nothing where they are few, or where none of a kind ran alone", () => {
    const few = Array.from({ length: 20 }, (_, i) => piece("gemm", 1000 * i, 100))
    expect(besideCollectives(columns(few), union([{ start: 0, end: 2500 }])).slowdown).toBeUndefined()
    const never = Array.from({ length: 60 }, (_, i) => piece(`gemm ${i}`, 1000 * i, 100))
    expect(besideCollectives(columns(never), union([{ start: 0, end: 1e6 }])).slowdown).toBeUndefined()
  })
})

const small = { model: "gpt2", parameters: 124_439_808, blocks: 12, tensors: 148, optimizerWithin: 0.03 }
const large = { model: "llama1b", parameters: 852_559_872, blocks: 16, tensors: 147, optimizerWithin: 0.03 }

describe.each([
  { machine: "h100", ...small },
  { machine: "h100", ...large },
  // Parts of GPT-2 take 4.2 % less than half of it.
  { machine: "h200x2", ...small, optimizerWithin: 0.045 },
  { machine: "h200x2", ...large }
])("the profile of $model under FSDP2, $machine", (recorded) => {
  const { machine, model, parameters, blocks, tensors, optimizerWithin } = recorded

  const shipped = (name: string): Promise<Profile> =>
    Effect.runPromise(
      readProfile(fileURLToPath(new URL(`../../traces/profiles/${name}.arrow`, import.meta.url)))
    )

  it("is of the same model as the one recorded alone", async () => {
    const [sharded, alone] = await Promise.all([
      shipped(`${model}-fsdp-${machine}`),
      shipped(`${model}-${machine}`)
    ])
    const count = ({ parameters: all }: Profile) =>
      all.reduce((sum, { shape }) => sum + shape.reduce((product, extent) => product * extent, 1), 0)
    expect(count(sharded)).toBe(parameters)
    expect(sharded.parameters).toHaveLength(tensors)
    expect(sharded.parameters.map(({ shape }) => shape).toSorted()).toEqual(
      alone.parameters.map(({ shape }) => shape).toSorted()
    )
    const found = new Set(blocksOf(sharded.layers.map(({ name }) => name)))
    found.delete(undefined)
    expect(found.size).toBe(blocks)
    const optimizer = ({ layers }: Profile) =>
      layers.reduce((sum, layer) => sum + layer.optimizer.busySeconds, 0)
    // Of one part, counted twice, beside the whole one.
    expect(Math.abs(optimizer(sharded) / optimizer(alone) - 1)).toBeLessThan(optimizerWithin)
    // Without the casts of autocast, but the same products.
    const passes = ({ layers }: Profile) =>
      layers.reduce((sum, layer) => sum + layer.forward.busySeconds + layer.backward.busySeconds, 0)
    expect(passes(sharded) / passes(alone)).toBeGreaterThan(0.7)
    expect(passes(sharded) / passes(alone)).toBeLessThan(1)
  })

  // Imported before imports kept such a note: it was added to the profile, whose own collectives bear its widths out.
  it("says that it was sharded, and in how many bits parts travelled", async () => {
    const { notes, collectives } = await shipped(`${model}-fsdp-${machine}`)
    expect(notes).toHaveLength(1)
    expect(notes![0]).toMatch(
      /^its parameters were sharded over 2 ranks \(FSDP\): .* parameters were gathered in 16 bits .* gradients were summed in 32 bits /u
    )
    const bitsOf = (op: string) => {
      const sizes = collectives.filter((row) => row.op === op).map(({ sizeBytes }) => sizeBytes)
      expect(sizes).toHaveLength(2)
      // The root's part, and a block's: two ranks of each.
      return (8 * 2 * (Math.max(...sizes) + blocks * Math.min(...sizes))) / parameters
    }
    // Parts are padded.
    expect(bitsOf("all_gather")).toBeCloseTo(16, 2)
    expect(bitsOf("reduce_scatter")).toBeCloseTo(32, 2)
  })
})

describe("a trace under FSDP1 whose root has parameters", () => {
  it("says nothing of the bits that are gathered, for its calls name no unit", async () => {
    const trace = shardedTrace("FSDP1")
    for (const at of [0, 1000]) trace.accumulate([16, 8], at + 318, "c10::BFloat16")
    const { warnings, sharded } = await Effect.runPromise(importKineto(trace.bytes, {}))
    // Four gathers a step of 64 B each: laid on the root's 128 parameters alone they were of 8 bits.
    expect(sharded!.units[0]).toMatchObject({ name: "root", elements: 128, gathers: { calls: 4 } })
    expect(warnings.filter((warning) => warning.includes("sharded over 2 ranks"))).toHaveLength(1)
    expect(warnings.filter((warning) => warning.includes(" bits "))).toEqual([])
  })
})

// Times kernels, copies and collectives of this machine, one at a time, as rows of a profile; and what it costs to submit an
// op. Times are the native layer's own, from an op's start to its end.
import { availableParallelism, cpus } from "node:os"
import * as Effect from "effect/Effect"
import { counted } from "../core/units.ts"
import type { MeasuredHost } from "../core/cost/host.ts"
import { kernels, type KernelName } from "../core/kernels/catalogue.ts"
import { operand, type Attributes, type Kernel, type Operand } from "../core/kernels/kernel.ts"
import { journaled, type Journal } from "../core/laws/journal.ts"
import { Lane } from "../core/machine/lane.ts"
import { Machine, type MachineError, type OutOfMemory, type Program } from "../core/machine/machine.ts"
import { collective, launch } from "../core/machine/op.ts"
import { sizeBytesOf, type Place, type Tensor, type TensorData } from "../core/machine/tensor.ts"
import type { CollectiveCost, OpCost } from "../core/profile.ts"
import { makeWorld, unlimitedLinks, type World } from "../core/world.ts"
import { CurrentBackend } from "./backend.ts"
import { timedRepeatedly } from "./core-waits.ts"
import { execute } from "./execute.ts"
import type { ProcessJob } from "./job/processes.ts"
import { nativeInfo } from "./native.ts"
import { recordRun } from "./record-run.ts"
import { recordedHost } from "./recorded-host.ts"
import {
  forBenchmark,
  mediansAndLeast,
  opKey,
  recordedCollectives,
  recordedSeconds,
  undisturbed,
  type Reckoning,
  type RecordedRun
} from "./recorded.ts"
import { median } from "../core/median.ts"

/** So many ranks of one node, with nothing that limits them but the machine itself. */
export const localWorld = (ranks: number): World =>
  makeWorld([{ name: "here", nodes: [ranks] }], unlimitedLinks)

/** A timed op, with the sizes that its kernel declares, and its work. */
export interface KernelTime extends OpCost {
  readonly flops: number
  readonly bytes: number
}

/** What a profile says of this machine: the name of the GPU that runs go by, else the processor's. */
export const thisDevice: Effect.Effect<string> = Effect.map(CurrentBackend, (backend) => {
  const native = nativeInfo()
  const found = "missing" in native ? undefined : native.backends.find(({ name }) => name === backend)
  if (backend !== "cuda" || found === undefined)
    return `${cpus()[0]?.model ?? "processor"}, ${counted(availableParallelism(), "core")}`
  return found.devices[0]?.split(",")[0] ?? backend
})

/** As a profile has it. */
export const rowOf = ({ op, attributes, medianSeconds, dtype }: OpCost): OpCost => ({
  op,
  attributes,
  medianSeconds,
  ...(dtype === undefined ? {} : { dtype })
})

interface Case {
  readonly kernel: Kernel
  readonly lane: Lane
  readonly inputs: ReadonlyArray<Operand>
  /** What inputs hold, by position, where zeros will not do. */
  readonly values?: ReadonlyArray<(() => TensorData) | undefined>
  readonly places: readonly [input: Place, output: Place]
  readonly attributes: Attributes
}

const compute = (
  name: KernelName,
  inputs: ReadonlyArray<
    readonly [shape: ReadonlyArray<number>, dtype?: Operand["dtype"], values?: () => TensorData]
  >,
  attributes: Attributes = {}
): Case => ({
  kernel: kernels[name],
  lane: Lane.compute,
  inputs: inputs.map(([shape, dtype = "float32"]) => operand(shape, dtype)),
  values: inputs.map(([, , values]) => values),
  places: ["device", "device"],
  attributes
})

/** The three products of a linear layer from `k` to `n` over `m` rows. */
const linears = (m: number, k: number, n: number): ReadonlyArray<Case> => [
  compute("linear.forward", [[[m, k]], [[n, k]]]),
  compute("linear.backward_input", [[[m, n]], [[n, k]]]),
  compute("linear.backward_weight", [[[m, n]], [[m, k]]])
]

const heads = { heads: 8, kvHeads: 2, headWidth: 64 }

const prefill = (tokens: number): Case =>
  compute("attention.forward", [[[1, tokens, 512]], [[1, tokens, 128]], [[1, tokens, 128]]], heads)

const decode = (batch: number, cached: number): Case =>
  compute(
    "kv.attention",
    [
      [[batch, 512]],
      [[1, batch], "int32", () => new Int32Array(batch).fill(cached - 1)],
      ...Array.from({ length: batch }, () => [[2, cached, 128]] as const)
    ],
    { ...heads, cached: batch * cached, longest: cached }
  )

/** Kernels of small and middling transformers, of few rows and many: what lies between is interpolated. */
const kernelCases: ReadonlyArray<Case> = [
  ...[1, 16, 256].flatMap((m) => [...linears(m, 256, 256), ...linears(m, 768, 3072)]),
  ...[64, 256].map(prefill),
  ...[1, 4].flatMap((batch) => [decode(batch, 64), decode(batch, 1024)]),
  compute("layer_norm.forward", [[[512, 768]], [[768]], [[768]]]),
  compute("gelu.forward", [[[512, 3072]]]),
  compute(
    "adamw",
    Array.from({ length: 4 }, () => [[1 << 20]] as const),
    {
      learningRate: 1e-3,
      step: 1
    }
  )
]

const copyCases = (bytes: number): ReadonlyArray<Case> =>
  (
    [
      ["h2d", Lane.h2d, "host", "device"],
      ["d2h", Lane.d2h, "device", "host"],
      ["d2d", Lane.compute, "device", "device"]
    ] as const
  ).map(([name, lane, from, to]) => ({
    kernel: kernels[name],
    lane,
    inputs: [operand([bytes / 4], "float32")],
    places: [from, to],
    attributes: {}
  }))

const timeCases = (
  cases: ReadonlyArray<Case>,
  repeats: number
): Effect.Effect<ReadonlyArray<KernelTime>, MachineError> =>
  Effect.gen(function* () {
    const keys: Array<string> = []
    const journals: Array<Journal> = []
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      for (const [index, { kernel, lane, inputs, values, places, attributes }] of cases.entries()) {
        const reads: Array<Tensor> = []
        for (const [input, { shape, dtype }] of inputs.entries()) {
          const initial = values?.[input]
          reads.push(
            yield* machine.alloc({ name: `input ${index}`, shape, dtype, place: places[0], initial })
          )
        }
        const writes: Array<Tensor> = []
        // Optimizers work in place: their outputs are their inputs, but for the gradient.
        const inPlace = kernel === kernels.adamw
        const shapes = kernel.shapes(inputs, attributes) ?? []
        for (const [output, shape] of shapes.entries()) {
          const dtype = kernel.outputDtypes[output] ?? "float32"
          writes.push(
            inPlace
              ? reads[output === 0 ? 0 : output + 1]!
              : yield* machine.alloc({ name: `output ${index}`, shape, dtype, place: places[1] })
          )
        }
        const op = launch(`case ${index}`, kernel, lane, reads, writes, attributes)
        keys.push(opKey(op))
        for (let i = 0; i < repeats; i++) machine.submit(op)
        yield* machine.drain
        for (const tensor of new Set([...reads, ...writes])) machine.free(tensor)
      }
    })
    const { timeline, opLogs } = yield* execute({
      world: localWorld(1),
      program: journaled(program, journals),
      record: true
    })
    const run = { timeline: timeline!, opLogs, journals }
    const seconds = recordedSeconds(run, forBenchmark)
    yield* timedRepeatedly(mediansAndLeast(run))
    return cases.map(({ kernel, inputs, attributes }, index) => {
      const outputs = (kernel.shapes(inputs, attributes) ?? []).map((shape) => operand(shape, "float32"))
      const work = kernel.work(inputs, outputs, attributes)
      return {
        op: kernel.name,
        attributes: kernel.sizes(inputs, outputs, attributes),
        medianSeconds: seconds.get(keys[index]!)!,
        dtype: "float32",
        flops: work.flops,
        bytes: kernel.kind === "copy" ? inputs[0]!.sizeBytes : work.readBytes + work.writtenBytes
      }
    })
  })

/** Median times of kernels, alone on the machine. */
export const timeKernels = timeCases(kernelCases, 9)

/** Median times of copies between host and device memory, and inside device memory. */
export const timeCopies = timeCases([1 << 16, 1 << 20, 1 << 24].flatMap(copyCases), 9)

const collectiveKinds = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"] as const

/** Of a collective of a whole share from, and to, each of so many ranks. */
export const attributesOf = (kind: (typeof collectiveKinds)[number], ranks: number): Attributes => {
  if (kind === "broadcast") return {}
  if (kind === "all_reduce") return { reduce: "avg" }
  return kind === "reduce_scatter" ? { reduce: "avg", ranks } : { ranks }
}

/**
 * Median times of collectives among `ranks` threads, nothing else running, no links emulated; among the processes of a job, whose
 * ranks all ask, at rank 0.
 */
export const timeCollectives = (
  ranks: number,
  sizesBytes: ReadonlyArray<number>,
  { repeats = 9, processes }: { readonly repeats?: number; readonly processes?: ProcessJob | undefined } = {}
): Effect.Effect<ReadonlyArray<CollectiveCost>, MachineError> =>
  Effect.gen(function* () {
    const tensor = (name: string, elements: number): Effect.Effect<Tensor, OutOfMemory, Machine> =>
      Effect.flatMap(Machine, (machine) => machine.alloc({ name, shape: [elements], dtype: "float32" }))
    const program: Program<void> = Effect.gen(function* () {
      const machine = yield* Machine
      const { all } = machine.world
      const word = yield* tensor("word", 1)
      // Whoever only sends would be ahead of the others, and what they get would have come when they begin.
      const meet = collective("meet", kernels.all_reduce, Lane.inter, all, [word], [word], {
        attributes: attributesOf("all_reduce", ranks)
      })
      for (const size of sizesBytes) {
        // A whole share for each rank.
        const elements = Math.max(1, Math.round(size / 4 / ranks)) * ranks
        const input = yield* tensor("input", elements)
        // What is large differs little from time to time, and takes long: 4 GiB of a kind in all.
        const times = Math.max(1, Math.min(repeats, Math.floor(2 ** 32 / size)))
        for (const kind of collectiveKinds) {
          const output = yield* tensor("output", outputElements(kind, elements, ranks))
          const op = collective(kind, kernels[kind], Lane.inter, all, [input], [output], {
            attributes: attributesOf(kind, ranks)
          })
          for (let i = 0; i < times; i++) {
            if (kind === "broadcast") machine.submit(meet)
            machine.submit(op)
          }
          yield* machine.drain
          machine.free(output)
        }
        machine.free(input)
      }
    })
    const { record } = yield* recordRun({ world: localWorld(ranks), program }, processes, { values: false })
    // Every rank has a share of what is asked for, so that no other all-reduce is of one number.
    const asked = (reckoning: Reckoning): ReadonlyArray<CollectiveCost> =>
      recordedCollectives(record, reckoning).filter(
        ({ op, sizeBytes }) => op !== "all_reduce" || sizeBytes !== sizeBytesOf(1, "float32")
      )
    const [rows, leastOf] = [asked(forBenchmark), asked(undisturbed)]
    yield* timedRepeatedly(rows.map(({ medianSeconds }, i) => [medianSeconds, leastOf[i]!.medianSeconds]))
    return rows
  })

const outputElements = (kind: (typeof collectiveKinds)[number], elements: number, ranks: number): number =>
  kind === "all_gather" ? elements * ranks : kind === "reduce_scatter" ? elements / ranks : elements

/** What the host spends here: submitting an op (median over blocks of 1,000), and a read of the smallest op's value, to its return. */
export const timeHost = (blocks = 50): Effect.Effect<HostSeconds, MachineError> =>
  Effect.gen(function* () {
    const program: Program<Readonly<Record<"submissions" | "reads", ReadonlyArray<number>>>> = Effect.gen(
      function* () {
        const machine = yield* Machine
        const x = yield* machine.alloc({ name: "x", shape: [1], dtype: "float32" })
        const y = yield* machine.alloc({ name: "y", shape: [1], dtype: "float32" })
        const op = launch("copy", kernels.copy, Lane.compute, [x], [y])
        const submissions: Array<number> = []
        for (let block = 0; block < blocks; block++) {
          const began = performance.now()
          for (let i = 0; i < 1000; i++) machine.submit(op)
          submissions.push((performance.now() - began) / 1e6)
          yield* machine.drain
        }
        const reads: Array<number> = []
        for (let i = 0; i < blocks * 10; i++) {
          const began = performance.now()
          machine.submit(op)
          yield* machine.read(y)
          reads.push((performance.now() - began) / 1e3)
        }
        return { submissions, reads }
      }
    )
    const { ranks } = yield* execute({ world: localWorld(1), program })
    const { submissions, reads } = ranks[0]!.value
    const [submissionSeconds, readSeconds] = [median(submissions), median(reads)]
    yield* timedRepeatedly([
      [submissionSeconds, undisturbed.statistic(submissions)],
      [readSeconds, undisturbed.statistic(reads)]
    ])
    return { submissionSeconds, readSeconds: Math.max(0, readSeconds - submissionSeconds) }
  })

interface HostSeconds {
  readonly submissionSeconds: number
  readonly readSeconds: number
}

/** The host of a run that reads values to go on, from its timeline; undefined of one that does not. */
export const hostOfRun = (record: RecordedRun): Effect.Effect<MeasuredHost | undefined, MachineError> =>
  Effect.gen(function* () {
    const { launchSeconds, readSeconds } = recordedHost(record)
    if (readSeconds === undefined) return undefined
    return {
      mode: "compiled",
      launchSeconds: launchSeconds ?? (yield* timeHost(10)).submissionSeconds,
      readSeconds
    }
  })

// One process of a job, for collectives.test.ts: runs generated collectives with the others, and holds what it gets to the
// reference, which every process computes for itself. What it comes to is a line on standard output.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { leastStep, mantissaBits } from "../../core/agreement/narrow.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective } from "../../core/machine/op.ts"
import type { Dtype, TensorData } from "../../core/machine/tensor.ts"
import type { Timeline } from "../../core/machine/timeline.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { sumsOf } from "../../exec/backend.ts"
import { localWorld } from "../../exec/bench.ts"
import { execute } from "../../exec/execute.ts"
import { placeIn, transportIn } from "../../exec/job/environment.ts"
import { ProcessJob } from "../../exec/job/processes.ts"
import { secretIn } from "../../exec/job/secret.ts"
import {
  callDtype,
  callsAmong,
  callValues,
  partsOf,
  type Call,
  type Held
} from "../native/cases/collective-calls.ts"

const { values: options } = parseArgs({
  options: { backend: { type: "string", default: "cpu" }, runs: { type: "string", default: "60" } }
})

/** One generated case. */
interface Case {
  readonly call: Call
  readonly dtype: Dtype
  readonly values: ReadonlyArray<number>
  readonly inPlace: boolean
  readonly lane: Lane
}

/** Few groups, for each is a communicator: all, all the other way round, and pairs. */
const casesAmong = (ranks: number): ReadonlyArray<Case> => {
  const all = Array.from({ length: ranks }, (_, rank) => rank)
  const pairs = fc.constantFrom([0, 1], [1, 0], [ranks - 1, 0])
  const groups = fc.oneof(fc.constantFrom(all, all.toReversed()), pairs)
  return fc.sample(
    fc.record({
      call: callsAmong(groups, pairs),
      dtype: callDtype,
      values: callValues,
      inPlace: fc.boolean(),
      lane: fc.constantFrom(Lane.inter, Lane.intra)
    }),
    { numRuns: Number(options.runs), seed: 1 }
  )
}

/**
 * How far a transport may be off: NCCL adds values of many members in an order of its own, multiplies them by a rounded 1/n where their
 * mean is asked for, and rounds to the tensors' dtype each time.
 */
const toleranceOf = ({ call: { kernel, members, perMember }, dtype, values }: Case): number => {
  const reduces = kernel.name === "all_reduce" || kernel.name === "reduce_scatter"
  const wire = String(perMember[0]!.attributes["wire"] ?? "")
  const byNccl = sumsOf(options.backend, true) === "once" ? ["float32"] : ["float32", "float16", "bfloat16"]
  if (options.backend !== "cuda" || !reduces || members.length < 3 || !byNccl.includes(dtype)) return 0
  const counts = String(perMember[0]!.attributes["counts"] ?? "").split(",")
  if (!["", dtype, "float32"].includes(wire) || new Set(counts).size > 1) return 0
  // As many roundings of partial sums, of 1/n and of products; each half a step of numbers that are at most the sum of all.
  const roundings = members.length + 2
  // Tensors hold up to seven times a drawn value (collective-calls.ts).
  const largest = 7 * Math.max(...values.map(Math.abs))
  const step = Math.max(2 ** -mantissaBits[dtype] * members.length * largest, leastStep(dtype))
  return (roundings * step) / 2
}

const differ = (got: TensorData, expected: TensorData, tolerance: number): boolean =>
  got.length !== expected.length ||
  got.some((value, i) => value !== expected[i] && !(Math.abs(value - expected[i]!) <= tolerance))

const program = (rank: number, cases: ReadonlyArray<Case>) =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const kinds = new Set<string>()
    const wrong: Array<string> = []
    for (const [index, one] of cases.entries()) {
      const { call, dtype, lane } = one
      const { kernel, members, mayBeInPlace } = call
      const own = members.indexOf(rank)
      if (own < 0) continue
      const part = partsOf(call, dtype, one.values, one.inPlace && mayBeInPlace)[own]!
      kinds.add(kernel.name)
      const on = (held: Held) =>
        machine.alloc({
          name: `${kernel.name} ${index}`,
          shape: held.of.shape,
          dtype,
          initial: () => held.before
        })
      const inputs = new Map<Held, Effect.Success<ReturnType<typeof on>>>()
      for (const held of part.sent) inputs.set(held, yield* on(held))
      const outputs = []
      for (const held of part.received) outputs.push(inputs.get(held) ?? (yield* on(held)))
      const group = { name: `group ${members.join(" ")}`, ranks: members }
      const { attributes } = part
      machine.submit(collective("call", kernel, lane, group, [...inputs.values()], outputs, { attributes }))
      for (const [i, { after }] of part.received.entries()) {
        const got = yield* machine.read(outputs[i]!)
        if (differ(got, after, toleranceOf(one)))
          wrong.push(
            `${index}: ${kernel.name} of ${dtype} among ${members.join(" ")} ${JSON.stringify(attributes)}: ` +
              `${[...got].slice(0, 6).join(" ")} instead of ${[...after].slice(0, 6).join(" ")}`
          )
      }
      for (const tensor of new Set([...inputs.values(), ...outputs])) machine.free(tensor)
    }
    return { kinds: [...kinds], wrong }
  })

/** Floats of a part, and tensors of a message, that NCCL takes from where they lie. */
const [largePart, largeTensors] = [2 ** 18 + 4, 3]
/** Whole numbers, whose sums are exact in any order. */
const largeValue = (rank: number, tensor: number, index: number): number =>
  ((rank * 31 + tensor * 7 + index) % 1009) - 500

/** Messages of several large tensors, which a backend need not pack: what is wrong of them. */
const large = Effect.gen(function* () {
  const machine = yield* Machine
  const { all } = machine.world
  const [members, own] = [all.ranks.length, machine.rank]
  const tensors = (name: string, parts: number, of?: (tensor: number, index: number) => number) =>
    Effect.forEach(Array.from({ length: largeTensors }), (_, i) =>
      machine.alloc({
        name: `${name} ${i}`,
        shape: [parts, largePart],
        dtype: "float32",
        ...(of === undefined
          ? {}
          : { initial: () => Float32Array.from({ length: parts * largePart }, (_, at) => of(i, at)) })
      })
    )
  const value = (tensor: number, index: number): number => largeValue(own, tensor, index)
  const [wholes, parts] = [yield* tensors("whole", members, value), yield* tensors("part", 1, value)]
  const attributes = { ranks: members }
  const expected = {
    all_to_all: (i: number, at: number): number =>
      largeValue(Math.floor(at / largePart), i, own * largePart + (at % largePart)),
    all_gather: (i: number, at: number): number => largeValue(Math.floor(at / largePart), i, at % largePart),
    reduce_scatter: (i: number, at: number): number =>
      all.ranks.reduce((sum, rank) => sum + largeValue(rank, i, own * largePart + at), 0)
  }
  const wrong: Array<string> = []
  for (const [kind, of] of Object.entries(expected)) {
    const from = kind === "all_gather" ? parts : wholes
    const to = yield* tensors("result", kind === "reduce_scatter" ? 1 : members)
    const more = kind === "reduce_scatter" ? { reduce: "sum" } : {}
    machine.submit(
      collective(kind, kernels[kind as keyof typeof expected], Lane.intra, all, from, to, {
        attributes: { ...attributes, ...more }
      })
    )
    for (const [i, tensor] of to.entries()) {
      const got = yield* machine.read(tensor)
      const at = got.findIndex((one, index) => one !== of(i, index))
      if (at >= 0) wrong.push(`large ${kind}, tensor ${i}: ${got[at]} at ${at} instead of ${of(i, at)}`)
      machine.free(tensor)
    }
  }
  return wrong
})

/** Many collectives in two lanes, which are under way at the same time. */
const overlap = Effect.gen(function* () {
  const machine = yield* Machine
  const ops = []
  for (const lane of [Lane.inter, Lane.intra]) {
    const tensor = yield* machine.alloc({ name: `of lane ${lane}`, shape: [1 << 20], dtype: "float32" })
    ops.push(collective("one of many", kernels.all_reduce, lane, machine.world.all, [tensor], [tensor]))
  }
  // So many that a lane's threads get their turn before the other's are done on a busy machine, too.
  for (let i = 0; i < 32; i++) for (const op of ops) machine.submit(op)
  yield* machine.drain
})

/** Whether both of rank 0 had something under way at the same time. */
const lanesOverlap = ({ lane, rank, startSeconds, endSeconds }: Timeline): boolean => {
  const spans = [Lane.inter, Lane.intra].map((one) => {
    const rows = [...lane.keys()].filter((row) => lane[row] === one && rank[row] === 0)
    return {
      from: Math.min(...rows.map((row) => startSeconds[row]!)),
      to: Math.max(...rows.map((row) => endSeconds[row]!))
    }
  })
  return Math.max(...spans.map(({ from }) => from)) < Math.min(...spans.map(({ to }) => to))
}

const place = await Effect.runPromise(placeIn(process.env))
const secret = await Effect.runPromise(secretIn(process.env))
const transport = await Effect.runPromise(transportIn(process.env))
const told = await Effect.runPromise(
  ProcessJob.use({ place: place!, secret, alike: { version: "1" }, transport, timeoutSeconds: 60 }, (job) =>
    Effect.gen(function* () {
      const [world, backend] = [localWorld(job.size), options.backend]
      const own = program(job.rank, casesAmong(job.size))
      const { ranks } = yield* execute({ world, backend, job: () => job.run(), program: own })
      const together = yield* execute({ world, backend, job: () => job.run(), program: large })
      const recorded = { world, backend, job: () => job.run(), program: overlap, record: true }
      const { timeline } = yield* execute(recorded)
      const carriedBy = job.mesh.transport?.name
      return {
        ranks: ranks.map(({ rank, value: { kinds, wrong } }, i) => ({
          rank,
          kinds,
          wrong: [...wrong, ...together.ranks[i]!.value]
        })),
        overlapped: lanesOverlap(timeline!),
        carriedBy
      }
    })
  )
)
if (place!.rank === 0) process.stdout.write(`${JSON.stringify(told)}\n`)

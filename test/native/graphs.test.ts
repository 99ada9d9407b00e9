// Ops that come again launched as CUDA graphs: what belongs together, on a processor (native/test/graphs); and on a GPU that values
// and faults are those of ops launched one by one.
import { execFile, spawnSync } from "node:child_process"
import { promisify } from "node:util"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { wholeCorpus } from "../../core/algorithms/data-parallel/corpus.ts"
import { kernelModel } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { submitAll, type TrainingModel } from "../../core/algorithms/data-parallel/training-model.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch, type Op } from "../../core/machine/op.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import { execute, executeThen } from "../../exec/execute.ts"
import type { NativeRank, NativeSession } from "../../exec/native.ts"
import { oneRank } from "../../core/world.ts"
import { prepareTraining, type PreparedTraining } from "../../scenarios/families/data-parallel/kernels.ts"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { launchedTogether, scheduleOf } from "./lane-schedule.ts"
import { backend, drained, submitAfter, tensorOn, withSession } from "./addon.ts"
import { scalarLaunches, tensorsOf } from "./cases/scalar-launches.ts"

const compiler = process.env.CXX ?? "g++"
const probe = spawnSync(compiler, ["-fsanitize=thread", "-x", "c++", "-", "-o", "/dev/null"], {
  input: "int main() {}"
})

describe.skipIf(probe.status !== 0)("ops that are launched together", () => {
  it("are those that came twice so, all of them or each by itself", { timeout: 300_000 }, async () => {
    const { stdout } = await promisify(execFile)("native/test/run.sh", ["graphs"])
    expect(stdout).toMatch(/graphs: \d{4,} checks hold/u)
  })
})

const periodSteps = 5
/** What one rank of two runs, of a GPT-2 whose layers each have a few ops. */
const trained = (algorithm: string): Promise<PreparedTraining> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const file = "scenarios/measured/what-if-gpt2.yaml"
      const model = "model={gpt2: {layers: 4, width: 64, heads: 2, vocabulary: 64, context: 32, batch: 2}}"
      const { scenario } = yield* loadLocatedScenario(file, [model, `algorithm=${algorithm}`])
      return yield* prepareTraining(scenario as DataParallelScenario, file, new Loader())
    })
  )

/** Algorithms, and the least share of ops of late steps that are launched together. */
const algorithms: ReadonlyArray<readonly [algorithm: string, least: number]> = [
  ["{name: ddp}", 0.95],
  [`{name: local-sgd, period: ${periodSteps}}`, 0.8],
  [`{name: diloco, period: ${periodSteps}}`, 0.8],
  [`{name: partial-local-sgd, period: ${periodSteps}}`, 0.95],
  [`{name: dreamddp, period: ${periodSteps}}`, 0.95],
  [`{name: partial-local-sgd, period: ${periodSteps}, deadline: next-use}`, 0.8],
  [`{name: partial-local-sgd, period: ${periodSteps}, order: step-then-average, deadline: next-use}`, 0.8],
  [`{name: streaming-diloco, period: ${periodSteps}, fragments: 2, delaySteps: 1, message: fragment}`, 0.8]
]

describe.skipIf(probe.status !== 0)("ops of a step that are launched together", () => {
  it("are most of them under every algorithm, whatever a step sends", { timeout: 600_000 }, async () => {
    const schedules: Array<string> = []
    for (const [algorithm] of algorithms) {
      const { world, planned, build } = await trained(algorithm)
      schedules.push(scheduleOf(world, planned.program(build, 8 * periodSteps)))
    }
    const shares = launchedTogether(schedules).map((steps, index) => {
      const late = steps.slice(6 * periodSteps)
      const [together, ops] = [late.map((one) => one.together), late.map((one) => one.ops)].map((list) =>
        list.reduce((sum, one) => sum + one, 0)
      ) as [number, number]
      return { algorithm: algorithms[index]![0], share: together / ops, least: algorithms[index]![1] }
    })
    expect(shares.filter(({ share, least }) => share < least)).toEqual([])
  })
})

const readOf = (rank: NativeRank, tensor: Tensor): Promise<TensorData> =>
  new Promise((resolve) => rank.whenRead(tensor, resolve))

/** Until what is uploaded is there: nothing waits for it any more. */
const settled = (rank: NativeRank): Promise<void> => new Promise((resolve) => rank.whenSettled(resolve))

const rounds = 8
/** Rounds that a stretch takes to be captured: it is launched as a graph from the third on. */
const plainRounds = 2
const fillers = 4

/** Ops of a stretch beside those that are looked at, on a tensor of their own. */
const fillersOn = (rank: NativeRank): { readonly tensor: Tensor; readonly ops: ReadonlyArray<Op> } => {
  const tensor = tensorOn(rank, [1000], "float32", new Float32Array(1000).fill(1))
  const scale = (factor: number) =>
    launch("scale", kernels.scale, Lane.compute, [tensor], [tensor], { factor })
  return { tensor, ops: Array.from({ length: fillers }, (_, i) => scale(i % 2 === 0 ? 3 : 0.5)) }
}

const withGraphs = <A>(
  graphs: 0 | 1,
  body: (session: NativeSession, rank: NativeRank) => Promise<A>
): Promise<A> => withSession({ ranks: 1, settings: { graphs } }, (session, rank) => body(session, rank!))

describe.skipIf(backend !== "cuda")("CUDA graphs", () => {
  it("are off where the times of ops are recorded, and nowhere but where they are asked for", async () => {
    const stateWith = (graphs: 0 | 1, timed: boolean) =>
      withSession({ ranks: 1, settings: { graphs }, timed }, async (session) => session.replays?.state)
    expect(await stateWith(1, false)).toBe("on")
    expect(await stateWith(1, true)).toBe("off: the times of each op are recorded")
    expect(await stateWith(0, false)).toMatch(/^off: /)
    await expect(withSession({ ranks: 1, settings: { graph: 1 } }, async () => undefined)).rejects.toThrow(
      'no setting "graph"'
    )
  })

  for (const one of scalarLaunches) {
    it(`${one.kernel}: told other numbers at every launch, while earlier ones are under way`, async () => {
      const kernel = kernels[one.kernel]
      const run = (graphs: 0 | 1) =>
        withGraphs(graphs, async (session, rank) => {
          const tensors = tensorsOf(rank, one)
          const results = kernel
            .shapes(tensors, one.attributes)!
            .map((shape, i) =>
              one.written[i] === undefined
                ? tensorOn(rank, shape, kernel.outputDtypes[i] ?? "float32")
                : tensors[one.written[i]]!
            )
          const op = launch("call", kernel, Lane.compute, tensors, results, one.attributes)
          const others = fillersOn(rank)
          await settled(rank)
          for (let round = 0; round < rounds; round++) {
            rank.submit(op, 0, one.scalars[round % one.scalars.length]!)
            for (const other of others.ops) rank.submit(other, 0)
            rank.endStep()
          }
          const out: Array<TensorData> = []
          for (const tensor of new Set([...tensors, ...results, others.tensor]))
            out.push(await readOf(rank, tensor))
          expect(session.fault).toBeUndefined()
          return { out, replays: session.replays! }
        })
      const [plain, replayed] = [await run(0), await run(1)]
      expect(replayed.out).toEqual(plain.out)
      expect(plain.replays.launched).toBe(0)
      // fewer where the lane was too busy to wait for all of a stretch
      const { state, launched, ops } = replayed.replays
      expect(state).toBe("on")
      expect(launched).toBeGreaterThan(0)
      expect(launched).toBeLessThanOrEqual(rounds - plainRounds)
      expect(ops).toBeGreaterThanOrEqual(launched * fillers)
    })
  }

  it("whose values are at fault name the op and what is wrong", async () => {
    await withGraphs(1, async (session, rank) => {
      const tokens = tensorOn(rank, [2], "int32", Int32Array.of(0, 2))
      const weight = tensorOn(rank, [3, 4], "float32", new Float32Array(12))
      const out = tensorOn(rank, [2, 4])
      const op = launch("embed", kernels["embedding.forward"], Lane.compute, [tokens, weight], [out])
      const others = fillersOn(rank)
      // ops of another lane, between others of the stretch in each round: numbers of ops are not the same
      const beside = tensorOn(rank, [4])
      const aside = launch("aside", kernels.scale, Lane.inter, [beside], [beside], { factor: 2 })
      let at = -1
      for (let round = 0; round < rounds; round++) {
        if (round === rounds - 1) rank.write(tokens, Int32Array.of(0, 7))
        for (const [i, other] of others.ops.entries()) {
          rank.submit(other, 0)
          for (let n = 0; i === round % fillers && n < round; n++) rank.submit(aside, 0)
        }
        at = submitAfter(rank, op)
        await drained(rank)
        if (round < rounds - 1) expect(session.fault).toBeUndefined()
      }
      expect(session.replays!.launched).toBeGreaterThan(0)
      expect(session.fault).toEqual({
        kind: "value",
        rank: 0,
        op: at,
        peer: -1,
        message: "embedding.forward: token 7 outside the vocabulary of 3"
      })
    })
  })

  it("are made anew for an op that is prepared anew, and wait for other lanes as single ops do", async () => {
    const run = (graphs: 0 | 1) =>
      withGraphs(graphs, async (session, rank) => {
        const x = tensorOn(rank, [5000], "float32", new Float32Array(5000).fill(1))
        const sum = tensorOn(rank, [5000], "float32", new Float32Array(5000))
        const seen: Array<number> = []
        await settled(rank)
        for (const factor of [2, 0.5]) {
          const scales = Array.from({ length: 6 }, () =>
            launch("scale", kernels.scale, Lane.compute, [x], [x], { factor })
          )
          const add = launch("add", kernels.add, Lane.inter, [sum, x], [sum])
          let last = -1
          for (let round = 0; round < rounds; round++) {
            let halfway = -1
            for (const [i, op] of scales.entries()) {
              // the first waits for whoever read x, the others follow it in their lane
              const id = submitAfter(rank, op, i === 0 && last >= 0 ? [last] : [])
              if (i === 5) halfway = id
            }
            last = submitAfter(rank, add, [halfway])
          }
          await drained(rank)
          seen.push((await readOf(rank, sum))[0]!, (await readOf(rank, x))[0]!)
        }
        expect(session.fault).toBeUndefined()
        return { seen, captured: session.replays!.captured }
      })
    const [plain, replayed] = [await run(0), await run(1)]
    expect(replayed.seen).toEqual(plain.seen)
    expect(replayed.captured).toBe(2)
  })

  it("learn what single ops learn, bit for bit, with any look-ahead", async () => {
    const steps = 12
    const graph = gpt2({
      layers: 2,
      width: 64,
      heads: 2,
      vocabulary: 61,
      context: 32,
      batch: 2,
      activationDtype: "bfloat16"
    })
    const corpus = wholeCorpus(Int32Array.from({ length: 5000 }, (_, i) => (i * i + 7 * i) % 61))
    const program = Effect.gen(function* () {
      const machine = yield* Machine
      const optimizer = { name: "adamw", learningRate: 0.01 } as const
      const model = yield* kernelModel({ graph, optimizer, corpus, seed: 1 })
      const update = model.update([...model.layers.keys()])
      const losses: Array<number> = []
      for (let step = 0; step < steps; step++) {
        submitAll(machine, model.begin(step))
        for (const { forward } of model.layers) for (const op of forward) machine.submit(op)
        for (const { backward } of model.layers.toReversed()) for (const op of backward) machine.submit(op)
        for (const op of model.clip) machine.submit(op)
        submitAll(machine, update(step))
        yield* machine.endStep
        if (step % 3 === 2) losses.push((yield* machine.read(model.loss))[0]!)
      }
      return losses
    })
    const run = async (graphs: 0 | 1, lookAhead: number) => {
      const { ranks, replays } = await Effect.runPromise(
        execute({ world: oneRank, program, backend, settings: { graphs }, lookAhead })
      )
      return { losses: ranks[0]!.value, replays: replays!, ops: ranks[0]!.ops }
    }
    const plain = await run(0, 2)
    for (const lookAhead of [0, 2]) {
      const replayed = await run(1, lookAhead)
      expect(replayed.losses).toEqual(plain.losses)
      expect(replayed.replays.state).toBe("on")
      // most of the ops of all steps but the first few
      expect(replayed.replays.ops).toBeGreaterThan((replayed.ops * (steps - 5)) / steps / 2)
    }
  })

  for (const [algorithm] of algorithms.slice(3, 5))
    it(`hold most ops of steps that send other layers: ${algorithm}`, { timeout: 300_000 }, async () => {
      const { world, planned, build } = await trained(algorithm)
      const run = async (graphs: 0 | 1, steps: number) => {
        let model: TrainingModel | undefined
        const keeping = Effect.tap(build, (built) => Effect.sync(() => void (model ??= built)))
        const { replays, ranks, values } = await Effect.runPromise(
          executeThen(
            { world, program: planned.program(keeping, steps), backend, settings: { graphs } },
            ({ replays, ranks, valuesOf }) => ({
              replays,
              ranks,
              values: model!.layers.flatMap(({ parameters }) => parameters.map((one) => valuesOf(0, one)))
            })
          )
        )
        return { values, together: replays!.ops, ops: ranks.reduce((sum, one) => sum + one.ops, 0) }
      }
      const [few, many] = [2 * periodSteps, 8 * periodSteps]
      const before = await run(1, few)
      const replayed = await run(1, many)
      const plain = await run(0, many)
      expect(plain.together).toBe(0)
      expect(replayed.values).toEqual(plain.values)
      expect((replayed.together - before.together) / (replayed.ops - before.ops)).toBeGreaterThan(0.75)
    })
})

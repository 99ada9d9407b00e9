// One process of a job, for processes.test.ts: what it does is its argument; what it comes to is a line on standard output.
import * as fs from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import * as Effect from "effect/Effect"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective } from "../../core/machine/op.ts"
import { localWorld } from "../../exec/bench.ts"
import { between, threadTimes } from "../../exec/core-waits.ts"
import { execute } from "../../exec/execute.ts"
import type { ProcessJob } from "../../exec/job/processes.ts"
import { joined, say } from "./joined.ts"

type Act = (job: ProcessJob) => Effect.Effect<unknown, Error>

/** All wait for rank 1, which never comes. */
const waiting: Act = (job) => (job.rank === 1 ? Effect.promise(() => sleep(60_000)) : job.barrier)

/** Runs a program on the job's ranks; what rank 0 has read. */
const ran =
  (program: Program<unknown>): Act =>
  (job) =>
    Effect.map(execute({ world: localWorld(job.size), program, job: () => job.run() }), ({ ranks }) =>
      ranks.map(({ value }) => value)
    )

const vector = (name: string, first: number) =>
  Effect.flatMap(Machine, (machine) =>
    machine.alloc({ name, shape: [4], dtype: "float32", initial: () => new Float32Array(4).fill(first) })
  )

/** Two ranks wait for each other across lanes: each has the other's first collective behind its own. Others run until a signal. */
const crossed = (ranks: ReadonlyArray<number>): Program<unknown> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const x = yield* vector("x", 1)
    const y = yield* vector("y", 1)
    machine.submit(collective("joined by all", kernels.all_reduce, Lane.inter, machine.world.all, [x], [x]))
    yield* machine.read(x)
    if (!ranks.includes(machine.rank)) {
      say("begun")
      yield* Effect.promise(() => sleep(60_000))
    }
    const order = machine.rank === ranks[0] ? (["one", "other"] as const) : (["other", "one"] as const)
    for (const name of order) {
      const tensor = name === "one" ? x : y
      machine.submit(collective(name, kernels.all_reduce, Lane.inter, { name, ranks }, [tensor], [tensor]))
    }
    yield* machine.drain
  })

const acts: Record<string, Act> = {
  exchange: (job) =>
    Effect.gen(function* () {
      const squares = yield* job.exchange(job.rank * job.rank)
      const all = yield* job.gather({ rank: job.rank, values: new Float64Array([job.rank, 0.5]) })
      const offset = yield* job.clockOffset
      yield* job.barrier
      return { squares, gathered: all?.map(({ values }) => [...values]), offset }
    }),
  transport: (job) => Effect.as(job.barrier, job.mesh.transport),
  // What threads of the rank are called that has no lanes yet, and what they ran while they carried barriers.
  threads: (job) =>
    Effect.gen(function* () {
      const before = threadTimes()
      for (let i = 0; i < 200; i++) yield* job.barrier
      const names = fs
        .readdirSync("/proc/self/task")
        .map((thread) => fs.readFileSync(`/proc/self/task/${thread}/comm`, "utf8").trim())
      const ranSeconds = between(before, threadTimes())?.device.ranSeconds
      return { carriers: names.filter((name) => name.startsWith("rank")), ranSeconds }
    }),
  // Its JavaScript hears of nothing, as in one that computes without a pause, while its native threads must.
  busy: (job) =>
    Effect.gen(function* () {
      yield* job.barrier
      const until = performance.now() + 9000
      const never = new Int32Array(new SharedArrayBuffer(4))
      while (performance.now() < until && job.mesh.fault === undefined) Atomics.wait(never, 0, 0, 100)
      yield* job.barrier
      return "alive"
    }),
  wait: (job) =>
    Effect.andThen(
      job.barrier,
      Effect.andThen(
        Effect.sync(() => say("begun")),
        waiting(job)
      )
    ),
  // Rank 1's program fails while the others wait for it.
  fail: (job) =>
    Effect.andThen(
      job.barrier,
      job.rank === 1 ? Effect.fail(new Error("the disk is full")) : Effect.andThen(job.barrier, job.barrier)
    ),
  leave: (job) =>
    Effect.gen(function* () {
      yield* job.barrier
      if (job.rank === 1) return "left"
      yield* Effect.promise(() => sleep(1500))
      return job.mesh.fault ?? "no fault"
    }),
  // A dead end after a collective that goes well: ranks 0 and 1 wait for one that rank 2, which has ended, never joins.
  deadlock: ran(
    Effect.gen(function* () {
      const machine = yield* Machine
      const x = yield* vector("x", 1)
      const { all } = machine.world
      machine.submit(collective("joined by all", kernels.all_reduce, Lane.inter, all, [x], [x]))
      yield* machine.read(x)
      if (machine.rank === 2) return
      machine.submit(collective("never joined", kernels.all_reduce, Lane.inter, all, [x], [x]))
      yield* machine.read(x)
    })
  ),
  // Collectives without an end, while somebody is killed.
  moving: ran(
    Effect.gen(function* () {
      const machine = yield* Machine
      const x = yield* machine.alloc({ name: "x", shape: [1 << 20], dtype: "float32" })
      const reduce = collective("again", kernels.all_reduce, Lane.inter, machine.world.all, [x], [x])
      for (let i = 0; ; i++) {
        machine.submit(reduce)
        yield* machine.drain
        if (i === 3) say("begun")
      }
    })
  ),
  // Long tensors, in place and from one to another: what is wrong, of every 1000th value.
  large: ran(
    Effect.gen(function* () {
      const { rank, world, alloc, submit, read } = yield* Machine
      const length = 3_000_001
      const valuesOf = (from: number) => Float32Array.from({ length }, (_, i) => (i % 4093) + from)
      const x = yield* alloc({ name: "x", shape: [length], dtype: "float32", initial: () => valuesOf(rank) })
      const y = yield* alloc({ name: "y", shape: [length], dtype: "float32", initial: () => valuesOf(-7) })
      const { all } = world
      submit(collective("sum", kernels.all_reduce, Lane.inter, all, [x], [x]))
      const attributes = { source: rank === 0 }
      const [reads, writes] = rank === 0 ? [[x], []] : [[], [y]]
      if (rank < 2) {
        const pair = { name: "pair", ranks: [0, 1] }
        submit(collective("send", kernels.send_recv, Lane.inter, pair, reads, writes, { attributes }))
      }
      const members = all.ranks.length
      const sum = (i: number) => members * (i % 4093) + (members * (members - 1)) / 2
      const [summed, sent] = [yield* read(x), yield* read(y)]
      return Array.from({ length: Math.floor(length / 1000) }, (_, i) => i * 1000).filter(
        (i) => summed[i] !== sum(i) || sent[i] !== (rank === 1 ? sum(i) : (i % 4093) - 7)
      )
    })
  ),
  crossed: ran(crossed([0, 1])),
  ...Object.fromEntries(
    [0, 1, 2].map((leaver) => [
      `crossed without ${leaver}`,
      ran(crossed([0, 1, 2].filter((rank) => rank !== leaver)))
    ])
  ),
  // Two communicators over the same ranks, on two lanes, whose collectives come in either order.
  communicators: ran(
    Effect.gen(function* () {
      const machine = yield* Machine
      const x = yield* vector("x", 1 + machine.rank)
      const y = yield* vector("y", 10 * (1 + machine.rank))
      const one = () =>
        machine.submit(
          collective("one", kernels.all_reduce, Lane.inter, { name: "one", ranks: [0, 1] }, [x], [x])
        )
      const other = () =>
        machine.submit(
          collective("other", kernels.all_reduce, Lane.intra, { name: "other", ranks: [0, 1] }, [y], [y])
        )
      for (const submit of machine.rank === 0 ? [one, other] : [other, one]) submit()
      return [(yield* machine.read(x))[0], (yield* machine.read(y))[0]]
    })
  ),
  // Rank 1 asks for more memory than there is, while the others wait for it.
  memory: ran(
    Effect.gen(function* () {
      const machine = yield* Machine
      const x = yield* vector("x", 1)
      const { all } = machine.world
      machine.submit(collective("first", kernels.all_reduce, Lane.inter, all, [x], [x]))
      yield* machine.drain
      if (machine.rank === 1) yield* machine.alloc({ name: "large", shape: [2 ** 48], dtype: "float32" })
      machine.submit(collective("second", kernels.all_reduce, Lane.inter, all, [x], [x]))
      yield* machine.drain
    })
  ),
  mismatch: ran(
    Effect.gen(function* () {
      const machine = yield* Machine
      const x = yield* vector("x", 1)
      const { all } = machine.world
      machine.submit(collective("first", kernels.all_reduce, Lane.inter, all, [x], [x]))
      machine.submit(
        machine.rank === 1
          ? collective("mine", kernels.broadcast, Lane.inter, all, [x], [x])
          : collective("ours", kernels.all_reduce, Lane.inter, all, [x], [x])
      )
      yield* machine.drain
    })
  )
}

await joined(acts[process.argv[2]!]!, { lostAfterSeconds: 3 })

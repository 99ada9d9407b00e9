// One of the two ranks of throughput.ts: sends a tensor from rank 0 to rank 1 again and again, then averages it; rank 0 says how fast.
import * as Effect from "effect/Effect"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective } from "../../core/machine/op.ts"
import { localWorld } from "../../exec/bench.ts"
import { execute } from "../../exec/execute.ts"
import { placeIn, transportIn } from "../../exec/job/environment.ts"
import { ProcessJob } from "../../exec/job/processes.ts"
import { secretIn } from "../../exec/job/secret.ts"

const [streams, bytes, repeats] = process.argv.slice(2).map(Number) as [number, number, number]

const program: Program<{ readonly sendSeconds: number; readonly reduceSeconds: number }> = Effect.gen(
  function* () {
    const machine = yield* Machine
    const { rank, world } = machine
    const x = yield* machine.alloc({ name: "x", shape: [bytes / 4], dtype: "float32" })
    const [reads, writes] = rank === 0 ? [[x], []] : [[], [x]]
    const send = collective("send", kernels.send_recv, Lane.inter, world.all, reads, writes, {
      attributes: { source: rank === 0 }
    })
    const reduce = collective("average", kernels.all_reduce, Lane.inter, world.all, [x], [x], {
      attributes: { reduce: "avg" }
    })
    const timed = (op: typeof send) =>
      Effect.gen(function* () {
        machine.submit(op)
        yield* machine.drain
        const began = performance.now()
        for (let i = 0; i < repeats; i++) machine.submit(op)
        yield* machine.drain
        return (performance.now() - began) / 1000 / repeats
      })
    return { sendSeconds: yield* timed(send), reduceSeconds: yield* timed(reduce) }
  }
)

await Effect.runPromise(
  Effect.gen(function* () {
    const place = yield* placeIn(process.env)
    const secret = yield* secretIn(process.env)
    const transport = yield* transportIn(process.env)
    const alike = { streams: String(streams), bytes: String(bytes) }
    yield* ProcessJob.use({ place: place!, secret, alike, transport, streams, timeoutSeconds: 60 }, (job) =>
      Effect.map(execute({ world: localWorld(2), program, job: () => job.run() }), ({ ranks }) => {
        if (job.rank === 0) console.log(JSON.stringify(ranks[0]!.value))
      })
    )
  })
)

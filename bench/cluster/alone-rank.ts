// One rank of bench/cluster/alone.ts and collectives.ts: times collectives among the processes of its job; rank 0 says what they took.
//   TANDEM_RANK=0 TANDEM_WORLD_SIZE=2 ... node bench/cluster/alone-rank.ts <backend> <repeats> <bytes>...
import * as Effect from "effect/Effect"
import { CurrentBackend } from "../../exec/backend.ts"
import { timeCollectives } from "../../exec/bench.ts"
import { perhapsInJob } from "../../exec/cli/job.ts"

const [backend, ...numbers] = process.argv.slice(2)
const [repeats, ...sizes] = numbers.map(Number)
const ranks = Number(process.env["TANDEM_WORLD_SIZE"])
const timed = perhapsInJob(
  { rendezvousTimeout: 60 },
  { ranks, file: "alone", plan: sizes, files: [] },
  (job) =>
    Effect.map(timeCollectives(ranks, sizes, { repeats: repeats!, processes: job }), (rows) => {
      if (job?.rank === 0) console.log(JSON.stringify(rows))
    })
)
await Effect.runPromise(Effect.provideService(timed, CurrentBackend, backend!))

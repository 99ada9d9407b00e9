// One rank of bench/cluster/alone.ts: times collectives among the processes of its job; rank 0 says what they took.
//   TANDEM_RANK=0 TANDEM_WORLD_SIZE=2 ... node bench/cluster/alone-rank.ts <repeats> <bytes>...
import * as Effect from "effect/Effect"
import { timeCollectives } from "../../exec/bench.ts"
import { perhapsInJob } from "../../exec/cli/job.ts"

const [repeats, ...sizes] = process.argv.slice(2).map(Number)
const ranks = Number(process.env["TANDEM_WORLD_SIZE"])
await Effect.runPromise(
  perhapsInJob({ rendezvousTimeout: 60 }, { ranks, file: "alone", plan: sizes, files: [] }, (job) =>
    Effect.map(timeCollectives(ranks, sizes, { repeats: repeats!, processes: job }), (rows) => {
      if (job?.rank === 0) console.log(JSON.stringify(rows))
    })
  )
)

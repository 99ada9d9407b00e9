// Ops per second through Program -> Machine -> engine, on an uncontended training scenario: GPT-2's measured layers, one
// simulated rank, links so fast that nothing waits. Medians over runs in one process.
//   node bench/throughput.ts [steps] [runs]
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { DataParallelSettings, planDataParallel } from "../core/algorithms/data-parallel/algorithms.ts"
import { profiledModel } from "../core/algorithms/data-parallel/training-model.ts"
import { makeWorld } from "../core/world.ts"
import * as Schema from "effect/Schema"
import { makeCostModel } from "../core/cost/cost-model.ts"
import { simulate } from "../sim/simulate.ts"
import { readProfile } from "../traces/profile-file.ts"
import { median } from "../core/median.ts"
import { wholeNumber } from "./numbers.ts"

const steps = wholeNumber("steps", process.argv[2] ?? "4000")
const runs = wholeNumber("runs", process.argv[3] ?? "7")
const profile = await Effect.runPromise(
  readProfile(new URL("../traces/profiles/gpt2-h200.arrow", import.meta.url).pathname)
)
const link = { bytesPerSecond: 1e12, latencySeconds: 0 }
const world = makeWorld([{ name: "site", nodes: [1, 1, 1, 1, 1, 1, 1, 1] }], {
  intra: link,
  inter: link,
  wan: undefined
})

for (const name of ["ddp", "local-sgd", "dreamddp", "streaming-diloco"]) {
  const settings = Schema.decodeUnknownSync(DataParallelSettings)({ name })
  const planned = Result.getOrThrow(
    planDataParallel(settings, {
      profile,
      ranks: world.size,
      phaseSeconds: (cost) => cost.spanSeconds,
      allReduceSeconds: (sizeBytes) => sizeBytes / link.bytesPerSecond
    })
  )
  const rates: Array<number> = []
  for (let run = 0; run < runs; run++) {
    const begin = performance.now()
    const { ranks } = Effect.runSync(
      simulate({
        world,
        program: planned.program(profiledModel(profile), steps),
        costs: makeCostModel({ profile }),
        network: "fluid",
        collectives: { algorithm: "ring" }
      })
    )
    rates.push(ranks[0]!.ops / ((performance.now() - begin) / 1000))
  }
  console.log(
    `${name}: ${(median(rates) / 1e6).toFixed(2)} M ops/s (median of ${runs}, best ${(Math.max(...rates) / 1e6).toFixed(2)})`
  )
}

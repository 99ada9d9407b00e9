// What one collective takes alone on shaped links, beside what the simulator's network says of it: how much of what-if.ts's error is
// the network's, with nothing computed beside it. Needs root and iproute2.
//   node bench/cluster/alone.ts [--ranks 2,4] [--points 50Mbit/s,200Mbit/s] [--mib 0.25,2,10] [--repeats 5]
import { payloadShare } from "../../scenarios/world.ts"
import { createInterface } from "node:readline"
import { availableParallelism, loadavg } from "node:os"
import type { CollectiveCost } from "../../core/profile.ts"
import { parseBandwidth } from "../../core/units.ts"
import { aloneSeconds } from "../../core/wire/alone.ts"
import { Network } from "../../core/wire/network.ts"
import { distinct } from "../../core/wire/symmetry.ts"
import { makeWorld, unlimited } from "../../core/world.ts"
import { Cluster } from "./namespaces.ts"
import { ended, startRanks } from "./runners.ts"
import { numbersOf, optionsOf, positiveNumber, quantityOf, wholeNumber } from "../numbers.ts"

const { values } = optionsOf({
  options: {
    ranks: { type: "string", default: "2,4" },
    points: { type: "string", default: "50Mbit/s,200Mbit/s" },
    mib: { type: "string", default: "0.25,2,10" },
    repeats: { type: "string", default: "5" }
  }
})
const counts = numbersOf("--ranks", values.ranks, wholeNumber)
const repeats = String(wholeNumber("--repeats", values.repeats))
const points = values.points
  .split(",")
  .map((point) => ({ point, rate: quantityOf("--points", point, parseBandwidth) }))
const sizes = numbersOf("--mib", values.mib, positiveNumber).map((mib) => String(Math.round(mib * 2 ** 20)))

console.log(`${availableParallelism()} cores, load ${loadavg()[0]!.toFixed(1)}; medians of ${repeats}`)
console.log("ranks  link        collective       bytes   predicted     took   off by")
for (const ranks of counts) {
  for (const { point, rate } of points) {
    const link = { bytesPerSecond: rate * payloadShare(9000), latencySeconds: 1e-4 }
    const nodes = Array.from({ length: ranks }, () => 1)
    const world = makeWorld([{ name: "here", nodes }], { intra: unlimited, inter: link, wan: undefined })
    const network = new Network(world, distinct(world))
    const cluster = new Cluster(nodes.map(() => ({ up: rate, down: rate })))
    try {
      const command = ["bench/cluster/alone-rank.ts", "cpu", repeats, ...sizes]
      const children = startRanks(ranks, cluster, command, "pipe")
      let rows: ReadonlyArray<CollectiveCost> = []
      createInterface({ input: children[0]!.stdout! }).on(
        "line",
        (line) => (rows = JSON.parse(line) as typeof rows)
      )
      await Promise.all(children.map(ended))
      for (const { op, sizeBytes, medianSeconds } of rows) {
        // Profiles count what a rank gets of a reduce-scatter.
        const puts = op === "reduce_scatter" ? sizeBytes * ranks : sizeBytes
        const predicted = aloneSeconds(network, op, world.all, { algorithm: "direct" })(puts)
        console.log(
          `${String(ranks).padStart(5)}  ${point.padEnd(10)}  ${op.padEnd(14)} ${String(puts).padStart(9)}  ${(1e3 * predicted).toFixed(1).padStart(7)} ms  ${(1e3 * medianSeconds).toFixed(1).padStart(7)}  ${(100 * (predicted / medianSeconds - 1)).toFixed(1)} %`
        )
      }
    } finally {
      cluster.close()
    }
  }
}

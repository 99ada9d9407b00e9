// What one collective takes alone on shaped links, beside what the simulator's network says of it: how much of what-if.ts's error is
// the network's, with nothing computed beside it. Needs root and iproute2. A point may have a latency, as those of what-if.ts.
//   node bench/cluster/alone.ts [--ranks 2,4] [--points 50Mbit/s,200Mbit/s@15ms] [--mib 0.25,2,10] [--repeats 5]
//   node bench/cluster/alone.ts --backend cuda --ranks 2 --points 1Gbit/s@15ms --mib 16,128 --repeats 3       NCCL, a GPU for each rank;
//                                     with --mps on one; NCCL's rings go a chunk at a time (runners.ts)
import { mkdtempSync, rmSync } from "node:fs"
import { availableParallelism, loadavg, tmpdir } from "node:os"
import * as path from "node:path"
import { createInterface } from "node:readline"
import { payloadShare } from "../../scenarios/world.ts"
import type { CollectiveCost } from "../../core/profile.ts"
import { aloneSeconds } from "../../core/wire/alone.ts"
import { Network } from "../../core/wire/network.ts"
import { distinct } from "../../core/wire/symmetry.ts"
import { makeWorld, unlimited } from "../../core/world.ts"
import { startMps } from "./mps.ts"
import { Cluster } from "./namespaces.ts"
import { ended, ncclChunkBytes, startRanks } from "./runners.ts"
import { pointNamed } from "./what-if-choices.ts"
import { backendOf, numbersOf, optionsOf, positiveNumber, readBy, wholeNumber } from "../numbers.ts"

const { values } = optionsOf({
  options: {
    ranks: { type: "string", default: "2,4" },
    points: { type: "string", default: "50Mbit/s,200Mbit/s" },
    mib: { type: "string", default: "0.25,2,10" },
    repeats: { type: "string", default: "5" },
    backend: { type: "string", default: "cpu" },
    /** Ranks that share a GPU run on it at once. */
    mps: { type: "boolean", default: false }
  }
})
const counts = numbersOf("--ranks", values.ranks, wholeNumber)
const repeats = String(wholeNumber("--repeats", values.repeats))
const backend = backendOf(values.backend)
const points = values.points.split(",").map((point) => {
  const { host0, ...link } = readBy("--points", point, pointNamed)
  if (host0 !== "as the others") throw new Error(`--points ${point}: all links are alike here`)
  return link
})
const sizes = numbersOf("--mib", values.mib, positiveNumber).map((mib) => String(Math.round(mib * 2 ** 20)))
/** NCCL's are rings, of which it is known what crosses a link; ours go from everybody to everybody. */
const options =
  backend === "cuda"
    ? ({ algorithm: "ring", chunkBytes: ncclChunkBytes } as const)
    : ({ algorithm: "direct", handshake: true } as const)

const timed = async (
  ranks: number,
  point: (typeof points)[number],
  env: Readonly<Record<string, string>>
): Promise<ReadonlyArray<CollectiveCost>> => {
  const rate = point.bytesPerSecond
  const links = Array.from({ length: ranks }, () => ({ up: rate, down: rate }))
  const cluster = new Cluster(links, { delayed: point.latencySeconds > 0 })
  try {
    cluster.setDelay(point.latencySeconds)
    const command = ["bench/cluster/alone-rank.ts", backend, repeats, ...sizes]
    const children = startRanks(ranks, cluster, command, "pipe", { env })
    let rows: ReadonlyArray<CollectiveCost> = []
    createInterface({ input: children[0]!.stdout! }).on(
      "line",
      (line) => (rows = JSON.parse(line) as typeof rows)
    )
    await Promise.all(children.map(ended))
    return rows
  } finally {
    cluster.close()
  }
}

console.log(`${availableParallelism()} cores, load ${loadavg()[0]!.toFixed(1)}; medians of ${repeats}`)
console.log("ranks  link             collective       bytes   predicted     took   off by")
const folder = mkdtempSync(path.join(tmpdir(), "alone-"))
const mps = values.mps ? startMps(folder) : undefined
try {
  for (const ranks of counts) {
    for (const point of points) {
      const link = {
        bytesPerSecond: point.bytesPerSecond * payloadShare(9000),
        latencySeconds: point.latencySeconds + 1e-4
      }
      const nodes = Array.from({ length: ranks }, () => 1)
      const world = makeWorld([{ name: "here", nodes }], { intra: unlimited, inter: link, wan: undefined })
      const network = new Network(world, distinct(world))
      const env = { ...mps?.env, ...(backend === "cuda" ? { NCCL_ALGO: "Ring" } : {}) }
      for (const { op, sizeBytes, medianSeconds } of await timed(ranks, point, env)) {
        // Profiles count what a rank gets of a reduce-scatter.
        const puts = op === "reduce_scatter" ? sizeBytes * ranks : sizeBytes
        const predicted = aloneSeconds(network, op, world.all, options)(puts)
        console.log(
          `${String(ranks).padStart(5)}  ${point.name.padEnd(15)}  ${op.padEnd(14)} ${String(puts).padStart(9)}  ${(1e3 * predicted).toFixed(1).padStart(7)} ms  ${(1e3 * medianSeconds).toFixed(1).padStart(7)}  ${(100 * (predicted / medianSeconds - 1)).toFixed(1)} %`
        )
      }
    }
  }
} finally {
  mps?.stop()
  rmSync(folder, { recursive: true, force: true })
}

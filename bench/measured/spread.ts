// How far `sim collective` is from our shaped all-reduces (4 ranks, 10 Gbit/s), from the unshaped times of each session by itself,
// and how far the two sessions that measured them shaped are from each other. Prints the table of docs/costs.md:
//   npx node bench/measured/spread.ts
import * as Effect from "effect/Effect"
import { payloadShare } from "../../scenarios/world.ts"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import type { CollectiveCost } from "../../core/profile.ts"
import { Network } from "../../core/wire/network.ts"
import { interchangeable } from "../../core/wire/symmetry.ts"
import { makeWorld } from "../../core/world.ts"
import { answerCollective } from "../../sim/collective-question.ts"
import { readProfile } from "../../traces/index.ts"

interface Run {
  readonly ranks: number
  readonly link_rate: string
  readonly all_reduce?: ReadonlyArray<{ readonly bytes: number; readonly median_seconds: number }>
}

const ranks = 4
const file = new URL("ddp-gpt2-h200-heldout.json", import.meta.url)
const first = JSON.parse(readFileSync(file, "utf8")) as {
  readonly runs: ReadonlyArray<Run>
  readonly replicates: { readonly runs: ReadonlyArray<Run> }
}

/** All-reduces of a session, as a table has them. */
const costsOf = (runs: ReadonlyArray<Run>, rate: string): ReadonlyArray<CollectiveCost> =>
  runs
    .filter(({ link_rate }) => link_rate === rate)
    .flatMap((run) =>
      (run.all_reduce ?? []).map(({ bytes, median_seconds }) => ({
        op: "all_reduce" as const,
        ranks: run.ranks,
        sizeBytes: bytes,
        medianSeconds: median_seconds,
        link: rate
      }))
    )

const shippedOf = async (name: string): Promise<ReadonlyArray<CollectiveCost>> => {
  const path = fileURLToPath(new URL(`../../traces/profiles/${name}.arrow`, import.meta.url))
  const { collectives } = await Effect.runPromise(readProfile(path))
  return collectives.filter(({ link }) => link === "unshaped")
}

const sockets = await shippedOf("nccl-h200-sockets")
const ddp = await shippedOf("allreduce-ddp-gpt2-h200")
const tables: ReadonlyArray<readonly [name: string, rows: ReadonlyArray<CollectiveCost>]> = [
  ["nccl-h200-sockets", sockets],
  ["allreduce-ddp-gpt2-h200", ddp],
  ["both", [...sockets, ...ddp]],
  ["the first session itself", costsOf(first.runs, "unshaped")],
  ["the second session itself", costsOf(first.replicates.runs, "unshaped")]
]

const shapedOf = (runs: ReadonlyArray<Run>): ReadonlyMap<number, number> =>
  new Map(
    costsOf(runs, "10gbit")
      .filter((row) => row.ranks === ranks)
      .map(({ sizeBytes, medianSeconds }) => [sizeBytes, medianSeconds])
  )
const one = shapedOf(first.runs)
const two = shapedOf(first.replicates.runs)
const mean = new Map([...one].map(([bytes, seconds]) => [bytes, (seconds + two.get(bytes)!) / 2]))

const world = makeWorld([{ name: "here", nodes: Array.from({ length: ranks }, () => 1) }], {
  intra: { bytesPerSecond: Infinity, latencySeconds: 0 },
  // What TCP delivers of it in frames of 9000 + 14 bytes, as `mtu` in a scenario says.
  inter: { bytesPerSecond: (10e9 / 8) * payloadShare(9000), latencySeconds: 0 },
  wan: undefined
})
const network = new Network(world, interchangeable(world, { rank: () => "", node: () => "", site: () => "" }))

/** Mean and largest distance of told times from measured ones, and the message where it is largest. */
const distance = (told: (bytes: number) => number, measured: ReadonlyMap<number, number>): string => {
  const off = [...measured].map(([bytes, seconds]) => ({ bytes, by: Math.abs(told(bytes) / seconds - 1) }))
  const worst = off.reduce((most, each) => (each.by > most.by ? each : most))
  const average = off.reduce((sum, { by }) => sum + by / off.length, 0)
  const percent = (share: number) => `${(share * 100).toFixed(1)} %`
  return `${percent(average)}, ${percent(worst.by)} (${worst.bytes} B)`
}

for (const [name, rows] of tables) {
  const table = new CollectiveTable(rows)
  const told = (sizeBytes: number) =>
    answerCollective({ op: "all_reduce", sizeBytes, algorithm: "ring" }, world, network, table, []).seconds
  console.log(
    `${name.padEnd(26)} first ${distance(told, one)}; second ${distance(told, two)}; mean ${distance(told, mean)}`
  )
}
console.log(`the first session by the second: ${distance((bytes) => one.get(bytes)!, two)}`)

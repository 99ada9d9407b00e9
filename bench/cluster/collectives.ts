// NCCL by size: what collectives of 1 KiB to 1 GiB take among processes of this host, a GPU each, as a table and a profile, and how well
// those of fewer ranks predict those of more.
//   node bench/cluster/collectives.ts --backend cuda --ranks 2,4 --out nccl-h200-nvlink     nccl-h200-nvlink.csv and .arrow
//   node bench/cluster/collectives.ts --table traces/tables/nccl-h200-nvlink.csv            of a table that was made so before
//   node bench/cluster/collectives.ts --ranks 2,3 --sizes 4KiB,64KiB,1MiB                   processes of the cpu backend
import { writeFileSync } from "node:fs"
import { availableParallelism, loadavg } from "node:os"
import * as Effect from "effect/Effect"
import type { CollectiveCost } from "../../core/profile.ts"
import { parseBytes } from "../../core/units.ts"
import { CurrentBackend } from "../../exec/backend.ts"
import { thisDevice } from "../../exec/bench.ts"
import { importCsvFile } from "../../traces/csv.ts"
import { writeProfile } from "../../traces/profile-file.ts"
import { collectivesCsv, collectivesReport, predictedFromFewer } from "./collectives-report.ts"
import { ended, startRanks } from "./runners.ts"
import { backendOf, numbersOf, optionsOf, quantityOf, wholeNumber } from "../numbers.ts"

const { values } = optionsOf({
  options: {
    backend: { type: "string", default: "cpu" },
    ranks: { type: "string", default: "2,4" },
    sizes: {
      type: "string",
      default: Array.from({ length: 11 }, (_, i) => `${2 ** (2 * i)}KiB`).join(",")
    },
    repeats: { type: "string", default: "21" },
    /** Files to write, without their endings. */
    out: { type: "string" },
    /** In place of measuring. */
    table: { type: "string" }
  }
})
if (values.table !== undefined) {
  const { profile } = await Effect.runPromise(importCsvFile(values.table))
  const unlimited = profile.collectives.filter(({ link }) => link === "unshaped")
  console.log(collectivesReport(predictedFromFewer(unlimited)))
  process.exit()
}
const counts = numbersOf("--ranks", values.ranks, wholeNumber)

const repeats = String(wholeNumber("--repeats", values.repeats))
const backend = backendOf(values.backend)
const sizes = values.sizes.split(",").map((text) => String(quantityOf("--sizes", text, parseBytes)))

const timed = async (ranks: number): Promise<ReadonlyArray<CollectiveCost>> => {
  const command = ["bench/cluster/alone-rank.ts", backend, repeats, ...sizes]
  const children = startRanks(ranks, undefined, command, "pipe")
  let text = ""
  children[0]!.stdout!.on("data", (chunk) => (text += String(chunk)))
  await Promise.all(children.map(ended))
  return JSON.parse(text) as ReadonlyArray<CollectiveCost>
}

const rows: Array<CollectiveCost> = []
for (const ranks of counts) {
  const began = performance.now()
  rows.push(...(await timed(ranks)))
  process.stderr.write(`${ranks} ranks: ${((performance.now() - began) / 1000).toFixed(0)} s\n`)
}
const device = await Effect.runPromise(Effect.provideService(thisDevice, CurrentBackend, backend))
console.log(
  `${device}, ${availableParallelism()} cores, load ${loadavg()[0]!.toFixed(1)}; medians of ${repeats} (fewer of what is large)`
)
console.log(collectivesReport(predictedFromFewer(rows)))
if (values.out !== undefined) {
  writeFileSync(`${values.out}.csv`, collectivesCsv(rows))
  const { profile } = await Effect.runPromise(importCsvFile(`${values.out}.csv`, { device }))
  await Effect.runPromise(writeProfile(`${values.out}.arrow`, profile))
  console.log(`${values.out}.csv, ${values.out}.arrow: ${profile.collectives.length} collectives`)
}

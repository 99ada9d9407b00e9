// Collectives of several ranks, predicted from those of fewer, beside what they took: how far a table carries. Knows nothing of how the
// table was come by.
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import { median } from "../../core/median.ts"
import type { CollectiveCost } from "../../core/profile.ts"
import { wireUnits } from "../../core/wire/hops.ts"
import { Network } from "../../core/wire/network.ts"
import { asStated } from "../../core/wire/symmetry.ts"
import { makeWorld, unlimitedLinks } from "../../core/world.ts"
import { formatBandwidth, formatBytes, formatSeconds } from "../../core/units.ts"
import { alignColumns } from "../../scenarios/table.ts"
import { answerCollective } from "../../sim/collective-question.ts"

/** A row of a table, and what the simulator says of it from rows of fewer ranks; undefined where there are none. */
interface PredictedCollective extends CollectiveCost {
  readonly predictedSeconds: number | undefined
}

/** All ranks on one node, whose links are no limit: by the way that NCCL's own messages go, a ring. */
export const predictedFromFewer = (rows: ReadonlyArray<CollectiveCost>): ReadonlyArray<PredictedCollective> =>
  rows.map((row) => {
    const fewer = rows.filter(({ op, ranks }) => op === row.op && ranks < row.ranks)
    if (fewer.length === 0) return { ...row, predictedSeconds: undefined }
    const world = makeWorld([{ name: "here", nodes: [row.ranks] }], unlimitedLinks)
    const question = { op: row.op, sizeBytes: row.sizeBytes, algorithm: "ring" } as const
    const network = new Network(world, asStated(world))
    const { seconds } = answerCollective(question, world, network, new CollectiveTable(fewer), [])
    return { ...row, predictedSeconds: seconds }
  })

/** Bytes over the busiest link of a ring over the time, as nccl-tests has it of an all-reduce. */
const busBytesPerSecond = ({ op, ranks, sizeBytes, medianSeconds }: CollectiveCost): number => {
  const inputBytes = op === "reduce_scatter" ? sizeBytes * ranks : sizeBytes
  return (inputBytes * wireUnits(op, ranks)) / medianSeconds
}

const percent = (share: number): string => `${share > 0 ? "+" : ""}${(100 * share).toFixed(1)} %`

/** Every row; then, for each kind of collective and number of ranks that was predicted, how far off. */
export const collectivesReport = (rows: ReadonlyArray<PredictedCollective>): string => {
  const offOf = ({ predictedSeconds, medianSeconds }: PredictedCollective): number | undefined =>
    predictedSeconds === undefined ? undefined : predictedSeconds / medianSeconds - 1
  const lines = rows.map((row) => {
    const off = offOf(row)
    return [
      row.op,
      String(row.ranks),
      formatBytes(row.sizeBytes),
      formatSeconds(row.medianSeconds),
      formatBandwidth(busBytesPerSecond(row)),
      row.predictedSeconds === undefined ? "" : formatSeconds(row.predictedSeconds),
      off === undefined ? "" : percent(off)
    ]
  })
  const head = ["op", "ranks", "bytes", "took", "bus", "predicted from fewer ranks", "off by"]
  const groups = Map.groupBy(
    rows.filter(({ predictedSeconds }) => predictedSeconds !== undefined),
    ({ op, ranks }) => `${op} of ${ranks} from fewer ranks`
  )
  const sums = [...groups].map(([what, list]) => {
    const errors = list.map((row) => Math.abs(offOf(row)!))
    const signed = list.map((row) => offOf(row)!)
    return `${what}: error in the median ${(100 * median(errors)).toFixed(1)} %, worst ${(100 * Math.max(...errors)).toFixed(1)} %; bias ${percent(median(signed))} (${list.length} sizes)`
  })
  return [...alignColumns([head, ...lines], (column) => column >= 1), "", ...sums].join("\n")
}

/** As traces/tables has it. */
export const collectivesCsv = (rows: ReadonlyArray<CollectiveCost>): string =>
  [
    "op,ranks,bytes,median_seconds,link",
    ...rows.map(({ op, ranks, sizeBytes, medianSeconds, link }) =>
      [op, ranks, sizeBytes, Number(medianSeconds.toPrecision(5)), link].join(",")
    ),
    ""
  ].join("\n")

// A run's result for a person: its family's figures, what was sent, and what to be careful about.
import { printEstimates } from "../../core/cost/provenance.ts"
import { formatBytes, formatSeconds, formatShare, counted } from "../../core/units.ts"
import { familyOf } from "../../scenarios/families.ts"
import type { RunResult } from "../../scenarios/result.ts"
import { alignColumns, section } from "../../scenarios/table.ts"

export const printRun = (result: RunResult): string => {
  const { makespanSeconds, links, network, collectives } = result
  const used = links.filter(({ bytes }) => bytes > 0)
  const traffic = alignColumns(
    used.map(({ name, count, bytes, busySeconds }) => [
      name,
      count === 1 ? "" : `${count} links`,
      formatBytes(bytes),
      `busy ${formatShare(makespanSeconds > 0 ? busySeconds / makespanSeconds : 0)} of the run`
    ]),
    (column) => column === 1 || column === 2
  )
  const models = [
    ...(network === undefined ? [] : [`network ${network}`]),
    ...(collectives === undefined ? [] : [`collectives ${collectives}`])
  ]
  return [
    `${result.scenario}: ${result.algorithm} on ${counted(result.ranks, "rank")}`,
    [...models, counted(result.ops, "operation"), `${formatSeconds(makespanSeconds)} simulated`].join(", "),
    "",
    ...familyOf(result).print(result),
    ...section("links", traffic),
    ...section("not measured", printEstimates(result.estimates)),
    ...section("warnings", result.warnings),
    "",
    `digest ${result.digest}`,
    ""
  ].join("\n")
}

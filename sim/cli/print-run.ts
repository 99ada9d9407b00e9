// A run's result for a person: how long a step takes, what of it is waiting, what was sent, and what to be careful about.
import { formatBytes, formatSeconds, formatShare } from "../../core/units.ts"
import type { RunResult } from "../result.ts"
import { alignColumns } from "./table.ts"

const plural = (count: number, one: string): string => `${count} ${one}${count === 1 ? "" : "s"}`

export const printRun = (result: RunResult): string => {
  const { stepSeconds, makespanSeconds, links } = result
  const share = (seconds: number) => formatShare(stepSeconds > 0 ? seconds / stepSeconds : 0)
  const figures = alignColumns(
    [
      [
        "step",
        formatSeconds(stepSeconds),
        "",
        `mean of ${result.steps} after ${result.warmupSteps} of warm-up`
      ],
      ["  compute", formatSeconds(result.computeSeconds), share(result.computeSeconds), "mean of the ranks"],
      [
        "  waiting",
        formatSeconds(result.exposedCommunicationSeconds),
        share(result.exposedCommunicationSeconds),
        "for communication and slower ranks"
      ]
    ],
    (column) => column === 1 || column === 2
  )
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
  const estimates = result.estimates.map(({ kernel, source, detail }) => `${kernel}: ${source} (${detail})`)
  return [
    `${result.scenario}: ${result.algorithm} on ${plural(result.ranks, "rank")}`,
    `network ${result.network}, collectives ${result.collectives}, ${plural(result.ops, "operation")}, ${formatSeconds(makespanSeconds)} simulated`,
    "",
    ...figures,
    ...section("links", traffic),
    ...section("not measured", estimates),
    ...section("warnings", result.warnings),
    "",
    `digest ${result.digest}`,
    ""
  ].join("\n")
}

const section = (title: string, lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.length === 0 ? [] : ["", title, ...lines.map((line) => `  ${line}`)]

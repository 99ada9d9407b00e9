// How long a step of data-parallel training takes, and what of it is waiting, for a person.
import { formatBytes, formatSeconds, formatShare } from "../../../core/units.ts"
import { metricOf, type RunResult } from "../../result.ts"
import { alignColumns } from "../../table.ts"
import type { CheckpointDetails, MemoryDetails } from "./prepare.ts"

export const print = (result: RunResult): ReadonlyArray<string> => {
  const stepSeconds = metricOf(result, "stepSeconds")
  const line = (title: string, metric: string, note: string): ReadonlyArray<string> => {
    const seconds = metricOf(result, metric)
    return [title, formatSeconds(seconds), formatShare(stepSeconds > 0 ? seconds / stepSeconds : 0), note]
  }
  const memory = result.details?.["memory"] as MemoryDetails | undefined
  const steps = alignColumns(
    [
      [
        "step",
        formatSeconds(stepSeconds),
        "",
        `mean of ${result.steps ?? 0} after ${result.warmupSteps ?? 0} of warm-up`
      ],
      line("  compute", "computeSeconds", "mean of the ranks"),
      line("  waiting", "exposedCommunicationSeconds", "for communication, slower ranks, the host, storage")
    ],
    (column) => column === 1 || column === 2
  )
  const checkpoint = result.details?.["checkpoint"] as CheckpointDetails | undefined
  return [
    ...steps,
    ...(checkpoint === undefined ? [] : printCheckpoint(checkpoint)),
    ...(memory === undefined ? [] : printMemory(memory))
  ]
}

const printCheckpoint = ({
  everySteps,
  sizeBytes,
  copiedSeconds,
  writtenSeconds
}: CheckpointDetails): ReadonlyArray<string> => [
  "",
  `checkpoint every ${everySteps === 1 ? "step" : `${everySteps} steps`}  ${formatBytes(sizeBytes)} a rank, on the host after ${formatSeconds(copiedSeconds)}, written after ${formatSeconds(writtenSeconds)}`
]

const printMemory = ({ heldBytes, capacityBytes, parts }: MemoryDetails): ReadonlyArray<string> => {
  // Whoever does not fit is refused where the memory runs out, with the tensor that it runs out at.
  const verdict = capacityBytes === undefined ? "" : ` of ${formatBytes(capacityBytes)}: fits`
  const without = parts.activations === undefined ? ", activations not counted" : ""
  const named = Object.entries(parts).filter(([, bytes]) => bytes >= 0.005 * heldBytes)
  return [
    "",
    `memory  ${formatBytes(heldBytes)} a rank${verdict}${without}`,
    `  ${named.map(([name, bytes]) => `${name} ${formatBytes(bytes)}`).join(", ")}`
  ]
}

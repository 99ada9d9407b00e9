// An explanation as text for a terminal of 80 columns and more. Decides nothing: explain.ts did.
import { counted, formatBytes, formatSeconds, formatShare } from "../../core/units.ts"
import type { CollectiveExplanation, Explanation } from "./explain.ts"
import { pathKinds } from "./critical-path.ts"

interface PrintOptions {
  /** What was run, for the heading: "ddp on 8 ranks". */
  readonly title?: string
  /** Columns of the terminal; at least 80 are used, at most 100. */
  readonly columns?: number
  /** Rows shown of each table before the rest is summed up. */
  readonly rowsMax?: number
}

/** The explanation, lines joined with newlines, without a trailing one. */
export const printExplanation = (explanation: Explanation, options: PrintOptions = {}): string => {
  const width = Math.min(100, Math.max(80, options.columns ?? 96))
  const rowsMax = options.rowsMax ?? 12
  return [
    heading(explanation, options.title),
    "",
    ...balance(explanation, width),
    "",
    ...pathTable(explanation, width, rowsMax),
    ...collectiveTable(explanation, width, rowsMax),
    "",
    ...reasons(explanation).flatMap((sentence) => wrap(sentence, width))
  ].join("\n")
}

const heading = ({ window, seconds }: Explanation, title: string | undefined): string => {
  const { firstStep, lastStep, rank } = window
  const steps = firstStep === lastStep ? `step ${firstStep}` : `steps ${firstStep} to ${lastStep}`
  return `${title === undefined ? "" : `${title}, `}rank ${rank}, ${steps}: ${formatSeconds(seconds)}`
}

/** The window's seconds by what the compute lane did: what it computed and what it waited for. */
const balance = ({ seconds, computeSeconds, exposed }: Explanation, width: number): ReadonlyArray<string> => {
  const rows: ReadonlyArray<readonly [string, number]> = [
    ["computing", computeSeconds],
    ["waiting for communication", exposed.communicationSeconds],
    ["waiting for host copies", exposed.copySeconds],
    ["waiting for slower ranks", exposed.otherRanksSeconds],
    ["waiting for latency", exposed.latencySeconds],
    ["waiting for host's launches", exposed.hostSeconds],
    ["waiting for storage, requests", exposed.asleepSeconds],
    ["waiting for multiprocessors", exposed.placementSeconds],
    ["nothing to do", exposed.idleSeconds]
  ]
  return rows
    .filter(([, part], index) => index < 2 || part > 1e-9 * seconds)
    .map(([name, part]) => bar(name, part, seconds, width))
}

const pathTable = (
  { criticalPath, seconds }: Explanation,
  width: number,
  rowsMax: number
): ReadonlyArray<string> => {
  const { byKind, byLabel } = criticalPath
  const lines = ["Critical path (what the end waited for, op by op, back to the start)"]
  for (const kind of pathKinds) if (byKind[kind] > 0) lines.push(bar(kind, byKind[kind], seconds, width))
  const shown = byLabel.length > rowsMax ? byLabel.slice(0, rowsMax - 1) : byLabel
  lines.push("  longest parts of it:")
  for (const { label, kind, seconds: part } of shown) {
    lines.push(
      `    ${fit(kind === "latency" ? `latency of ${label}` : kind === "placement" ? `multiprocessors for ${label}` : label, 40)} ${formatSeconds(part).padStart(9)} ${formatShare(part / seconds).padStart(8)}`
    )
  }
  const rest = byLabel.slice(shown.length)
  if (rest.length > 0) {
    const part = rest.reduce((sum, { seconds }) => sum + seconds, 0)
    lines.push(
      `    ${fit(counted(rest.length, "other"), 40)} ${formatSeconds(part).padStart(9)} ${formatShare(part / seconds).padStart(8)}`
    )
  }
  return lines
}

const bar = (name: string, part: number, whole: number, width: number): string => {
  const share = whole > 0 ? part / whole : 0
  const room = width - 53
  return `  ${fit(name, 29)} ${formatSeconds(part).padStart(9)} ${formatShare(share).padStart(8)}  ${"█".repeat(
    Math.round(share * room)
  )}`.trimEnd()
}

const collectiveTable = (
  { collectives, window }: Explanation,
  width: number,
  rowsMax: number
): ReadonlyArray<string> => {
  if (collectives.length === 0) return []
  const name = width - 61
  const at = (seconds: number | undefined): string =>
    (seconds === undefined ? "?" : formatOffset(seconds - window.fromSeconds)).padStart(9)
  const lines = [
    "",
    "Collectives, times from the start of the window",
    `  ${fit("", name)} ${["size", "ready", "start", "end", "hidden", "exposed"].map((text) => text.padStart(9)).join("")}`
  ]
  const shown =
    collectives.length > rowsMax
      ? collectives
          .toSorted((a, b) => b.exposedSeconds - a.exposedSeconds || a.startedSeconds - b.startedSeconds)
          .slice(0, rowsMax - 1)
          .toSorted((a, b) => a.startedSeconds - b.startedSeconds)
      : collectives
  for (const collective of shown) {
    const cells = [
      formatBytes(collective.sizeBytes).padStart(9),
      at(collective.releasedSeconds),
      at(collective.startedSeconds),
      at(collective.endedSeconds),
      formatDuration(collective.hiddenSeconds).padStart(9),
      formatDuration(collective.exposedSeconds).padStart(9)
    ]
    lines.push(`  ${fit(collective.label, name)} ${cells.join("")}`)
  }
  if (shown.length < collectives.length) {
    const rest = collectives.filter((collective) => !shown.includes(collective))
    const sum = (of: (collective: CollectiveExplanation) => number): number =>
      rest.reduce((total, collective) => total + of(collective), 0)
    const cells = [
      formatBytes(sum(({ sizeBytes }) => sizeBytes)).padStart(9),
      "".padStart(27),
      formatDuration(sum(({ hiddenSeconds }) => hiddenSeconds)).padStart(9),
      formatDuration(sum(({ exposedSeconds }) => exposedSeconds)).padStart(9)
    ]
    lines.push(`  ${fit(counted(rest.length, "other"), name)} ${cells.join("")}`)
  }
  return lines
}

const formatDuration = (seconds: number): string => (seconds < 1e-12 ? "-" : formatSeconds(seconds))

const formatOffset = (seconds: number): string => (Math.abs(seconds) < 1e-12 ? "0 s" : formatSeconds(seconds))

/** Sentences that answer "why is communication (not) hidden?". */
const reasons = (explanation: Explanation): ReadonlyArray<string> => {
  const { seconds, computeSeconds, exposed, communicationBusySeconds, collectives } = explanation
  const waited = exposed.communicationSeconds + exposed.latencySeconds
  if (collectives.length === 0) return ["There is no communication in this window."]
  const sentences: Array<string> = []
  if (waited <= 1e-9 * seconds) {
    sentences.push(
      `Communication is hidden: ${formatSeconds(communicationBusySeconds)} of it ran while the rank computed, and nothing waited.`
    )
  } else {
    sentences.push(
      `Communication is not hidden: for ${formatSeconds(waited)} (${formatShare(waited / seconds)} of the time) the rank computed nothing because a collective had not ended.`
    )
    sentences.push(
      communicationBusySeconds > computeSeconds
        ? `Collectives take ${formatSeconds(communicationBusySeconds)} but there are only ${formatSeconds(computeSeconds)} of computation to hide them behind: no order of the same collectives hides the other ${formatSeconds(communicationBusySeconds - computeSeconds)}. ${exposed.latencySeconds > 0.5 * waited ? "Send less often, or fewer and larger messages" : "Send fewer bytes, or less often"}.`
        : `Collectives take ${formatSeconds(communicationBusySeconds)} and there are ${formatSeconds(computeSeconds)} of computation, so they would fit: they are released too late, or due too early.`
    )
    if (exposed.latencySeconds > 0.1 * waited)
      sentences.push(
        `${formatSeconds(exposed.latencySeconds)} of the wait are latency of links and software, which fewer bytes do not shorten.`
      )
  }
  if (exposed.otherRanksSeconds > 0.01 * seconds) {
    sentences.push(
      `For ${formatSeconds(exposed.otherRanksSeconds)} it waited for other ranks that had not yet joined a collective.`
    )
  }
  if (exposed.hostSeconds > 0.01 * seconds)
    sentences.push(
      `For ${formatSeconds(exposed.hostSeconds)} the device waited for the host to launch what was ready: fewer launches help (host: compiled or graph), not faster links.`
    )
  const placed = explanation.criticalPath.byKind.placement
  if (placed > 0.01 * seconds)
    sentences.push(
      `On the critical path collectives waited ${formatSeconds(placed)} for multiprocessors that kernels held: fewer, larger messages wait less often (collectives.wait, costs.wait).`
    )
  // The same collective of several steps is told once, by the step in which it was exposed longest.
  const exposedOf = Map.groupBy(
    collectives.toSorted((a, b) => b.exposedSeconds - a.exposedSeconds),
    ({ label }) => label
  )
  const totalOf = (group: ReadonlyArray<CollectiveExplanation>): number =>
    group.reduce((sum, { exposedSeconds }) => sum + exposedSeconds, 0)
  const worst = [...exposedOf.values()].toSorted((a, b) => totalOf(b) - totalOf(a)).slice(0, 3)
  for (const group of worst) {
    const total = totalOf(group)
    if (total <= 0.01 * seconds) continue
    const repeats = group.filter(({ exposedSeconds }) => exposedSeconds > 0).length
    const often = repeats > 1 ? ` So ${repeats} times, ${formatSeconds(total)} in all.` : ""
    sentences.push(`${why(group[0]!)}${often}`)
  }
  return sentences
}

const why = (collective: CollectiveExplanation): string => {
  const { label, delay, startedSeconds, releasedSeconds, waiters, exposedSeconds } = collective
  const waiter = waiters.toSorted((a, b) => b.seconds - a.seconds)[0]!
  const others = waiters.length > 1 ? ` and ${waiters.length - 1} more` : ""
  const waits = `"${waiter.label}"${others} waited ${formatSeconds(exposedSeconds)} for it.`
  switch (delay.kind) {
    case "none":
      return `${label} started as soon as its data were ready; ${waits}`
    case "host":
      return `${label} was launched ${formatSeconds(delay.seconds)} after its data were ready, when the host came to it; ${waits}`
    case "placement":
      return `${label} began while a kernel ran, and its own waited ${formatSeconds(delay.seconds)} for multiprocessors; ${waits}`
    case "other-rank":
      return `${label} could not start before rank ${delay.rank} had finished "${delay.label}"; ${waits}`
    case "queued": {
      const time =
        releasedSeconds === undefined ? "" : ` for ${formatSeconds(startedSeconds - releasedSeconds)}`
      const first = delay.labels.at(-1)!
      const more = delay.labels.length > 1 ? ` and ${delay.labels.length - 1} before it` : ""
      return `${label} queued${time} behind ${first}${more}; ${waits}`
    }
  }
}

const fit = (text: string, width: number): string =>
  text.length <= width ? text.padEnd(width) : `${text.slice(0, width - 1)}…`

/** Breaks at spaces; continuation lines are indented by two. */
const wrap = (text: string, width: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line)
      line = `  ${word}`
    } else line = line === "" ? word : `${line} ${word}`
  }
  return [...lines, line]
}

// What fsdp_record.py writes (fsdp.json), as far as it is read here, and medians of it. Knows no simulator.
import * as Result from "effect/Result"
import { median } from "../../core/median.ts"
import { parseBandwidth } from "../../core/units.ts"

export const models = ["gpt2", "llama1b"] as const
export type Model = (typeof models)[number]
/** `local16`: the model with 16-bit parameters, as FSDP2 gathers them, without FSDP2. */
export type Mode = "local" | "local16" | "ddp" | "fsdp"

interface RankSteps {
  readonly seconds: ReadonlyArray<number>
  readonly synchronized_seconds?: ReadonlyArray<number>
  readonly peak_bytes?: number
}

export interface RecordedSteps {
  readonly what: "steps"
  /** `none` of local steps. */
  readonly link: string
  readonly model: Model
  readonly mode: Mode
  /** How many ran at once. */
  readonly processes?: number
  /** Of so few tokens that the host sets the pace. */
  readonly few?: boolean
  /** Among DDP's first ten. */
  readonly early?: boolean
  readonly ranks: ReadonlyArray<RankSteps>
}

/** A few steps of one kind, in turn with a few of the others. */
export interface RecordedTurn extends Omit<RecordedSteps, "what" | "processes" | "early"> {
  readonly what: "turn"
  readonly round: number
}

interface RecordedTrace {
  readonly what: "trace"
  readonly model: Model
  readonly mode: Mode
  readonly few?: boolean
  readonly file?: string
}

interface Beside {
  readonly alone_seconds: number
  /** None where no kernel ended before the calls did. */
  readonly beside_seconds: number | null
}

interface RecordedBeside {
  readonly what: "beside"
  readonly link: string
  readonly ranks: ReadonlyArray<{ readonly product: Beside; readonly copy: Beside }>
}

interface RecordedCollectives {
  readonly what: "collectives"
  readonly link: string
  readonly rows: ReadonlyArray<{
    readonly op: string
    readonly bytes: number
    readonly ranks: ReadonlyArray<{
      readonly blocking_seconds: ReadonlyArray<number>
      readonly queued_seconds?: number
    }>
  }>
}

type Part =
  | RecordedSteps
  | RecordedTurn
  | RecordedTrace
  | RecordedBeside
  | RecordedCollectives
  | { readonly what: "model" | "spans" }

interface Described {
  readonly torch?: string
  readonly nccl?: string
  readonly device?: string
  readonly tcp?: { readonly tcp_congestion_control: ReadonlyArray<string> }
}

export interface Recording {
  readonly date: string
  readonly conditions?: { readonly gradient_as_bucket_view?: boolean }
  readonly described?: {
    readonly nvlink?: ReadonlyArray<Described>
    readonly sockets?: ReadonlyArray<Described>
  }
  readonly parts: ReadonlyArray<Part>
}

export const partsOf = <What extends Part["what"]>(
  { parts }: Recording,
  what: What
): ReadonlyArray<Extract<Part, { readonly what: What }>> =>
  parts.filter((part): part is Extract<Part, { readonly what: What }> => part.what === what)

const mean = (values: ReadonlyArray<number>): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

/** Median of the steps, mean of the ranks, seconds. */
export const secondsOf = ({ ranks }: Pick<RecordedSteps, "ranks">): number =>
  mean(ranks.map(({ seconds }) => median(seconds)))

/** The same where the host waits for the device after each; undefined where none were recorded. */
export const waitedSecondsOf = ({ ranks }: RecordedSteps): number | undefined => {
  const waited = ranks.flatMap(({ synchronized_seconds }) =>
    synchronized_seconds === undefined || synchronized_seconds.length === 0
      ? []
      : [median(synchronized_seconds)]
  )
  return waited.length === 0 ? undefined : mean(waited)
}

/** Of the fuller rank. */
export const peakBytesOf = ({ ranks }: RecordedSteps): number | undefined => {
  const peaks = ranks.flatMap(({ peak_bytes }) => peak_bytes ?? [])
  return peaks.length === 0 ? undefined : Math.max(...peaks)
}

/**
 * What steps take that wait for the slower of two hosts each time, seconds: the mean, over all pairs of one rank's steps and the
 * other's, of the longer of the two. Of ranks whose steps did not wait for each other.
 */
export const slowerSeconds = (parts: ReadonlyArray<Pick<RecordedSteps, "ranks">>): number =>
  mean(
    parts.map(({ ranks }) =>
      mean(
        ranks
          .map(({ seconds }) => seconds)
          .reduce((so, more) => so.flatMap((a) => more.map((b) => Math.max(a, b))))
      )
    )
  )

/** Steps of the kind asked for, by both processes at once, DDP's first ten aside. */
export const stepsOf = (
  recording: Recording,
  kind: { readonly model: Model; readonly mode: Mode; readonly few: boolean; readonly link?: string }
): ReadonlyArray<RecordedSteps> =>
  partsOf(recording, "steps").filter(
    ({ model, mode, few = false, early = false, processes = 2, link }) =>
      model === kind.model &&
      mode === kind.mode &&
      few === kind.few &&
      !early &&
      processes === 2 &&
      link === (kind.link ?? link)
  )

/** Turns of the kind asked for, by round. Empty where none were recorded. */
export const turnsOf = (
  recording: Recording,
  kind: { readonly model: Model; readonly mode: Mode; readonly few: boolean }
): ReadonlyArray<RecordedTurn> =>
  partsOf(recording, "turn")
    .filter(({ model, mode, few = false }) => model === kind.model && mode === kind.mode && few === kind.few)
    .toSorted((a, b) => a.round - b.round)

/**
 * What DDP or FSDP2 adds to a host's step, seconds: the median, over rounds, of a step of few tokens under it less the slower host's
 * local one of the same round. Undefined where no turns were recorded.
 */
export const addedInTurns = (
  recording: Recording,
  model: Model,
  mode: "ddp" | "fsdp"
): number | undefined => {
  const local = turnsOf(recording, { model, mode: mode === "ddp" ? "local" : "local16", few: true })
  const byRound = new Map(local.map((turn) => [turn.round, slowerSeconds([turn])]))
  const added = turnsOf(recording, { model, mode, few: true }).flatMap((turn) => {
    const alone = byRound.get(turn.round)
    return alone === undefined ? [] : [secondsOf(turn) - alone]
  })
  return added.length === 0 ? undefined : median(added)
}

/** A local step of few tokens, whose host sets the pace, seconds. */
export const hostSeconds = (recording: Recording, model: Model, mode: "local" | "local16"): number => {
  const turns = turnsOf(recording, { model, mode, few: true })
  if (turns.length > 0) return median(turns.map((turn) => slowerSeconds([turn])))
  return slowerSeconds(stepsOf(recording, { model, mode, few: true }))
}

/** A step of few tokens under DDP or FSDP2 over NVLink, seconds. */
export const fewSeconds = (recording: Recording, model: Model, mode: "ddp" | "fsdp"): number => {
  const added = addedInTurns(recording, model, mode)
  if (added !== undefined) return hostSeconds(recording, model, mode === "ddp" ? "local" : "local16") + added
  return secondsOf(stepsOf(recording, { model, mode, few: true, link: "nvlink" })[0]!)
}

/** What FSDP2 adds to a host's step, for each of so many calls of collectives, seconds. */
export const fsdpSecondsPerCall = (recording: Recording, model: Model, calls: number): number =>
  Math.max(0, fewSeconds(recording, model, "fsdp") - hostSeconds(recording, model, "local16")) / calls

/** Whether steps over sockets were recorded too, or over NVLink alone. */
export const hasSockets = (recording: Recording): boolean =>
  partsOf(recording, "steps").some(({ link }) => link !== "none" && link !== "nvlink")

/** Whether hosts' steps were recorded in turns. */
export const hasTurns = (recording: Recording): boolean => partsOf(recording, "turn").length > 0

/** Of what, and how, in a sentence for a table that is made of it. */
export const sourceOf = (recording: Recording): string => {
  const { torch = "?", nccl = "?", device = "GPUs" } = recording.described?.nvlink?.[0] ?? {}
  const sockets = hasSockets(recording)
  return [
    `bench/measured/fsdp_record.py, ${recording.date}: two ${device} of one machine, a rank each, PyTorch ${torch}, NCCL ${nccl}${sockets ? `, TCP ${congestionOf(recording)}` : ""}: GPT-2 124M at 4 x 1024 and a Llama of 852,559,872 parameters at 4 x 2048`,
    "local and DDP in bf16 autocast with float32 parameters (bucket_cap_mb=25, gradient_as_bucket_view), FSDP2 of every block and the root (param_dtype bf16, reduce_dtype float32)",
    "fused AdamW",
    "over NVLink each in processes of its own",
    "medians of steps, mean of the two ranks",
    "local: both at once, without communication",
    ...(sockets ? ["sockets between network namespaces, MTU 9000, token bucket both ways"] : []),
    ...(hasTurns(recording)
      ? [
          "over NVLink, but where the host waits for each: a few steps in each of several rounds, medians of these"
        ]
      : [])
  ].join("; ")
}

export const congestionOf = ({ described }: Recording): string =>
  described?.sockets?.[0]?.tcp?.tcp_congestion_control[0] ?? "tcp"

/**
 * How many times as long kernels took beside all-reduces over such a link: mean of a product and a copy, at least 1. Of sockets where
 * it was not recorded, over the first that it was; undefined where there is none.
 */
export const slowdownBeside = (recording: Recording, link: string): number | undefined => {
  const all = partsOf(recording, "beside").filter((part) => (part.link === "nvlink") === (link === "nvlink"))
  const part = all.find((one) => one.link === link) ?? all[0]
  if (part === undefined) return undefined
  const ratios = part.ranks.flatMap(({ product, copy }) =>
    [product, copy].flatMap(({ alone_seconds, beside_seconds }) =>
      beside_seconds === null ? [] : [beside_seconds / alone_seconds]
    )
  )
  return ratios.length === 0 ? undefined : Math.max(1, mean(ratios))
}

/** Collectives over a link as a table that `sim import csv` reads: calls in a row where recorded, else the median blocking one. */
export const collectivesCsv = (recording: Recording, link: string): string | undefined => {
  const rows = partsOf(recording, "collectives")
    .filter((part) => part.link === link)
    .flatMap((part) => part.rows)
  if (rows.length === 0) return undefined
  // A rate is what the link was shaped to; NVLink and sockets as they are were not.
  const limit = Result.isSuccess(parseBandwidth(link)) ? link : "unshaped"
  const lines = rows.map(({ op, bytes, ranks }) => {
    const seconds = mean(
      ranks.map(({ queued_seconds, blocking_seconds }) => queued_seconds ?? median(blocking_seconds))
    )
    return `${op},${ranks.length},${bytes},${seconds},${limit}`
  })
  return ["op,ranks,bytes,median_seconds,link", ...lines, ""].join("\n")
}

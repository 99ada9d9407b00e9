// A PyTorch profiler trace becomes a Profile. The public face of this folder.
import * as Effect from "effect/Effect"
import { realpath } from "node:fs/promises"
import { basename } from "node:path"
import type { CollectiveCost, LayerCost, Profile } from "../../core/profile.ts"
import { formatSeconds } from "../../core/units.ts"
import { foreignKind } from "../foreign.ts"
import { readHead } from "../head.ts"
import type { ImportReport } from "../import-report.ts"
import { totalSeconds, withoutGaps } from "../rescale.ts"
import { attemptAsync, TraceError } from "../trace-error.ts"
import { withoutAbsurdTimes } from "./absurd-times.ts"
import { attribute, type Attribution } from "./attribute.ts"
import { traceFiles, traceSources, type ByteSource } from "./bytes.ts"
import { collectiveCosts } from "./collectives.ts"
import { jobOf, type RankTrace } from "./job.ts"
import { traceAccepted } from "./json-events.ts"
import { measuredHost, type UnderDdp } from "./measured-host.ts"
import { parallelismWarning } from "./parallelism.ts"
import { processTraces } from "./ranks.ts"
import { readKineto, type ReadOptions } from "./read-trace.ts"

/** What a trace does not say, or what overrides it. */
export interface KinetoOptions extends ReadOptions {
  /** Name of the profile; default: the file's name without its extensions. */
  readonly name?: string
  /** Overrides the device named in the trace. */
  readonly device?: string
  /** Conditions of the recording, added to the profile's `source`. */
  readonly conditions?: string
  /** Step time of the same run without the profiler, seconds; at least the device's busy time. */
  readonly unprofiledStepSeconds?: number
  /** A trace of the same model under DDP: what its hooks and calls of collectives cost the host. */
  readonly ddp?: string
  /** Step time of that run without the profiler, seconds. */
  readonly ddpStepSeconds?: number
  /** Name of the input for messages; `importKinetoFile` sets it. */
  readonly file?: string
}

/**
 * Imports a trace recorded by `torch.profiler` (with_modules, record_shapes and with_stack make it most telling; none
 * is needed). Bytes may be gzip-compressed. Memory grows with the events kept, not with the text. All device time of a
 * step ends up in some layer: see docs/formats.md for the rules. A trace of several processes gives one profile, as
 * `importKinetoFiles` does. Errors: `TraceError`.
 */
export const importKineto = (
  source: ByteSource,
  options: KinetoOptions = {}
): Effect.Effect<ImportReport, TraceError> => {
  const file = options.file ?? "trace"
  return attemptAsync(file, "a PyTorch profiler trace", async (signal) => {
    const warnings: Array<string> = []
    const traces = await rankTraces(file, source, options, signal, warnings)
    return reportOf(traces, await ddpOf(options, signal), warnings, options)
  })
}

/** As `importKineto`, from a file: JSON, gzip-compressed or not, or a zip archive of traces (the content decides). */
export const importKinetoFile = (
  path: string,
  options: KinetoOptions = {}
): Effect.Effect<ImportReport, TraceError> => importKinetoFiles([path], options)

/**
 * Traces of several ranks of one job as one profile: means over the ranks where their layers agree, collectives from when
 * the last rank came to them, and what each rank took. Errors: `TraceError`, also where two are of one rank.
 */
export const importKinetoFiles = (
  paths: readonly [string, ...Array<string>],
  options: KinetoOptions = {}
): Effect.Effect<ImportReport, TraceError> =>
  attemptAsync(options.file ?? paths[0], "PyTorch profiler traces", async (signal) => {
    const warnings: Array<string> = []
    const traces: Array<RankTrace> = []
    const files = await traceFiles(paths)
    await requireOnce(files)
    for (const path of files)
      for (const { file, source } of await traceSources(path))
        traces.push(...(await rankTraces(file, source, options, signal, warnings)))
    return reportOf(traces, await ddpOf(options, signal), warnings, { file: paths[0], ...options })
  })

/** Throws `TraceError` where one file is there twice, by whatever names: it would count as two ranks. */
const requireOnce = async (files: ReadonlyArray<string>): Promise<void> => {
  const seen = new Map<string, string>()
  for (const file of files) {
    const place = await realpath(file)
    const before = seen.get(place)
    if (before !== undefined)
      throw new TraceError({
        file,
        field: "file",
        value: before === file ? "given twice" : `the same as ${before}`,
        accepted: "each rank's trace once"
      })
    seen.set(place, file)
  }
}

/** What the host did in the trace under DDP that the options name. */
const ddpOf = async (options: KinetoOptions, signal: AbortSignal): Promise<UnderDdp | undefined> => {
  const { ddp, ddpStepSeconds } = options
  if (ddp === undefined) return undefined
  const onlyOne = (value: string): TraceError =>
    new TraceError({ file: ddp, field: "content", value, accepted: "the trace of one rank" })
  const sources = await traceSources(ddp)
  if (sources.length > 1) throw onlyOne(sources.map(({ file }) => basename(file)).join(", "))
  const ranks = await rankTraces(sources[0]!.file, sources[0]!.source, options, signal, [])
  if (ranks.length > 1) throw onlyOne(`traces of ${ranks.length} processes`)
  const { host } = ranks[0]!.found
  if (host.overlapped) return { times: host, unprofiledSeconds: ddpStepSeconds }
  throw new TraceError({
    file: ddp,
    field: "traceEvents",
    value: `${Math.round(host.calls)} calls of collectives a step, none as a gradient is made`,
    accepted: "a trace of a rank that trains under DistributedDataParallel"
  })
}

/** A file that is no trace, by what it is where that is known. */
const toldBetter = async (error: TraceError): Promise<TraceError> => {
  if (!/^(?:content$|traceEvents)/u.test(error.field)) return error
  const head = await readHead(error.file).catch(() => undefined)
  const other = head === undefined ? undefined : foreignKind(head.bytes, head.text)
  if (other === undefined) return error
  return new TraceError({
    file: error.file,
    field: "content",
    value: other.title,
    accepted: [traceAccepted, ...other.missing.map(({ what, how }) => `${what} (${how})`)].join("; ")
  })
}

/** The ranks that one file holds, attributed one by one. What concerns the whole file is added to `warnings`. */
const rankTraces = async (
  file: string,
  source: ByteSource,
  options: KinetoOptions,
  signal: AbortSignal,
  warnings: Array<string>
): Promise<ReadonlyArray<RankTrace>> => {
  const whole = await readKineto(file, source, options, signal).catch(async (error: unknown) => {
    throw error instanceof TraceError ? await toldBetter(error) : error
  })
  const several: Array<string> = []
  const parts = processTraces(whole, several)
  if (parts.length > 1) {
    warnings.push(`${file} holds traces of ${parts.length} processes, taken for ranks of one job`)
    warnings.push(...whole.warnings, ...several)
  }
  return parts.map((part): RankTrace => {
    const own = [...part.warnings]
    const found = attribute(withoutAbsurdTimes({ ...part, warnings: [] }, own))
    return {
      file,
      rank: parts.length > 1 ? undefined : part.rank,
      worldSize: part.worldSize,
      deviceName: part.deviceName,
      base: part.base,
      found: { ...found, warnings: [...new Set([...own, ...found.warnings])] }
    }
  })
}

/** One rank's trace as a report, or several ranks' as one. */
const reportOf = (
  traces: ReadonlyArray<RankTrace>,
  ddp: UnderDdp | undefined,
  ofFiles: ReadonlyArray<string>,
  options: KinetoOptions
): ImportReport => {
  const [first] = traces
  if (traces.length === 1) {
    const { found } = first!
    const warnings = [...ofFiles, ...found.warnings]
    const collectives = collectiveCosts(found.calls, warnings)
    return finished(first!, ddp, found.layers, collectives, warnings, options)
  }
  const job = jobOf(traces)
  const warnings = [...ofFiles, ...shared(traces), ...job.warnings]
  const typical = traces[job.typical]!
  const report = finished(typical, ddp, job.layers, job.collectives, warnings, options)
  const mean = (of: (found: Attribution) => number) =>
    traces.reduce((sum, { found }) => sum + of(found) / traces.length, 0)
  const alike = job.layers !== typical.found.layers
  return {
    ...report,
    profile: alike
      ? {
          ...report.profile,
          stepSeconds: mean((found) => found.stepSeconds),
          deviceBusySeconds: mean((found) => found.deviceBusySeconds)
        }
      : report.profile,
    ranks: job.ranks
  }
}

/** What all ranks' traces are warned of once; what only some are, with the number of them. */
const shared = (traces: ReadonlyArray<RankTrace>): ReadonlyArray<string> => {
  const alike = new Map<string, Array<string>>()
  for (const { found } of traces) {
    for (const warning of new Set(found.warnings)) {
      const words = warning.replaceAll(/\d+(?:\.\d+)?/gu, "#")
      const same = alike.get(words)
      if (same === undefined) alike.set(words, [warning])
      else same.push(warning)
    }
  }
  return [...alike.values()].map((same) => {
    const [first] = same
    const isOne = same.every((warning) => warning === first)
    if (isOne && same.length === traces.length) return first!
    return `${same.length} of ${traces.length} ranks${isOne ? "" : ", each with numbers of its own, the first"}: ${first}`
  })
}

/** Steps of one program differ by less than so many times between a run with the profiler and one without. Assumed. */
const slowerThanProfiled = 1.5

const finished = (
  { file, deviceName, found }: RankTrace,
  ddp: UnderDdp | undefined,
  layers: ReadonlyArray<LayerCost>,
  collectives: ReadonlyArray<CollectiveCost>,
  warnings: Array<string>,
  options: KinetoOptions
): ImportReport => {
  const { unprofiledStepSeconds } = options
  const busy = found.deviceBusySeconds
  if (
    unprofiledStepSeconds !== undefined &&
    !(unprofiledStepSeconds >= busy && unprofiledStepSeconds < Infinity)
  ) {
    throw new TraceError({
      file,
      field: "unprofiled step time",
      value: `${unprofiledStepSeconds} s`,
      accepted: `at least the ${busy} s the device is busy in a step`
    })
  }
  if (unprofiledStepSeconds !== undefined && unprofiledStepSeconds > found.stepSeconds * slowerThanProfiled)
    warnings.push(
      `the step time without the profiler, ${formatSeconds(unprofiledStepSeconds)}, is longer than with it, ${formatSeconds(found.stepSeconds)}, though the profiler makes steps no shorter: it is of another step, or in another unit (a bare number is seconds)`
    )
  const parallel = parallelismWarning(found.parallelism, found.sharded)
  if (parallel !== undefined) warnings.push(parallel)
  const measured = measuredHost(
    found.host,
    {
      profiledSeconds: found.stepSeconds,
      wallSeconds: found.wallSeconds,
      unprofiledSeconds: unprofiledStepSeconds,
      busySeconds: busy
    },
    ddp
  )
  warnings.push(...measured.warnings)
  const { inGaps } = measured
  const lost = found.unattributed.reduce((sum, { seconds }) => sum + seconds, 0)
  const share = (seconds: number) => (busy > 0 ? Math.min(1, seconds / busy) : 0)
  const named = basename(options.file ?? file)
  const conditions = options.conditions === undefined ? "" : `; ${options.conditions}`
  const profile: Profile = {
    name:
      options.name ??
      named
        .replace(/\.gz$/u, "")
        .replace(/\.json$/u, "")
        .replace(/\.trace$/u, "")
        .replace(/\.pt$/u, ""),
    device: options.device ?? deviceName ?? "unknown",
    source: `torch.profiler trace ${named}${conditions}`,
    // Whoever simulates with it has not seen the import.
    ...(parallel === undefined ? {} : { notes: [parallel] }),
    steps: found.steps,
    stepSeconds: Math.max(busy, found.stepSeconds - inGaps.profiledSeconds),
    unprofiledStepSeconds:
      unprofiledStepSeconds &&
      // The layers' sum may differ from the device's by its last digit.
      Math.max(busy, totalSeconds(layers).busySeconds, unprofiledStepSeconds - inGaps.unprofiledSeconds),
    deviceBusySeconds: busy,
    unattributedShare: share(lost),
    layers: withoutGaps(layers, inGaps.profiledSeconds),
    host: measured.host,
    parameters: found.parameters,
    ops: [],
    collectives
  }
  return {
    profile,
    unattributed: found.unattributed.map(({ name, seconds }) => ({ name, seconds, share: share(seconds) })),
    communication: found.communication,
    parallelism: found.parallelism,
    ...(found.sharded === undefined ? {} : { sharded: found.sharded }),
    warnings
  }
}

// A PyTorch profiler trace becomes a Profile. The public face of this folder.
import * as Effect from "effect/Effect"
import { basename } from "node:path"
import type { Profile } from "../../core/profile.ts"
import type { ImportReport } from "../import-report.ts"
import { attemptAsync, TraceError } from "../trace-error.ts"
import { attribute } from "./attribute.ts"
import { fileBytes, type ByteSource } from "./bytes.ts"
import { readKineto, type ReadOptions } from "./trace.ts"

export interface KinetoOptions extends ReadOptions {
  /** Name of the profile; default: the file's name without its extensions. */
  readonly name?: string
  /** Overrides the device named in the trace. */
  readonly device?: string
  /** Conditions of the recording, added to the profile's `source`. */
  readonly conditions?: string
  /** Step time of the same run without the profiler, seconds; at least the device's busy time. */
  readonly unprofiledStepSeconds?: number
  /** Name of the input for messages; `importKinetoFile` sets it. */
  readonly file?: string
}

/**
 * Imports a trace recorded by `torch.profiler` (with_modules, record_shapes and with_stack make it most telling; none
 * is needed). Bytes may be gzip-compressed. Memory grows with the events kept, not with the text. All device time of a
 * step ends up in some layer: see docs/formats.md for the rules. Errors: `TraceError`.
 */
export const importKineto = (
  source: ByteSource,
  options: KinetoOptions = {}
): Effect.Effect<ImportReport, TraceError> => {
  const file = options.file ?? "trace"
  return attemptAsync(file, "a PyTorch profiler trace", async (signal) => {
    const trace = await readKineto(file, source, options, signal)
    const found = attribute(trace)
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
    const lost = found.unattributed.reduce((sum, { seconds }) => sum + seconds, 0)
    const share = (seconds: number) => (busy > 0 ? Math.min(1, seconds / busy) : 0)
    const conditions = options.conditions === undefined ? "" : `; ${options.conditions}`
    const profile: Profile = {
      name:
        options.name ??
        basename(file)
          .replace(/\.gz$/u, "")
          .replace(/\.json$/u, "")
          .replace(/\.trace$/u, "")
          .replace(/\.pt$/u, ""),
      device: options.device ?? trace.deviceName ?? "unknown",
      source: `torch.profiler trace ${basename(file)}${conditions}`,
      steps: found.steps,
      stepSeconds: found.stepSeconds,
      unprofiledStepSeconds,
      deviceBusySeconds: busy,
      unattributedShare: share(lost),
      layers: found.layers,
      parameters: found.parameters,
      ops: [],
      collectives: found.collectives
    }
    const unattributed = found.unattributed.map(({ name, seconds }) => ({
      name,
      seconds,
      share: share(seconds)
    }))
    return { profile, unattributed, warnings: found.warnings }
  })
}

/** As `importKineto`, from a file (`.json` or `.json.gz`; the content decides). */
export const importKinetoFile = (
  path: string,
  options: KinetoOptions = {}
): Effect.Effect<ImportReport, TraceError> =>
  Effect.suspend(() => importKineto(fileBytes(path), { file: path, ...options }))

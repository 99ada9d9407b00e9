// exec bench: kernels, copies, collectives and the submission of ops on this machine.
import * as Effect from "effect/Effect"
import { formatBandwidth, formatBytes, formatSeconds } from "../../core/units.ts"
import { InputError } from "../../core/input-error.ts"
import { json, said, toldThough } from "../../scenarios/cli/execute.ts"
import { writeError } from "../../scenarios/cli/output.ts"
import { alignColumns } from "../../scenarios/table.ts"
import { writeProfile } from "../../traces/profile-file.ts"
import { tableProfile } from "../../traces/table-profile.ts"
import {
  rowOf,
  thisDevice,
  timeCollectives,
  timeCopies,
  timeHost,
  timeKernels,
  type KernelTime
} from "../bench.ts"
import { watchingCores, type Timed } from "../core-waits.ts"
import { placeHere } from "./job.ts"
import { CurrentWarnings, requireDevice, runCommand, sharedCores, warnOf } from "./command.ts"

export interface BenchCommandOptions {
  readonly backend?: string
  readonly ranks: number
  /** A profile to write, for `sim`. */
  readonly out?: string
  readonly json?: boolean
}

const sizesBytes = [1 << 12, 1 << 16, 1 << 20, 1 << 22]

/** Several processes that time the same at once would time each other. */
const requireNoOthers: Effect.Effect<void, InputError> = Effect.flatMap(placeHere, (place) =>
  place === undefined
    ? Effect.void
    : Effect.fail(
        new InputError({
          file: "environment",
          field: "",
          value: `${place.size} processes that ${place.launcher} has started`,
          accepted: "one: exec bench times what one process has; exec profile times a job"
        })
      )
)

export const benchCommand = (options: BenchCommandOptions): Promise<number> =>
  runCommand(
    Effect.gen(function* () {
      yield* requireDevice
      yield* requireNoOthers
      const alone: Array<Timed> = []
      const { submissionSeconds, readSeconds } = yield* watchingCores(
        "submissions and reads",
        alone,
        timeHost(),
        "program"
      )
      const kernels = yield* watchingCores("kernels", alone, timeKernels)
      const copies = yield* watchingCores("copies", alone, timeCopies)
      const among: Array<Timed> = []
      const collectives = yield* watchingCores(
        "collectives",
        among,
        timeCollectives(options.ranks, sizesBytes)
      )
      const notes = [...(yield* sharedCores(alone, { ranks: 1 })), ...(yield* sharedCores(among, options))]
      yield* warnOf(notes)
      const files = Effect.gen(function* () {
        if (options.out === undefined) return
        const tables = {
          ops: [...kernels, ...copies].map(rowOf),
          collectives,
          host: { mode: "compiled", launchSeconds: submissionSeconds, readSeconds }
        } as const
        yield* writeProfile(
          options.out,
          tableProfile("exec bench", { name: "exec bench", device: yield* thisDevice, notes }, tables)
        )
        writeError(`exec: wrote ${options.out}\n`)
      })
      if (options.json === true) {
        const warnings = (yield* CurrentWarnings).told
        const all = { submissionSeconds, readSeconds, kernels, copies, collectives, warnings }
        return yield* toldThough(said(json(all)), files)
      }
      const rate = ({ flops, bytes, medianSeconds }: KernelTime): string =>
        flops > 2 * bytes
          ? `${(flops / medianSeconds / 1e9).toFixed(1)} GFLOP/s`
          : formatBandwidth(bytes / medianSeconds)
      const sizes = (attributes: Readonly<Record<string, number>>): string =>
        Object.entries(attributes)
          .map(([name, size]) => `${name}=${size}`)
          .join(" ")
      const rows = [
        ...[...kernels, ...copies].map((row) => [
          row.op,
          sizes(row.attributes),
          formatSeconds(row.medianSeconds),
          rate(row)
        ]),
        ...collectives.map(({ op, ranks, sizeBytes, medianSeconds }) => [
          op,
          `${ranks} ranks, ${formatBytes(sizeBytes)}`,
          formatSeconds(medianSeconds),
          formatBandwidth(sizeBytes / medianSeconds)
        ])
      ]
      const lines = [
        `submitting an op  ${formatSeconds(submissionSeconds)}`,
        `reading a value   ${formatSeconds(readSeconds)}`,
        ...alignColumns(rows, (column) => column >= 2)
      ]
      return yield* toldThough(said(`${lines.join("\n")}\n`), files)
    }),
    options.backend
  )

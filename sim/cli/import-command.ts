// sim import: other tools' measurements as a profile, and what of them could not be used.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { InputError } from "../../core/input-error.ts"
import type { MeasuredHost } from "../../core/cost/host.ts"
import { counted, formatBytes, formatSeconds, formatShare, parseSeconds } from "../../core/units.ts"
import type { CommunicationTimes, ImportReport, RankTimes, ShardedRun } from "../../traces/import-report.ts"
import { writeProfile } from "../../traces/profile-file.ts"
import { inputErrors } from "../../scenarios/file/input-errors.ts"
import { execute, json, said } from "../../scenarios/cli/execute.ts"
import { requireApart } from "../../scenarios/cli/outputs.ts"
import { alignColumns } from "../../scenarios/table.ts"

export interface ImportCommandOptions {
  readonly out: string
  readonly name?: string
  readonly device?: string
  readonly conditions?: string
  readonly json?: boolean
  readonly stepTime?: string
  readonly ddp?: string
  readonly ddpStepTime?: string
  readonly timestamps?: "auto" | "us" | "ns"
  readonly op?: string
  readonly ranks?: number
  readonly inPlace?: boolean
  readonly link?: string
}

export type ImportSource = "kineto" | "nccl-tests" | "csv"

export const importCommand = (
  source: ImportSource,
  files: readonly [string, ...Array<string>],
  options: ImportCommandOptions
): Promise<number> =>
  execute(
    Effect.gen(function* () {
      yield* requireApart([["--out", options.out]], files)
      const report = yield* imported(source, files, options)
      yield* writeProfile(options.out, report.profile)
      return said(options.json === true ? json(summary(report, options.out)) : print(report, options.out))
    })
  )

const imported = (
  source: ImportSource,
  files: readonly [string, ...Array<string>],
  options: ImportCommandOptions
) =>
  Effect.gen(function* () {
    const [file] = files
    const { name, device, conditions } = options
    const common = {
      ...(name === undefined ? {} : { name }),
      ...(device === undefined ? {} : { device }),
      ...(conditions === undefined ? {} : { conditions })
    }
    if (source === "kineto") {
      const unprofiledStepSeconds = yield* stepTime("--step-time", options.stepTime)
      const ddpStepSeconds = yield* stepTime("--ddp-step-time", options.ddpStepTime)
      if (
        ddpStepSeconds !== undefined &&
        (options.ddp === undefined || unprofiledStepSeconds === undefined)
      ) {
        return yield* inputErrors(
          new InputError({
            file: "--ddp-step-time",
            field: "",
            value: options.ddpStepTime!,
            accepted: "--ddp and --step-time beside it: what DDP adds to a step is told by all three"
          })
        )
      }
      const { importKinetoFiles } = yield* Effect.promise(() => import("../../traces/kineto/import.ts"))
      return yield* importKinetoFiles(files, {
        ...common,
        ...(unprofiledStepSeconds === undefined ? {} : { unprofiledStepSeconds }),
        ...(options.ddp === undefined ? {} : { ddp: options.ddp }),
        ...(ddpStepSeconds === undefined ? {} : { ddpStepSeconds }),
        ...(options.timestamps === undefined ? {} : { timestampUnit: options.timestamps })
      })
    }
    const { op, ranks, inPlace, link } = options
    if (source === "nccl-tests") {
      const { importNcclTestsFile } = yield* Effect.promise(() => import("../../traces/nccl-tests.ts"))
      return yield* importNcclTestsFile(file, {
        ...common,
        ...(op === undefined ? {} : { op }),
        ...(ranks === undefined ? {} : { ranks }),
        ...(inPlace === undefined ? {} : { inPlace }),
        ...(link === undefined ? {} : { link })
      })
    }
    const { importCsvFile } = yield* Effect.promise(() => import("../../traces/csv.ts"))
    return yield* importCsvFile(file, {
      ...common,
      ...(op === undefined ? {} : { op }),
      ...(ranks === undefined ? {} : { ranks }),
      ...(link === undefined ? {} : { link })
    })
  })

const stepTime = (option: string, text: string | undefined) =>
  Effect.suspend(() => {
    if (text === undefined) return Effect.succeed(undefined)
    const parsed = parseSeconds(/^[\d.]+$/u.test(text) ? Number(text) : text)
    if (Result.isSuccess(parsed) && parsed.success > 0) return Effect.succeed(parsed.success)
    const [value, accepted] = Result.isSuccess(parsed)
      ? [text, "a time greater than 0"]
      : [`${parsed.failure.value} (${parsed.failure.reason})`, parsed.failure.accepted]
    return Effect.fail(inputErrors(new InputError({ file: option, field: "", value, accepted })))
  })

const parameterCount = ({ profile }: ImportReport): number =>
  profile.parameters.reduce((sum, { shape }) => sum + shape.reduce((product, n) => product * n, 1), 0)

const summary = (report: ImportReport, out: string) => {
  const { profile, unattributed, communication, ranks, parallelism, sharded, warnings } = report
  return {
    out,
    name: profile.name,
    device: profile.device,
    source: profile.source,
    steps: profile.steps,
    stepSeconds: profile.stepSeconds,
    unprofiledStepSeconds: profile.unprofiledStepSeconds ?? null,
    deviceBusySeconds: profile.deviceBusySeconds,
    layers: profile.layers.length,
    parameters: parameterCount(report),
    parameterTensors: profile.parameters.length,
    host: profile.host ?? null,
    ops: profile.ops.length,
    collectives: profile.collectives.length,
    unattributedShare: profile.unattributedShare,
    unattributed,
    communication:
      communication === undefined ? null : { ...communication, slowdown: communication.slowdown ?? null },
    ranks: ranks ?? [],
    parallelism: parallelism ?? [],
    sharded: sharded ?? null,
    warnings
  }
}

const print = (report: ImportReport, out: string): string => {
  const { profile, unattributed, communication, sharded, ranks = [], warnings } = report
  const { steps, layers, ops, collectives } = profile
  const phases = (["forward", "backward", "optimizer"] as const).map((phase) => {
    const busy = layers.reduce((sum, layer) => sum + layer[phase].busySeconds, 0)
    const span = layers.reduce((sum, layer) => sum + layer[phase].spanSeconds, 0)
    return [`  ${phase}`, formatSeconds(busy), formatSeconds(span)]
  })
  const training =
    layers.length === 0
      ? []
      : [
          `${counted(layers.length, "layer")}, ${parameterCount(report)} parameters in ${counted(profile.parameters.length, "tensor")}, mean of ${counted(steps, "step")}`,
          ...alignColumns([
            ["", "device busy", "with host gaps"],
            ["step", formatSeconds(profile.deviceBusySeconds), formatSeconds(profile.stepSeconds)],
            ...phases
          ]),
          ...(profile.unprofiledStepSeconds === undefined
            ? []
            : [
                `without the profiler a step takes ${formatSeconds(profile.unprofiledStepSeconds)}: host gaps are scaled to it`
              ]),
          `attributed to layers: ${formatShare(1 - profile.unattributedShare)} of the device's busy time`
        ]
  const left = unattributed
    .slice(0, 10)
    .map(({ name, seconds, share }) => [`  ${name}`, formatSeconds(seconds), formatShare(share)])
  return [
    `${profile.name} on ${profile.device}`,
    ...training,
    ...(communication === undefined || communication.kernels === 0 ? [] : communicationLines(communication)),
    ...(sharded === undefined ? [] : shardedLines(sharded)),
    ...(profile.host === undefined
      ? layers.length > 0 && profile.unprofiledStepSeconds === undefined
        ? ["host: not measured; --step-time says how much of the profiler's time is real"]
        : []
      : hostLines(profile.host)),
    ...(ranks.length === 0 ? [] : rankLines(ranks)),
    ...(left.length === 0 ? [] : ["not attributed", ...alignColumns(left)]),
    ...(ops.length === 0 ? [] : [`${ops.length} timed ops`]),
    ...(collectives.length === 0 ? [] : [`${collectives.length} timed collectives`]),
    ...warnings.map((warning) => `warning: ${warning}`),
    `wrote ${out}`,
    ""
  ].join("\n")
}

const shardedLines = ({ ranks, units, copySeconds }: ShardedRun): ReadonlyArray<string> => {
  // Blocks alike are told once.
  const alike = Map.groupBy(units, ({ name, tensors, elements, gathers, scatters }) =>
    name === "root"
      ? name
      : [tensors, elements, gathers.calls, gathers.bytes, scatters.calls, scatters.bytes].join()
  )
  const mean = (values: ReadonlyArray<number>): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length
  const calls = (count: number, bytes: number, seconds: number): ReadonlyArray<string> =>
    count === 0
      ? ["none", "", ""]
      : [`${Number(count.toFixed(2))}`, formatBytes(bytes / count), formatSeconds(seconds / count)]
  return [
    `sharded over ${ranks} ranks, ${counted(units.length, "unit")}; copies and casts of FSDP take the device ${formatSeconds(copySeconds)} a step`,
    ...alignColumns([
      ["  unit", "tensors", "parameters", "gathers", "a part", "each", "scatters", "a part", "each"],
      ...[...alike.values()].map((group) => {
        const [first] = group
        const { name, tensors, elements, gathers, scatters } = first!
        return [
          `  ${name}${group.length > 1 ? ` to ${group.at(-1)!.name} (${group.length})` : ""}`,
          `${tensors}`,
          `${elements}`,
          ...calls(gathers.calls, gathers.bytes, mean(group.map((unit) => unit.gathers.seconds))),
          ...calls(scatters.calls, scatters.bytes, mean(group.map((unit) => unit.scatters.seconds)))
        ]
      })
    ])
  ]
}

const communicationLines = ({
  computeSeconds,
  unionSeconds,
  overlappedSeconds,
  exposedSeconds
}: CommunicationTimes): ReadonlyArray<string> =>
  alignColumns([
    ["per step", ""],
    ["  kernels compute", formatSeconds(computeSeconds)],
    ["  collectives run", formatSeconds(unionSeconds)],
    ["    beside compute", formatSeconds(overlappedSeconds)],
    ["    exposed", formatSeconds(exposedSeconds)]
  ])

const hostLines = (host: MeasuredHost): ReadonlyArray<string> =>
  alignColumns([
    [`host (${host.mode})`, ""],
    ...(
      [
        ["a launch", host.launchSeconds],
        ["a call of a collective", host.collectiveSeconds],
        ["a tensor handed to one", host.hookSeconds],
        ["a read", host.readSeconds],
        ["a replay of a graph", host.replaySeconds]
      ] as const
    ).flatMap(([what, seconds]) => (seconds === undefined ? [] : [[`  ${what}`, formatSeconds(seconds)]])),
    ...(host.launchesPerRead === undefined
      ? []
      : [["  launches between two reads", String(host.launchesPerRead)]])
  ])

const rankLines = (ranks: ReadonlyArray<RankTimes>): ReadonlyArray<string> => {
  const signed = (seconds: number | undefined): string =>
    seconds === undefined ? "-" : `${seconds < 0 ? "-" : ""}${formatSeconds(Math.abs(seconds))}`
  return alignColumns([
    ["rank", "step", "device busy", "collectives", "exposed", "clock ahead", "late to them"],
    ...ranks.map((each) => [
      `${each.rank}`,
      formatSeconds(each.stepSeconds),
      formatSeconds(each.deviceBusySeconds),
      formatSeconds(each.communication.unionSeconds),
      formatSeconds(each.communication.exposedSeconds),
      signed(each.clockOffsetSeconds),
      signed(each.lateSeconds)
    ])
  ])
}

// What a file is, what is in it, what can be done with it, and what it lacks: told by its content, whatever its name. Knows
// every reader and importer of this folder; what none of them reads is in foreign.ts.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import type { Profile } from "../core/profile.ts"
import { counted } from "../core/units.ts"
import { brokenArrow } from "./broken-arrow.ts"
import { importCsv } from "./csv.ts"
import {
  archiveKind,
  binaryKind,
  collectiveTable,
  firstJson,
  foreignKind,
  foreignText,
  isBinary,
  jsonTitle,
  recordTrace,
  startsWith,
  type Foreign,
  type Use
} from "./foreign.ts"
import type { ImportReport } from "./import-report.ts"
import { isTraceName, looksLikeTrace } from "./kineto/bytes.ts"
import { importKinetoFile } from "./kineto/import.ts"
import { modelFindings } from "./model-config.ts"
import { importNcclTests } from "./nccl-tests.ts"
import { readHead } from "./head.ts"
import { isZip, otherCompression, unpacked, zipEntries } from "./packed.ts"
import { arrowFormat, ownArrow, ownJson, ownSafetensors, ownTimeline, type OwnFile } from "./own-files.ts"
import { readProfile } from "./profile-file.ts"
import { readRoutedSteps } from "./routing-trace.ts"
import { isColumns } from "./requests/csv-columns.ts"
import { requestFiles } from "./requests/request-files.ts"
import { parseRequestTrace, parseRequestTraces } from "./requests/request-trace.ts"
import type { RequestTrace } from "./requests/traced.ts"
import { routingSources, type RoutingSource } from "./routing/sources.ts"
import { importRouting } from "./routing/import.ts"
import { isNumpy } from "./routing/npy.ts"
import type { RoutingReport } from "./routing/tokens.ts"
import { decodeText, firstCells } from "./text.ts"
import { attempt, attemptAsync, type TraceError } from "./trace-error.ts"
import { readWeights } from "./weights-file.ts"

/** What a file is, and what it is good for. */
export interface Diagnosis {
  readonly file: string
  /** "kineto", "nccl-tests", "csv", "requests", "routing", "profile", "timeline", "oplog", "journal", "study", "study-journal", "result", "run", "checkpoint", "weights", "scenario", "model-config", or what else it is. */
  readonly kind: string
  /** Whether anything here reads it. */
  readonly readable: boolean
  readonly title: string
  /** What is in it, a sentence each. */
  readonly contents: ReadonlyArray<string>
  readonly uses: ReadonlyArray<Use>
  /** What it lacks, and how to record it. */
  readonly missing: ReadonlyArray<Use>
  readonly warnings: ReadonlyArray<string>
}

/** Diagnoses a file. Fails only where it cannot be read at all; a file that nothing understands is a diagnosis too. */
export const diagnose = (file: string): Effect.Effect<Diagnosis, TraceError> =>
  Effect.gen(function* () {
    const head = yield* attemptAsync(file, "the path of a file", () => readHead(file))
    if (head === undefined) return yield* ofFolder(file)
    if (head.bytes.length === 0) return unknown(file, "empty", "an empty file", [])
    if (startsWith(head.bytes, "ARROW1")) return yield* ofArrow(file)
    const compression = otherCompression(head.bytes)
    if (compression !== undefined)
      return unknown(file, compression, `compressed by ${compression}, which nothing here reads`, [
        { what: "the file as it was", how: "unpack it first, or compress it by gzip or zstd" }
      ])
    if (isZip(head.bytes)) {
      const archive = yield* Effect.result(attemptAsync(file, "a zip archive", () => zipEntries(file)))
      const names = Result.isSuccess(archive) ? (archive.success ?? []).map(({ name }) => name) : []
      return names.some(isTraceName) ? yield* ofTrace(file) : foreign(file, archiveKind(names))
    }
    if (isSafetensors(head.bytes)) return own(file, ownSafetensors(head.text)) ?? (yield* ofSafetensors(file))
    const timeline = own(file, ownTimeline(head.text))
    if (timeline !== undefined) return timeline
    const other = foreignKind(head.bytes, head.text)
    if (other !== undefined)
      return { ...foreign(file, other), ...(other.kind === "model-config" ? modelFindings(head.text) : {}) }
    if (looksLikeTrace(head.text)) return yield* ofTrace(file)
    if (/\.ya?ml$/iu.test(file) || /^\s*(?:task|name|world|study|model):/mu.test(head.text.slice(0, 4096))) {
      return {
        ...empty(file, "scenario", "a scenario or a study"),
        uses: [
          { what: "simulate it", how: `sim run ${file}` },
          { what: "see its plan", how: `sim schedule ${file}` },
          { what: "where it has a study section", how: `sim study ${file} --out out` }
        ]
      }
    }
    // Of a large file the beginning tells as much, and it need not fit into memory.
    if (!isNumpy(head.bytes) && isBinary(head.text)) return foreign(file, binaryKind(file))
    return yield* ofTable(file)
  })

const empty = (file: string, kind: string, title: string): Diagnosis => ({
  file,
  kind,
  readable: true,
  title,
  contents: [],
  uses: [],
  missing: [],
  warnings: []
})

/** What our own commands go on with, though nothing imports it. */
const own = (file: string, found: OwnFile | undefined): Diagnosis | undefined =>
  found === undefined ? undefined : { ...empty(file, found.kind, found.title), uses: found.uses }

const foreign = (file: string, { kind, title, missing }: Foreign): Diagnosis =>
  unknown(file, kind, title, missing)

const unknown = (file: string, kind: string, title: string, missing: ReadonlyArray<Use>): Diagnosis => ({
  ...empty(file, kind, title),
  readable: false,
  missing
})

// ---- profiler traces

/** What an import says of a trace that has ops of PyTorch and nothing of a device. */
const hostAlone = /^no device events .*of the host alone/u

const ofTrace = (file: string): Effect.Effect<Diagnosis> =>
  Effect.map(Effect.result(importKinetoFile(file)), (result) => {
    if (Result.isFailure(result)) {
      return {
        ...unknown(
          file,
          "kineto",
          hostAlone.test(result.failure.value)
            ? "a trace of the host alone: a profiler of PyTorch recorded no device"
            : "a trace in Chrome's format",
          [recordTrace]
        ),
        warnings: [result.failure.message]
      }
    }
    const report = result.success
    const { profile, communication, ranks = [] } = report
    const missing: Array<Use> = []
    const said = report.warnings.join("\n")
    const has = (part: string): boolean => said.includes(part)
    const trains = profile.layers.some(({ backward }) => backward.busySeconds > 0)
    if (trains && profile.parameters.length === 0) {
      missing.push({
        what: "parameters: data-parallel scenarios refuse the profile without",
        how: "record_shapes=True and a backward pass, or model.parameters in the scenario"
      })
    }
    if (has("no modules were recorded") || has("families of kernels"))
      missing.push({ what: "names of modules", how: "with_stack=True and with_modules=True" })
    if (has("no ProfilerStep marks"))
      missing.push({
        what: "marks of steps",
        how: "schedule=schedule(wait=1, warmup=3, active=2) and profiler.step()"
      })
    if (has("have no recorded size or group"))
      missing.push({ what: "sizes of collectives", how: "record_shapes=True, PyTorch 2.3 or later" })
    if (has("include waiting for the other ranks"))
      missing.push({
        what: "times of collectives without waiting",
        how: "traces of all ranks: sim import kineto rank*.json.gz"
      })
    missing.push({
      what: "the step time without the profiler, which slows the host",
      how: "time some steps without it, and give --step-time"
    })
    const uses: Array<Use> = [
      { what: "make a profile of it", how: `sim import kineto ${file} -o profile.arrow --step-time <time>` },
      ...(trains
        ? [{ what: "simulate data-parallel training", how: "model: {profile: profile.arrow} in a scenario" }]
        : []),
      {
        what: "take what its host spends",
        how: "host: {measured: profile.arrow} in a scenario, where --step-time was given"
      }
    ]
    if (profile.collectives.length > 0)
      uses.push({
        what: "use its collectives",
        how: "collectives: {measured: profile.arrow}, where links are no limit"
      })
    return {
      ...empty(file, "kineto", `a PyTorch profiler trace of ${profile.device}`),
      contents: [
        ...contentsOf(profile),
        ...(trains ? [] : ["no backward pass: nothing is trained in it"]),
        ...(communication === undefined || communication.kernels === 0
          ? []
          : [
              `collectives run ${milliseconds(communication.unionSeconds)} of a step, ${milliseconds(communication.exposedSeconds)} of it exposed`
            ]),
        ...(ranks.length > 0 ? [counted(ranks.length, "rank")] : []),
        ...(report.parallelism ?? []).map((kind) => `parallelism: ${kind}`)
      ],
      uses,
      missing,
      warnings: report.warnings
    }
  })

const milliseconds = (seconds: number): string => `${(seconds * 1e3).toPrecision(4)} ms`

const contentsOf = (profile: Profile): ReadonlyArray<string> => {
  const elements = profile.parameters.reduce(
    (sum, { shape }) => sum + shape.reduce((product, extent) => product * extent, 1),
    0
  )
  const layers =
    profile.layers.length === 0
      ? []
      : [
          `${counted(profile.layers.length, "layer")} over ${counted(profile.steps, "step")}; a step takes ${milliseconds(profile.stepSeconds)}, the device works ${milliseconds(profile.deviceBusySeconds)} of it`,
          `${elements} parameters in ${counted(profile.parameters.length, "tensor")}`
        ]
  const kinds = Map.groupBy(profile.collectives, ({ op, ranks, link }) => `${op} of ${ranks} ranks, ${link}`)
  return [
    ...layers,
    ...[...kinds].map(([kind, rows]) => `${rows.length} times of ${kind}`),
    ...(profile.ops.length === 0 ? [] : [`${profile.ops.length} times of ops`])
  ]
}

/** How each family is told of a table of ops. */
const opsUses = (file: string) => [
  { what: "use its ops in data-parallel or expert-offload", how: `costs: ${file}` },
  { what: "in kv-serving", how: `costs: {ops: ${file}}` },
  { what: "in moe-training", how: `costs: {products: {profile: ${file}}}` }
]

// ---- files of our own

const ofArrow = (file: string): Effect.Effect<Diagnosis> =>
  Effect.gen(function* () {
    const profile = yield* Effect.result(readProfile(file))
    if (Result.isSuccess(profile)) {
      const found = profile.success
      return {
        ...empty(file, "profile", `a profile: ${found.name} on ${found.device}`),
        contents: [`source: ${found.source}`, ...contentsOf(found)],
        uses: [
          ...(found.layers.length > 0
            ? [{ what: "simulate training", how: `model: {profile: ${file}}` }]
            : []),
          ...(found.collectives.length > 0
            ? [{ what: "use its collectives", how: `collectives: {measured: ${file}}` }]
            : []),
          ...(found.ops.length > 0 ? opsUses(file) : [])
        ],
        missing:
          found.layers.length > 0 && found.parameters.length === 0
            ? [{ what: "parameters", how: "import a trace with record_shapes=True, or model.parameters" }]
            : [],
        warnings: found.notes ?? []
      }
    }
    const routing = yield* Effect.result(readRoutedSteps(file))
    if (Result.isSuccess(routing)) {
      const { shape, topK, choices } = routing.success
      return {
        ...empty(file, "routing", "a routing"),
        contents: [
          `${counted(choices.length, "step")}, ${counted(shape.layers, "layer")}, top ${topK} of experts 0 to ${shape.experts - 1}`
        ],
        uses: [{ what: "drive expert offloading or MoE training", how: `routing: {trace: ${file}}` }]
      }
    }
    const format = yield* Effect.promise(() => arrowFormat(file))
    const found = own(file, ownArrow(file, format))
    const broken = yield* brokenArrow(file, format)
    if (found !== undefined && broken === undefined) return found
    return {
      ...unknown(
        file,
        format === undefined ? "arrow" : (found?.kind ?? format),
        format !== undefined
          ? `${/^[aeiou]/u.test(format) ? "an" : "a"} ${format} that cannot be read`
          : profile.failure.field === "content"
            ? "an Arrow file that cannot be read"
            : "an Arrow file of something else",
        []
      ),
      warnings: [broken ?? profile.failure.message]
    }
  })

// ---- tables, requests, routings

/** So many files of a folder are looked at. Assumed: more than a job has ranks on a node. */
const mostLookedAt = 256

/** Traces of one job are one profile, files of requests one trace; of others each wants a diagnosis of its own. */
const ofFolder = (folder: string): Effect.Effect<Diagnosis, TraceError> =>
  Effect.gen(function* () {
    const traces = yield* attemptAsync(folder, "a folder", async () => {
      const names = (await readdir(folder)).filter(isTraceName).toSorted().slice(0, mostLookedAt)
      const heads = await Promise.all(names.map((name) => readHead(join(folder, name))))
      return names.filter((_, i) => looksLikeTrace(heads[i]?.text ?? ""))
    })
    if (traces.length > 0) {
      return {
        ...empty(folder, "folder", `a folder of ${counted(traces.length, "profiler trace")}`),
        uses: [
          { what: "where they are ranks of one job", how: `sim import kineto ${folder} -o profile.arrow` },
          { what: "see what one of them holds", how: `sim doctor ${join(folder, traces[0]!)}` }
        ]
      }
    }
    const requests = yield* Effect.result(
      attempt(folder, "a folder of request traces", () => {
        const files = requestFiles(folder)
        return { files, trace: parseRequestTraces(files) }
      })
    )
    if (Result.isSuccess(requests)) {
      const { files, trace } = requests.success
      return ofRequests(folder, `a folder of ${files.length} traces`, trace)
    }
    return {
      ...unknown(folder, "folder", "a folder", [
        { what: "a folder of request traces", how: "requests: {trace: <folder>} in a serving scenario" },
        { what: "traces of one job", how: "sim import kineto with all its files" },
        { what: "anything else", how: "sim doctor with one of its files" }
      ]),
      warnings: [requests.failure.message]
    }
  })

const ofRequests = (
  file: string,
  title: string,
  { format, requests, warnings, sharedPrefixes }: RequestTrace
): Diagnosis => {
  const last = requests.at(-1)?.arrivalSeconds ?? 0
  const tokens = (key: "promptTokens" | "outputTokens") =>
    Math.round(requests.reduce((sum, each) => sum + each[key], 0) / Math.max(1, requests.length))
  return {
    ...empty(file, "requests", `${title} of requests (${format})`),
    contents: [
      `${counted(requests.length, "request")} over ${last.toPrecision(4)} s, of ${tokens("promptTokens")} prompt and ${tokens("outputTokens")} generated tokens in the mean`,
      ...(sharedPrefixes ? ["says which prompts begin alike"] : [])
    ],
    uses: [{ what: "serve them", how: `requests: {trace: ${file}} in a scenario of task kv-serving` }],
    warnings
  }
}

const ofTable = (file: string): Effect.Effect<Diagnosis, TraceError> =>
  Effect.gen(function* () {
    const bytes = yield* attemptAsync(file, "the path of a file", async () =>
      unpacked(file, await readFile(file))
    )
    if (isNumpy(bytes)) return yield* ofNumpy(file, bytes)
    const decoded = yield* Effect.result(attempt(file, "text", () => decodeText(file, bytes)))
    if (Result.isFailure(decoded))
      return { ...foreign(file, binaryKind(file)), warnings: [decoded.failure.message] }
    const text = decoded.success
    if (isBinary(text)) return foreign(file, binaryKind(file))
    const table = (kind: string, title: string, report: ImportReport): Diagnosis => ({
      ...empty(file, kind, title),
      contents: contentsOf(report.profile),
      uses: [{ what: "make a profile of it", how: `sim import ${kind} ${file} -o profile.arrow` }],
      warnings: report.warnings
    })
    const nccl = yield* Effect.result(importNcclTests(text, { file }))
    if (Result.isSuccess(nccl)) return table("nccl-tests", "output of nccl-tests", nccl.success)
    if (/_perf\b|\bsize\s+count\s+type\b|"out_of_place"/u.test(text)) {
      return {
        ...unknown(file, "nccl-tests", "output of nccl-tests that cannot be used as it is", [
          { what: nccl.failure.accepted, how: "--op and --ranks say what the text does not" }
        ]),
        warnings: [nccl.failure.message]
      }
    }
    const csv = yield* Effect.result(importCsv(text, { file }))
    if (Result.isSuccess(csv)) return table("csv", "a table of timings", csv.success)
    const routings: Array<readonly [RoutingSource, RoutingReport]> = []
    for (const source of routingSources) {
      const routing = yield* Effect.result(importRouting(source, bytes, { file }))
      if (Result.isSuccess(routing)) routings.push([source, routing.success])
    }
    if (routings[0] !== undefined) return ofRouting(file, ...routings[0], routings[1])
    const requests = yield* Effect.result(
      attempt(file, "a trace of requests", () => parseRequestTrace(file, text))
    )
    if (Result.isSuccess(requests)) {
      return ofRequests(file, "a trace", requests.success)
    }
    const isJson = /^\s*[[{]/u.test(text)
    const ours = isJson ? own(file, ownJson(file, firstJson(text))) : undefined
    if (ours !== undefined) return ours
    const other = isJson ? undefined : foreignText(text)
    if (other !== undefined) return foreign(file, other)
    const asRequests = `as a trace of requests: ${requests.failure.message}`
    const cells = isJson ? [] : firstCells(text)
    const isTable = cells.length > 0
    if (cells.some(isColumns))
      return {
        ...unknown(file, "requests", "lengths of requests, without when they came", [
          { what: "a column of arrivals", how: "arrived_at in seconds, beside the lengths" }
        ]),
        warnings: [asRequests]
      }
    return {
      ...unknown(
        file,
        "unknown",
        isJson
          ? jsonTitle(firstJson(text))
          : isTable
            ? "a table of something else"
            : "text of something else",
        isJson && saysOfRequests.test(text) ? [] : [recordTrace, collectiveTable]
      ),
      // Of text that looks like neither, that it is neither is no news.
      warnings: isJson
        ? saysOfRequests.test(text)
          ? [asRequests]
          : []
        : isTable
          ? [`as a table of timings: ${csv.failure.message}`, asRequests]
          : []
    }
  })

/** Names that JSON of requests, or of a benchmark of them, has in it. */
const saysOfRequests =
  /input_?len|prompt_?len|prompt_tokens|input_tokens|_throughput"|"avg_latency"|"hash_ids"/iu

/** One array: choices of experts, or something else. */
const ofNumpy = (file: string, bytes: Uint8Array): Effect.Effect<Diagnosis> =>
  Effect.map(Effect.result(importRouting("vllm", bytes, { file })), (routing) =>
    Result.isSuccess(routing)
      ? ofRouting(file, "vllm", routing.success)
      : {
          ...unknown(file, "numpy", "an array of numpy", [
            {
              what: "choices of experts",
              how: "whole numbers [tokens, layers, top k]: sim import routing vllm"
            }
          ]),
          warnings: [routing.failure.message]
        }
  )

const ofRouting = (
  file: string,
  source: RoutingSource,
  { routing, layers, warnings }: RoutingReport,
  other?: readonly [RoutingSource, RoutingReport]
): Diagnosis => ({
  ...empty(file, "routing", `a routing in the form of ${source}`),
  contents: [
    `${counted(routing.choices.length, "step")}, ${counted(layers.length, "layer")}, top ${routing.topK} of experts 0 to ${routing.shape.experts - 1}`
  ],
  uses: [{ what: "make a routing file of it", how: `sim import routing ${source} ${file} -o routing.arrow` }],
  warnings:
    other === undefined
      ? warnings
      : [
          ...warnings,
          `it may be in the form of ${other[0]} as well, with ${other[1].routing.choices.length} steps of ${other[1].layers.length} layers: say which it is`
        ]
})

const isSafetensors = (bytes: Uint8Array): boolean => {
  if (bytes.length < 10 || bytes[8] !== 0x7b) return false
  const length = Buffer.from(bytes.subarray(0, 8)).readBigUInt64LE()
  return length >= 2n && length < 100_000_000n
}

const ofSafetensors = (file: string): Effect.Effect<Diagnosis> =>
  Effect.map(Effect.result(readWeights(file)), (weights) =>
    Result.isSuccess(weights)
      ? {
          ...empty(file, "weights", "trained weights"),
          uses: [{ what: "generate with them", how: `exec generate <scenario> --weights ${file}` }]
        }
      : {
          ...unknown(file, "safetensors", "weights in safetensors, of another program or damaged", []),
          warnings: [weights.failure.message]
        }
  )

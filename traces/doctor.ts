// What a file is, what is in it, what can be done with it, and what it lacks: told by its content, whatever its name. Knows
// every reader and importer of this folder, and what other tools' files look like that none of them reads.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { open, readFile, stat } from "node:fs/promises"
import type { Profile } from "../core/profile.ts"
import { importCsv } from "./csv.ts"
import type { ImportReport } from "./import-report.ts"
import { isTraceName } from "./kineto/bytes.ts"
import { importKinetoFile } from "./kineto/import.ts"
import { importNcclTests } from "./nccl-tests.ts"
import { otherCompression, unpacked, unpackedHead, zipEntries } from "./packed.ts"
import { readOpLogs } from "./op-log-file.ts"
import { readProfile } from "./profile-file.ts"
import { readRoutedSteps } from "./routing-trace.ts"
import { requestFiles } from "./requests/request-files.ts"
import { parseRequestTrace, parseRequestTraces } from "./requests/request-trace.ts"
import type { RequestTrace } from "./requests/traced.ts"
import { routingSources } from "./routing/formats.ts"
import { importRouting } from "./routing/import.ts"
import { readTimeline } from "./timeline-file.ts"
import { decodeText, encodingOf } from "./text.ts"
import { attempt, attemptAsync, type TraceError } from "./trace-error.ts"
import { readWeights } from "./weights-file.ts"

/** What to do with a file, as a command line or a field of a scenario. */
interface Use {
  readonly what: string
  readonly how: string
}

export interface Diagnosis {
  readonly file: string
  /** "kineto", "nccl-tests", "csv", "requests", "routing", "profile", "timeline", "oplog", "weights", "scenario", or what else it is. */
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

/** Bytes that tell what a file is. */
const headBytes = 1 << 18

/** Diagnoses a file. Fails only where it cannot be read at all; a file that nothing understands is a diagnosis too. */
export const diagnose = (file: string): Effect.Effect<Diagnosis, TraceError> =>
  Effect.gen(function* () {
    const head = yield* attemptAsync(file, "the path of a file", () => readHead(file))
    if (head === undefined) {
      return yield* ofFolder(file)
    }
    if (head.bytes.length === 0) return unknown(file, "empty", "an empty file", [])
    if (startsWith(head.bytes, "ARROW1")) return yield* ofArrow(file)
    const compression = otherCompression(head.bytes)
    if (compression !== undefined)
      return unknown(file, compression, `compressed by ${compression}, which nothing here reads`, [
        { what: "the file as it was", how: "unpack it first, or compress it by gzip or zstd" }
      ])
    const archive = yield* Effect.result(attemptAsync(file, "a zip archive", () => zipEntries(file)))
    const entries = Result.isSuccess(archive) ? (archive.success ?? []) : []
    if (entries.some(({ name }) => isTraceName(name))) return yield* ofTrace(file)
    const foreign = foreignKind(head.bytes, head.text)
    if (foreign !== undefined) return unknown(file, ...foreign)
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
    return yield* ofTable(file)
  })

const readHead = async (
  file: string
): Promise<{ readonly bytes: Uint8Array; readonly text: string } | undefined> => {
  if ((await stat(file)).isDirectory()) return undefined
  const handle = await open(file, "r")
  try {
    const buffer = Buffer.alloc(headBytes)
    const { bytesRead } = await handle.read(buffer, 0, headBytes, 0)
    const bytes = unpackedHead(buffer.subarray(0, bytesRead))
    return { bytes, text: new TextDecoder(encodingOf(bytes)).decode(bytes) }
  } finally {
    await handle.close()
  }
}

const startsWith = (bytes: Uint8Array, text: string): boolean =>
  Buffer.from(bytes.subarray(0, text.length)).toString("latin1") === text

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

const unknown = (file: string, kind: string, title: string, missing: ReadonlyArray<Use>): Diagnosis => ({
  ...empty(file, kind, title),
  readable: false,
  missing
})

const recordTrace: Use = {
  what: "a trace of a training step",
  how: "torch.profiler with activities=[CPU, CUDA], record_shapes=True, with_stack=True, with_modules=True, and export_chrome_trace"
}

/** Files of other tools that nothing here reads, and what to record in their place. */
const foreignKind = (
  bytes: Uint8Array,
  text: string
): readonly [kind: string, title: string, missing: ReadonlyArray<Use>] | undefined => {
  if (startsWith(bytes, "SQLite format 3"))
    return ["nsys", "a SQLite database, as Nsight Systems exports", [recordTrace]]
  if (startsWith(bytes, "NVPROF") || startsWith(bytes, "CUPTI"))
    return ["nsys", "a report of an NVIDIA profiler", [recordTrace]]
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) {
    return [
      "torch-save",
      "a zip archive, as torch.save writes",
      [
        {
          what: "a routing of SGLang's recorder",
          how: "convert its records to JSON: sim import routing sglang says how"
        }
      ]
    ]
  }
  if (/^\s*\{\s*"rocprofiler-sdk-tool"/u.test(text))
    return ["rocprof", "a report of AMD's rocprofv3, which knows no layers", [recordTrace]]
  if (startsWith(bytes, "GGUF")) return ["gguf", "weights of llama.cpp", []]
  if (bytes[0] === 0x80 && bytes[1] !== undefined && bytes[1] <= 5)
    return ["pickle", "a Python pickle (a memory snapshot, or old torch.save)", [recordTrace]]
  if (/^\s*<(?:!doctype|html)/iu.test(text)) return ["html", "a web page, not the file it links to", []]
  if (text.startsWith("version https://git-lfs"))
    return [
      "git-lfs",
      "a pointer of Git LFS: the file itself was not fetched",
      [{ what: "the file", how: "git lfs pull" }]
    ]
  if (
    /^\s*\{/u.test(text) &&
    /"schema"\s*:\s*"[\d.]+-chakra|"schema"\s*:\s*"1\.[01]/u.test(text) &&
    /"nodes"\s*:/u.test(text)
  )
    return [
      "execution-trace",
      "a PyTorch or Chakra execution trace: ops without times of the device",
      [recordTrace]
    ]
  return undefined
}

const looksLikeTrace = (text: string): boolean =>
  /"(?:traceEvents|deviceProperties|distributedInfo|displayTimeUnit)"\s*:/u.test(text) ||
  (/^\s*\[\s*\{/u.test(text) && /"ph"\s*:/u.test(text))

// ---- profiler traces

const ofTrace = (file: string): Effect.Effect<Diagnosis> =>
  Effect.map(Effect.result(importKinetoFile(file)), (result) => {
    if (Result.isFailure(result)) {
      return {
        ...unknown(file, "kineto", "a trace in Chrome's format", [recordTrace]),
        warnings: [result.failure.message]
      }
    }
    const report = result.success
    const { profile, communication, ranks = [] } = report
    const missing: Array<Use> = []
    const said = report.warnings.join("\n")
    const has = (part: string): boolean => said.includes(part)
    if (profile.parameters.length === 0) {
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
      { what: "simulate data-parallel training", how: "model: {profile: profile.arrow} in a scenario" }
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
        ...(communication === undefined || communication.kernels === 0
          ? []
          : [
              `collectives run ${milliseconds(communication.unionSeconds)} of a step, ${milliseconds(communication.exposedSeconds)} of it exposed`
            ]),
        ...(ranks.length > 0 ? [`${ranks.length} ranks`] : []),
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
          `${profile.layers.length} layers over ${profile.steps} steps; a step takes ${milliseconds(profile.stepSeconds)}, the device works ${milliseconds(profile.deviceBusySeconds)} of it`,
          `${elements} parameters in ${profile.parameters.length} tensors`
        ]
  const kinds = Map.groupBy(profile.collectives, ({ op, ranks, link }) => `${op} of ${ranks} ranks, ${link}`)
  return [
    ...layers,
    ...[...kinds].map(([kind, rows]) => `${rows.length} times of ${kind}`),
    ...(profile.ops.length === 0 ? [] : [`${profile.ops.length} times of ops`])
  ]
}

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
          ...(found.ops.length > 0 ? [{ what: "use its ops", how: `costs of a scenario: ${file}` }] : [])
        ],
        missing:
          found.layers.length > 0 && found.parameters.length === 0
            ? [{ what: "parameters", how: "import a trace with record_shapes=True, or model.parameters" }]
            : []
      }
    }
    const routing = yield* Effect.result(readRoutedSteps(file))
    if (Result.isSuccess(routing)) {
      const { shape, topK, choices } = routing.success
      return {
        ...empty(file, "routing", "a routing"),
        contents: [
          `${choices.length} steps, ${shape.layers} layers, top ${topK} of experts 0 to ${shape.experts - 1}`
        ],
        uses: [{ what: "drive expert offloading or MoE training", how: `routing: {trace: ${file}}` }]
      }
    }
    for (const [kind, title, read] of [
      ["timeline", "a timeline", readTimeline(file)],
      ["oplog", "an op log", readOpLogs(file)],
      ["weights", "trained weights", readWeights(file)]
    ] as const) {
      if (Result.isSuccess(yield* Effect.result(read as Effect.Effect<unknown, TraceError>)))
        return { ...empty(file, kind, title) }
    }
    return {
      ...unknown(file, "arrow", "an Arrow file of something else", []),
      warnings: [profile.failure.message]
    }
  })

// ---- tables, requests, routings

/** Files of requests are one trace; of others each wants a diagnosis of its own. */
const ofFolder = (folder: string): Effect.Effect<Diagnosis> =>
  Effect.map(
    Effect.result(
      attempt(folder, "a folder of request traces", () => {
        const files = requestFiles(folder)
        return { files, trace: parseRequestTraces(files) }
      })
    ),
    (result) =>
      Result.isSuccess(result)
        ? ofRequests(folder, `a folder of ${result.success.files.length} traces`, result.success.trace)
        : {
            ...unknown(folder, "folder", "a folder", [
              {
                what: "a folder of request traces",
                how: "requests: {trace: <folder>} in a serving scenario"
              },
              { what: "traces of one job", how: "sim import kineto with all its files" },
              { what: "anything else", how: "sim doctor with one of its files" }
            ]),
            warnings: [result.failure.message]
          }
  )

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
      `${requests.length} requests over ${last.toPrecision(4)} s, of ${tokens("promptTokens")} prompt and ${tokens("outputTokens")} generated tokens in the mean`,
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
    const text = yield* attempt(file, "text", () => decodeText(file, bytes))
    const table = (kind: string, title: string, report: ImportReport): Diagnosis => ({
      ...empty(file, kind, title),
      contents: contentsOf(report.profile),
      uses: [{ what: "make a profile of it", how: `sim import ${kind} ${file} -o profile.arrow` }],
      warnings: report.warnings
    })
    const tried: Array<string> = []
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
    tried.push(`as a table of timings: ${csv.failure.message}`)
    for (const source of routingSources) {
      const routing = yield* Effect.result(importRouting(source, bytes, { file }))
      if (Result.isFailure(routing)) continue
      const { routing: found, layers, warnings } = routing.success
      return {
        ...empty(file, "routing", `a routing in the form of ${source}`),
        contents: [
          `${found.choices.length} steps, ${layers.length} layers, top ${found.topK} of experts 0 to ${found.shape.experts - 1}`
        ],
        uses: [
          { what: "make a routing file of it", how: `sim import routing ${source} ${file} -o routing.arrow` }
        ],
        warnings
      }
    }
    const requests = yield* Effect.result(
      attempt(file, "a trace of requests", () => parseRequestTrace(file, text))
    )
    if (Result.isSuccess(requests)) {
      return ofRequests(file, "a trace", requests.success)
    }
    tried.push(`as a trace of requests: ${requests.failure.message}`)
    return {
      ...unknown(file, "unknown", "nothing that is known here", [
        recordTrace,
        {
          what: "times of collectives",
          how: "the output of nccl-tests, or a CSV op,ranks,bytes,median_seconds,link"
        }
      ]),
      warnings: tried
    }
  })

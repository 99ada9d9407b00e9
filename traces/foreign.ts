// Files of other tools that nothing here reads, by what they begin with: what each is, and what to record or make in its place.
// Knows what such files look like, and no reader.

/** What to do with a file, or in place of it: as a command line, a field of a scenario, or a setting of another tool. */
export interface Use {
  readonly what: string
  readonly how: string
}

export interface Foreign {
  readonly kind: string
  readonly title: string
  readonly missing: ReadonlyArray<Use>
}

export const recordTrace: Use = {
  what: "a trace of a training step",
  how: "torch.profiler with activities=[CPU, CUDA], record_shapes=True, with_stack=True, with_modules=True, and export_chrome_trace"
}

export const collectiveTable: Use = {
  what: "times of collectives",
  how: "the output of nccl-tests, or a CSV op,ranks,bytes,median_seconds,link"
}

const unpack: Use = { what: "what is in it", how: "unpack it, and ask of its files" }
const bandwidth: Use = {
  what: "a bandwidth of a link",
  how: "it is a field of a scenario: world: {links: {inter: {bandwidth: 90Gbit/s}}}"
}
const asCsv = (module: string): Use => ({
  what: "the table as text",
  how: `python -c "import pandas,sys; pandas.read_${module}(sys.argv[1]).to_csv(sys.argv[2], index=False)" in out.csv`
})

export const startsWith = (bytes: Uint8Array, text: string, at = 0): boolean =>
  Buffer.from(bytes.subarray(at, at + text.length)).toString("latin1") === text

type Looks = (bytes: Uint8Array, text: string) => boolean

const begins =
  (...heads: ReadonlyArray<string>): Looks =>
  (bytes) =>
    heads.some((head) => startsWith(bytes, head))

const matches =
  (...patterns: ReadonlyArray<RegExp>): Looks =>
  (_, text) =>
    patterns.every((pattern) => pattern.test(text))

const known: ReadonlyArray<readonly [looks: Looks, kind: string, title: string, ...ReadonlyArray<Use>]> = [
  [
    (bytes) =>
      startsWith(bytes, "SQLite format 3") &&
      /CUPTI_ACTIVITY|NVTX_EVENTS|TARGET_INFO/u.test(Buffer.from(bytes).toString("latin1")),
    "nsys",
    "a database of Nsight Systems, which knows no layers",
    recordTrace
  ],
  [begins("SQLite format 3"), "sqlite", "a SQLite database"],
  [begins("NVPROF", "CUPTI", "QSTRM", "NVR\0"), "nsys", "a report of an NVIDIA profiler", recordTrace],
  [
    matches(/^==\d+== (?:NVPROF|Profiling)|"?Total Time \(ns\)"?,|^"?Type"?,"?Time\(%\)"?/mu),
    "nsys-stats",
    "sums that nsys stats or nvprof printed: time by kernel, without steps, launches or layers",
    recordTrace
  ],
  [
    matches(
      /^\s*\{\s*"(?:Type|type)"\s*:\s*\d+\s*,[^\n]*"(?:startNs|CudaEvent|NvtxEvent|TraceProcessEvent)"/mu
    ),
    "nsys",
    "lines of an export of Nsight Systems, which knows no layers",
    recordTrace
  ],
  [
    matches(
      /elapsed time per iteration \(ms\)|RunningAvgSamplesPerSec|\btrain_samples_per_second\b|global_step.*train_step_timing/mu
    ),
    "training-log",
    "a log of a training run (of Megatron, DeepSpeed, NeMo or Hugging Face's trainer): whole steps, without what their layers take",
    recordTrace,
    {
      what: "a study of such a step all the same",
      how: "model: {layers: 32, parameters: 7000000000, stepSeconds: 5.43s}, the step of one device without communication"
    }
  ],
  [
    matches(/^\s*\{\s*"rocprofiler-sdk-tool"/u),
    "rocprof",
    "a report of AMD's rocprofv3, which knows no layers",
    recordTrace
  ],
  [begins("GGUF"), "gguf", "weights of llama.cpp"],
  [
    (bytes) => bytes[0] === 0x80 && bytes[1] !== undefined && bytes[1] >= 2 && bytes[1] <= 5,
    "pickle",
    "a Python pickle (a memory snapshot, or old torch.save)",
    recordTrace
  ],
  [
    matches(/^\s*\{/u, /"device_traces"\s*:/u, /"segments"\s*:/u),
    "memory-snapshot",
    "a memory snapshot of PyTorch: what was allocated, without times of the device",
    recordTrace
  ],
  [
    matches(/^\s*[[{]/u, /"(?:expert_loads?|logical_count|global_physical_count|expert_counts?)"\s*:/u),
    "expert-loads",
    "loads of experts: how many tokens each had, not which tokens chose it",
    {
      what: "each token's choices",
      how: "sim import routing lists the recorders that have them: docs/formats.md"
    }
  ],
  [
    matches(/^\s*\{\s*"resourceSpans"\s*:/u),
    "opentelemetry",
    "spans of OpenTelemetry, which know nothing of a device",
    recordTrace
  ],
  [matches(/^\s*<(?:!doctype|html)/iu), "html", "a web page, not the file it links to"],
  [
    matches(/^version https:\/\/git-lfs/u),
    "git-lfs",
    "a pointer of Git LFS: the file itself was not fetched",
    { what: "the file", how: "git lfs pull" }
  ],
  [
    (bytes) =>
      // Chakra's protobuf: a length, and then metadata of a version, or with a schema.
      /^[\s\S]{1,2}(?:\n[\s\S]\d+\.\d+\.\d+|[\s\S]{2}\n[\s\S]schema)/u.test(
        Buffer.from(bytes.subarray(0, 64)).toString("latin1")
      ),
    "execution-trace",
    "a Chakra execution trace in protobuf (.et): ops and collectives without measured times of the device",
    recordTrace
  ],
  [
    matches(/^\s*\{/u, /"workload_graph"\s*:/u),
    "execution-trace",
    "a Chakra execution trace: ops and collectives without measured times of the device",
    recordTrace
  ],
  [
    matches(/^\s*\{/u, /"schema"\s*:\s*"(?:[\d.]+-chakra|1\.[01])/u, /"nodes"\s*:/u),
    "execution-trace",
    "a PyTorch or Chakra execution trace: ops without times of the device",
    recordTrace
  ],
  [
    matches(/^\s*\{\s*"log"\s*:\s*\{/u, /"creator"|"entries"/u),
    "har",
    "a recording of a browser's requests (HAR)"
  ],
  [matches(/^\s*\{/u, /"nbformat"\s*:/u), "notebook", "a Jupyter notebook"],
  [matches(/^\s*\{/u, /"version"\s*:\s*"iperf|"sum_sent"\s*:/u), "iperf", "a report of iperf3", bandwidth],
  [
    matches(/^#?\s*#bytes\s+#iterations\s+(?:BW|t_min)/mu),
    "perftest",
    "a report of perftest (ib_write_bw, ib_send_lat, ...)",
    bandwidth,
    collectiveTable
  ],
  [
    matches(/^# OSU /mu),
    "osu",
    "output of the OSU micro-benchmarks, which says neither ranks nor links",
    { what: "times of collectives", how: "write them as a CSV: op,ranks,bytes,median_seconds,link" }
  ],
  [
    matches(/^\s*(?:<\?xml[^>]*>\s*)?<(?:system|graphs)\b/u),
    "nccl-topology",
    "a topology or graph of NCCL (NCCL_TOPO_DUMP_FILE): which links there are, without times",
    collectiveTable,
    bandwidth
  ],
  [
    matches(/^\s*\{/u, /"model_type"\s*:/u, /"(?:hidden_size|n_embd|d_model|text_config)"\s*:/u),
    "model-config",
    "a model's configuration, as Hugging Face has it",
    { what: "a model of these sizes", how: "config.json as the model's repository has it, whole" }
  ],
  [begins("PAR1"), "parquet", "a Parquet table", asCsv("parquet")],
  [begins("\x89HDF\r\n"), "hdf5", "an HDF5 file"],
  [(bytes) => startsWith(bytes, "ustar", 257), "tar", "a tar archive", unpack],
  [begins("\x89PNG", "\xff\xd8\xff", "GIF8"), "picture", "a picture"],
  [begins("%PDF"), "pdf", "a PDF"],
  [begins("\x7fELF", "MZ\x90"), "program", "a program or a library"]
]

/** Texts that may hold among other lines what is read here: told only where no reader found it. */
const knownTexts: typeof known = [
  [
    matches(/^\uFEFF?point,.*,digest\s*$/mu),
    "study-table",
    "the points of a study as a table, for other programs",
    { what: "what reads it back", how: "the study.arrow beside it: sim compare, sim merge" }
  ],
  [
    matches(/^\uFEFF?op,ranks,sizeBytes,.*\bwireSeconds\b/u),
    "answers",
    "what sim collective predicted, as a table: no measurements",
    collectiveTable
  ],
  [
    matches(/\bNCCL INFO\b/u),
    "nccl-log",
    "a log of NCCL (NCCL_DEBUG=INFO): how it connected ranks, without times of collectives",
    collectiveTable
  ],
  [
    matches(/\bCOMMS-RES-|^-+ Performance of \w+ on \d+ devices|average bandwidth of \w+ over \d+ ranks/mu),
    "comms-benchmark",
    "a report of a benchmark of collectives (PARAM, DeepSpeed, torch-distributed scripts) as text",
    { what: "its times", how: "as a CSV: op,ranks,bytes,median_us,link" },
    collectiveTable
  ]
]

/** What a file that begins so is, where it is of a kind that nothing here reads. */
export const foreignKind = (bytes: Uint8Array, text: string): Foreign | undefined =>
  firstOf(known, bytes, text)

/** The same of a text in which no reader found anything. */
export const foreignText = (text: string): Foreign | undefined => firstOf(knownTexts, new Uint8Array(0), text)

const firstOf = (kinds: typeof known, bytes: Uint8Array, text: string): Foreign | undefined => {
  const found = kinds.find(([looks]) => looks(bytes, text))
  if (found === undefined) return undefined
  const [, kind, title, ...missing] = found
  return { kind, title, missing }
}

/** What a zip archive without traces is, by the names in it. */
export const archiveKind = (names: ReadonlyArray<string>): Foreign => {
  const has = (pattern: RegExp): boolean => names.some((name) => pattern.test(name))
  if (has(/(?:^|\/)data\.pkl$/u)) {
    const how = "convert its records to JSON: sim import routing sglang says how"
    const missing = [{ what: "a routing of SGLang's recorder", how }]
    return { kind: "torch-save", title: "a file of torch.save", missing }
  }
  if (names.length > 0 && names.every((name) => name.endsWith(".npy"))) {
    const missing = [
      { what: "one of its arrays", how: "numpy.save writes it: sim import routing vllm x.npy" }
    ]
    return { kind: "npz", title: `arrays of numpy.savez: ${shortList(names)}`, missing }
  }
  const title = names.length === 0 ? "a zip archive" : `a zip archive of ${shortList(names)}`
  return { kind: "zip", title, missing: [unpack] }
}

const shortList = (names: ReadonlyArray<string>): string =>
  `${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`

/** Formats without a mark of their own, by how tools name their files. */
const named: ReadonlyArray<readonly [pattern: RegExp, kind: string, title: string]> = [
  [/\.(?:perfetto-trace|pftrace)$/iu, "perfetto", "a trace in Perfetto's own format"],
  [/\.xplane\.pb$/iu, "xplane", "a profile of JAX or TensorFlow (XPlane)"],
  [/\.(?:nsys-rep|qdrep|ncu-rep)$/iu, "nsys", "a report of an NVIDIA profiler"]
]

/** Of bytes that are no text. */
export const binaryKind = (file: string): Foreign => {
  const found = named.find(([pattern]) => pattern.test(file))
  return found === undefined
    ? { kind: "binary", title: "a binary file of no kind that is known here", missing: [] }
    : { kind: found[1], title: found[2], missing: [recordTrace] }
}

/** Whether so many of the bytes are no characters of a text that it is none. */
export const isBinary = (text: string): boolean => {
  const head = text.slice(0, 4096)
  // eslint-disable-next-line no-control-regex
  const odd = head.match(/[\u0000-\u0008\u000b\u000e-\u001a\u001c-\u001f\ufffd]/gu)?.length ?? 0
  return odd > head.length / 16
}

/** The value of a JSON text, or of the first of its lines; undefined for none. */
export const firstJson = (text: string): unknown => {
  for (const part of [text, text.trim().split("\n", 1)[0] ?? ""]) {
    try {
      return JSON.parse(part)
    } catch {
      // Cut short, or one value a line.
    }
  }
  return undefined
}

/** What JSON of no known kind is made of, in words. */
export const jsonTitle = (value: unknown): string => {
  if (Array.isArray(value)) {
    const first: unknown = value[0]
    if (value.length === 0) return "JSON: an empty list"
    if (Array.isArray(first)) return `JSON: a list of ${value.length} lists`
    return typeof first === "object" && first !== null
      ? `JSON: a list of ${value.length} objects with ${shortList(Object.keys(first))}`
      : `JSON: a list of ${value.length} of what is no object, such as ${JSON.stringify(first)?.slice(0, 40)}`
  }
  return typeof value === "object" && value !== null
    ? `JSON: an object with ${shortList(Object.keys(value)) || "nothing in it"}`
    : "JSON: a single value"
}

// Files that our own commands write and that no importer reads: what each is, and which command goes on with it. Knows their
// marks (a format's name, the fields of a result), and no reader.
import { RecordBatchReader } from "apache-arrow"
import { open } from "node:fs/promises"
import { checkArrowHandle } from "./arrow-check.ts"
import type { Use } from "./foreign.ts"

export interface OwnFile {
  readonly kind: string
  readonly title: string
  readonly uses: ReadonlyArray<Use>
}

const perfetto = { what: "look at it", how: "open it in https://ui.perfetto.dev" }
const compare = (file: string): Use => ({ what: "set it beside others", how: `sim compare ${file} ...` })
const part = (kind: string, title: string): OwnFile => ({
  kind,
  title,
  uses: [
    {
      what: "compare the run that it is part of",
      how: "exec agree <scenario> --from <its folder>, where exec agree --record wrote it"
    }
  ]
})
const checkpoint: OwnFile = {
  kind: "checkpoint",
  title: "a part of a checkpoint",
  uses: [
    {
      what: "go on from it",
      how: "exec train <scenario> --checkpoint <folder> --resume, with the folder that its own is in"
    }
  ]
}

/** What `tandem.format` says in the schema of an Arrow file, whole or damaged; undefined where it says nothing that can be read. */
export const arrowFormat = async (file: string): Promise<string | undefined> => {
  const handle = await open(file, "r")
  try {
    await checkArrowHandle(file, handle)
    const reader = await RecordBatchReader.from(handle)
    await reader.open()
    return reader.schema.metadata.get("tandem.format")
  } catch {
    // Whoever reads the file says what is wrong with it.
    return undefined
  } finally {
    await handle.close()
  }
}

/** By the name that an Arrow file has for its format. */
export const ownArrow = (file: string, format: string | undefined): OwnFile | undefined => {
  switch (format) {
    case "study":
      return {
        kind: "study",
        title: "points of a study",
        uses: [
          compare(file),
          { what: "put shards of a study together", how: "sim merge <all of its shards> -o <folder>" }
        ]
      }
    case "journal":
      return part("journal", "what each rank of a run asked of its machine")
    case "oplog":
      return part("oplog", "an op log")
    case "timeline":
      return part("timeline", "a timeline")
    case "weights":
      return {
        kind: "weights",
        title: "trained weights",
        uses: [
          { what: "generate with them", how: `exec generate <scenario> --weights ${file}` },
          { what: "train on from them", how: `exec train <scenario> --weights ${file}` }
        ]
      }
    default:
      return undefined
  }
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** By the fields of a JSON value. */
export const ownJson = (file: string, value: unknown): OwnFile | undefined => {
  if (!isRecord(value)) return undefined
  if (value["format"] === "tandem-checkpoint") return { ...checkpoint, title: "the manifest of a checkpoint" }
  if (value["format"] === "tandem-run") return part("run", "a run that was recorded")
  if (typeof value["check"] === "string" && isRecord(value["study"]))
    return {
      kind: "study-journal",
      title: "the journal of a study",
      uses: [{ what: "go on with it", how: "sim study <its file> --out <its folder> --resume" }]
    }
  const results = Array.isArray(value["rows"]) ? (value["rows"] as ReadonlyArray<unknown>) : [value]
  const saved = results.every((each) =>
    ["digest", "task", "algorithm", "links"].every((name) => isRecord(each) && name in each)
  )
  if (typeof value["digest"] !== "string" || results.length === 0 || !saved) return undefined
  return {
    kind: "result",
    title: value["rows"] === undefined ? "the result of a run" : "the results of a study",
    uses: [compare(file)]
  }
}

/** By the beginning of a trace in Chrome's format: ours has our lanes' categories and no device's. */
export const ownTimeline = (text: string): OwnFile | undefined =>
  text.startsWith('{"displayTimeUnit":"ns","traceEvents":[\n') &&
  /"name":"process_name",[^}]*"args":\{"name":"[^"]*rank \d+"\}/u.test(text) &&
  !/"cat":"(?:kernel|gpu_memcpy|cpu_op)"/u.test(text)
    ? { kind: "timeline", title: "a timeline for Perfetto", uses: [perfetto] }
    : undefined

/** By the header of a safetensors file. */
export const ownSafetensors = (header: string): OwnFile | undefined =>
  /"__metadata__":\{[^}]*"format":"tandem-checkpoint"/u.test(header) ? checkpoint : undefined
